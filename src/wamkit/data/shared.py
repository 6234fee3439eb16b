"""What many samples have in common, such as the context of an instruction: it goes to the device once.

At full size one context takes a megabyte, more than all else of a sample together. It does not know what rows mean.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

KEPT = 256
"""Rows of each field that stay on the device."""


@dataclass(frozen=True)
class Row:
    """A field of one sample. key: rows of equal keys are equal. read: the row, on any device."""

    key: Hashable
    read: Callable[[], Tensor] = field(compare=False)


Shared = Mapping[str, tuple[Row, ...]]
"""By field, a row for each sample."""


class Table:
    """The rows of each field that were used last, on `device`."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._kept: dict[str, OrderedDict[Hashable, Tensor]] = {}

    def stacked(self, shared: Shared) -> dict[str, Tensor]:
        """By field, [b ...] on the device."""
        return {
            name: self._stacked(self._kept.setdefault(name, OrderedDict()), rows)
            for name, rows in shared.items()
        }

    def _stacked(self, kept: OrderedDict[Hashable, Tensor], rows: Sequence[Row]) -> Tensor:
        for row in rows:
            if row.key not in kept:
                kept[row.key] = row.read().to(self._device, non_blocking=True)
            kept.move_to_end(row.key)
        found = torch.stack([kept[row.key] for row in rows])
        while len(kept) > KEPT:
            kept.popitem(last=False)
        return found
