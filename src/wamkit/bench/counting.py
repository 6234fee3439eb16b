"""What a computation asks of the device, counted without doing any of it (tensors on "meta").

An operation is what PyTorch dispatches and is not a view. Attention counts as the one kernel that it is on a GPU;
a boolean mask costs three more, since it is turned into numbers first (two constants and a `where`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry

from wamkit.bench.shapes import RememberedShapes
from wamkit.nn import fused_ops
from wamkit.spans import watching

ATTENTION = torch.ops.aten.scaled_dot_product_attention.default
UNDECLARED_VIEWS = {torch.ops.aten._unsafe_view.default}


OUTSIDE = "other"
"""What lies in no span (spans.py)."""


@dataclass(frozen=True)
class Work:
    """operations: that are no views. flops: of matrix products and convolutions, two for each multiplication and
    addition. bytes: read and written by the operations. products: flops and bytes of each product."""

    operations: int
    flops: int
    bytes: int
    products: tuple[tuple[int, int], ...]


@torch.inference_mode()
def work(do: Callable[[], object]) -> Work:
    """Of one call."""
    with RememberedShapes(), Operations() as operations:
        do()
    return operations.work()


@torch.inference_mode()
def work_by_span(do: Callable[[], object]) -> dict[str, Work]:
    """Of one call, by the span that it lies in; OUTSIDE: in none."""
    with RememberedShapes(), Operations() as operations, watching(operations):
        do()
    return {name: operations.work(name) for name in operations.names}


@dataclass(frozen=True)
class Operation:
    """One of them, in a span. flops: 0 where it is no product."""

    name: str
    span: str
    flops: int
    bytes: int


class Operations(TorchDispatchMode):
    """`with Operations() as operations: ...`, then `operations.total()`. Under torch.inference_mode."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[Operation] = []
        self._spans = [OUTSIDE]

    @property
    def counts(self) -> Counter[str]:
        """How many there are of each name."""
        return Counter(operation.name for operation in self.all)

    @property
    def names(self) -> list[str]:
        """Of the spans that have any."""
        return list(dict.fromkeys(operation.span for operation in self.all))

    def total(self) -> int:
        """All of them."""
        return len(self.all)

    def work(self, span: str = "") -> Work:
        """Of a span; "": of all."""
        own = [operation for operation in self.all if span in ("", operation.span)]
        return Work(
            operations=len(own),
            flops=sum(operation.flops for operation in own),
            bytes=sum(operation.bytes for operation in own),
            products=tuple((operation.flops, operation.bytes) for operation in own if operation.flops),
        )

    def enter(self, name: str) -> None:
        """A span begins (spans.Watcher)."""
        self._spans.append(name)

    def leave(self) -> None:
        """It ends."""
        self._spans.pop()

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
            flops = FLOPS.get(operation.overloadpacket, no_product)(*args, **kwargs, out_val=result)
            self._add(operation.__name__, flops, size((args, kwargs, result)))
        return result

    def _attention(
        self, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, *rest: Any, **options: Any
    ) -> Tensor:
        b, n, s, e = q.shape
        result = q.new_empty(b, s, n, v.shape[3]).transpose(1, 2)  # as flash attention leaves it
        flops = 2 * b * n * s * k.shape[2] * (e + v.shape[3])
        self._add("attention", flops, size((q, k, v, attn_mask, result)))
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            for _ in range(3):
                self._add("boolean mask", 0, size(attn_mask))
        return result

    def _add(self, name: str, flops: int, size: int) -> None:
        self.all.append(Operation(name, self._spans[-1], flops, size))


def no_product(*args: Any, **kwargs: Any) -> int:
    """FLOP of what is no matrix product and no convolution."""
    return 0


def linear_flops(x: Tensor, weight: Tensor, bias: Tensor, out_val: Tensor) -> int:
    """FLOP of a linear layer, whatever it does to its result."""
    return 2 * out_val.numel() * weight.shape[1]


FLOPS = flop_registry | {getattr(torch.ops, fused_ops.LIBRARY.ns).linear_gelu: linear_flops}


@cache
def is_view(operation: Any) -> bool:
    """Whether its result shares memory with an argument that it does not write to."""
    returned = [result.alias_info for result in operation._schema.returns]
    return operation in UNDECLARED_VIEWS or any(alias and not alias.is_write for alias in returned)


def size(tensors: object) -> int:
    """Bytes of all tensors in nested tuples and dictionaries."""
    return sum(x.numel() * x.element_size() for x in tree_iter(tensors) if isinstance(x, Tensor))
