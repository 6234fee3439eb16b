"""Random numbers of a training step.

A sample's noise is a function of (seed, step, position in the global batch). It does not depend on how the batch is
divided into parts of an accumulation, or among ranks: rows are drawn in blocks of the global batch, every block from a
generator of its own, and a part takes its rows of the blocks it overlaps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

BLOCK = 64
# The compiler cannot trace a generator. torch.compiler.disable would import the compiler here and now, for more than a
# second at the start of every command; this one waits for the first draw.
_untraced = torch._disable_dynamo


@dataclass(frozen=True)
class Draws:
    """Draws for rows `first` to `first + count - 1` of a global batch of `total`.

    generators: of the blocks that these rows overlap, in order. host: such on the CPU, for what the host decides by;
    (): `generators` are on it.
    """

    generators: tuple[torch.Generator, ...]
    first: int
    count: int
    total: int
    host: tuple[torch.Generator, ...] = ()

    @classmethod
    def of_step(cls, seed: int, step: int, device: torch.device, first: int, count: int, total: int) -> Draws:
        """Those of optimizer step `step` (from 0), drawn on `device`."""
        blocks = range(first // BLOCK, (first + count - 1) // BLOCK + 1)
        seeds = [block_seed(seed, step, block) for block in blocks]
        generators = tuple(torch.Generator(device).manual_seed(own) for own in seeds)
        host = () if device.type == "cpu" else tuple(torch.Generator().manual_seed(own) for own in seeds)
        return cls(generators, first, count, total, host)

    @classmethod
    def of(cls, generator: torch.Generator, count: int) -> Draws:
        """Draws of a batch of up to BLOCK rows from one generator."""
        if count > BLOCK:
            raise ValueError(f"one generator draws at most {BLOCK} rows, got {count}")
        return cls((generator,), 0, count, count)

    @_untraced
    def uniform(self, device: torch.device) -> Float[Tensor, " b"]:
        """One number in [0, 1) per row."""
        return self._rows((), torch.rand, self.generators).to(device)

    @_untraced
    def decisions(self) -> list[float]:
        """One number in [0, 1) per row, for the host, which does not wait for the device."""
        return self._rows((), torch.rand, self.host or self.generators).tolist()

    @_untraced
    def normal(self, like: Float[Tensor, "b *rest"]) -> Float[Tensor, "b *rest"]:
        """Standard normal noise of the shape, dtype and device of `like`."""
        return self._rows(tuple(like.shape[1:]), torch.randn, self.generators).to(like)

    @_untraced
    def uniform_like(self, like: Float[Tensor, "b *rest"]) -> Float[Tensor, "b *rest"]:
        """Numbers in [0, 1), of the shape and device of `like`."""
        return self._rows(tuple(like.shape[1:]), torch.rand, self.generators).to(like.device)

    def _rows(
        self, shape: tuple[int, ...], draw: Callable[..., Tensor], generators: tuple[torch.Generator, ...]
    ) -> Tensor:
        # A generator's numbers depend on how many are asked for at once. So every block is drawn whole (the last one as
        # far as the global batch goes), whichever of its rows are wanted, and the rows are cut out of it.
        start = self.first // BLOCK * BLOCK
        blocks = []
        for number, generator in enumerate(generators):
            rows = min(BLOCK, self.total - (start + number * BLOCK))
            blocks.append(draw((rows, *shape), generator=generator, device=generator.device))
        return torch.cat(blocks)[self.first - start : self.first - start + self.count]


def block_seed(seed: int, step: int, block: int) -> int:
    """The seed of a block's noise; earlier steps do not matter, so that a resumed run draws the same."""
    # Without the block's number where it is 0: batches of up to BLOCK rows draw as they did before there were blocks.
    words = [seed, step] if block == 0 else [seed, step, block]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1)
