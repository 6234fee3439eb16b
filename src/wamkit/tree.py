"""Trees of tensors: what encoders return, policies are given and the latent cache stores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Tree = dict[str, Any]
"""A nested dict whose leaves are tensors; batched ones have the batch first."""


def tree_map(function: Callable[[Tensor], Tensor], tree: Tree) -> Tree:
    """The same tree with `function` applied to every tensor."""
    return {
        name: tree_map(function, leaf) if isinstance(leaf, dict) else function(leaf)
        for name, leaf in tree.items()
    }


def tree_leaves(tree: Tree, prefix: str = "") -> dict[str, Tensor]:
    """Every tensor by its path, such as "inputs.present"."""
    leaves: dict[str, Tensor] = {}
    for name, leaf in tree.items():
        leaves |= (
            tree_leaves(leaf, f"{prefix}{name}.") if isinstance(leaf, dict) else {f"{prefix}{name}": leaf}
        )
    return leaves


def tree_of(leaves: Mapping[str, Tensor]) -> Tree:
    """The inverse of `tree_leaves`."""
    tree: Tree = {}
    for path, leaf in leaves.items():
        *folders, name = path.split(".")
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
        place[name] = leaf
    return tree


def tree_cat(trees: Sequence[Tree]) -> Tree:
    """Batched trees with the same names and shapes, one after the other along the batch dimension."""
    columns = [tree_leaves(tree) for tree in trees]
    return tree_of({path: torch.cat([column[path] for column in columns]) for path in columns[0]})
