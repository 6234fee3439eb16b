"""The types every room shares, and the legend of shape letters, units and ranges.

Letters: b batch, t frames, c channels, h w grid, s tokens, l text rows, d width, n heads,
k horizon (actions in a chunk), a action, p proprio.
Pixels are uint8 RGB 0..255 until a policy encodes them; a codec takes floats in [-1, 1].
Actions and proprio are physical units everywhere outside a policy.
A mask is True where attention is allowed; `is_pad` is True where data is invented.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import ceil, floor, inf
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn
from wamkit_client.types import WHOLE, BadInput

from wamkit.bounds import AT_LEAST_0, AT_LEAST_1, DECAY, POSITIVE, Bound, check
from wamkit.draws import Draws
from wamkit.spans import Span
from wamkit.subset import EVERY, Subset
from wamkit.taking import SHARED, Take
from wamkit.tree import Tree, tree_map


@dataclass(frozen=True)
class Augmentation:
    """How training images are changed by chance (data/augment.py): frames of a clip alike, each camera by itself.

    crop: smallest share of an image's area that is kept, of the image's shape; 1: all of it.
    brightness, contrast, saturation: largest relative change. hue: largest change, in turns.
    """

    crop: float = 1.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __post_init__(self) -> None:
        check("data.augmentation", self, AUGMENTATION_BOUNDS)

    @property
    def draws(self) -> bool:
        """Whether it changes anything."""
        return self != UNCHANGED


AUGMENTATION_BOUNDS = {
    "crop": Bound("a number above 0, at most 1", lambda share: 0 < share <= 1),
    **dict.fromkeys(("brightness", "contrast", "saturation", "hue"), DECAY),
}
UNCHANGED = Augmentation()


@dataclass(frozen=True)
class DataSpec:
    """What a policy asks of a dataset. Times are seconds from the moment of acting.

    views: camera names, in canvas order (dataset key `observation.images.<name>`, unless `columns` has another; on a
        command line also front=observation.images.cam_high).
    canvas: how views are tiled: "single", "horizontal" or "robotwin"; "separate": they are not (data/canvas.py).
    view_height, view_width: pixels each view is resized to before tiling.
    hz: control rate; must equal the dataset's fps.
    frame_times: seconds of the video frames of one clip, first 0.0.
    chunk_seconds: length of one action chunk; horizon = chunk_seconds * hz.
    whole_windows: samples begin only where frames and actions all lie inside the episode; else what lies past its end
        is padding.
    proprio_dim, action_dim: dimensions of the robot's state (0: the policy is given none) and of an action.
    sample_every: of the steps of an episode that could begin a sample, every so many begin one. Neighbours at a high
        rate are nearly the same image, and each takes as much room in a latent cache.
    held_out: share of the episodes that no sample is taken of (data/hold_out.py says which).
    past_end: what training does with actions past the episode's end, which mean "stay" (data/actions.py): "masked", no
        loss is computed of them, or "supervised", they are targets like the others (LaWAM spec 2.6).
    frame_proprio: whether a sample has the proprio of every video frame too (LaWAM spec 1.6).
    columns: where the dataset has what is not under its usual name (data/lerobot/columns.py): of "action" and
        "proprio" a column, part of one ("state[0:7]"), or several joined by "+"; of a view its camera.
    only: which episodes are read; each dataset of several has its own.
    augmentation: of the run's training images, whichever source they are of; latents in a cache have none.
    """

    views: tuple[str, ...]
    canvas: str
    view_height: int
    view_width: int
    hz: float
    frame_times: tuple[float, ...]
    chunk_seconds: float
    proprio_dim: int
    action_dim: int
    whole_windows: bool = False
    sample_every: int = 1
    held_out: float = 0.0
    past_end: Literal["masked", "supervised"] = "masked"
    frame_proprio: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)
    only: Subset = EVERY
    augmentation: Augmentation = UNCHANGED

    def __post_init__(self) -> None:
        check("data", self, DATA_BOUNDS)
        expect_known_columns(self)
        expect_whole_steps("frame_times", self.frame_times, self.hz)
        expect_whole_steps("chunk_seconds", (self.chunk_seconds,), self.hz)

    @property
    def frame_offsets(self) -> tuple[int, ...]:
        """Control steps of the video frames."""
        return tuple(round(time * self.hz) for time in self.frame_times)

    @property
    def horizon(self) -> int:
        """Actions in one chunk."""
        return round(self.chunk_seconds * self.hz)

    def starts(self, length: int, actions: int) -> int:
        """How many steps begin a sample, the first ones of an episode of `length` steps, `actions` of them with one."""
        if not self.whole_windows:
            return actions
        return max(min(length - self.frame_offsets[-1], actions - self.horizon + 1), 0)


DATA_BOUNDS = {
    "views": Bound(
        "at least one camera, each once", lambda views: 0 < len(views) == len(set(views)) and all(views)
    ),
    **dict.fromkeys(("view_height", "view_width", "action_dim", "sample_every"), AT_LEAST_1),
    "proprio_dim": AT_LEAST_0,
    "hz": POSITIVE,
    "frame_times": Bound(
        "0 and then later times, ascending",
        lambda times: len(times) > 0 and times[0] == 0 and all(a < b < inf for a, b in pairwise(times)),
    ),
    "chunk_seconds": POSITIVE,
    "held_out": DECAY,
}


def expect_known_columns(data: DataSpec) -> None:
    """BadInput where `data.columns` names a column for something that is not read."""
    for name, column in data.columns.items():
        if name not in ("action", "proprio", *data.views):
            raise BadInput(
                f"data.columns: {name!r} is none of action, proprio and the views ({', '.join(data.views)}); "
                f"give --data.views {name}={column} for a camera"
            )
        if not column.strip():
            raise BadInput(f"data.columns: no column for {name}; give one, or omit it")


def expect_whole_steps(name: str, times: Sequence[float], hz: float) -> None:
    """BadInput where a time of `data.<name>` is no whole number of control steps, or two are the same step."""
    for time in times:
        steps = time * hz
        if abs(steps - round(steps)) > 1e-3 or (time > 0 and round(steps) == 0):
            fitting = [f"{near / hz:.7g}" for near in (floor(steps), ceil(steps)) if near > 0]
            raise BadInput(
                f"data.{name}: {time:g} s is {steps:.4g} control steps at data.hz {hz:g}, expected a whole number; "
                f"give {' or '.join(fitting)} s (multiples of {1 / hz:.7g} s), or another data.hz"
            )


Preprocessing = Literal["training", "published"]
"""How images come to the canvas (data/canvas.py): as in training, or as in the published evaluations."""


@dataclass(frozen=True)
class Clip:
    """Moments to encode, batched: t video frames of every view from now on (acting: t = 1).

    views: by camera name; images of different cameras may differ in size. proprio: p is 0 for a policy without.
    """

    views: Mapping[str, UInt8[Tensor, "b t _ _ 3"]]
    proprio: Float[Tensor, "b p"]
    instructions: tuple[str, ...]
    embodiments: tuple[str, ...]


@dataclass(frozen=True)
class Batch:
    """One training batch.

    inputs: what the encoder returned for frames and text, "proprio" [b p] and, where the data has it, "frame_proprio"
        [b t p] in physical units, and "frame_is_pad" [b t].
    actions: physical units. valid: True where an action is a target: a dimension of its robot, and inside its episode
        unless `DataSpec.past_end` is "supervised".
    embodiment: the row of the policy's Normalizer. hz: control steps per second.
    ids: the samples' names ("episode:step") in error messages.
    """

    inputs: Tree
    actions: Float[Tensor, "b k a"]
    valid: Bool[Tensor, "b k a"]
    embodiment: Int[Tensor, " b"]
    hz: Float[Tensor, " b"]
    ids: tuple[str, ...]

    def map(self, function: Callable[[Tensor], Tensor], ids: tuple[str, ...]) -> Batch:
        """`function` applied to every tensor; ids: those of the result."""
        return Batch(
            inputs=tree_map(function, self.inputs),
            actions=function(self.actions),
            valid=function(self.valid),
            embodiment=function(self.embodiment),
            hz=function(self.hz),
            ids=ids,
        )

    def to(self, device: torch.device) -> Batch:
        """The same batch with every tensor on `device`."""
        return self.map(lambda x: x.to(device, non_blocking=True), self.ids)

    def rows(self, numbers: Sequence[int]) -> Batch:
        """Some samples of the batch."""
        index = torch.tensor(numbers).to(self.hz.device, non_blocking=True)
        return self.map(lambda x: x[index], tuple(self.ids[i] for i in numbers))


@dataclass(frozen=True)
class Query:
    """What a policy is asked: one action chunk for each of b observations.

    inputs: what the encoder returned for one frame and the instruction, and "proprio" [b p] in physical units.
    embodiment: the row of the policy's Normalizer. hz: control steps per second.
    generators: one per row; what a row draws is a function of its own generator alone, so it is the same in any batch.
    previous: what is left of the previous chunk from now on, for a policy that `continues` it; {}: nothing, in any row.
        "actions" [b k a], physical, 0 from "left" [b] on, of which the first "delay" [b] are executed whatever comes.
    instructions: what each row is told, by which a policy may keep what it makes of the text in `inputs`; (): unknown,
        nothing is kept.
    steps: how many actions of a chunk will be used, the first ones. A policy whose actions do not depend on later ones
        may compute these alone.
    """

    inputs: Tree
    embodiment: Int[Tensor, " b"]
    hz: Float[Tensor, " b"]
    generators: Sequence[torch.Generator]
    previous: Tree = field(default_factory=dict)
    instructions: tuple[str, ...] = ()
    steps: int = WHOLE


# Rows of a parameter table; a parameter belongs to the first row that takes its name.
PartTable = tuple[tuple[str, Callable[[str], bool]], ...]

# How a policy, or a faster copy of it, answers a query: chunks [b k a] in physical units.
Actor = Callable[[Query], Tensor]


@dataclass(frozen=True)
class Group:
    """Parameters that are trained alike.

    learning_rate, decay: factors on the run's learning rate and weight decay.
    """

    parameters: Mapping[str, nn.Parameter]
    learning_rate: float = 1.0
    decay: float = 1.0


class ActingEncoder(Protocol):
    """The frozen half of a system, as far as acting needs it.

    prepare: of one sample, on the CPU, in a loader's worker process: a function without weights, which can be pickled.
        Takes views [1 t h w 3] by camera name and a generator, and returns what `frames` takes.
    """

    @property
    def prepare(self) -> Callable[[Tree, torch.Generator], Tree]:
        """See above."""

    def frames(self, prepared: Tree) -> Tree:
        """Latents of the present frame and of those after it."""

    def text(self, instructions: Sequence[str]) -> Tree:
        """Context of every instruction; each distinct one is computed or read once per process."""


class Encoder(ActingEncoder, Protocol):
    """The frozen half of a system: what the latent cache stores, frames per sample and text per prompt.

    fingerprint: everything its results depend on, by name; equal fingerprints mean equal latents.
    augments: whether `prepare` draws from its generator, so that its results must not be cached.
    passes: what can be done to it for acting sooner (infer/presets.py), in the order in which it is done.
    """

    @property
    def augments(self) -> bool:
        """See above."""

    @property
    def fingerprint(self) -> Mapping[str, str]:
        """See above."""

    @property
    def passes(self) -> tuple[str, ...]:
        """See above."""

    def store_text(self, instructions: Sequence[str]) -> None:
        """Compute the context of each once for all, and let go of the network that does, where it can be read again."""

    def acting(self, passes: Collection[str], precision: torch.dtype | None = None) -> ActingEncoder:
        """One that encodes single frames with these passes, where this one is; itself without any.

        precision: of its weights; None: theirs. They are copies, and follow this one no more.
        """

    def to(self, device: torch.device) -> Any:
        """Move it, in place."""


class Trainable(Protocol):
    """Enough for the training loop; an nn.Module.

    loss_weights: the losses that a call computes, and their weights in the total.
    parts: the rows of its parameter table.
    """

    def separable(self, batch: Batch) -> bool:
        """Whether its losses are means over samples that know nothing of each other: a batch may be halved."""

    def targets(self, batch: Batch) -> Mapping[str, Tensor]:
        """How many numbers of a batch those losses are means over that are not means over samples: what several
        processes weigh theirs by."""

    @property
    def parts(self) -> PartTable:
        """See above."""

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """See above."""

    def __call__(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """Unweighted scalar losses by name, one for each key of loss_weights."""

    def embodiment(self, names: Sequence[str]) -> Int[Tensor, " b"]:
        """Its numbers of the robots of these names. BadInput for one it was not trained for."""

    def parameter_groups(self) -> list[Group]:
        """Every trained parameter, in one group each."""

    def initialize(self) -> None:
        """Put the weights in place that training starts from. Raises BadInput naming a missing file or key."""

    def load_frozen(self) -> None:
        """Read the weights that are not trained, which no run directory holds. Raises BadInput as `initialize`."""


@runtime_checkable
class Policy(Trainable, Protocol):
    """Enough for engine, server and evaluation.

    data: what it asks of an observation. unsupported_sections: of a run's page (report/run_page.py), those that it has
    nothing to show in. passes: what can be done to it for acting sooner (infer/presets.py), in the order in which it is
    done; each is equal to `act` in real arithmetic.
    """

    data: DataSpec

    @property
    def unsupported_sections(self) -> tuple[str, ...]:
        """See above."""

    def act(self, query: Query) -> Float[Tensor, "b k a"]:
        """Action chunks in physical units."""

    @property
    def passes(self) -> tuple[str, ...]:
        """See above."""

    def actor(self, passes: Collection[str], take: Take = SHARED) -> Actor:
        """`act` with these of its passes, for weights that do not change any more, of which it takes its own."""


@torch.no_grad()
def encode(encoder: ActingEncoder, clip: Clip) -> Tree:
    """A clip as `Batch.inputs` and `Query.inputs` have it, on the encoder's device but for proprio."""
    generator = torch.Generator()  # acting: nothing is augmented
    with Span("images"):
        prepared = encoder.prepare(dict(clip.views), generator)
    with Span("codec"):
        frames = encoder.frames(prepared)
    with Span("text"):
        text = encoder.text(clip.instructions)
    return {**frames, **text, "proprio": clip.proprio}
