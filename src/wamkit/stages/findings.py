"""What looks wrong in what a policy is shown, one sentence each. Suspicions, not proofs.

It sees only what numbers can tell. Swapped colour channels, a rotated camera or two exchanged views look like any
other image to it: those are for the reader of the page (report/inspection.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from wamkit.data.clips import Clips
from wamkit.data.evidence import Recording, contradictions
from wamkit.data.normalize import LIMIT
from wamkit.io.progress import warn
from wamkit.report.seen import PIXEL_STEP, Field, Prompt, Seen

DARK, FLAT, ALIKE = 10 * PIXEL_STEP, 4 * PIXEL_STEP, 2.5 * PIXEL_STEP
RARE = 0.01
"""A gripper that spends a smaller share of the steps on one side of its middle (almost) never goes there."""

FAR, NARROW = 1.1, 0.1
"""Unit range that data of a run's own robot hardly leaves, and the least width it is expected to use."""

LARGE = 20.0
"""No joint angle in radians and no place on a table in metres is larger."""


def findings(seen: Seen) -> list[str]:
    """All suspicions, images first; an empty list where nothing was found."""
    found = [*_images(seen), *_robot(seen), *([seen.broken] if seen.broken else [])]
    for field in seen.fields:
        found += [
            f"{field.field} {i} ({name}){sentence}"
            for i, name in enumerate(field.names)
            for rule in RULES
            if (sentence := rule(field, i, seen))
        ]
    return [*found, *seen.contradictions, *_chunks(seen), *_words(seen.prompts)]


def warn_of_kinds(sources: Sequence[Clips]) -> None:
    """A warning for each action dimension whose numbers speak against its kind."""
    for clips in sources:
        for sentence in contradictions(clips.space, Recording.of(clips.dataset)):
            warn(f"{clips.dataset.where}: {sentence}")


# images


def _dark(images: Tensor) -> bool:
    return float(images.mean()) + 1 < DARK


def _flat(images: Tensor) -> bool:
    return float(images.flatten(2).std(dim=2).max()) < FLAT


def _grey(images: Tensor) -> bool:
    return float((images.amax(dim=1) - images.amin(dim=1)).mean()) < PIXEL_STEP


def _frozen(images: Tensor) -> bool:
    return len(images) > 1 and float((images - images[:1]).abs().mean(dim=(1, 2, 3)).max()) < PIXEL_STEP / 4


# The first that holds; a black image is also flat, grey and frozen.
VIEW_RULES: tuple[tuple[Callable[[Tensor], bool], str], ...] = (
    (_dark, "is nearly black; is the camera (or its light) on, and are the pixels uint8 0..255?"),
    (_flat, "is nearly one colour everywhere; does the camera see the scene?"),
    (_frozen, "is the same image in every frame looked at; did the camera record while the robot moved?"),
    (_grey, "has no colour; policies are shown RGB, is this a depth or infrared image?"),
)
COPIES: dict[str, Callable[[Tensor], Tensor]] = {
    "the same as": lambda x: x,
    "rotated by 180 degrees, otherwise the same as": lambda x: x.flip(2, 3),
    "mirrored, otherwise the same as": lambda x: x.flip(3),
}


def _images(seen: Seen) -> Iterator[str]:
    small = {}
    for view in seen.views:
        wrong = next((text for rule, text in VIEW_RULES if rule(view.frames)), "")
        if wrong:
            yield f"view {view.name!r} {wrong}"
        else:
            small[view.name] = F.adaptive_avg_pool2d(view.frames, 16)
    for one, other in combinations(small, 2):
        for how, changed in COPIES.items():
            if float((changed(small[one]) - small[other]).abs().mean()) < ALIKE:
                yield f"view {one!r} is {how} {other!r}; is one camera recorded under two names?"
                break


# numbers; each rule completes the sentence "action 2 (gripper)...", or is "" where nothing is wrong


def _robot(seen: Seen) -> Iterator[str]:
    if seen.robot not in seen.known:
        yield (
            f"the dataset's robot is {seen.robot!r}, the run knows {', '.join(map(repr, seen.known))}: it refuses "
            "such observations; correct robot_type in meta/info.json if it is the same robot, else train on this one"
        )


def _still(field: Field, i: int, seen: Seen) -> str:
    if field.moves(i):
        return ""
    leave_out = "leave it out, or record data in which it moves"
    remedy = leave_out if field.field == "action" else "is it recorded?"
    return f" is always {field.stats.min[i]:.4g}: {remedy}"


