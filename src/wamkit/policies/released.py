"""Released checkpoints of a policy <-> the policy, strictly both ways: what every policy's convert.py shares.

It knows no tensor names (an Envelope does) and no sizes (`config` reads them off the tensors).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn
from wamkit_client.types import BadInput

from wamkit.data.official_statistics import Statistics, read_statistics
from wamkit.io.tensors import Envelope, expect_structure, load_strict, write_torch
from wamkit.types import DataSpec

C = TypeVar("C")
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Structure(Generic[C]):
    """What a released file says about its policy: config (what no tensor shows as given) and dimensions of its data,
    by field of the DataSpec."""

    config: C
    dims: Mapping[str, int]


@dataclass(frozen=True)
class Frozen:
    """Tensors of the network that a released file holds, that training left alone and no run directory holds.

    what: in words. path: of the value of run.json that names where they are read.
    like: our name of a trained tensor; they are released in its dtype.
    """

    what: str = ""
    path: str = ""
    like: str = ""


@dataclass(frozen=True)
class Copy(Generic[C]):
    """Tensors that a released file holds although an encoder reads them from a folder: verified, and left out.

    what: in words. path: of the value of run.json that names the folder. read: the folder's, by our names.
    """

    what: str = ""
    path: str = ""
    read: Callable[[C], Mapping[str, Tensor]] = lambda config: {}


@dataclass(frozen=True)
class Earlier(Generic[C]):
    """An earlier stage, whose weights the released file of a policy holds too. They become a run directory of its kind.

    before: the policy's config and the recipe's of the earlier stage -> the one that goes with the policy.
    after: the policy's config, the earlier stage's and its run directory -> the policy's, which starts from it.
    directory: the earlier stage's run directory that a policy started from.
    """

    kind: str
    before: Callable[[C, Any], Any]
    after: Callable[[C, Any, Path], C]
    directory: Callable[[C], Path]


class Convertible(Protocol):
    """What conversion asks of a policy, an nn.Module."""

    config: Any
    data: DataSpec

    def state_dict(self) -> Mapping[str, Tensor]:
        """As nn.Module has it."""


def no_config(path: Path, recipe: Callable[[str], Any]) -> Any:
    """For policies whose runs were released without a config. BadInput."""
    raise BadInput(
        f"{path}: files of this policy have no config that is read; give --recipe in place of --config"
    )


def official_statistics(path: Path, data: DataSpec, robot: str) -> Statistics:
    """For policies whose statistics are of one robot, whatever its name is."""
    return read_statistics(path, data)


@dataclass(frozen=True)
class Released(Generic[C]):
    """A policy's released files.

    read: a file -> its checkpoint dict (tensors memory-mapped); BadInput where it is something else.
    config: shapes of the tensors by our names, and a recipe's config for what no tensor shows -> config; BadInput where
    they do not go together. dims: by field of the DataSpec, our name of a tensor and its axis that shows it.
    save: writes a checkpoint dict. statistics: reads the file that was released with it, for a robot of that name.
    fits: raises BadInput where a config that was read has a network that its encoder does not go with; the file's name.
    expressible: raises BadInput where a config has a setting that released code does not know and no file says.
    frozen, copy, earlier: what else than a run's weights a file holds.
    untold: in words, what the policy has from the recipe because no file contains it, although it changes what it does.
    read_config: the config file of a released run, and a function recipe name -> Run, -> its Run.
    """

    envelope: Envelope
    read: Callable[[Path], dict[str, Any]]
    config: Callable[[Shapes, C], C]
    dims: Mapping[str, tuple[str, int]]
    save: Callable[[Path, dict[str, Any]], None] = write_torch
    statistics: Callable[[Path, DataSpec, str], Statistics] = official_statistics
    fits: Callable[[C, str], None] = lambda config, source: None
    expressible: Callable[[C], None] = lambda config: None
    frozen: Frozen = Frozen()
    copy: Copy[C] = Copy()
    earlier: tuple[Earlier[C], ...] = ()
    untold: Callable[[C], str] = lambda config: ""
    read_config: Callable[[Path, Callable[[str], Any]], Any] = no_config

    def structure(self, official: Mapping[str, Any], recipe: C, source: str) -> Structure[C]:
        """Read a policy's structure off the tensors of a checkpoint dict; source: its file, for messages.

        recipe gives what no tensor shows. Raises BadInput where tensors are missing that every checkpoint has.
        """
        shapes = {name: tuple(tensor.shape) for name, tensor in self.envelope.ours(official, source).items()}
        try:
            config = self.config(shapes, recipe)
            self.expressible(config)
            return Structure(config, {field: shapes[name][axis] for field, (name, axis) in self.dims.items()})
        except BadInput as error:
            raise BadInput(f"{source}: {error}") from error
        except IndexError as error:
            lacks = str(error)
        except KeyError as error:
            group = self.envelope.group(error.args[0])
            lacks = f"{error} in {group}" if group else str(error)
        raise BadInput(f"{source}: incomplete {self.envelope.model} checkpoint: it lacks {lacks}")

    def load(self, policy: Convertible, path: str | Path) -> int:
        """Fill `policy` with a released checkpoint and return its training step.

        Raises BadInput where the file is missing, broken or of another structure, saying which part differs.
        """
        return self.fill(policy, self.read(Path(path)), str(path))

    def fill(self, policy: Convertible, official: Mapping[str, Any], source: str) -> int:
        """`load` from a checkpoint dict that was read already."""
        found = self.structure(official, policy.config, source)
        expected = Structure(policy.config, {field: getattr(policy.data, field) for field in self.dims})
        expect_structure(asdict(expected), asdict(found), source)
        tensors = self.envelope.ours(official, source)
        for name in self._verified_copy(policy.config, tensors, source):
            del tensors[name]
        load_strict(cast(nn.Module, policy), tensors, source, group=self.envelope.group)
        return int(official["step"])

    def write(self, policy: Convertible, step: int) -> dict[str, Any]:
        """The checkpoint dict of a policy, as the released code reads it; tensors are not copied or cast.

        Raises BadInput for a setting that the released code does not know.
        """
        self.expressible(policy.config)
        tensors = dict(policy.state_dict())
        about = {"step": step, "torch_dtype": str(next(iter(tensors.values())).dtype)}
        official = self.envelope.official({**tensors, **self.copy.read(policy.config)})
        return official | {fact: about[fact] for fact in self.envelope.facts}

    def _verified_copy(self, config: C, tensors: Mapping[str, Tensor], source: str) -> list[str]:
        """The names of what a file has a copy of. BadInput where it differs from the folder's."""
        local = self.copy.read(config)
        wrong = [name for name, tensor in local.items() if not _equal(tensors.get(name), tensor)]
        if wrong:
            groups = {self.envelope.group(name) for name in wrong}
            raise BadInput(
                f"{source}: {len(wrong)} of {len(local)} tensors of {self.copy.what} in {', '.join(sorted(groups))} "
                f"are not those of the local folder ({', '.join(wrong[:4])}); name the one that it was trained with "
                f"as {self.copy.path}"
            )
        return [*local]


def _equal(found: Tensor | None, local: Tensor) -> bool:
    return found is not None and found.dtype == local.dtype and torch.equal(found, local)
