"""Samples as the latent cache stores them, encoded now, and a mixture of several sources.

It knows encoders by their protocol only, and nothing of policies: a batch gets its embodiment numbers from the policy.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from wamkit_client.types import BadInput

from wamkit.data.augment import Augment
from wamkit.data.clips import ClipSample
from wamkit.data.order import Order
from wamkit.data.shared import Row, Shared, Table
from wamkit.tree import Tree, tree_cat, tree_leaves, tree_map, tree_of
from wamkit.types import UNCHANGED, Augmentation, Batch, Encoder

CPU = torch.device("cpu")
STATES = ("proprio", "frame_proprio")
"""Inputs that are as wide as a robot's proprio; the second is there where the spec asks for it."""


@dataclass(frozen=True)
class Encoded:
    """Samples in order: what the encoder made of them (and "proprio", physical units), actions, and what is padding.

    valid: as Batch.valid.
    embodiments, ids: names of robots and samples. hz: control steps per second.
    shared: inputs that samples have in common, by path (tree.tree_leaves); they are not among `inputs`.
    """

    inputs: Tree
    actions: Float[Tensor, "b k a"]
    valid: Bool[Tensor, "b k a"]
    frame_is_pad: Bool[Tensor, "b t"]
    hz: Float[Tensor, " b"]
    embodiments: tuple[str, ...]
    ids: tuple[str, ...]
    shared: Shared = field(default_factory=dict)

    def whole(self, but: Collection[str] = ()) -> Encoded:
        """With everything among `inputs`, on the CPU, but for the shared fields `but`."""
        rows = {name: rows for name, rows in self.shared.items() if name not in but}
        return replace(
            self,
            inputs=tree_of(tree_leaves(self.inputs) | Table(CPU).stacked(rows)),
            shared={name: self.shared[name] for name in but},
        )

    def batch(self, embodiment: Callable[[Sequence[str]], Tensor]) -> Batch:
        """The batch of a policy that numbers robots by `embodiment`, without what is shared."""
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

    A batch is made in two steps, since a worker process has neither the encoder's weights nor a GPU: `reader`, which is
    pickled to workers, reads it, and `finish` encodes what is not encoded yet, in the process that trains.
    order: which sample stands at which place of the stream.
    """

    @property
    def reader(self) -> Reader:
        """See above."""

    @property
    def order(self) -> Order:
        """See above."""

    def __len__(self) -> int:
        """How many samples."""

    def finish(self, read: Any) -> Encoded:
        """What the reader returned, as one record; tensors are on the CPU, but for what is shared."""


class Reader(Protocol):
    """Reads samples. Raises BadInput where one cannot be read."""

    def __call__(self, indices: Sequence[int], seeds: Sequence[int], /) -> Any:
        """The samples of these numbers, in this order; seeds: of their augmentation.

        Its tensors must not be views of larger ones: a worker would send these whole.
        """


def read_all(samples: Samples, indices: Sequence[int]) -> Encoded:
    """These samples, in this order; nothing is augmented by chance."""
    return samples.finish(samples.reader(indices, [0] * len(indices))).whole()


READ_AHEAD = 2
"""Batches that wait to be encoded."""


def read_ahead(samples: Samples, batches: Iterable[Sequence[int]]) -> Iterator[Encoded]:
    """As `read_all` of each batch; a thread reads the next ones while one is encoded."""
    upcoming: deque[Future[Any]] = deque()
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reader")
    try:
        for indices in batches:
            upcoming.append(thread.submit(samples.reader, indices, [0] * len(indices)))
            if len(upcoming) > READ_AHEAD:
                yield samples.finish(upcoming.popleft().result()).whole()
        while upcoming:
            yield samples.finish(upcoming.popleft().result()).whole()
    finally:
        thread.shutdown(wait=True, cancel_futures=True)


@runtime_checkable
class Clips(Protocol):
    """What is asked of a dataset of clips (data/clips.py)."""

    def __len__(self) -> int:
        """How many samples."""

    def sample(self, index: int, /) -> ClipSample:
        """One sample."""


@dataclass(frozen=True)
class Observations:
    """The same samples as a policy that acts is shown them: the first frame of each clip, and nothing after it."""

    clips: Clips

    def __len__(self) -> int:
        return len(self.clips)

    def sample(self, index: int) -> ClipSample:
        """One sample."""
        whole = self.clips.sample(index)
        views = {name: frames[:, :1] for name, frames in whole.clip.views.items()}
        now = replace(whole.clip, views=views)
        return replace(whole, clip=now, frame_is_pad=whole.frame_is_pad[:, :1], more={})


@dataclass(frozen=True)
class Unencoded:
    """Samples before the encoder.

    prepared: what `Encoder.frames` takes. instructions: what `Encoder.text` takes. rest: everything else; of the inputs
    it has "proprio" and, where asked for, "frame_proprio".
    """

    prepared: Tree
    instructions: tuple[str, ...]
    rest: Encoded

    @classmethod
    def of(cls, prepared: Tree, samples: Sequence[ClipSample]) -> Unencoded:
        """Samples, of which the views are not used, and what was prepared of these."""
        actions = torch.cat([sample.actions for sample in samples])
        valid = torch.cat([sample.valid for sample in samples])
        rest = Encoded(
            inputs=tree_cat([{"proprio": sample.clip.proprio} | sample.more for sample in samples]),
            actions=actions,
            valid=valid[:, :, None].expand(actions.shape),
            frame_is_pad=torch.cat([sample.frame_is_pad for sample in samples]),
            hz=torch.tensor([sample.hz for sample in samples]),
            embodiments=tuple(name for sample in samples for name in sample.clip.embodiments),
            ids=tuple(sample.id for sample in samples),
        )
        return cls(prepared, tuple(text for sample in samples for text in sample.clip.instructions), rest)

    def encoded(self, inputs: Tree) -> Encoded:
        """The same samples; inputs: what the encoder made of them."""
        # contiguous, as they lie in a cache: kernels are chosen by strides, and others round otherwise
        own = tree_map(lambda x: x.cpu().contiguous(), inputs)
        return replace(self.rest, inputs=own | self.rest.inputs)


@dataclass(frozen=True)
class ClipReader:
    """Reads clips, augments their views and prepares them for the encoder."""

    clips: Clips
    augment: Augment
    prepare: Callable[[Tree, torch.Generator], Tree]

    def __call__(self, indices: Sequence[int], seeds: Sequence[int]) -> Unencoded:
        samples = [self.clips.sample(index) for index in indices]
        prepared = []
        for sample, seed in zip(samples, seeds, strict=True):
            generator = torch.Generator().manual_seed(seed)
            views = self.augment(dict(sample.clip.views), generator)
            prepared.append(self.prepare(views, generator))
        _expect_one_size(samples, prepared)
        return Unencoded.of(tree_cat(prepared), samples)


def _expect_one_size(samples: Sequence[ClipSample], prepared: Sequence[Tree]) -> None:
    """BadInput where images cannot be in one batch."""
    shapes = [{name: tuple(leaf.shape) for name, leaf in tree_leaves(tree).items()} for tree in prepared]
    for sample, own in zip(samples, shapes, strict=True):
        for name, shape in own.items():
            if shape != shapes[0][name]:
                raise BadInput(
                    f"{name}: sample {sample.id} has images of {shape[2]}x{shape[3]}, and {samples[0].id} of "
                    f"{shapes[0][name][2]}x{shapes[0][name][3]}; images of one source have one size. Give datasets of "
                    "other sizes as sources of their own, with --weights 1 1"
                )


@dataclass(frozen=True)
class Fresh:
    """Samples that are encoded when they are asked for; the cache holds the same, of images that are not augmented."""

    clips: Clips
    encoder: Encoder
    augmentation: Augmentation = UNCHANGED

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def order(self) -> Order:
        """Every sample once per epoch."""
        return Order((len(self),), (1.0,))

    @property
    def reader(self) -> ClipReader:
        """Reads and prepares clips; without the encoder's weights."""
        return ClipReader(self.clips, Augment(self.augmentation), self.encoder.prepare)

    @torch.no_grad()
    def finish(self, read: Unencoded) -> Encoded:
        """The samples, encoded where the encoder is."""
        return replace(read.encoded(self.encoder.frames(read.prepared)), shared=self._told(read.instructions))

    def _told(self, instructions: Sequence[str]) -> Shared:
        told = {text: tree_leaves(self.encoder.text([text])) for text in dict.fromkeys(instructions)}
        fields = told[instructions[0]]
        return {
            name: tuple(
                Row((id(self.encoder), text), partial(_first, told[text][name])) for text in instructions
            )
            for name in fields
        }


