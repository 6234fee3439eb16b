"""What a computation asks of the device, counted without doing any of it (tensors on "meta").

An operation is what PyTorch dispatches and is not a view. Attention counts as the one kernel that it is on a GPU;
a boolean mask costs three more, since it is turned into numbers first (two constants and a `where`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode

ATTENTION = torch.ops.aten.scaled_dot_product_attention.default
UNDECLARED_VIEWS = {torch.ops.aten._unsafe_view.default}


@dataclass(frozen=True)
class Work:
    """operations: that are no views. flops: of matrix products and convolutions, two for each multiplication and
    addition. bytes: read and written by the operations."""

    operations: int
    flops: int
    bytes: int


@torch.inference_mode()
def work(do: Callable[[], object]) -> Work:
    """Of one call; it is made twice."""
    with Operations() as operations:
        do()
    with FlopCounterMode(display=False) as flops:
        do()
    return Work(operations.total(), flops.get_total_flops(), operations.bytes)


class Operations(TorchDispatchMode):
    """`with Operations() as operations: ...`, then `operations.total()`. Under torch.inference_mode."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.bytes = 0

    def total(self) -> int:
        """All of them."""
        return self.counts.total()

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if operation is ATTENTION:
            return self._attention(*args, **kwargs)
        with self:
            parts = operation.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
        result = operation(*args, **kwargs)
        if not is_view(operation):
            self.counts[operation.__name__] += 1
            self.bytes += size((args, kwargs, result))
        return result

    def _attention(self, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        self.counts["attention"] += 1
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            self.counts["boolean mask"] += 3
        b, n, s, _ = q.shape
        self.bytes += size((q, k, v, attn_mask)) + b * n * s * v.shape[3] * v.element_size()
        return q.new_empty(b, s, n, v.shape[3]).transpose(1, 2)  # as flash attention leaves it


def is_view(operation: Any) -> bool:
    """Whether its result shares memory with an argument that it does not write to."""
    returned = [result.alias_info for result in operation._schema.returns]
    return operation in UNDECLARED_VIEWS or any(alias and not alias.is_write for alias in returned)


def size(tensors: object) -> int:
    """Bytes of all tensors in nested tuples and dictionaries."""
    return sum(x.numel() * x.element_size() for x in tree_iter(tensors) if isinstance(x, Tensor))
