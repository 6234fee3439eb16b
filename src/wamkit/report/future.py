"""The imagined future beside the recorded one (Light-WAM's figure 3, top), with the numbers that keep it honest.

At queries of recorded episodes the policy imagines the window it was trained on, from the present picture alone.
PSNR against the recorded canvas is given beside two references: the present picture repeated, which is the future of
a world that stands still, and the recorded future through the policy's codec, which no prediction can be expected to
exceed. It does not know how a policy imagines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from wamkit.data.canvas import tile
from wamkit.report.markup import Section, block, escape, paragraphs, picture, table
from wamkit.report.recordings import NONE, Recording
from wamkit.types import Clip, DataSpec, Inputs
from wamkit.wan.encoders import Codec


class ImaginingPolicy(Protocol):
    """What this section asks of a policy. Pictures are in [-1, 1] and may be smaller than the canvas."""

    data: DataSpec
    codec: Codec

    def encode(self, clip: Clip) -> Inputs:
        """Latents of the present and, pooled, of what follows."""

    def pool(self, latents: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b c f hp wp"]:
        """Latents at the resolution of the imagined ones."""

    def imagine(
        self,
        inputs: Inputs,
        embodiments: tuple[str, ...],
        frames: int,
        steps: int,
        generator: torch.Generator,
    ) -> Float[Tensor, "b 3 t H W"]:
        """Present and `frames` future latents, sampled and decoded."""


@dataclass(frozen=True)
class FutureConfig:
    """steps: Euler steps per imagined clip.  samples: imagined per moment; one is shown, and their mean (if several).
    pictures: how many moments of the window are shown, its last among them.
    batch: clips imagined at a time.  seed: of the noise."""

    steps: int = 10
    samples: int = 8
    pictures: int = 4
    batch: int = 8
    seed: int = 0


@dataclass(frozen=True)
class Moment:
    """A query of a recorded episode whose whole window was recorded."""

    recording: Recording
    step: int


@dataclass(frozen=True)
class Futures:
    """n moments, t frames of the window with the present first, in [-1, 1] on the canvas.

    imagined, references: ways to guess the future, by name, in the order they are shown.
    size: height and width of the imagined pictures before they were enlarged to the canvas.
    """

    recorded: Float[Tensor, "n 3 t H W"]
    imagined: Mapping[str, Float[Tensor, "n 3 t H W"]]
    references: Mapping[str, Float[Tensor, "n 3 t H W"]]
    size: tuple[int, int]

    def squared_errors(self) -> dict[str, Float[Tensor, "n t"]]:
        """Of each guess."""
        guesses = {**self.imagined, **self.references}
        return {name: (guess - self.recorded).square().mean(dim=(1, 3, 4)) for name, guess in guesses.items()}


def moments(recording: Recording, window: int) -> list[Moment]:
    """Every query of the episode that was followed by `window` recorded steps."""
    return [
        Moment(recording, int(step)) for step in recording.query_steps if step + window <= recording.steps
    ]


def shown_moment(found: Sequence[Moment]) -> Moment:
    """The first after a third of the episode, or the last there is."""
    third = found[0].recording.steps / 3
    return next((moment for moment in found if moment.step >= third), found[-1])


@torch.no_grad()
def look_ahead(policy: ImaginingPolicy, found: Sequence[Moment], config: FutureConfig) -> Futures:
    """Let the policy imagine every moment."""
    generator = torch.Generator().manual_seed(config.seed)
    parts = [
        _look_ahead(policy, found[i : i + config.batch], config, generator)
        for i in range(0, len(found), config.batch)
    ]
    recorded, sample, mean, coded = (torch.cat(clips) for clips in zip(*parts, strict=True))
    imagined = {"one sample": sample}
    if config.samples > 1:
        imagined[f"mean of {config.samples}"] = mean
    return Futures(
        recorded=recorded,
        imagined={name: _enlarged(video, recorded) for name, video in imagined.items()},
        references={
            "present repeated": recorded[:, :, :1].expand_as(recorded),
            "recorded, through the codec": _enlarged(coded, recorded),
        },
        size=(sample.shape[3], sample.shape[4]),
    )


def _look_ahead(
    policy: ImaginingPolicy, found: Sequence[Moment], config: FutureConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Recorded canvas; one imagined sample, the mean of all, and the recorded clip through the codec."""
    window = join([m.recording.clip(m.step, policy.data.frame_offsets, policy.data.views) for m in found])
    now = join([m.recording.clip(m.step, (0,), policy.data.views) for m in found])
    whole, present = policy.encode(window), policy.encode(now)
    frames = whole.future.shape[2]
    sample = policy.imagine(present, now.embodiments, frames, config.steps, generator).float()
    total = sample.clone()
    for _ in range(config.samples - 1):
        total += policy.imagine(present, now.embodiments, frames, config.steps, generator).float()
    coded = policy.codec.decode(torch.cat([policy.pool(whole.present), whole.future], dim=2)).float()
    mean = total / config.samples
    return tile(window.views, policy.data), sample.cpu(), mean.cpu(), coded.cpu()


def join(clips: Sequence[Clip]) -> Clip:
    """Clips of equal shapes as one batch."""
    return Clip(
        views={view: torch.cat([clip.views[view] for clip in clips]) for view in clips[0].views},
        proprio=torch.cat([clip.proprio for clip in clips]),
        instructions=tuple(text for clip in clips for text in clip.instructions),
        embodiments=tuple(name for clip in clips for name in clip.embodiments),
    )