def _first(rows: Tensor) -> Tensor:
    return rows[0]


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

    def finish(self, read: Sequence[Part]) -> Encoded:
        """The samples of all sources, put back into the order of the batch."""
        # `places` of all parts, concatenated, say where each joined row belongs; argsort inverts that.
        back = torch.tensor([place for part in read for place in part.places]).argsort()
        return _joined([self._widened(self.sources[part.source].finish(part.read)) for part in read], back)

    def _widened(self, part: Encoded) -> Encoded:
        k, a = part.actions.shape[1:]
        more = (0, self.action_dim - a, 0, self.horizon - k)
        states = {name: part.inputs[name] for name in STATES if name in part.inputs}
        return replace(
            part,
            inputs=part.inputs | tree_map(self._wider, states),
            actions=F.pad(part.actions, more),
            valid=F.pad(part.valid, more),
        )

    def _wider(self, proprio: Float[Tensor, "b *t p"]) -> Tensor:
        return F.pad(proprio, (0, self.proprio_dim - proprio.shape[-1]))


@dataclass(frozen=True)
class Part:
    """What one source's reader returned, and the places of these samples in the batch."""

    source: int
    places: tuple[int, ...]
    read: Any


@dataclass(frozen=True)
class MixtureReader:
    """Reads source by source, since images of different sources may differ in size.

    readers: of the sources. ends: the number behind each source's last sample.
    """

    readers: tuple[Reader, ...]
    ends: tuple[int, ...]

    def __call__(self, indices: Sequence[int], seeds: Sequence[int]) -> list[Part]:
        origins = [bisect_right(self.ends, index) for index in indices]
        parts = []
        for source in sorted(set(origins)):
            places = tuple(place for place, origin in enumerate(origins) if origin == source)
            first = self.ends[source - 1] if source else 0
            own = [indices[place] - first for place in places]
            read = self.readers[source](own, [seeds[place] for place in places])
            parts.append(Part(source, places, read))
        return parts


def _joined(parts: Sequence[Encoded], back: Tensor) -> Encoded:
    """The rows of all parts, row i of the result being row back[i] of their concatenation."""
    order = back.tolist()
    common = [name for name in parts[0].shared if all(name in part.shared for part in parts)]
    parts = [part.whole(but=common) for part in parts]
    shared = {name: [row for part in parts for row in part.shared[name]] for name in common}
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
        shared={name: tuple(rows[i] for i in order) for name, rows in shared.items()},
    )
