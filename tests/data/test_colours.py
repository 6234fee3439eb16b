"""Red and blue exchanged are noticed where images have a colour of their own; nothing else is taken for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from wamkit_client.types import BadInput

from tests.tiny_dataset import RUN, write
from wamkit.data.colours import Colours, colours_of, read_colours, strengths, written
from wamkit.stages.run import open_clips

RNG = np.random.default_rng(0)


def scene(red: float, green: float, blue: float, light: float = 1.0, size: int = 96) -> np.ndarray:
    """A wall of a colour, which a robot in front of it casts shadows on."""
    shade = RNG.uniform(0.5, 1.0, (6, 6)).repeat(size // 6, 0).repeat(size // 6, 1)[..., None]
    image = shade * np.array([red, green, blue]) * light * RNG.uniform(0.95, 1.05)
    return (255 * image.clip(0, 1)).astype(np.uint8)


def shares(colours: Colours, images: list[np.ndarray]) -> tuple[float, float]:
    """Of images as they are, and with red and blue exchanged, how many look exchanged."""
    return tuple(
        np.mean([colours.exchanged(one[..., order]) for one in images]) for order in ([0, 1, 2], [2, 1, 0])
    )


def test_a_scene_of_a_colour_tells() -> None:
    colours = Colours.of([scene(0.8, 0.6, 0.4) for _ in range(24)])
    for size in (96, 192):
        false, found = shares(colours, [scene(0.8, 0.6, 0.4, size=size) for _ in range(50)])
        assert false == 0 and found > 0.9


@pytest.mark.parametrize(
    "other",
    [
        lambda: scene(0.6, 0.6, 0.6),  # grey
        lambda: scene(0.8, 0.6, 0.4, light=0.3),  # the lamp is off
        lambda: scene(0.65, 0.6, 0.65),  # bluer light
        lambda: scene(0.2, 0.9, 0.2),  # another scene
        lambda: np.zeros((96, 96, 3), np.uint8),
        lambda: RNG.integers(0, 256, (96, 96, 3), np.uint8),
    ],
)
def test_what_is_merely_unlike_is_not_taken_for_it(other) -> None:
    colours = Colours.of([scene(0.8, 0.6, 0.4) for _ in range(24)])
    assert shares(colours, [other() for _ in range(20)])[0] == 0


def test_scenes_of_all_colours_and_of_none_tell_nothing() -> None:
    grey = Colours.of([scene(0.6, 0.6, 0.6) for _ in range(24)])
    assert shares(grey, [scene(0.6, 0.6, 0.6) for _ in range(50)]) == (0, 0)
    some = [scene(*RNG.uniform(0.2, 0.9, 3)) for _ in range(24)]
    assert shares(Colours.of(some), some) == (0, 0)


def test_they_are_of_the_training_images(tmp_path: Path) -> None:
    """Of every camera, by the robot's name, and they survive JSON."""
    clips = open_clips(RUN, [write(tmp_path / "dataset", [9, 12, 9])])
    found = colours_of(clips)
    ((robot, own),) = found.items()
    assert robot == "robot" and list(own) == list(RUN.data.views)
    frames = [
        frame
        for e in clips[0].episodes
        for frame in clips[0].dataset.frames("front", e.index, range(e.length))
    ]
    assert np.allclose(own["front"].mean, np.mean([strengths(frame) for frame in frames], 0), atol=0.05)
    assert not any(own["front"].exchanged(frame) for frame in frames)
    assert read_colours(written(found), "here") == found


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        {"robot": []},
        {"robot": {"front": {"mean": [0.0] * 6}}},
        {"robot": {"front": {"mean": [0] * 5, "std": [0] * 5}}},
    ],
)
def test_damaged_ones_are_refused(wrong) -> None:
    with pytest.raises(BadInput, match="here: expected mean and std of six numbers"):
        read_colours(wrong, "here")
