"""A dataset as training samples: a clip, an action chunk and pad flags for every step of every episode, or for those
alone whose window ends inside it (DataSpec.whole_windows); no sample of an episode that is held out.

Sample i is a pure function of the dataset, the spec and i; nothing is random, skipped or substituted.
It does not know about latents, normalisation or batches.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from wamkit_client.types import BadInput, Observation

from wamkit.data.actions import ActionSpace, pad_actions
from wamkit.data.fit import expect_fit
from wamkit.data.hold_out import held_out_episodes, kept_episodes
from wamkit.data.joined import AnyDataset
from wamkit.data.lerobot.columns import SOURCES
from wamkit.data.lerobot.dataset import Episode
from wamkit.data.windows import window
from wamkit.tree import Tree
from wamkit.types import Clip, DataSpec


@dataclass(frozen=True)
class ClipSample:
    """One sample, with a batch of one (b = 1).

    valid: which actions are targets. hz: control steps per second. id: "episode:step", after the folder and "/" where
    there are several. more: further inputs; "frame_proprio" [1 t p] where the spec asks for it.
    """

    clip: Clip
    actions: Float[Tensor, "1 k a"]
    action_is_pad: Bool[Tensor, "1 k"]
    valid: Bool[Tensor, "1 k"]
    frame_is_pad: Bool[Tensor, "1 t"]
    hz: float
    id: str
    more: Tree = field(default_factory=dict)

    def observation(self, noise_seed: int = 0) -> Observation:
        """What a robot would have sent at that step."""
        return Observation(
            images={view: frames[0, 0].numpy() for view, frames in self.clip.views.items()},
            proprio=self.clip.proprio[0].numpy(),
            instruction=self.clip.instructions[0],
            embodiment=self.clip.embodiments[0],
            noise_seed=noise_seed,
        )


VALID: Mapping[str, Callable[[Tensor], Tensor]] = {"masked": torch.logical_not, "supervised": torch.ones_like}
"""Which actions are targets, of which are padding, by DataSpec.past_end."""


Share = Literal["trained", "held_out"]
SHARES: Mapping[Share, Callable[[int, DataSpec], list[int]]] = {
    "trained": kept_episodes,
    "held_out": held_out_episodes,
}


def episodes_of(dataset: AnyDataset, spec: DataSpec, share: Share) -> tuple[Episode, ...]:
    """The episodes that are trained on, or those that are held out, in the order of their samples; every folder holds
    out its share."""
    counts = [len(part.episodes) for part in dataset.parts]
    before = accumulate([0, *counts])
    places = [
        first + place for first, n in zip(before, counts, strict=False) for place in SHARES[share](n, spec)
    ]
    return tuple(dataset.episodes[place] for place in places)


def sample_numbers(episodes: Sequence[Episode], spec: DataSpec) -> list[range]:
    """Of each episode, the numbers of its samples: one for every `sample_every`-th step that could begin one."""
    starts = (spec.starts(episode.length, episode.actions) for episode in episodes)
    ends = list(accumulate(len(range(0, count, spec.sample_every)) for count in starts))
    return [range(first, end) for first, end in pairwise([0, *ends])]


class Clips(torch.utils.data.Dataset[ClipSample]):
    """Samples in the order of the episodes and their steps; reading in order decodes every frame once.

    dataset: an open dataset. spec: what is asked of it. space: what the action dimensions mean. names: what the policy
    calls spec.views, in order; () where the dataset's names are the policy's. share: of which episodes.
    episodes: those that samples are taken of. numbers: of each of them, the numbers of its samples.
    Raises BadInput where they do not fit together: camera, dimension, rate or instruction; and where no episode is in
    the share.
    """

    def __init__(
        self,
        dataset: AnyDataset,
        spec: DataSpec,
        space: ActionSpace,
        names: Sequence[str] = (),
        share: Share = "trained",
    ):
        self.dataset, self.spec, self.space = dataset, spec, space
        self.names = dict(zip(spec.views, names or spec.views, strict=True))
        for part in dataset.parts:
            expect_fit(part, spec, space)
        self.share, self.episodes = share, episodes_of(dataset, spec, share)
        if not self.episodes:
            raise BadInput(f"{dataset.where}: no episode is held out; give --data.held-out 0.05")
        self.numbers = sample_numbers(self.episodes, spec)
        self._ends = [own.stop for own in self.numbers]
        if not self._ends[-1]:
            raise BadInput(
                f"{dataset.where}: no episode is long enough for a whole window (the longest has "
                f"{max(episode.length for episode in self.episodes)} steps); set data.whole_windows to False"
            )

    @property
    def firsts(self) -> list[int]:
        """Of each dataset, the number of its first sample."""
        counts = [len(SHARES[self.share](len(part.episodes), self.spec)) for part in self.dataset.parts]
        episodes = accumulate([0, *counts[:-1]])
        return sorted({min(self.numbers[place].start, len(self) - 1) for place in episodes})

    def held_out(self) -> Clips:
        """The same samples, of the episodes that are held out. BadInput where there are none."""
        return Clips(self.dataset, self.spec, self.space, tuple(self.names.values()), "held_out")

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, i: int) -> ClipSample:
        return self.sample(i)

    @property
    def ids(self) -> list[str]:
        """The id of every sample."""
        return [
            f"{self.dataset.label(episode.index)}:{place * self.spec.sample_every}"
            for episode, own in zip(self.episodes, self.numbers, strict=True)
            for place in range(len(own))
        ]

    def sample(self, i: int) -> ClipSample:
        """Sample i. BadInput where its frames or columns cannot be read; IndexError past the end."""
        return self._sample(i, self.spec.views)

    def without_views(self, i: int) -> ClipSample:
        """Sample i, of which no frame is decoded."""
        return self._sample(i, ())

    def _sample(self, i: int, names: Sequence[str]) -> ClipSample:
        if not 0 <= i < len(self):
            raise IndexError(f"sample {i} of {len(self)}")
        place = bisect_right(self._ends, i)
        found = self.episodes[place]
        episode, step = found.index, (i - self.numbers[place].start) * self.spec.sample_every
        steps = window(found.length, found.actions, step, self.spec.frame_offsets, self.spec.horizon)
        views = {view: self.dataset.frames(view, episode, steps.frame_steps) for view in names}
        actions = self.dataset.rows(SOURCES["action"], [found])
        action_is_pad = torch.tensor(steps.action_is_pad)
        clip = Clip(
            views={self.names[view]: torch.from_numpy(frames)[None] for view, frames in views.items()},
            proprio=self.proprio(found, [step]),
            instructions=(self.dataset.instruction(episode, step),),
            embodiments=(self.dataset.robot_type,),
        )
        chunk = torch.from_numpy(actions[list(steps.action_steps)].astype(np.float32))
        return ClipSample(
            clip=clip,
            actions=pad_actions(chunk, action_is_pad, self.space)[None],
            action_is_pad=action_is_pad[None],
            valid=VALID[self.spec.past_end](action_is_pad)[None],
            frame_is_pad=torch.tensor(steps.frame_is_pad)[None],
            hz=self.spec.hz,
            id=f"{self.dataset.label(episode)}:{step}",
            more={"frame_proprio": self.proprio(found, steps.frame_steps)[None]}
            if self.spec.frame_proprio
            else {},
        )

    def proprio(self, episode: Episode, steps: Sequence[int]) -> Float[Tensor, "n p"]:
        """Of an episode at some of its steps; p is 0 for a policy without."""
        if not self.spec.proprio_dim:
            return torch.zeros(len(steps), 0)
        rows = self.dataset.rows(SOURCES["proprio"], [episode])
        return torch.from_numpy(rows[list(steps)].astype(np.float32))
