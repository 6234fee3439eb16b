"""What a comparison consists of: recipes x seeds, the stages before them, where each run and its latents lie.

Rows must agree on the task and on which samples every step sees; how these are shown to a policy may differ, and then
its latents have a cache of their own. Nothing is trained or measured here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from wamkit_client.suites import Suite
from wamkit_client.types import BadInput

from wamkit.config import RUN, Run, build_encoder, diff, from_json, load_run, to_json
from wamkit.data.clips import Clips
from wamkit.eval.evaluate import RESULTS
from wamkit.io.differences import flatten
from wamkit.io.files import replace_file
from wamkit.io.records import read_record
from wamkit.recipes import earlier
from wamkit.report.results import Samples
from wamkit.stages import run as stages
from wamkit.stages.evaluation import chosen, results_folder

ROWS, CACHES, PAGE = "rows.json", "caches", "comparison.html"

# What rows must agree on: the task, and which samples every step sees.
SHARED = (
    "suite",
    *(
        f"data.{name}"
        for name in (
            "views",
            "hz",
            "chunk_seconds",
            "action_dim",
            "whole_windows",
            "sample_every",
            "held_out",
            "columns",
            "only.",
        )
    ),
    "actions.",
    "normalization.",
    "train.batch_size",
)
Equal = Literal["steps", "time"]
"""How long policies are trained. steps: equally many. time: as many as their recipes say, which are to take equally
long; the page says how long they took."""
EQUAL: Mapping[Equal, tuple[str, ...]] = {"steps": ("train.steps",), "time": ()}


@dataclass(frozen=True)
class Row:
    """A run of a comparison. run: as asked for. before: the row that it starts from, or none."""

    run: Run
    out: Path
    before: tuple[Row, ...] = ()

    @property
    def name(self) -> str:
        """Also the name of its folder."""
        return f"{self.run.recipe}_seed{self.run.train.seed}"

    @property
    def folder(self) -> Path:
        """Its run directory."""
        return self.out / self.name

    def results(self, suite: str) -> Path:
        """Written at the end of its evaluation on a suite."""
        return results_folder(self.folder, suite) / RESULTS

    @property
    def started(self) -> Run:
        """What is trained: `run`, starting from the row before it."""
        policy = self.run.policy
        for row in self.before:
            policy = policy.started_from(row.folder)
        return replace(self.run, policy=policy)

    @property
    def as_trained(self) -> Run:
        """`started`, with the folder that it was started from where the comparison has been moved since."""
        there = load_run(self.folder)
        policy = there.policy
        for row in self.before:
            policy = policy.started_from(row.folder)
        return there if replace(there, policy=policy) == self.started else self.started


@dataclass(frozen=True)
class Comparison:
    """runs: one per recipe, in the order of the page; the first of each kind is what others are compared with.

    seeds: of training. cache: the latents of what is trained first. episodes: per task, 0 for the suite's own. also:
    further suites, by name, that every row is measured on. equal: what they have in common.
    """

    runs: tuple[Run, ...]
    seeds: tuple[int, ...]
    datasets: tuple[Path, ...]
    cache: Path
    out: Path
    episodes: int = 0
    also: tuple[str, ...] = ()
    equal: Equal = "steps"

    @property
    def page(self) -> Path:
        """Written when all rows are finished."""
        return self.out / PAGE

    @property
    def suite(self) -> Suite:
        """The protocol every row is measured with. BadInput for an unknown one."""
        return self.suites[0]

    @cached_property
    def suites(self) -> list[Suite]:
        """`suite`, and those that rows are measured on besides. BadInput for an unknown one. Looked up once: for an
        environment of one's own that starts a process."""
        first = self.runs[0]
        return [chosen(first, name, self.episodes, ()) for name in (first.suite, *self.also)]

    def finished(self, row: Row) -> bool:
        """Whether it is measured on all suites."""
        return all(row.results(suite.name).exists() for suite in self.suites)

    @property
    def rows(self) -> list[Row]:
        """Seed by seed, so that the first complete comparison is there early."""
        return [self.row(run, seed) for seed in self.seeds for run in self.runs]

    @property
    def jobs(self) -> list[Row]:
        """Everything that is trained, in order: each row after the one that it starts from, which several may share."""
        return list({job.name: job for row in self.rows for job in (*row.before, row)}.values())

    def row(self, run: Run, seed: int) -> Row:
        """One run of the comparison."""
        before = tuple(Row(seeded(first, seed), self.out) for first in earlier(run.recipe))
        return Row(seeded(run, seed), self.out, before)

    def cached(self, row: Row) -> Path:
        """The folder of a row's latents; NO_FILE where they cannot be computed beforehand.

        The row before it must be trained by now: what an encoder learned there is part of its latents.
        """
        if stages.augments(row.started, build_encoder(row.started)):
            return stages.NO_FILE
        own = self._latents(row)
        return self.cache if own == self._latents(self.jobs[0]) else self.out / CACHES / own

    def _latents(self, row: Row) -> str:
        """A name for everything that a row's latents depend on."""
        run = row.started
        encoder = build_encoder(run)
        prints = [stages.fingerprint(encoder, clips) for clips in stages.open_clips(run, self.datasets)]
        return hashed(prints)[:12]