def _large(field: Field, i: int, seen: Seen) -> str:
    largest = max(abs(field.stats.min[i]), abs(field.stats.max[i]))
    # What a run knows is compared with its own data instead.
    if largest <= LARGE or (seen.trained and len(field.unit)):
        return ""
    return f" reaches {largest:.4g}: degrees, millimetres or counts? Metres and radians are expected"


def _gripper(field: Field, i: int, seen: Seen) -> str:
    if field.kinds[i] != "gripper" or not field.moves(i) or not len(field.unit):
        return ""
    command, middle = field.values[:, i], (field.low[i] + field.high[i]) / 2
    for side, share in (
        ("below", float((command < middle).mean())),
        ("above", float((command > middle).mean())),
    ):
        if share < RARE:
            how = "never" if share == 0 else f"in only {100 * share:.2g} % of the steps"
            whose = "the run's middle" if seen.trained else "its middle"
            return (
                f" is {how} {side} {whose} ({middle:.3g}): does it open and close, and are sign and range those of the "
                "robot?"
            )
    return ""


def _misnamed(field: Field, i: int, seen: Seen) -> str:
    """The dataset says which dimension is a gripper, or which way it counts, and the recipe says another."""
    name, ours = field.recorded_as[i].lower(), field.names[i].lower()
    if field.field != "action" or not name or not any("grip" in other.lower() for other in field.recorded_as):
        return ""
    if ("grip" in name) == (field.kinds[i] == "gripper"):
        if ("closing" in name) == ("closing" in ours):
            return ""
        return f" is called {field.recorded_as[i]!r} in the dataset: does a high command open or close it?"
    return (
        f" is of kind {field.kinds[i]!r} in the recipe, and the dataset calls it {field.recorded_as[i]!r}: is the "
        "order of the dimensions the same?"
    )


def _far(field: Field, i: int, seen: Seen) -> str:
    """Of a run: numbers that its own data did not have."""
    if not seen.trained or not len(field.unit):
        return ""
    unit, stats = field.unit[:, i], field.stats
    clamped, outside = 100 * field.beyond(i, LIMIT), 100 * field.beyond(i, FAR)
    here, there = f"{stats.min[i]:.4g} .. {stats.max[i]:.4g}", f"{field.low[i]:.4g} .. {field.high[i]:.4g}"
    ranges = f"(here {here}; the run's -1 .. 1 is {there})"
    if clamped:
        return f": {clamped:.3g} % of the steps are clamped at ±{LIMIT:g} {ranges}: other units, or another robot?"
    if field.mode == "min_max" and outside > 100 * RARE:
        return f": {outside:.3g} % of the steps lie outside of what the run was trained on {ranges}"
    if field.moves(i) and np.ptp(unit) < NARROW:
        used = f"{50 * np.ptp(unit):.2g} % of the range"
        return f" uses only {used} the run was trained on {ranges}: other units?"
    return ""


Rule = Callable[[Field, int, Seen], str]
RULES: tuple[Rule, ...] = (_still, _large, _gripper, _misnamed, _far)


def _chunks(seen: Seen) -> Iterator[str]:
    if seen.padded_actions > 0.5:
        yield (
            f"{100 * seen.padded_actions:.0f} % of the actions in chunks lie past an episode's end and are padding: "
            "are the episodes cut, or is chunk_seconds too long?"
        )
    measured = seen.open_loop
    if measured.samples and not np.isfinite(measured.error).all():
        yield (
            "the policy's predictions are not finite numbers: are its weights what training left, and is the video "
            "model that it is built on whole?"
        )
    for i, name in enumerate(seen.space.names if measured.samples else ()):
        r, error, constant = measured.correlation[i], measured.error[i], measured.constant_error[i]
        if r < -0.5:
            yield (
                f"action {i} ({name}): predictions run against what was recorded (correlation {r:.2f}): is the sign "
                "that of the run's data?"
            )
        elif error >= constant > 0:
            errors = f"mean error {error:.3g}, of the constant {constant:.3g}"
            yield f"action {i} ({name}): the policy predicts it no better than a constant would ({errors})"


# words


def _words(prompts: tuple[Prompt, ...]) -> Iterator[str]:
    for prompt in prompts:
        text = prompt.instruction.strip()
        if " " not in text and any(mark in text for mark in "_-"):
            yield f"instruction {text!r} looks like a name, not like words; policies are told what to do in a sentence"
    wrong = [prompt for prompt in prompts if prompt.problem]
    if wrong:
        others = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        yield f"instruction {wrong[0].instruction!r}{others}: {wrong[0].problem}"
