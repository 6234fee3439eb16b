"""Samples as the latent cache stores them, encoded now, and a mixture of several sources.

It knows encoders by their protocol only, and nothing of policies: a batch gets its embodiment numbers from the policy.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from wamkit.data.clips import ClipSample
from wamkit.data.order import Order
from wamkit.tree import Tree, tree_cat, tree_map
from wamkit.types import Batch, Encoder


@dataclass(frozen=True)
class Encoded:
    """Samples in order: what the encoder made of them (and "proprio", physical units), actions, and what is padding.

    valid: True where an action lies inside its episode and the dimension belongs to its robot.
    embodiments, ids: names of robots and samples. hz: control steps per second.
    """

    inputs: Tree
    actions: Float[Tensor, "b k a"]
    valid: Bool[Tensor, "b k a"]
    frame_is_pad: Bool[Tensor, "b t"]
    hz: Float[Tensor, " b"]
    embodiments: tuple[str, ...]
    ids: tuple[str, ...]

    def batch(self, embodiment: Callable[[Sequence[str]], Tensor]) -> Batch:
        """The batch of a policy that numbers robots by `embodiment`."""
        return Batch(
            inputs=self.inputs | {"frame_is_pad": self.frame_is_pad},
            actions=self.actions,
            valid=self.valid,
            embodiment=embodiment(self.embodiments),
            hz=self.hz,
            ids=self.ids,
        )


@runtime_checkable
class Samples(Protocol):
    """Numbered samples: cached ones, clips that are encoded now, or a mixture of either.

    Reading is per sample and may happen in a worker process, to which `reader` is pickled.
    reader: reads a sample by number and augmentation seed. order: which sample stands at which place of the stream.
    """

    @property
    def reader(self) -> Reader:
        """See above."""

    @property
    def order(self) -> Order:
        """See above."""

    def __len__(self) -> int:
        """How many samples."""

    def collate(self, read: Sequence[Any]) -> Encoded:
        """What the reader returned for some samples, as one record; tensors are on the CPU."""


class Reader(Protocol):
    """Reads one sample. Raises BadInput where it cannot be read."""

    def __call__(self, index: int, seed: int, /) -> Any:
        """Sample `index`; seed: of its augmentation."""


def read_all(samples: Samples, indices: Sequence[int]) -> Encoded:
    """These samples, in this order; nothing is augmented by chance."""
    return samples.collate([samples.reader(index, 0) for index in indices])


@runtime_checkable
class Clips(Protocol):
    """What is asked of a dataset of clips (data/clips.py)."""

    def __len__(self) -> int:
        """How many samples."""

    def sample(self, index: int, /) -> ClipSample:
        """One sample."""


@dataclass(frozen=True)
class ClipReader:
    """Reads a clip and prepares its views for the encoder; the sample that is returned has no views any more."""

    clips: Clips
    prepare: Callable[[Tree, torch.Generator], Tree]

    def __call__(self, index: int, seed: int) -> tuple[Tree, ClipSample]:
        sample = self.clips.sample(index)
        prepared = self.prepare(dict(sample.clip.views), torch.Generator().manual_seed(seed))
        return prepared, replace(sample, clip=replace(sample.clip, views={}))


@dataclass(frozen=True)
class Fresh:
    """Samples that are encoded when they are asked for; the cache holds the same."""

    clips: Clips
    encoder: Encoder

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def order(self) -> Order:
        """Every sample once per epoch."""
        return Order((len(self),), (1.0,))

    @property
    def reader(self) -> ClipReader:
        """Reads and prepares clips; without the encoder's weights."""
        return ClipReader(self.clips, self.encoder.prepare)

    @torch.no_grad()
    def collate(self, read: Sequence[tuple[Tree, ClipSample]]) -> Encoded:
        """The samples, encoded where the encoder is."""
        samples = [sample for _, sample in read]
        frames = self.encoder.frames(tree_cat([prepared for prepared, _ in read]))
        text = self.encoder.text([text for sample in samples for text in sample.clip.instructions])
        return encoded(samples, tree_map(Tensor.cpu, frames | text))


