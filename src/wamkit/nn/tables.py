"""Constant tensors of a network: rotary tables, frequencies, statistics of latents.

Built once with the network, so that no call builds them from Python numbers and copies them to the device.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class Tables(nn.Module):
    """Named constants that follow the network's device and nothing else.

    They are not in a state dict, since they are known from the config. They are never cast: `network.to(bfloat16)`
    leaves angles and statistics exact. Build them on the CPU, explicitly: a network that is constructed on the meta
    device gets its weights from a file, and these from nowhere else.
    """

    def __init__(self, **tables: Tensor) -> None:
        super().__init__()
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Tables:
        # nn.Module's hook behind .to(), .cuda(), .half(): of what `fn` would do, only the move is taken over.
        return super()._apply(lambda table: table.to(fn(table).device), recurse)
