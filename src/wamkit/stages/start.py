"""What a training begins with: what its recipe says, or the weights of another run (`wamkit train --init`).

A run that was begun with --init remembers it in its provenance, so that the flags may be omitted when it is resumed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from torch import nn
from wamkit_client.types import BadInput

from wamkit.config import (
    NORMALIZER_FILE,
    PROVENANCE_FILE,
    RUN_FILE,
    Run,
    diff,
    load_provenance,
    load_run,
    read,
)
from wamkit.data.clips import Clips
from wamkit.data.normalize import Normalizer
from wamkit.io.files import sha256
from wamkit.io.hub import local, reference_of
from wamkit.io.progress import say
from wamkit.io.tensors import load_strict, not_finite
from wamkit.io.weights import WEIGHTS, run_weights
from wamkit.policies import released_formats
from wamkit.stages.plan import meta_policy
from wamkit.train.checkpoint import latest, told_not_finite, trained_tensors
from wamkit.types import Trainable

NormalizerOf = Literal["kept", "refitted"]
AT_MOST = 5
"""Differences between two runs that a message names."""


class Start(Protocol):
    """Where weights and normalizer come from. facts: what provenance.json says of it."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """See above."""

    def normalizer(self, run: Run, sources: Sequence[Clips], fitted: Callable[[], Normalizer]) -> Normalizer:
        """Of the run. fitted: that of its own datasets."""

    def initialize(self, policy: Trainable, run: Run) -> None:
        """Put weights in place. Raises BadInput naming a missing file or key."""


@dataclass(frozen=True)
class FromRecipe:
    """As the policy's config says."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """Nothing that the run does not say."""
        return {}

    def normalizer(self, run: Run, sources: Sequence[Clips], fitted: Callable[[], Normalizer]) -> Normalizer:
        """Fitted to the datasets."""
        return fitted()

    def initialize(self, policy: Trainable, run: Run) -> None:
        """See Start."""
        policy.initialize()


@dataclass(frozen=True)
class FromRun:
    """The weights of another run.

    directory: its run directory. weights: sha256 of its weights. recipe: its recipe. keeps: whether its normalizer is
    kept or refitted to the new datasets. run_dir: of the run that begins, whose checkpoints need no other weights.
    """

    directory: Path
    weights: str
    recipe: str
    keeps: NormalizerOf
    run_dir: Path

    @property
    def facts(self) -> Mapping[str, Any]:
        """Under "init"."""
        about = {"run": reference_of(self.directory), "recipe": self.recipe, "weights": self.weights}
        return {"init": about | {"normalizer": self.keeps}}

    def normalizer(self, run: Run, sources: Sequence[Clips], fitted: Callable[[], Normalizer]) -> Normalizer:
        """That of the other run, or one fitted to the datasets. BadInput where the other does not fit these."""
        if self.keeps == "refitted":
            return fitted()
        # A run that has begun has a copy, and the other one may be gone.
        place = self.run_dir if (self.run_dir / NORMALIZER_FILE).exists() else local(self.directory)
        kept = Normalizer.from_json(read(place, NORMALIZER_FILE), str(place / NORMALIZER_FILE))
        for clips in sources:
            _expect_known(kept, self.directory, run, clips)
        return kept

    def initialize(self, policy: Trainable, run: Run) -> None:
        """Frozen weights as the policy's config says, the trained ones as the other run left them.

        Raises BadInput naming the tensors that do not fit, and in what the two runs differ.
        """
        policy.load_frozen()
        if latest(self.run_dir) is not None:
            return  # the checkpoint's weights follow
        directory = local(self.directory)
        if not (directory / WEIGHTS).is_file() or sha256(directory / WEIGHTS) != self.weights:
            raise BadInput(
                f"{self.run_dir}: was begun with --init {self.directory}, whose weights are missing or others by now; "
                "give --init with the place of that run, or begin in another --out"
            )
        _fill(policy, run, directory)
        differences = _differences(directory, run)
        told = f"; other than there: {differences}" if differences else ""
        say(f"begins with the weights of {self.directory} (recipe {self.recipe}){told}")


