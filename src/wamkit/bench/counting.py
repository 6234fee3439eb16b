"""How many operations a computation hands to the device, counted without doing any of them (tensors on "meta").

An operation is what PyTorch dispatches and is not a view. Attention counts as the one kernel that it is on a GPU;
a boolean mask costs three more, since it is turned into numbers first (two constants and a `where`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

ATTENTION = torch.ops.aten.scaled_dot_product_attention.default
UNDECLARED_VIEWS = {torch.ops.aten._unsafe_view.default}


class Operations(TorchDispatchMode):
    """`with Operations() as operations: ...`, then `operations.total()`. Under torch.inference_mode."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

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
        if not is_view(operation):
            self.counts[operation.__name__] += 1
        return operation(*args, **kwargs)

    def _attention(self, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        self.counts["attention"] += 1
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            self.counts["boolean mask"] += 3
        b, n, s, _ = q.shape
        return q.new_empty(b, s, n, v.shape[3]).transpose(1, 2)  # as flash attention leaves it


def is_view(operation: Any) -> bool:
    """Whether its result shares memory with an argument that it does not write to."""
    returned = [result.alias_info for result in operation._schema.returns]
    return operation in UNDECLARED_VIEWS or any(alias and not alias.is_write for alias in returned)
