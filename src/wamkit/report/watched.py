"""What a policy is asked about on a page: episodes that were watched, recorded rollouts or episodes of a dataset.

An Episode turns a step into the clip a policy encodes. It does not know policies or pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch

from wamkit.data.clips import Clips
from wamkit.types import Clip

MOMENTS = 12
"""Steps of an episode of a dataset at which a policy is asked, evenly."""


class Episode(Protocol):
    """One episode. title, detail: what it is called. robot: the embodiment's name.

    steps: control steps; there is an image before each and after the last. query_steps: where the policy is asked.
    """

    @property
    def title(self) -> str:
        """See above."""

    @property
    def detail(self) -> str:
        """See above."""

    @property
    def robot(self) -> str:
        """See above."""

    @property
    def steps(self) -> int:
        """See above."""

    @property
    def query_steps(self) -> np.ndarray:
        """See above."""

    def clip(self, step: int, offsets: Sequence[int], views: Sequence[str]) -> Clip:
        """What a policy is shown: `views` at step + offsets (b = 1). BadInput for a view that was not recorded."""


@dataclass(frozen=True)
class Watched:
    """Episodes that sections show. about: what they are, in sentences, also where there are none."""

    episodes: Sequence[Episode]
    about: str


def query_at(episode: Episode, share: float) -> int:
    """Step of the first query after that share of the episode, or of the last query."""
    later = episode.query_steps[episode.query_steps >= share * episode.steps]
    return int(later[0]) if len(later) else int(episode.query_steps[-1])


def image_at(episode: Episode, step: int, view: str) -> np.ndarray:
    """What a camera saw, uint8 RGB [h, w, 3]."""
    return episode.clip(step, (0,), (view,)).views[view][0, 0].numpy()


@dataclass(frozen=True)
class DatasetEpisode:
    """An episode of a dataset, read when it is looked at. place: among `clips.episodes`; it begins a sample."""

    clips: Clips
    place: int

    @property
    def title(self) -> str:
        """Its number."""
        return f"episode {self.clips.dataset.label(self.clips.episodes[self.place].index)}"

    @property
    def detail(self) -> str:
        """What the robot was told at its beginning."""
        return self._sample(0).instructions[0]

    @property
    def robot(self) -> str:
        """The dataset's."""
        return self.clips.dataset.robot_type

    @property
    def steps(self) -> int:
        """One less than its frames."""
        return self.clips.episodes[self.place].length - 1

    @property
    def query_steps(self) -> np.ndarray:
        """Some of those that begin a sample."""
        return np.array(evenly(len(self.clips.numbers[self.place]), MOMENTS))

    def clip(self, step: int, offsets: Sequence[int], views: Sequence[str]) -> Clip:
        """The views by the policy's names; see Episode."""
        episode = self.clips.episodes[self.place].index
        own = {ours: theirs for theirs, ours in self.clips.names.items()}
        steps = [step + offset for offset in offsets]
        frames = {view: self.clips.dataset.frames(own[view], episode, steps) for view in views}
        return replace(
            self._sample(step),
            views={view: torch.from_numpy(np.array(found))[None] for view, found in frames.items()},
        )

    def _sample(self, step: int) -> Clip:
        """Without images."""
        return self.clips.without_views(self.clips.numbers[self.place].start + step).clip


def dataset_episodes(clips: Clips, most: int) -> list[DatasetEpisode]:
    """At most that many of those that begin a sample, evenly."""
    places = [place for place, own in enumerate(clips.numbers) if own]
    return [DatasetEpisode(clips, places[i]) for i in evenly(len(places), most)]


def evenly(count: int, most: int) -> list[int]:
    """At most that many of 0 .. count - 1, evenly, both ends included."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).round()).astype(int).tolist()