def start_of(init: Path, keeps: NormalizerOf, run: Run, run_dir: Path) -> Start:
    """What a run begins with, or has begun with.

    init: the directory that --init names; Path(): none. Raises BadInput where it is no run directory, one of another
    kind of policy, and where run_dir was begun otherwise.
    """
    begun = _begun(run_dir)
    if init == Path():
        return begun
    _expect_run(init, run)
    if init.resolve() == run_dir.resolve():
        raise BadInput(
            f"--init {init}: is --out too; omit the flag to resume that run, or choose another --out"
        )
    asked = FromRun(init, sha256(init / WEIGHTS), load_run(init).recipe, keeps, run_dir)
    if not (run_dir / PROVENANCE_FILE).exists():
        return asked
    match begun:
        case FromRun(weights=asked.weights, keeps=asked.keeps):
            return asked
        case FromRun(directory=directory, keeps=kept):
            how = f"with --init {directory} --init-normalizer {kept}"
        case _:
            how = "without --init"
    raise BadInput(f"{run_dir}: was begun {how}; omit the flags to resume it, or choose another --out")


def expect_fits(init: Path, run: Run) -> None:
    """BadInput where a run cannot begin with the weights of the directory `init`. Needs no memory for them."""
    _expect_run(init, run)
    _fill(meta_policy(run), run, init)


def _begun(run_dir: Path) -> Start:
    """What a run directory says that it was begun with."""
    facts = load_provenance(run_dir) if (run_dir / PROVENANCE_FILE).exists() else {}
    if "init" not in facts:
        return FromRecipe()
    init = facts["init"]
    return FromRun(Path(init["run"]), init["weights"], init["recipe"], init["normalizer"], run_dir)


def _expect_run(init: Path, run: Run) -> None:
    """BadInput where it is no finished run directory of this kind of policy."""
    kind = run.policy.kind
    if not (init / RUN_FILE).is_file():
        what = f"has no {RUN_FILE}" if init.is_dir() else "is a file" if init.exists() else "does not exist"
        convert = f"wamkit convert {kind.replace('_', '-')} FILE RUN --recipe RECIPE --stats STATISTICS"
        released = f"; released weights become one with `{convert}`" if kind in released_formats() else ""
        raise BadInput(f"--init {init}: {what}; expected a run directory that `wamkit train` wrote{released}")
    theirs = load_run(init)
    if theirs.policy.kind != kind:
        raise BadInput(
            f"--init {init}: is of {theirs.policy.kind}, recipe {run.recipe} is of {kind}; name a run of {kind}, or "
            f"a recipe of {theirs.policy.kind}"
        )
    run_weights(init)  # refuses a run that is not finished, or damaged


def _fill(policy: Trainable, run: Run, init: Path) -> None:
    module, weights = cast(nn.Module, policy), run_weights(init)
    untrained = module.state_dict().keys() - trained_tensors(module).keys()
    try:
        load_strict(module, weights, f"--init {init}", fresh=[re.escape(name) for name in untrained])
    except BadInput as error:
        differences = _differences(init, run)
        remedy = f"The runs differ: {differences}. Give recipe {run.recipe} those values, or name another run"
        raise BadInput(f"{error} {remedy}" if differences else str(error)) from error
    if broken := told_not_finite(not_finite(weights)):
        raise BadInput(f"{init / WEIGHTS}: {broken}")


def _differences(init: Path, run: Run) -> str:
    """What the run says otherwise than the one in `init`; "" for nothing."""
    changes = [c for c in diff(load_run(init), run) if c.startswith(("policy.", "data.", "actions."))]
    return "; ".join(changes[:AT_MOST]) + ("; ..." if len(changes) > AT_MOST else "")


def _expect_known(kept: Normalizer, init: Path, run: Run, clips: Clips) -> None:
    """BadInput where a normalizer was not made for the robot of these clips, or not as the run says."""
    robot, where = clips.dataset.robot_type, f"--init {init}: its normalizer"
    remedy = "or give --init-normalizer refitted"
    if robot not in kept.stats:
        known = ", ".join(map(repr, kept.stats))
        raise BadInput(
            f"{where} knows robot {known}, and {clips.dataset.where} is of {robot!r}; name another run, {remedy}"
        )
    expected = {"action": clips.spec.action_dim, "proprio": clips.spec.proprio_dim}
    found = {field: len(stats.min) for field, stats in kept.stats[robot].items()}
    if found != expected:
        raise BadInput(f"{where} has dimensions {found} of {robot!r}, the run has {expected}; {remedy[3:]}")
    if kept.modes != run.normalization.modes:
        flags = " ".join(f"--normalization.{field} {mode}" for field, mode in kept.modes.items())
        raise BadInput(
            f"{where} is {kept.modes}, the run says {run.normalization.modes}; give {flags}, {remedy}"
        )
    rules, own = kept.rules.get(robot, {}).get("action", {}), run.normalization.rules(clips.space)
    if rules != own:
        raise BadInput(
            f"{where} has rules {rules} for dimensions of {robot!r}, the run has {own}; change "
            f"--normalization.gripper or --actions.kinds, {remedy}"
        )
