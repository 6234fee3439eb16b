"""Released checkpoints of a policy <-> the policy, strictly both ways: what every policy's convert.py shares.

It knows no tensor names (an Envelope does) and no sizes (`structure` reads them off the tensors).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, cast

from torch import Tensor, nn

from wamkit.io.tensors import Envelope, expect_structure, load_strict
from wamkit.types import DataSpec

# The files hold the frozen video model too, but never the VAE.
NOT_IN_FILE = (r"codec\..*",)

C = TypeVar("C")


@dataclass(frozen=True)
class Structure(Generic[C]):
    """What a released file says about its policy: config (codec, text and recipe values as given) and dimensions."""

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


@dataclass(frozen=True)
class Released:
    """A policy's released files.

    read: a file -> its checkpoint dict (tensors memory-mapped); BadInput where it is something else.
    structure: that dict, a recipe's config for what no tensor shows, and the file's name for messages -> Structure.
    """

    envelope: Envelope
    read: Callable[[Path], dict[str, Any]]
    structure: Callable[[Mapping[str, Any], Any, str], Structure[Any]]

    def load(self, policy: Convertible, path: str | Path) -> int:
        """Fill `policy` with a released checkpoint and return its training step; the codec stays as it is.

        Raises BadInput where the file is missing, broken or of another structure, saying which part differs.
        """
        return self.fill(policy, self.read(Path(path)), str(path))

    def fill(self, policy: Convertible, official: Mapping[str, Any], source: str) -> int:
        """`load` from a checkpoint dict that was read already; source: its file, for messages."""
        found = self.structure(official, policy.config, source)
        expected = Structure(policy.config, policy.data.proprio_dim, policy.data.action_dim)
        expect_structure(asdict(expected), asdict(found), source)
        tensors = self.envelope.ours(official, source)
        load_strict(cast(nn.Module, policy), tensors, source=source, fresh=NOT_IN_FILE)
        return int(official["step"])

    def write(self, policy: Convertible, step: int) -> dict[str, Any]:
        """The checkpoint dict of a policy, as the released code reads it; tensors are not copied or cast."""
        tensors = {name: x for name, x in policy.state_dict().items() if not name.startswith("codec.")}
        dtype = str(policy.proprio_encoder.weight.dtype)
        return self.envelope.official(tensors) | {"step": step, "torch_dtype": dtype}
