"""What operations return on tensors without memory ("meta"), each computed once.

PyTorch works a shape out in Python, hundreds of calls for a single norm; a policy asks the same of it in every layer
and at every step. It follows from the operation and its arguments alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten


class Shape(NamedTuple):
    """All that such a tensor is."""

    size: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype

    def made(self, leaves: Sequence[Any]) -> Any:
        """One like it, whatever was given."""
        return torch.empty_strided(self.size, self.stride, dtype=self.dtype, device="meta")


class Given(NamedTuple):
    """What is no tensor. kind: its type, since 1 equals 1.0 and True."""

    kind: type
    value: Any

    def made(self, leaves: Sequence[Any]) -> Any:
        """The same."""
        return self.value


class Argument(NamedTuple):
    """A result that is an argument: what was written in place. number: among all leaves that were given."""

    number: int

    def made(self, leaves: Sequence[Any]) -> Any:
        """That one."""
        return leaves[self.number]


class RememberedShapes(TorchDispatchMode):
    """`with RememberedShapes(): ...`: as without it, sooner. Views, and operations on other tensors, are left alone."""

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        leaves, form = tree_flatten((tuple(args), dict(kwargs)))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        if not tensors or not all(tensor.is_meta for tensor in tensors) or not has_new_results(operation):
            return operation(*args, **kwargs)
        returned, returned_form = result(operation, tuple(map(described, leaves)), form)
        return tree_unflatten([each.made(leaves) for each in returned], returned_form)


@cache
def has_new_results(operation: Any) -> bool:
    """Whether it returns tensors alone that share no memory with its arguments, or are those that it writes to, whose
    shapes stay."""
    returned = operation._schema.returns
    tensors = all(str(each.type) in ("Tensor", "List[Tensor]") for each in returned)
    views = any(each.alias_info and not each.alias_info.is_write for each in returned)
    return tensors and not views and torch.Tag.inplace_view not in operation.tags


def described(leaf: Any) -> Shape | Given:
    """What a result follows from."""
    if isinstance(leaf, Tensor):
        return Shape(leaf.shape, leaf.stride(), leaf.dtype)
    return Given(type(leaf), leaf)


@lru_cache(maxsize=10_000)
def result(
    operation: Any, leaves: tuple[Shape | Given, ...], form: TreeSpec
) -> tuple[list[Shape | Given | Argument], TreeSpec]:
    """What it returns for arguments of this form, and the form of that."""
    given = [leaf.made(()) for leaf in leaves]
    args, kwargs = tree_unflatten(given, form)
    returned, returned_form = tree_flatten(operation(*args, **kwargs))
    arguments = {id(leaf): Argument(number) for number, leaf in enumerate(given) if isinstance(leaf, Tensor)}
    return [arguments.get(id(each)) or described(each) for each in returned], returned_form
