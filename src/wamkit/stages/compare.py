"""A controlled comparison: recipes x seeds on one dataset, with equal optimiser steps and equal data order.

Rows are ordinary run directories. Every stage goes on where it was interrupted, and several processes with the same
arguments share the rows; whoever finds all of them finished writes the page. In the folder OUT:

<recipe>_seed<n>/    a run directory with its evaluation in eval/<suite>; one without is a stage that others start from
caches/<hash>/       latents of encoders other than the one whose latents --cache has
rows.json            what is compared; another comparison is refused, more recipes or seeds are not
cost.json            query and training step of every policy, measured side by side; remove it to measure again
comparison.json, comparison.html
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from dataclasses import asdict, replace
from typing import Any, cast

import torch
from torch import nn
from wamkit_client.suites import Suite
from wamkit_client.types import Observation

from wamkit.config import (
    RUN,
    Run,
    build_encoder,
    build_policy,
    load_engine,
    load_normalizer,
    load_provenance,
    to_json,
)
from wamkit.data.joined import open_datasets
from wamkit.data.samples import read_all
from wamkit.eval.evaluate import check_same, read_results
from wamkit.eval.scores import summary
from wamkit.io.differences import differing
from wamkit.io.files import replace_file, try_lock
from wamkit.io.progress import console, say
from wamkit.io.provenance import machine, revision, versions
from wamkit.io.records import read_record
from wamkit.io.weights import WEIGHTS
from wamkit.report.results import (
    COMPARED,
    RATE,
    TASK_RATES,
    Arm,
    Compared,
    ComparedRun,
    EarlierStage,
    Elsewhere,
    Pair,
    Samples,
)
from wamkit.stages import run as stages
from wamkit.stages.cost import Acting, Learning, measure
from wamkit.stages.evaluation import loaded, policy_facts
from wamkit.stages.pairing import pair, solved
from wamkit.stages.plan import memory, meta_policy, parts
from wamkit.stages.rows import Comparison, Row, check, samples_of, settle
from wamkit.train.checkpoint import read_weights
from wamkit.types import Trainable

FORMAT = "wamkit-comparison-1"
COST, COMPARISON = "cost.json", "comparison.json"

Tree = dict[str, Any]


def compare(asked: Comparison, command: str, address: str = "") -> Compared | None:
    """Do what is left of the rows and return what the page says, or None while other processes still work on some.

    command: what repeats all of it, for the page. address: of a Ray cluster that does the rows; "": this process does.
    Raises BadInput where recipes do not fit each other or the dataset, where `out` holds another comparison, and as
    the stages do.
    """
    check(asked)
    for job in asked.jobs:
        stages.open_clips(
            job.run, asked.datasets
        )  # one that does not fit is refused before anything is written
    samples = samples_of(asked)
    asked.out.mkdir(parents=True, exist_ok=True)
    settle(asked, open_datasets(asked.datasets).fingerprint())
    device, rows = stages.best_device(), asked.rows
    if address:
        from wamkit.stages import compare_on_cluster  # needs a package that nothing else needs

        compare_on_cluster.work(address, asked)
    else:
        for job in needed(asked):
            work(job, asked, device)
    left = [row.name for row in rows if not asked.finished(row)]
    if left:
        say(f"other processes work on {', '.join(left)}; the last one writes the page")
        return None
    with try_lock(asked.out / ".page.lock") as mine:
        if mine:
            return _conclude(asked, command, samples, device)
    say("another process writes the page")
    return None


def needed(asked: Comparison) -> list[Row]:
    """Every row, and the stages before those that are not finished, in order."""
    rows = asked.rows
    before = {job.name for row in rows if not asked.finished(row) for job in row.before}
    return [job for job in asked.jobs if job in rows or job.name in before]


def work(job: Row, asked: Comparison, device: torch.device) -> None:
    """Do what is left of a row, or of a stage before one."""
    names = [each.name for each in asked.jobs]
    title = f"{names.index(job.name) + 1}/{len(names)} {job.name}"
    if job in asked.rows:
        _do(job, asked, device, title)
    else:
        _before(job, asked, device, title)


def _before(job: Row, asked: Comparison, device: torch.device, title: str) -> None:
    """Train a stage that others start from, unless it is finished or another process has it."""
    with try_lock(asked.out / f".{job.name}.lock") as mine:
        if not mine:
            say(f"{title}: another process works on it")
        elif not (job.folder / WEIGHTS).exists():
            console.print(f"[bold]{title}[/bold]")
            _train(job, asked, device)


def _do(row: Row, asked: Comparison, device: torch.device, title: str) -> None:
    """Train and measure a row, unless it is finished, or another process has it or what it starts from."""
    with try_lock(asked.out / f".{row.name}.lock") as mine:
        if not mine:
            say(f"{title}: another process works on it")
            return
        if not asked.finished(row):
            if missing := [job.name for job in row.before if not (job.folder / WEIGHTS).exists()]:
                say(f"{title}: another process works on {missing[0]}, which it starts from")
                return
            console.print(f"[bold]{title}[/bold]")
            _train(row, asked, device)
            measure_on = loaded(row.folder, row.started)
            for suite in asked.suites:
                measure_on(suite, row.results(suite.name).parent)
        for suite in asked.suites:
            total = read_results(row.results(suite.name))["total"]
            where = f" in {suite.name}" if asked.also else ""
            say(f"{title}: {total['successes']} of {total['trials']} solved{where}")


def _train(row: Row, asked: Comparison, device: torch.device) -> None:
    cache = asked.cached(row)
    if cache != stages.NO_FILE:
        stages.encode(row.started, asked.datasets, cache, device)
    stages.train(row.started, asked.datasets, cache, row.folder, device)


def _conclude(asked: Comparison, command: str, samples: Samples, device: torch.device) -> Compared:
    """Measure what each policy costs, and write what is known of the finished rows."""
    from wamkit.report.comparison import write_comparison_page  # matplotlib takes a second

    results, *others = (
        {row.name: _results(row, suite, device) for row in asked.rows} for suite in asked.suites
    )
    costs = _costs(asked, device)
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
        cost={name: value for name, value in costs.items() if name not in ("arms", "earlier")},
        arms=[_arm(asked, run, results, costs) for run in asked.runs],
        pairs=pairs(asked, results),
        rows=[_row(row, results[row.name]) for row in asked.rows],
        samples=samples,
        also=[
            _elsewhere(asked, suite, measured)
            for suite, measured in zip(asked.suites[1:], others, strict=True)
        ],
    )
    replace_file(asked.out / COMPARISON, COMPARED.dump_json(compared, indent=1))
    write_comparison_page(asked.page, compared)
    return compared


def _results(row: Row, suite: Suite, device: torch.device) -> Tree:
    """BadInput where the row was measured otherwise, by hand or by another version."""
    path = row.results(suite.name)
    results = read_results(path)
    asked = {
        "suite": suite.to_json(),
        "config": asdict(row.run.eval),
        "policy": policy_facts(row.folder, row.as_trained, device) | {"device": results["policy"]["device"]},
    }
    check_same(path, results, json.loads(json.dumps(asked)))
    return results


def _arm(asked: Comparison, run: Run, results: Mapping[str, Tree], costs: Tree) -> Arm:
    """A recipe over all seeds."""
    own = _own(asked, run, results)
    together = summary(asked.suite, [episode for found in own.values() for episode in found["episodes"]])
    before = asked.row(run, asked.seeds[0]).before
    return Arm(
        name=run.recipe,
        kind=run.policy.kind,
        identity=dict(run.policy.identity),
        parameters=_parameters(run),
        total=RATE.validate_python(together["total"]),
        tasks=TASK_RATES.validate_python(together["tasks"]),
        seeds={str(seed): RATE.validate_python(found["total"]) for seed, found in own.items()},
        about_losses=run.policy.about_losses,
        steps=run.train.steps,
        shown=_shown(asked.runs[0], run),
        earlier=[_earlier(job.run, costs["earlier"][job.run.recipe]) for job in before],
        **costs["arms"][run.recipe],
    )


def _own(asked: Comparison, run: Run, results: Mapping[str, Tree]) -> dict[int, Tree]:
    """The results of a recipe, by training seed."""
    return {row.run.train.seed: results[row.name] for row in asked.rows if row.run.recipe == run.recipe}


def _elsewhere(asked: Comparison, suite: Suite, results: Mapping[str, Tree]) -> Elsewhere:
    """What the recipes solve in a further suite, over all seeds."""
    rates = {}
    for run in asked.runs:
        episodes = [episode for found in _own(asked, run, results).values() for episode in found["episodes"]]
        rates[run.recipe] = RATE.validate_python(summary(suite, episodes)["total"])
    return Elsewhere(suite.to_json(), rates, pairs(asked, results))


def _parameters(run: Run) -> dict[str, int]:
    table = parts(run, meta_policy(run))
    return {
        "total": sum(part.parameters for part in table),
        "trained": sum(part.trainable for part in table),
        "deployed": sum(part.deployed for part in table),
    }


def _shown(first: Run, run: Run) -> dict[str, str]:
    """Where a policy is shown or asked for other data than the first."""
    both = (RUN.dump_python(one, mode="json") for one in (first, run))
    changes = differing(*({"data": tree["data"]} for tree in both))
    return {name.removeprefix("data."): json.dumps(value) for name, _, value in changes}


def _earlier(run: Run, cost: Tree) -> EarlierStage:
    return EarlierStage(
        recipe=run.recipe,
        parameters=_parameters(run),
        steps=run.train.steps,
        batch_size=run.train.batch_size,
        run=json.loads(to_json(run)),
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
    """A paired test for each of `pairings`, over training seed, task and initial state, without crashed episodes,
    where any is left."""
    found: dict[str, dict[Hashable, bool]] = {run.recipe: {} for run in asked.runs}
    for row in asked.rows:
        own = solved(results[row.name])
        found[row.run.recipe] |= {(row.run.train.seed, key): success for key, success in own.items()}
    return [
        test
        for first, second in pairings({run.recipe: run.policy.kind for run in asked.runs})
        if (test := pair(first, found[first], second, found[second]))
    ]


def pairings(kinds: Mapping[str, str]) -> list[tuple[str, str]]:
    """Who is compared with whom, of arms and their kinds in order: each with the first of its kind, and the first of
    another kind with the first of all."""
    leaders: dict[str, str] = {}
    for name, kind in kinds.items():
        leaders.setdefault(kind, name)
    foremost = next(iter(kinds))
    against = {name: foremost if leaders[kind] == name else leaders[kind] for name, kind in kinds.items()}
    return [(first, second) for second, first in against.items() if first != second]


def _costs(asked: Comparison, device: torch.device) -> Tree:
    """Query and training step of every arm, and a step of what it starts from, as measured before where the arms are
    the same."""
    path, names = asked.out / COST, [run.recipe for run in asked.runs]
    if path.exists():
        kept = read_record(path, dict, "remove it to measure again")
        if list(kept["arms"]) == names:
            return {"earlier": {}} | kept
    rows = asked.rows[: len(names)]
    before = list({job.name: job for row in rows for job in row.before}.values())
    engines = {row.run.recipe: load_engine(row.folder, device) for row in rows}
    acting = {row.run.recipe: Acting(engines[row.run.recipe], _observation(row, asked)) for row in rows}
    networks = {name: cast(Trainable, engine.policy) for name, engine in engines.items()}
    networks |= {job.run.recipe: _network(job, device) for job in before}
    learning = {
        job.run.recipe: _learning(job, asked, networks[job.run.recipe], device) for job in (*rows, *before)
    }
    seconds = measure(acting, learning)

    def step(job: Row) -> Tree:
        counted = memory(job.run, meta_policy(job.run)).total
        return {"step_seconds": round(seconds.steps[job.run.recipe], 4), "step_bytes": counted}

    def query(row: Row) -> Tree:
        return {"query_ms": round(1000 * seconds.queries[row.run.recipe], 3)}

    costs = {
        "machine": machine() | {"device": stages.device_name(device), "threads": torch.get_num_threads()},
        "batch_size": rows[0].run.train.batch_size,
        "arms": {row.run.recipe: query(row) | step(row) for row in rows},
        "earlier": {job.run.recipe: step(job) for job in before},
    }
    replace_file(path, json.dumps(costs, indent=1).encode())
    return costs


def _observation(row: Row, asked: Comparison) -> Observation:
    return stages.open_clips(row.run, asked.datasets)[0].sample(0).observation()


def _network(job: Row, device: torch.device) -> Trainable:
    """What was trained, which need not act."""
    network = build_policy(job.started, load_normalizer(job.folder))
    network.load_frozen()
    module = cast(nn.Module, network)
    read_weights(job.folder, module)
    module.to(device)
    return network


def _learning(job: Row, asked: Comparison, network: Trainable, device: torch.device) -> Learning:
    """With the first batch of its own samples."""
    run = job.started
    encoder = build_encoder(run)
    encoder.to(device)
    sources = stages.open_clips(run, asked.datasets)
    samples = stages.training_samples(run, sources, encoder, asked.cached(job))
    order = replace(samples.order, seed=run.train.seed)
    encoded = read_all(samples, [order.at(place) for place in range(run.train.batch_size)])
    return Learning(network, run.train, encoded.batch(network.embodiment).to(device))
