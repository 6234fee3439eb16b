"""What a training step asks of the device, counted without doing any of it: losses and their gradients.

Tensors are CPU tensors without memory, in the run's precision (stages/kept.py says why).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from wamkit.stages.kept import CPU, Kept, without_memory
from wamkit.stages.plan import meta_batch, meta_policy
from wamkit.types import Batch


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
        hollow(module)
        batch = batch.map(without_memory, batch.ids)
        kept = Kept((*module.parameters(), *module.buffers()))
        with FlopCounterMode(display=False, custom_mapping=FLOPS) as flops, Counted() as operations:
            with (
                kept.watching(),
                torch.autocast("cpu", torch.bfloat16, enabled=run.train.precision == "bf16"),
            ):
                found = losses(module, batch, draws)
            torch.stack(list(found.values())).sum().backward()
    return TrainingWork(operations.number, flops.get_total_flops(), kept.bytes)


def hollow(module: nn.Module) -> None:
    """Parameters and buffers become CPU tensors without memory, in place; under FakeTensorMode."""
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            empty = without_memory(parameter).detach()
            part.register_parameter(name, nn.Parameter(empty, parameter.requires_grad))
        for name, buffer in part.named_buffers(recurse=False):
            setattr(part, name, without_memory(buffer))


class Counted(TorchDispatchMode):
    """number: operations that are no views."""

    number = 0

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.number += operation.namespace == "aten" and not is_view(operation)
        return operation(*args, **(kwargs or {}))


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
