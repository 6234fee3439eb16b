"""Released checkpoints of a policy <-> the policy, strictly both ways: what every policy's convert.py shares.

It knows no tensor names (an Envelope does) and no sizes (`config` reads them off the tensors).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, cast

from torch import Tensor, nn
from wamkit_client.types import BadInput

from wamkit.io.tensors import Envelope, expect_structure, load_strict
from wamkit.types import DataSpec

C = TypeVar("C")
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Structure(Generic[C]):
    """What a released file says about its policy: config (what no tensor shows as given) and dimensions."""

    config: C
    proprio_dim: int
    action_dim: int


class Convertible(Protocol):
    """What conversion asks of a policy, an nn.Module."""

    config: Any
    data: DataSpec
    proprio_encoder: nn.Linear

    def state_dict(self) -> Mapping[str, Tensor]:
        """As nn.Module has it."""


def no_config(path: Path, recipe: Callable[[str], Any]) -> Any:
    """For policies whose runs were released without a config. BadInput."""
    raise BadInput(
        f"{path}: files of this policy have no config that is read; give --recipe in place of --config"
    )


@dataclass(frozen=True)
class Released(Generic[C]):
    """A policy's released files.

    read: a file -> its checkpoint dict (tensors memory-mapped); BadInput where it is something else.
    config: shapes of the tensors by our names, a recipe's config for what no tensor shows, and the file's name for
    messages -> config. last: our name of the tensor with a row for each action dimension.
    untold: in words, what the policy has from the recipe because no file contains it, although it changes what it does.
    read_config: the config file of a released run, and a function recipe name -> Run, -> its Run.
    """

    envelope: Envelope
    read: Callable[[Path], dict[str, Any]]
    config: Callable[[Shapes, C, str], C]
    last: str
    untold: Callable[[C], str] = lambda config: ""
    read_config: Callable[[Path, Callable[[str], Any]], Any] = no_config

    def structure(self, official: Mapping[str, Any], recipe: C, source: str) -> Structure[C]:
        """Read a policy's structure off the tensors of a checkpoint dict; source: its file, for messages.

        recipe gives what no tensor shows. Raises BadInput where tensors are missing that every checkpoint has.
        """
        shapes = {name: tuple(tensor.shape) for name, tensor in self.envelope.ours(official, source).items()}
        try:
            config = self.config(shapes, recipe, source)
            return Structure(config, shapes["proprio_encoder.weight"][1], shapes[self.last][0])
        except (KeyError, IndexError) as error:
            raise BadInput(
                f"{source}: incomplete {self.envelope.model} checkpoint: it lacks {error}"
            ) from error

    def load(self, policy: Convertible, path: str | Path) -> int:
        """Fill `policy` with a released checkpoint and return its training step.

        Raises BadInput where the file is missing, broken or of another structure, saying which part differs.
        """
        return self.fill(policy, self.read(Path(path)), str(path))

    def fill(self, policy: Convertible, official: Mapping[str, Any], source: str) -> int:
        """`load` from a checkpoint dict that was read already."""
        found = self.structure(official, policy.config, source)
        expected = Structure(policy.config, policy.data.proprio_dim, policy.data.action_dim)
        expect_structure(asdict(expected), asdict(found), source)
        tensors = self.envelope.ours(official, source)
        load_strict(cast(nn.Module, policy), tensors, source=source)
        return int(official["step"])

    def write(self, policy: Convertible, step: int) -> dict[str, Any]:
        """The checkpoint dict of a policy, as the released code reads it; tensors are not copied or cast."""
        tensors = dict(policy.state_dict())
        dtype = str(policy.proprio_encoder.weight.dtype)
        return self.envelope.official(tensors) | {"step": step, "torch_dtype": dtype}
