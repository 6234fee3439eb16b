"""What a training step asks of the device, counted without doing any of it: losses and their gradients.

Tensors are CPU tensors without memory ("fake"), not meta ones: the meta device has no autocast, and counts attention as
the products that it consists of. So precision is that of the run, and attention is one operation that keeps its inputs,
its result and one number per row, as on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from wamkit.bench.counting import is_view
from wamkit.config import Run
from wamkit.draws import Draws
from wamkit.nn.frozen import store_frozen_linears
from wamkit.stages.plan import meta_batch, meta_policy
from wamkit.types import Batch

CPU = torch.device("cpu")


@dataclass(frozen=True)
class TrainingWork:
    """Of one batch. operations: that are no views. flops: of products and attention. kept: bytes that the forward pass
    keeps for the backward pass, weights apart."""

    operations: int
    flops: int
    kept: int


Losses = Callable[[nn.Module, Batch, Draws], Mapping[str, Tensor]]


def training_work(run: Run, losses: Losses = lambda policy, *given: policy(*given)) -> TrainingWork:
    """Forward and backward pass of what goes through the policy at a time (run.train.part_size).

    losses: how the losses are computed; the policy's own way by default.
    """
    module, batch = meta_policy(run), meta_batch(run)
    assert isinstance(module, nn.Module)
    if run.train.precision == "bf16":
        store_frozen_linears(module.train(), torch.bfloat16)
    draws = Draws.of_step(0, 0, CPU, 0, len(batch.ids), len(batch.ids))
    with FakeTensorMode(allow_non_fake_inputs=True):
        without_memory(module)
        batch = batch.map(on_cpu, batch.ids)
        kept = Kept(module)
        with FlopCounterMode(display=False, custom_mapping=FLOPS) as flops, Counted() as operations:
            with (
                kept.watching(),
                torch.autocast("cpu", torch.bfloat16, enabled=run.train.precision == "bf16"),
            ):
                found = losses(module, batch, draws)
            torch.stack(list(found.values())).sum().backward()
    return TrainingWork(operations.number, flops.get_total_flops(), kept.bytes)


def without_memory(module: nn.Module) -> None:
    """Parameters and buffers become CPU tensors without memory, in place; under FakeTensorMode."""
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            part.register_parameter(name, nn.Parameter(on_cpu(parameter), parameter.requires_grad))
        for name, buffer in part.named_buffers(recurse=False):
            setattr(part, name, on_cpu(buffer))


def on_cpu(x: Tensor) -> Tensor:
    """Of the same shape, without memory; under FakeTensorMode."""
    return torch.empty(x.shape, dtype=x.dtype, device="cpu")


class Counted(TorchDispatchMode):
    """number: operations that are no views."""

    number = 0

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.number += operation.namespace == "aten" and not is_view(operation)
        return operation(*args, **(kwargs or {}))


class Kept:
    """bytes: that autograd keeps, but for the parameters and buffers of a module; what shares memory counts once."""

    def __init__(self, module: nn.Module) -> None:
        self._own = {id(x) for x in (*module.parameters(), *module.buffers())}
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


def _attention(q: Sequence[int], k: Sequence[int], v: Sequence[int], *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(q, k, v))


def _attention_backward(
    gradient: Sequence[int], q: Sequence[int], k: Sequence[int], v: Sequence[int], *_: Any, **__: Any
) -> int:
    return int(sdpa_backward_flop_count(gradient, q, k, v))


def _added_product(_: Sequence[int], a: Sequence[int], b: Sequence[int], *__: Any, **___: Any) -> int:
    return 2 * a[0] * a[1] * b[1]


# Of operations that torch's counter does not know.
ATEN = torch.ops.aten
FLOPS = {
    ATEN._scaled_dot_product_flash_attention_for_cpu: _attention,
    ATEN._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    ATEN.addmm_: _added_product,
}