def seeded(run: Run, seed: int) -> Run:
    """The run with this training seed."""
    return replace(run, train=replace(run.train, seed=seed))


def hashed(value: Any) -> str:
    """sha256 of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def check(asked: Comparison) -> None:
    """BadInput where there is nothing to compare, or recipes differ in what must be equal."""
    names = [run.recipe for run in asked.runs]
    for what, given in (("recipe", names), ("seed", list(asked.seeds))):
        if not given:
            raise BadInput(f"a comparison needs at least one {what}")
        if len(set(given)) < len(given):
            raise BadInput(f"every {what} once; got {', '.join(map(str, given))}")
    first, *others = asked.runs
    shared = (*SHARED, *EQUAL[asked.equal])
    ours = _values(first, shared)
    for run in others:
        theirs = _values(run, shared)
        wrong = [
            f"{name} is {theirs.get(name, 'absent')}, expected {ours.get(name, 'absent')}"
            for name in sorted(ours.keys() | theirs.keys())
            if ours.get(name) != theirs.get(name)
        ]
        if wrong:
            raise BadInput(
                f"{run.recipe} cannot be compared with {first.recipe}: {'; '.join(wrong[:5])}. A flag gives a value to "
                "all of them, such as --train.steps 700 --train.batch-size 48; recipes of other numbers of steps are "
                "compared with --equal time"
            )
    suites = [suite.name for suite in asked.suites]  # an unknown one is refused
    if len(set(suites)) < len(suites):
        raise BadInput(f"every suite once; got {', '.join(suites)}: the recipes' own, and --also")


def _values(run: Run, names: tuple[str, ...]) -> Mapping[str, Any]:
    values = flatten(RUN.dump_python(run, mode="json"))
    return {name: value for name, value in values.items() if name.startswith(names)}


def samples_of(asked: Comparison) -> Samples:
    """What all recipes are trained on, in one order. BadInput where they are not, or the dataset does not fit one."""
    found = [_samples(run, stages.open_clips(run, asked.datasets)) for run in asked.runs]
    for run, own in zip(asked.runs, found, strict=True):
        if own != found[0]:
            raise BadInput(
                f"{run.recipe} cannot be compared with {asked.runs[0].recipe}: its {own.count} samples are not the "
                f"{found[0].count} of the other in equal order; give both the same window, sources and weights"
            )
    return found[0]


def _samples(run: Run, sources: Sequence[Clips]) -> Samples:
    weights = [source.weight for source in run.sources] or [1.0]
    return Samples(sum(map(len, sources)), hashed([weights, [clips.ids for clips in sources]]))


def settle(asked: Comparison, dataset: str) -> None:
    """Write down what is compared. BadInput where rows that are there already were begun otherwise."""
    path = asked.out / ROWS
    rows = {row.name: row.run for row in asked.jobs}
    remedy = "choose another --out, or repeat the command with the values it was begun with"
    if path.exists():
        there = read_record(path, dict, "restore it, or compare in another folder")
        changes = [
            f"{name}: {there[name]} -> {value}"
            for name, value in (("dataset", dataset), ("episodes", asked.suite.episodes))
            if there[name] != value
        ]
        for name, text in there["rows"].items():
            if name not in rows:
                changes.append(f"{name} is not asked for")
            else:
                changes += [
                    f"{name}: {change}" for change in diff(from_json(json.dumps(text), str(path)), rows[name])
                ]
        if changes:
            raise BadInput(f"{path} belongs to another comparison ({'; '.join(changes[:5])}); {remedy}")
    asking = {
        "dataset": dataset,
        "episodes": asked.suite.episodes,
        "rows": {name: json.loads(to_json(run)) for name, run in rows.items()},
    }
    replace_file(path, json.dumps(asking, indent=1).encode())
