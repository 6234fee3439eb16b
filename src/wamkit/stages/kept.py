"""What autograd keeps of a forward pass for the backward pass, counted without memory for any of it.

Tensors are CPU tensors without memory ("fake"), not meta ones: the meta device has no autocast, and attention there is
the products that it consists of. So precision is that of the run, and attention is one operation that keeps its inputs,
its result and one number per row, as on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

from wamkit.draws import Draws
from wamkit.types import Batch

CPU = torch.device("cpu")


def activations(policy: nn.Module, batch: Batch, precision: str) -> int:
    """Bytes that autograd keeps of one batch's losses, weights apart; what shares memory counts once.

    policy, batch: on any device, also "meta"; only their shapes and types are used. precision: of the run ("bf16":
    autocast, whose frozen linear layers are stored in it already).
    """
    own = {**dict(policy.named_parameters()), **dict(policy.named_buffers())}
    draws = Planned.of_step(0, 0, CPU, 0, len(batch.ids), len(batch.ids))
    with FakeTensorMode(allow_non_fake_inputs=True):
        weights = {name: without_memory(x) for name, x in own.items()}
        kept = Kept(weights.values())
        with kept.watching(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            functional_call(policy.train(), weights, (batch.map(without_memory, batch.ids), draws))
    return kept.bytes


class Planned(Draws):
    """Draws by which every sample is as large as it can be."""

    def decisions(self) -> list[float]:
        """The least that can be drawn, for every row."""
        return [0.0] * self.count


def without_memory(x: Tensor) -> Tensor:
    """A CPU tensor of the same shape, type and need of a gradient; under FakeTensorMode."""
    return torch.empty(x.shape, dtype=x.dtype, device=CPU, requires_grad=x.requires_grad)


class Kept:
    """bytes: that autograd keeps, but for `own`, the weights; what shares memory counts once."""

    def __init__(self, own: Iterable[Tensor]) -> None:
        self._own = {id(x) for x in own}
        self._found: dict[int, Tensor] = {}  # an id is unique only while its tensor lives

    @property
    def bytes(self) -> int:
        """See above."""
        return sum(x.untyped_storage().nbytes() for x in self._found.values())

    @contextmanager
    def watching(self) -> Iterator[None]:
        """What is computed here is counted."""
        with torch.autograd.graph.saved_tensors_hooks(self._keep, lambda x: x):
            yield

    def _keep(self, x: Tensor) -> Tensor:
        base = x if x._base is None else x._base
        if id(base) not in self._own:
            self._found[id(base)] = base
        return x
