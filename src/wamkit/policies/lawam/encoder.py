"""The frozen half of LaWAM's policy: features of the main view, tokens of the prompt, and the teacher's latent action.

Views stay separate images, which the prior takes as bytes (LaWAM spec 2.1). Of training samples, which have a later
frame, it also says which latent action leads there (spec 2.3); only then is the teacher read, so acting needs neither
its weights nor the directory of stage 1.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from wamkit_client.types import BadInput

from wamkit.data.device_canvas import carried
from wamkit.policies.base import EncoderFacts, FrozenEncoder, unchanged
from wamkit.policies.lawam.features import Features, FeaturesConfig
from wamkit.policies.lawam.fused_features import Fused, fused
from wamkit.policies.lawam.images import squeezed
from wamkit.policies.lawam.latent_action import LatentSize
from wamkit.policies.lawam.prior import FromQwen, FromScratch
from wamkit.policies.lawam.prompt import Prompt, PromptConfig, example
from wamkit.policies.lawam.stage1 import Stage1
from wamkit.spans import Span
from wamkit.tree import Tree, tree_cat, tree_map
from wamkit.types import ActingEncoder, DataSpec
from wamkit.wan.prompts import PROMPTS
from wamkit.wan.prompts import Prompt as Shown

KEPT_PROMPTS = 4096
"""Prompts that stay on the device; one takes some KiB."""


@dataclass(frozen=True)
class Squeeze:
    """Views of any size -> those of the spec: "images" uint8 [b v h w 3] of the present, "later" uint8 [b t h w 3] of
    the main view's frames after it. Pickled to worker processes."""

    data: DataSpec

    def __call__(self, views: Tree, generator: torch.Generator) -> Tree:
        size = self.data.view_height, self.data.view_width
        missing = [name for name in self.data.views if name not in views]
        if missing:
            raise BadInput(
                f"camera {missing[0]!r} is missing; expected {list(self.data.views)}, got {list(views)}"
            )
        main = views[self.data.views[0]]
        later = main[:, 1:].flatten(0, 1)
        return {
            "images": torch.stack([squeezed(views[name][:, 0], *size) for name in self.data.views], dim=1),
            "later": squeezed(later, *size).unflatten(0, (len(main), -1)),
        }


class LaWAMEncoder(FrozenEncoder):
    """See the module docstring."""

    def __init__(self, features: Features, prompt: Prompt, stage1: Stage1, data: DataSpec) -> None:
        self.features, self.stage1, self.data = features, stage1, data
        self._prompts = Prompts(prompt)

    @property
    def prepare(self) -> Squeeze:
        """Cuts and squeezes the views; nothing is drawn."""
        return Squeeze(self.data)

    @property
    def fingerprint(self) -> Mapping[str, str]:
        """Names features, prompt, images and teacher."""
        size = f"{self.data.view_height}x{self.data.view_width}"
        return {
            "features": self.features.fingerprint,
            "prompt": self._prompts.fingerprint,
            "images": f"{', '.join(self.data.views)} at {size}",
            "teacher": self.stage1.fingerprint,
        }

    @torch.no_grad()
    def frames(self, prepared: Tree) -> Tree:
        """-> "images" uint8 [b v h w 3] of the present, "features" [b t s d] of the main view's frames and, of pairs,
        "code" [b e]: the latent action of the teacher."""
        images, later = (prepared[name].to(self.device) for name in ("images", "later"))
        seen = torch.cat([images[:, :1], later], dim=1)
        features = self.features(seen.flatten(0, 1)).unflatten(0, seen.shape[:2])
        return {"images": images, "features": features} | (self._code(features) if later.shape[1] else {})

    def _code(self, pair: Tensor) -> Tree:
        return {"code": self.stage1.teacher.to(self.device)(pair)}

    def text(self, instructions: Sequence[str]) -> Tree:
        """As `Prompts`."""
        return self._prompts(instructions)

    @property
    def passes(self) -> tuple[str, ...]:
        """device_images: views are cut and squeezed where the features are. bare_prompts: without padding.
        fused_features: see fused_features.py."""
        return "device_images", "bare_prompts", "fused_features"

    def acting(self, passes: Collection[str], precision: torch.dtype | None = None) -> ActingEncoder:
        """With these passes. precision: of the fused features."""
        if not passes:
            return self
        prepare: Callable[[Tree, torch.Generator], Tree] = Squeeze(self.data)
        squeeze: Callable[[Tree], Tree] = _as_it_is
        text = self._prompts.bare if "bare_prompts" in passes else self._prompts
        if "device_images" in passes:
            prepare, squeeze = unchanged, partial(_squeezed_on, self.device, Squeeze(self.data))
        features: Fused = self.features
        if "fused_features" in passes:
            features = fused(self.features, self.data.view_height, self.data.view_width, precision)
        return PresentEncoder(features, prepare, squeeze, text, self.device)

    def to(self, device: torch.device) -> LaWAMEncoder:
        """On `device`, in place."""
        super().to(device)
        self.features.to(device)
        self._prompts.to(device)
        return self