def encoded(samples: Sequence[ClipSample], inputs: Tree) -> Encoded:
    """Samples, and what an encoder made of their frames and instructions, as one record."""
    actions = torch.cat([sample.actions for sample in samples])
    is_pad = torch.cat([sample.action_is_pad for sample in samples])
    return Encoded(
        inputs=inputs | {"proprio": torch.cat([sample.clip.proprio for sample in samples])},
        actions=actions,
        valid=(~is_pad)[:, :, None].expand(actions.shape),
        frame_is_pad=torch.cat([sample.frame_is_pad for sample in samples]),
        hz=torch.tensor([sample.hz for sample in samples]),
        embodiments=tuple(name for sample in samples for name in sample.clip.embodiments),
        ids=tuple(sample.id for sample in samples),
    )


@dataclass(frozen=True)
class Mixture:
    """Several sources with weights, numbered one after the other, filled up to the widest robot and longest chunk.

    horizon, action_dim, proprio_dim: of what the policy takes.
    """

    sources: tuple[Samples, ...]
    weights: tuple[float, ...]
    horizon: int
    action_dim: int
    proprio_dim: int

    def __len__(self) -> int:
        return sum(map(len, self.sources))

    @property
    def order(self) -> Order:
        """A source's share is its size times its weight."""
        return Order(tuple(map(len, self.sources)), self.weights)

    @property
    def reader(self) -> MixtureReader:
        """Reads from whichever source a number belongs to."""
        return MixtureReader(
            tuple(source.reader for source in self.sources),
            tuple(accumulate(map(len, self.sources))),
        )

    def collate(self, read: Sequence[tuple[int, Any]]) -> Encoded:
        """Source by source, then back in order, so that sources may have images of different sizes."""
        parts, places = [], []
        for number, source in enumerate(self.sources):
            own = [place for place, (origin, _) in enumerate(read) if origin == number]
            if own:
                parts.append(self._widened(source.collate([read[place][1] for place in own])))
                places += own
        back = torch.tensor(places).argsort()
        return _joined(parts, back)

    def _widened(self, part: Encoded) -> Encoded:
        k, a = part.actions.shape[1:]
        p = part.inputs["proprio"].shape[1]
        more = (0, self.action_dim - a, 0, self.horizon - k)
        return replace(
            part,
            inputs=part.inputs | {"proprio": F.pad(part.inputs["proprio"], (0, self.proprio_dim - p))},
            actions=F.pad(part.actions, more),
            valid=F.pad(part.valid, more),
        )


@dataclass(frozen=True)
class MixtureReader:
    """readers: of the sources. ends: the number behind each source's last sample."""

    readers: tuple[Reader, ...]
    ends: tuple[int, ...]

    def __call__(self, index: int, seed: int) -> tuple[int, Any]:
        source = bisect_right(self.ends, index)
        first = self.ends[source - 1] if source else 0
        return source, self.readers[source](index - first, seed)


def _joined(parts: Sequence[Encoded], back: Tensor) -> Encoded:
    """The rows of all parts, row i of the result being row back[i] of their concatenation."""
    order = back.tolist()
    embodiments = [name for part in parts for name in part.embodiments]
    ids = [name for part in parts for name in part.ids]
    return Encoded(
        inputs=tree_map(lambda x: x[back], tree_cat([part.inputs for part in parts])),
        actions=torch.cat([part.actions for part in parts])[back],
        valid=torch.cat([part.valid for part in parts])[back],
        frame_is_pad=torch.cat([part.frame_is_pad for part in parts])[back],
        hz=torch.cat([part.hz for part in parts])[back],
        embodiments=tuple(embodiments[i] for i in order),
        ids=tuple(ids[i] for i in order),
    )
