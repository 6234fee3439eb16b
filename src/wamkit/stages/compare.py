"""A controlled comparison: recipes x seeds on one dataset, with equal optimiser steps and equal data order.

Rows are ordinary run directories. Every stage goes on where it was interrupted, and several processes with the same
arguments share the rows; whoever finds all of them finished writes the page. In the folder OUT:

<recipe>_seed<n>/    a run directory with its evaluation in eval/<suite>
rows.json            what is compared; another comparison is refused, more recipes or seeds are not
cost.json            query and training step of every policy, measured side by side; remove it to measure again
comparison.json, comparison.html
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from wamkit_client.stats import paired
from wamkit_client.suites import Suite
from wamkit_client.suites import suite as find_suite
from wamkit_client.types import BadInput

from wamkit.config import RUN, Run, build_encoder, diff, from_json, load_engine, load_provenance, to_json
from wamkit.data.cache import Cache
from wamkit.data.clips import Clips
from wamkit.data.joined import AnyDataset, open_datasets
from wamkit.data.samples import read_all
from wamkit.eval.evaluate import RESULTS, check_same, read_results
from wamkit.eval.scores import summary
from wamkit.io.differences import flatten
from wamkit.io.files import replace_file, try_lock
from wamkit.io.progress import console, say
from wamkit.io.provenance import machine, revision, versions
from wamkit.io.records import read_record
from wamkit.report.results import COMPARED, RATE, TASK_RATES, Arm, Compared, ComparedRun, Pair
from wamkit.stages import run as stages
from wamkit.stages.cost import measure
from wamkit.stages.plan import meta_policy, parts

FORMAT = "wamkit-comparison-1"
ROWS, COST, COMPARISON, PAGE = "rows.json", "cost.json", "comparison.json", "comparison.html"

# What rows must agree on: the task, the cache they all read, and which samples every step sees.
SHARED = (
    "suite",
    "data.",
    "actions.",
    "normalization.",
    "train.steps",
    "train.batch_size",
)

Tree = dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """runs: one per recipe, in the order of the page; the first of each kind is what others are compared with.

    seeds: of training. episodes: per task, 0 for the suite's own.
    """

    runs: tuple[Run, ...]
    seeds: tuple[int, ...]
    datasets: tuple[Path, ...]
    cache: Path
    out: Path
    episodes: int = 0

    @property
    def page(self) -> Path:
        """Written when all rows are finished."""
        return self.out / PAGE

    @property
    def suite(self) -> Suite:
        """The protocol every row is measured with. BadInput for an unknown one."""
        found = find_suite(self.runs[0].suite)
        return replace(found, episodes=self.episodes) if self.episodes else found

    @property
    def rows(self) -> list[Row]:
        """Seed by seed, so that the first complete comparison is there early."""
        return [
            Row(replace(run, train=replace(run.train, seed=seed)), self.out)
            for seed in self.seeds
            for run in self.runs
        ]


@dataclass(frozen=True)
class Row:
    """One run of the comparison."""

    run: Run
    out: Path

    @property
    def name(self) -> str:
        """Also the name of its folder."""
        return f"{self.run.recipe}_seed{self.run.train.seed}"

    @property
    def folder(self) -> Path:
        """Its run directory."""
        return self.out / self.name

    @property
    def results(self) -> Path:
        """Written at the end of its evaluation."""
        return self.folder / "eval" / self.run.suite / RESULTS


def compare(asked: Comparison, command: str) -> Compared | None:
    """Do what is left of the rows and return what the page says, or None while other processes still work on some.

    command: what repeats all of it, for the page.
    Raises BadInput where recipes do not fit each other or the dataset, where `out` holds another comparison, and as
    the stages do.
    """
    check(asked)
    dataset, first = open_datasets(asked.datasets), asked.runs[0]
    Clips(
        dataset, first.data, first.actions
    )  # a dataset that does not fit is refused before anything is written
    asked.out.mkdir(parents=True, exist_ok=True)
    _settle(asked, dataset.fingerprint())
    device, rows = stages.best_device(), asked.rows
    if not all(row.results.exists() for row in rows):
        stages.encode(first, asked.datasets, asked.cache, device)
    for number, row in enumerate(rows, 1):
        _do(row, asked, device, f"{number}/{len(rows)} {row.name}")
    left = [row.name for row in rows if not row.results.exists()]
    if left:
        say(f"other processes work on {', '.join(left)}; the last one writes the page")
        return None
    with try_lock(asked.out / ".page.lock") as mine:
        if mine:
            return _conclude(asked, command, dataset, device)
    say("another process writes the page")
    return None


def check(asked: Comparison) -> None:
    """BadInput where there is nothing to compare, or recipes differ in what must be equal."""
    names = [run.recipe for run in asked.runs]
    for what, given in (("recipe", names), ("seed", list(asked.seeds))):
        if not given:
            raise BadInput(f"a comparison needs at least one {what}")
        if len(set(given)) < len(given):
            raise BadInput(f"every {what} once; got {', '.join(map(str, given))}")
    first, *others = asked.runs
    ours = _shared(first)
    for run in others:
        theirs = _shared(run)
        for name in sorted(ours.keys() | theirs.keys()):
            if ours.get(name) != theirs.get(name):
                raise BadInput(
                    f"{run.recipe} cannot be compared with {first.recipe}: {name} is {theirs.get(name, 'absent')}, "
                    f"expected {ours.get(name, 'absent')}; give all the same value, or omit the flag"
                )
    find_suite(first.suite)  # an unknown one is refused


def _shared(run: Run) -> Tree:
    values = flatten(RUN.dump_python(run, mode="json"))
    kept = {name: value for name, value in values.items() if name.startswith(SHARED)}
    return kept | {f"encoder.{name}": value for name, value in build_encoder(run).fingerprint.items()}


def _settle(asked: Comparison, dataset: str) -> None:
    """Write down what is compared. BadInput where rows that are there already were begun otherwise."""
    path = asked.out / ROWS
    rows = {row.name: row.run for row in asked.rows}
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


def _do(row: Row, asked: Comparison, device: torch.device, title: str) -> None:
    """Train and measure a row, unless it is finished or another process has it."""
    with try_lock(asked.out / f".{row.name}.lock") as mine:
        if not mine:
            say(f"{title}: another process works on it")
            return
        if not row.results.exists():
            console.print(f"[bold]{title}[/bold]")
            stages.train(row.run, asked.datasets, asked.cache, row.folder, device)
            stages.evaluate(row.folder, row.run, row.run.suite, asked.episodes, row.results.parent)
        total = read_results(row.results)["total"]
        say(f"{title}: {total['successes']} of {total['trials']} solved")


def _conclude(asked: Comparison, command: str, dataset: AnyDataset, device: torch.device) -> Compared:
    """Measure what each policy costs, and write what is known of the finished rows."""
    from wamkit.report.comparison import write_comparison_page  # matplotlib takes a second

    results = {row.name: _results(row, asked.suite, device) for row in asked.rows}
    costs = _costs(asked, dataset, device)
    first = asked.rows[0]
    compared = Compared(
        format=FORMAT,
        command=command,
        suite=asked.suite.to_json(),
        seeds=asked.seeds,
        steps=first.run.train.steps,
        batch_size=first.run.train.batch_size,
        dataset=load_provenance(first.folder)["dataset"],
        demonstrated=results[first.name]["demonstrated"],
        simulator=results[first.name]["simulator"],
        revision=revision(),
        versions=versions(),
        cost={name: value for name, value in costs.items() if name != "arms"},
        arms=[_arm(asked, run, results, costs["arms"][run.recipe]) for run in asked.runs],
        pairs=pairs(asked, results),
        rows=[_row(row, results[row.name]) for row in asked.rows],
    )
    replace_file(asked.out / COMPARISON, COMPARED.dump_json(compared, indent=1))
    write_comparison_page(asked.page, compared)
    return compared


def _results(row: Row, suite: Suite, device: torch.device) -> Tree:
    """BadInput where the row was measured otherwise, by hand or by another version."""
    results = read_results(row.results)
    asked = {
        "suite": suite.to_json(),
        "config": asdict(row.run.eval),
        "policy": stages.policy_facts(row.folder, row.run, device) | {"device": results["policy"]["device"]},
    }
    check_same(row.results, results, json.loads(json.dumps(asked)))
    return results


def _arm(asked: Comparison, run: Run, results: Mapping[str, Tree], cost: Mapping[str, float]) -> Arm:
    """A recipe over all seeds."""
    own = {row.run.train.seed: results[row.name] for row in asked.rows if row.run.recipe == run.recipe}
    together = summary(asked.suite, [episode for found in own.values() for episode in found["episodes"]])
    table = parts(run, meta_policy(run))
    return Arm(
        name=run.recipe,
        kind=run.policy.kind,
        identity=dict(run.policy.identity),
        parameters={
            "total": sum(part.parameters for part in table),
            "trained": sum(part.trainable for part in table),
        },
        total=RATE.validate_python(together["total"]),
        tasks=TASK_RATES.validate_python(together["tasks"]),
        seeds={str(seed): RATE.validate_python(found["total"]) for seed, found in own.items()},
        about_losses=run.policy.about_losses,
        **cost,
    )


def _row(row: Row, results: Tree) -> ComparedRun:
    """Where a row came from and how it went."""
    facts = load_provenance(row.folder)
    return ComparedRun(
        name=row.name,
        recipe=row.run.recipe,
        seed=row.run.train.seed,
        run=json.loads(to_json(row.run)),
        trained={name: facts[name] for name in ("revision", "versions", "machine")},
        measured={name: results[name] for name in ("revision", "versions", "machine", "started")},
        weights=results["policy"]["weights"],
        total=results["total"],
        tasks=results["tasks"],
        latency=results["latency"],
    )


def pairs(asked: Comparison, results: Mapping[str, Tree]) -> list[Pair]:
    """A paired test for each of `pairings`, over training seed, task and initial state, without crashed episodes."""
    solved: dict[str, dict[Hashable, bool]] = {run.recipe: {} for run in asked.runs}
    for row in asked.rows:
        for episode in results[row.name]["episodes"]:
            if episode["status"] != "error":
                key = (row.run.train.seed, episode["task"], episode["seed"])
                solved[row.run.recipe][key] = episode["status"] == "success"
    found = []
    for first, second in pairings({run.recipe: run.policy.kind for run in asked.runs}):
        both = solved[first].keys() & solved[second].keys()
        one, other = ({key: solved[name][key] for key in both} for name in (first, second))
        found.append(Pair(first=first, second=second, **asdict(paired(one, other))))
    return found


def pairings(kinds: Mapping[str, str]) -> list[tuple[str, str]]:
    """Who is compared with whom, of arms and their kinds in order: each with the first of its kind, and the first of
    another kind with the first of all."""
    leaders: dict[str, str] = {}
    for name, kind in kinds.items():
        leaders.setdefault(kind, name)
    foremost = next(iter(kinds))
    against = {name: foremost if leaders[kind] == name else leaders[kind] for name, kind in kinds.items()}
    return [(first, second) for second, first in against.items() if first != second]


def _costs(asked: Comparison, dataset: AnyDataset, device: torch.device) -> Tree:
    """Query and training step of every arm, as measured before where the arms are the same."""
    path, arms = asked.out / COST, [run.recipe for run in asked.runs]
    if path.exists():
        kept = read_record(path, dict, "remove it to measure again")
        if list(kept["arms"]) == arms:
            return kept
    rows = asked.rows[: len(arms)]
    engines = {row.run.recipe: load_engine(row.folder, device) for row in rows}
    first, engine = rows[0].run, engines[arms[0]]
    clips = Clips(dataset, first.data, first.actions)
    cache = Cache.open(asked.cache, stages.fingerprint(engine.encoder, clips), first.data.hz)
    order = replace(cache.order, seed=first.train.seed)
    samples = read_all(cache, [order.at(place) for place in range(first.train.batch_size)])
    batch = samples.batch(engine.policy.embodiment).to(device)
    configs = {row.run.recipe: row.run.train for row in rows}
    observation = Clips(dataset, first.data, first.actions).sample(0).observation()
    measured = measure(engines, configs, observation, batch)
    costs = {
        "machine": machine() | {"device": stages.device_name(device), "threads": torch.get_num_threads()},
        "batch_size": first.train.batch_size,
        "arms": {name: asdict(cost) for name, cost in measured.items()},
    }
    replace_file(path, json.dumps(costs, indent=1).encode())
    return costs