@dataclass(frozen=True)
class PresentEncoder:
    """A LaWAMEncoder that sees one frame, without a teacher. squeeze: what `prepare` left to be done on the device."""

    features: Fused
    prepare: Callable[[Tree, torch.Generator], Tree]
    squeeze: Callable[[Tree], Tree]
    text: Callable[[Sequence[str]], Tree]
    device: torch.device

    @torch.no_grad()
    def frames(self, prepared: Tree) -> Tree:
        """-> "images" uint8 [b v h w 3] and "features" [b 1 s d] of the main view."""
        with Span("images"):
            images = self.squeeze(prepared)["images"].to(self.device)
        return {"images": images, "features": self.features(images[:, 0])[:, None]}


def _as_it_is(prepared: Tree) -> Tree:
    return prepared


def _squeezed_on(device: torch.device, squeeze: Squeeze, views: Tree) -> Tree:
    return squeeze(carried(views, device), torch.Generator())


class Prompts:
    """Instructions -> what `Prompt.encode` says of them, on the device; each distinct one is tokenised once.

    The last KEPT_PROMPTS stay on the device.
    """

    def __init__(self, prompt: Prompt) -> None:
        self._prompt, self._device = prompt, torch.device("cpu")
        # rows and their length, which need not be asked of the device
        self._kept: dict[str, tuple[Tree, int]] = {}

    @property
    def fingerprint(self) -> str:
        """That of the prompt."""
        return self._prompt.fingerprint

    def __call__(self, instructions: Sequence[str]) -> Tree:
        """With the padding of all prompts."""
        return tree_cat([rows for rows, _ in self._of(instructions)])

    def bare(self, instructions: Sequence[str]) -> Tree:
        """Tokens up to the longest of these prompts; no token sees what is behind it."""
        found = self._of(instructions)
        rows = tree_cat([rows for rows, _ in found])
        return rows | {"tokens": rows["tokens"][:, : max(length for _, length in found)]}

    def to(self, device: torch.device) -> None:
        """Move what is kept, and keep it there from now on."""
        self._device = device
        self._kept = {text: (self._moved(rows), length) for text, (rows, length) in self._kept.items()}

    def _of(self, instructions: Sequence[str]) -> list[tuple[Tree, int]]:
        for text in dict.fromkeys(instructions):
            if text not in self._kept:
                rows = self._prompt.encode([text])
                self._kept[text] = self._moved(rows), int(rows["length"])
        found = [self._kept[text] for text in instructions]
        for oldest in list(self._kept)[:-KEPT_PROMPTS]:
            del self._kept[oldest]
        return found

    def _moved(self, rows: Tree) -> Tree:
        return tree_map(lambda x: x.to(self._device), rows)


def example_inputs(
    features: FeaturesConfig, latent: LatentSize, prompt: PromptConfig, data: DataSpec, batch: int
) -> Tree:
    """Zeros in the shapes of what the encoder returns for a training batch."""
    height, width, frames = data.view_height, data.view_width, len(data.frame_times)
    rows, columns = features.grid(height, width)
    return {
        "images": torch.zeros(batch, len(data.views), height, width, 3, dtype=torch.uint8),
        "features": torch.zeros(batch, frames, rows * columns, features.dim),
        "code": torch.zeros(batch, latent.code),
        **example(prompt, data, batch),
    }


def encoder_facts(
    features: FeaturesConfig,
    prompt: PromptConfig,
    start: FromQwen | FromScratch,
    data: DataSpec,
    instructions: Sequence[str],
) -> EncoderFacts:
    """What becomes of instructions on this machine, and why the policy cannot be asked here, where it cannot."""
    missing = [why for why in map(_why_not, (features.load, start.expect_folder)) if why]
    shown: tuple[Shown, ...] = ()
    try:
        made = prompt.load(data)
        told = sorted((_shown(made, prompt.length, text) for text in instructions), key=_importance)
        shown = tuple(told[:PROMPTS])
    except BadInput as error:
        missing.append(str(error))
    return EncoderFacts(shown, no_codec="this policy has no video codec", missing="; ".join(missing))


def _why_not(load: Callable[[], object]) -> str:
    try:
        load()
    except BadInput as error:
        return str(error)
    return ""


def _shown(prompt: Prompt, rows: int, instruction: str) -> Shown:
    try:
        used = int(prompt.encode([instruction])["length"])
        return Shown(instruction, prompt.text(instruction), prompt.pieces(instruction), used, rows, "")
    except BadInput as error:
        return Shown(instruction, "", (), 0, rows, str(error))


def _importance(shown: Shown) -> tuple[bool, int]:
    """Those that cannot be encoded come first, then the longest, which fit the least."""
    return not shown.problem, -shown.used
