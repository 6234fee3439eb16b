"""An episode imagined from its first image to its end, window after window, beside what was recorded.

A window begins where the one before it ended: its last imagined image is decoded and encoded again as the present, for
a codec makes something else of a later frame than of a first one. At every imagined frame the policy acts on what it
imagines, and the actions move the proprio (analysis/motion.py), which world model and policy are told next. Video never
looks at actions, so the proprio is the only way in which they reach it. It does not know how a policy imagines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from wamkit_client.types import Observation

from wamkit.analysis.motion import Motion
from wamkit.data.canvas import as_bytes, tile, views_of
from wamkit.infer.engine import Engine
from wamkit.report.imagining import EULER_STEPS, ImaginingPolicy, coded, decoded, enlarged, squared_error
from wamkit.report.watched import Episode, join
from wamkit.tree import Tree
from wamkit.types import Clip

IMAGINED = "imagined throughout"
ONE_WINDOW = "one window at a time"
STILL = "first image repeated"
CODED = "recorded, through the codec"


@dataclass(frozen=True)
class Imagination:
    """n episodes at t frames, the first image first.

    steps [t]: control steps of the frames. frames [n]: how many of them lie in each episode; later ones repeat its
    last image and count for nothing. recorded, imagined (from the first image on): uint8, the canvas.
    errors: mean squared, of pixels in [-1, 1], by guess, after the first image.
    """

    episodes: Sequence[Episode]
    steps: list[int]
    frames: list[int]
    recorded: UInt8[np.ndarray, "n t H W 3"]
    imagined: UInt8[np.ndarray, "n t H W 3"]
    errors: Mapping[str, Float[Tensor, "n f"]]

    def of(self, episode: int) -> dict[str, list[float]]:
        """The errors of an episode, to its end."""
        return {name: own[episode, : self.frames[episode] - 1].tolist() for name, own in self.errors.items()}


def out_of_reach(engine: Engine[ImaginingPolicy], robot: str) -> str:
    """Why nothing can be imagined beyond a window, in a sentence; "" where it can."""
    spec = engine.spec(robot)
    gap = max(later - frame for frame, later in pairwise(spec.frame_offsets))
    if gap <= spec.horizon:
        return ""
    return (
        f"Imagined frames lie {gap} steps apart and a chunk has {spec.horizon} actions, which do not reach from one to "
        "the next: no whole episode can be imagined."
    )


def frame_steps(offsets: Sequence[int], length: int) -> list[int]:
    """Control steps of the first image and of all frames of as many windows as cover `length` steps."""
    window = offsets[-1]
    return [0, *(number * window + o for number in range(ceil(length / window)) for o in offsets[1:])]


def fitted(episodes: Sequence[Episode]) -> Motion:
    """How their robot moves."""
    return Motion.fit((episode.proprio, episode.actions) for episode in episodes)


@torch.no_grad()
def imagine_episodes(
    engine: Engine[ImaginingPolicy],
    episodes: Sequence[Episode],
    motion: Motion,
    seed: int = 0,
    steps: int = EULER_STEPS,
) -> Imagination:
    """All of them side by side; they are of one robot, at least one. seed: of the noise. steps: Euler steps per window.

    What lies beyond the end of an episode is imagined too, where another one is longer.
    """
    offsets = engine.spec(episodes[0].robot).frame_offsets
    shown = frame_steps(offsets, max(episode.steps for episode in episodes))
    watched = join([_frames(episode, shown, engine.policy.data.views) for episode in episodes])
    proprio = torch.from_numpy(np.stack([episode.proprio[_until(episode, shown)] for episode in episodes]))
    generator = torch.Generator().manual_seed(seed)
    first = _moment(watched, 0, proprio)
    start = tile(first.views, engine.policy.data)
    now, canvases, futures, errors = first, [start], [start], []
    for frame in range(0, len(shown) - 1, len(offsets) - 1):
        window = _cut(watched, slice(frame, frame + len(offsets)))
        canvas, inputs = tile(window.views, engine.policy.data), engine.query(window).inputs
        guesses = {
            IMAGINED: _imagined(engine, now, inputs, steps, generator),
            ONE_WINDOW: _imagined(engine, _moment(watched, frame, proprio), inputs, steps, generator),
            STILL: start.expand_as(canvas),
            CODED: coded(engine, inputs),
        }
        now = moved(engine, now, guesses[IMAGINED], motion)
        errors.append({name: squared_error(guess, canvas)[:, 1:] for name, guess in guesses.items()})
        canvases.append(canvas[:, :, 1:])
        futures.append(guesses[IMAGINED][:, :, 1:])
    return Imagination(
        episodes=episodes,
        steps=shown,
        frames=[sum(step <= episode.steps for step in shown) for episode in episodes],
        recorded=_pixels(canvases),
        imagined=_pixels(futures),
        errors={name: torch.cat([own[name] for own in errors], dim=1) for name in errors[0]},
    )


def _imagined(
    engine: Engine[ImaginingPolicy], present: Clip, inputs: Tree, steps: int, generator: torch.Generator
) -> Float[Tensor, "n 3 t H W"]:
    """A window. inputs: of one, which say how many latents it has."""
    frames = inputs["future"].shape[2]
    latents = engine.policy.imagine(engine.query(present), frames, steps, generator)
    return enlarged(engine, decoded(engine, latents))


def _pixels(videos: Sequence[Float[Tensor, "n 3 _ H W"]]) -> UInt8[np.ndarray, "n t H W 3"]:
    return np.concatenate([as_bytes(video).numpy() for video in videos], axis=1)


def moved(
    engine: Engine[ImaginingPolicy], now: Clip, imagined: Float[Tensor, "n 3 t H W"], motion: Motion
) -> Clip:
    """The moment at the end of an imagined window, of which `now` is the present.

    At every frame the policy is asked, and as many of its actions are executed as lie between it and the next.
    """
    spec, views = engine.spec(now.embodiments[0]), views_of(imagined, engine.policy.data)
    for frame, (step, later) in enumerate(pairwise(spec.frame_offsets)):
        chunks = engine.act(_observations(now, spec.views, noise_seed=step))
        states = [
            motion.after(proprio.numpy(), chunk.actions[: later - step])
            for proprio, chunk in zip(now.proprio, chunks, strict=True)
        ]
        images = {view: own[:, frame + 1 : frame + 2] for view, own in views.items()}
        now = replace(now, views=images, proprio=torch.from_numpy(np.stack(states)))
    return now


def _observations(now: Clip, cameras: Sequence[str], noise_seed: int) -> list[Observation]:
    """Of a clip of one frame; cameras: what the robot calls its views."""
    views = dict(zip(cameras, now.views.values(), strict=True))
    return [
        Observation(
            images={camera: frames[n, 0].numpy() for camera, frames in views.items()},
            proprio=now.proprio[n].numpy(),
            instruction=now.instructions[n],
            embodiment=now.embodiments[n],
            noise_seed=noise_seed,
        )
        for n in range(len(now.instructions))
    ]


def _frames(episode: Episode, shown: Sequence[int], views: Sequence[str]) -> Clip:
    return episode.clip(0, _until(episode, shown), views)


def _until(episode: Episode, shown: Sequence[int]) -> list[int]:
    """Steps of an episode, its last one in place of all that lie beyond."""
    return [min(step, episode.steps) for step in shown]


def _cut(clip: Clip, frames: slice) -> Clip:
    return replace(clip, views={view: own[:, frames] for view, own in clip.views.items()})


def _moment(clip: Clip, frame: int, proprio: Float[Tensor, "n t p"]) -> Clip:
    """What was recorded at a frame."""
    return replace(_cut(clip, slice(frame, frame + 1)), proprio=proprio[:, frame].float())