def _enlarged(
    video: Float[Tensor, "n 3 t h w"], like: Float[Tensor, "n 3 t H W"]
) -> Float[Tensor, "n 3 t H W"]:
    if video.shape == like.shape:
        return video.clamp(-1, 1)
    frames = video.transpose(1, 2).flatten(0, 1)
    large = F.interpolate(frames, like.shape[-2:], mode="bicubic", align_corners=False)
    return large.unflatten(0, (len(video), -1)).transpose(1, 2).clamp(-1, 1)


def psnr(squared_error: float) -> str:
    """In dB, for pixels in [-1, 1]."""
    return "∞" if squared_error == 0 else f"{10 * np.log10(4 / squared_error):.1f}"


def future(policy: ImaginingPolicy, recordings: Sequence[Recording], config: FutureConfig) -> Section:
    """A strip per recording and a table over all moments of all recordings."""
    if not recordings:
        return Section("future", "Imagined future", paragraphs(NONE))
    offsets = policy.data.frame_offsets
    found = [moments(recording, offsets[-1]) for recording in recordings]
    notes = [
        _too_short(recording, offsets[-1])
        for recording, own in zip(recordings, found, strict=True)
        if not own
    ]
    everything = [moment for own in found for moment in own]
    if not everything:
        return Section("future", "Imagined future", paragraphs(*notes))
    futures = look_ahead(policy, everything, config)
    shown = shown_frames(len(offsets), config.pictures)
    strips = [
        _strip(futures, everything.index(moment), moment, policy.data, shown)
        for moment in (shown_moment(own) for own in found if own)
    ]
    body = paragraphs(_explanation(futures, config)) + "".join(strips)
    body += f"<h3>All moments <small>{len(everything)} queries of the episodes above</small></h3>"
    body += _table(futures, [offsets[i] for i in shown], shown) + block(
        "div", "note", paragraphs(_NOTE, *notes)
    )
    return Section("future", "Imagined future", body)


_NOTE = (
    "PSNR of the mean squared error over the whole canvas; higher is better. Most of a scene stands still, so the "
    "present picture repeated is hard to beat; the codec loses detail even when the future is known."
)


def _too_short(recording: Recording, window: int) -> str:
    return (
        f"{recording.task}, seed {recording.seed}: the episode has {recording.steps} steps, fewer than the window "
        f"of {window}; it is not shown."
    )


def _table(futures: Futures, offsets: Sequence[int], shown: Sequence[int]) -> str:
    rows = []
    for name, error in futures.squared_errors().items():
        title = f"imagined, {name}" if name in futures.imagined else name
        rows.append((escape(title), *(psnr(float(error[:, i].mean())) for i in shown)))
    return table(("PSNR in dB", *(f"+{offset} steps" for offset in offsets)), rows)


def _explanation(futures: Futures, config: FutureConfig) -> str:
    height, width = futures.recorded.shape[-2:]
    size = f"{futures.size[0]}×{futures.size[1]} pixels"
    if futures.size != (height, width):
        size += f", enlarged here to the canvas of {height}×{width}"
    text = (
        "At a query of each episode above, the policy imagines what its cameras will see, from the present picture, "
        "the instruction and its proprioception. Above it stands what they saw when the episode went on. Each sample "
        f"begins from other noise and takes {config.steps} Euler steps; pictures of {size}."
    )
    if config.samples > 1:
        text += " The mean of samples is what the policy expects: what it is unsure of is blurred."
    return text


def shown_frames(frames: int, pictures: int) -> list[int]:
    """Indices that divide a window of `frames` (the present first) into `pictures` equal parts, the last included."""
    return sorted({round((frames - 1) * (i + 1) / pictures) for i in range(pictures)} - {0})


def _strip(futures: Futures, n: int, moment: Moment, data: DataSpec, shown: Sequence[int]) -> str:
    """What was recorded above what was imagined, moment n of the futures."""
    task, seed = moment.recording.task, moment.recording.seed
    frames = (0, *shown)
    names = [f"+{data.frame_offsets[i]} steps<br>{data.frame_times[i]:g} s" for i in shown]
    cells = ["<span></span>", *(block("span", "head", name) for name in ("now", *names))]
    for label, video in {"recorded": futures.recorded, **futures.imagined}.items():
        side = label if label == "recorded" else f"imagined<small>{escape(label)}</small>"
        cells.append(block("span", "side", side))
        cells += [picture(pixels(video[n, :, i]), f"{task}, {label}, frame {i}") for i in frames]
    errors = futures.squared_errors()
    for name in (*futures.imagined, "present repeated"):
        label = f"{name}, PSNR in dB" if name == "one sample" else name
        cells.append(block("span", "label", escape(label)))
        cells += [block("span", "number", psnr(float(errors[name][n, i]))) for i in shown]
    columns = f"grid-template-columns:74px repeat({len(frames)},1fr)"
    title = f"<h3>{escape(task)} <small>seed {seed}, from step {moment.step}</small></h3>"
    strip = f'<div class="strip" style="{columns}">{"".join(cells)}</div>'
    return title + block("div", "strip-scroll", strip)


def pixels(frame: Float[Tensor, "3 h w"]) -> np.ndarray:
    """[-1, 1] -> uint8 RGB [h, w, 3]."""
    return ((frame + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
