"""What tells red from blue in the images of a camera: how strong its channels are in the training data.

A client that sends BGR to a policy that learned from RGB is told by images that are unlike all training images, and
like them with the channels exchanged. Scenes without colour, or of any colour, are like them either way, and another
light is unlike them either way: nothing is said of those.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from wamkit_client.types import BadInput

from wamkit.data.clips import Clips

FRAMES = 24
"""Of each camera, that are looked at."""
LEAST = 0.01
"""Deviation of a strength, of [0, 1], below which lamps, lenses and resizing differ too."""
UNLIKE, LIKE = 3.0, 2.0
"""Deviations from the training images."""
PIXELS = 1024
"""About as many of an image are looked at."""
EXCHANGED = np.array([2, 1, 0, 5, 4, 3])


@dataclass(frozen=True)
class Colours:
    """Of a camera's training images: mean and deviation of `strengths`, one number each."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, images: Sequence[np.ndarray]) -> Colours:
        """Of uint8 RGB images [h, w, 3], at least one."""
        rows = np.stack([strengths(image) for image in images])
        return cls(tuple(map(float, rows.mean(0).round(5))), tuple(map(float, rows.std(0).round(5))))

    def exchanged(self, image: np.ndarray) -> bool:
        """Whether red and blue of an image look exchanged."""
        seen = strengths(image)
        return self._distance(seen) > UNLIKE and self._distance(seen[EXCHANGED]) < LIKE

    def _distance(self, seen: np.ndarray) -> float:
        scale = np.maximum(self.std, LEAST)
        return float(np.sqrt(np.square((seen - self.mean) / scale).mean()))


def strengths(image: np.ndarray) -> np.ndarray:
    """Of red, green and blue: the mean, then the deviation over the image, in [0, 1]: [6]."""
    step = max(1, int((image.shape[0] * image.shape[1] / PIXELS) ** 0.5))
    pixels = image[::step, ::step].reshape(-1, 3).astype(np.float32) / 255
    return np.concatenate([pixels.mean(0), pixels.std(0)])


def colours_of(sources: Sequence[Clips]) -> dict[str, dict[str, Colours]]:
    """By robot and by the policy's name of a camera, from frames all over the episodes that are trained on.

    Raises BadInput where frames cannot be read.
    """
    images: dict[str, dict[str, list[np.ndarray]]] = {}
    for clips in sources:
        own = images.setdefault(clips.dataset.robot_type, {})
        for view, name in clips.names.items():
            own.setdefault(name, []).extend(_frames(clips, view))
    return {robot: {name: Colours.of(seen) for name, seen in own.items()} for robot, own in images.items()}


def _frames(clips: Clips, view: str) -> Iterator[np.ndarray]:
    episodes = clips.episodes
    chosen = np.linspace(0, len(episodes) - 1, min(FRAMES, len(episodes))).round().astype(int)
    each = -(-FRAMES // len(chosen))  # frames of an episode
    for episode in (episodes[place] for place in chosen):
        steps = np.linspace(0, episode.length - 1, each + 2)[1:-1].round().astype(int)
        yield from clips.dataset.frames(view, episode.index, steps.tolist())


def read_colours(saved: Any, where: str) -> dict[str, dict[str, Colours]]:
    """As `written`. BadInput for anything else."""
    try:
        return {
            str(robot): {str(view): _read(one) for view, one in own.items()} for robot, own in saved.items()
        }
    except (AttributeError, TypeError, ValueError, KeyError):
        raise BadInput(
            f"{where}: expected mean and std of six numbers for each camera of each robot; restore it from a copy"
        ) from None


def written(colours: Mapping[str, Mapping[str, Colours]]) -> dict[str, Any]:
    """As JSON has it."""
    return {robot: {view: vars(one) for view, one in own.items()} for robot, own in colours.items()}


def _read(saved: Any) -> Colours:
    mean, std = (tuple(map(float, saved[name])) for name in ("mean", "std"))
    if not len(mean) == len(std) == 6 or not np.isfinite([mean, std]).all():
        raise ValueError
    return Colours(mean, std)
