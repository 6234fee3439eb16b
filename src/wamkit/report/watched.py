"""What a policy is asked about on a page: episodes that were watched, recorded rollouts or episodes of a dataset.

An Episode turns a step into the clip a policy encodes. It does not know policies or pages.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from wamkit_client.types import Observation

from wamkit.data.clips import Clips, ClipSample
from wamkit.types import Clip

MOMENTS = 12
"""Steps of an episode of a dataset at which a policy is asked, evenly."""


class Episode(Protocol):
    """One episode. title, detail: what it is called. robot: the embodiment's name.

    steps: control steps; there is an image before each and after the last. query_steps: where the policy is asked.
    proprio [steps + 1, p], actions [_, a], one for each step and perhaps one after: physical units.
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

    @property
    def proprio(self) -> np.ndarray:
        """See above."""

    @property
    def actions(self) -> np.ndarray:
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


def join(clips: Sequence[Clip]) -> Clip:
    """Clips of equal shapes as one batch."""
    return Clip(
        views={view: torch.cat([clip.views[view] for clip in clips]) for view in clips[0].views},
        proprio=torch.cat([clip.proprio for clip in clips]),
        instructions=tuple(text for clip in clips for text in clip.instructions),
        embodiments=tuple(name for clip in clips for name in clip.embodiments),
    )


@dataclass(frozen=True)
class DatasetEpisode:
    """An episode of a dataset, read when it is looked at. place: among `clips.episodes`; it begins a sample."""

    clips: Clips
    place: int

    @property
    def title(self) -> str:
        """Its number."""
        return f"Episode {self.clips.dataset.label(self.index)}"

    @property
    def detail(self) -> str:
        """What the robot was told at its beginning."""
        return self._sample(0).clip.instructions[0]

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
        own = {ours: theirs for theirs, ours in self.clips.names.items()}
        steps = [step + offset for offset in offsets]
        frames = {view: self.clips.dataset.frames(own[view], self.index, steps) for view in views}
        return replace(
            self._sample(step).clip,
            views={view: torch.from_numpy(np.array(found))[None] for view, found in frames.items()},
        )

    def observation(self, step: int, noise_seed: int) -> Observation:
        """What its robot would have sent at a step, with its own names of cameras."""
        return self.observations([step], [noise_seed])[0]

    def observations(self, steps: Sequence[int], noise_seeds: Sequence[int]) -> list[Observation]:
        """At several steps, whose images are read at once."""
        frames = {view: self.clips.dataset.frames(view, self.index, steps) for view in self.clips.spec.views}
        return [
            replace(
                self._sample(step).observation(seed), images={view: own[n] for view, own in frames.items()}
            )
            for n, (step, seed) in enumerate(zip(steps, noise_seeds, strict=True))
        ]

    def chunk(self, step: int) -> ClipSample:
        """Its recorded actions from a step on; no image."""
        return self._sample(step)

    def before(self, step: int) -> Float[np.ndarray, "_ a"]:
        """The recorded action of the step before; no row at the beginning."""
        return self.actions[max(step - 1, 0) : step]

    @property
    def index(self) -> int:
        """Its number in `clips.dataset`."""
        return self.clips.episodes[self.place].index

    @property
    def proprio(self) -> Float[np.ndarray, "n p"]:
        """At every frame."""
        episode = self.clips.episodes[self.place]
        return self.clips.proprio(episode, range(episode.length)).numpy()

    @property
    def actions(self) -> Float[np.ndarray, "n a"]:
        """Every recorded one, physical."""
        episode = self.clips.episodes[self.place]
        return self.clips.dataset.rows("action", [episode])[: episode.actions].astype(np.float32)

    def _sample(self, step: int) -> ClipSample:
        return self.clips.without_views(self.clips.numbers[self.place].start + step)


def dataset_episodes(clips: Clips, most: int) -> list[DatasetEpisode]:
    """At most that many of those that begin a sample, evenly."""
    places = [place for place, own in enumerate(clips.numbers) if own]
    return [DatasetEpisode(clips, places[i]) for i in evenly(len(places), most)]


def observations(clips: Clips, samples: Sequence[int]) -> list[Observation]:
    """What robots would have sent at the steps of samples, whose numbers are the seeds of their noise."""
    found: list[Observation] = []
    places = [(*located(clips, i), i) for i in samples]
    for episode, own in groupby(places, lambda place: place[0]):
        steps, numbers = zip(*((step, i) for _, step, i in own), strict=True)
        found += episode.observations(steps, numbers)
    return found


def located(clips: Clips, i: int) -> tuple[DatasetEpisode, int]:
    """Episode and step of sample i."""
    place = bisect_right([own.stop for own in clips.numbers], i)
    return DatasetEpisode(clips, place), i - clips.numbers[place].start


def evenly(count: int, most: int) -> list[int]:
    """At most that many of 0 .. count - 1, evenly, both ends included."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).round()).astype(int).tolist()
