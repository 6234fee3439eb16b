"""`wamkit analyse mixed-hz`: what runs solve at each control rate that they were evaluated at (LaWAM spec 6.7).

It reads evaluations that are there (`wamkit eval RUN --eval.robot ROBOT`) and runs none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wamkit_client.types import BadInput

from wamkit.config import RUN, Run, load_run
from wamkit.eval.evaluate import RESULTS, read_results
from wamkit.io.differences import differing
from wamkit.io.records import write_record
from wamkit.report.mixed_rates import Measured, MixedRates, RateArm, RatePair, write_mixed_rates_page
from wamkit.report.rates import crashes
from wamkit.report.results import RATE
from wamkit.stages.pairing import pair, solved

Tree = dict[str, Any]


def mixed_rates(run_dirs: Sequence[Path], out: Path, command: str) -> MixedRates:
    """Write mixed_hz.json and mixed_hz.html into `out`.

    Raises BadInput where a run was not evaluated, was evaluated twice at a rate, or by another protocol than the first.
    """
    runs = {directory: load_run(directory) for directory in run_dirs}
    if len(runs) < len(run_dirs) or not runs:
        raise BadInput("expected at least one run directory, each once")
    found = {directory: _by_rate(directory, run) for directory, run in runs.items()}
    suite = _protocol(found)
    first = next(iter(runs))
    arms = [_arm(directory, run, runs[first], found[directory]) for directory, run in runs.items()]
    pairs = [
        RatePair(rate, test)
        for directory in list(runs)[1:]
        for rate, usual in found[first].items()
        if rate in found[directory]
        and (test := pair(str(first), solved(usual), str(directory), solved(found[directory][rate])))
    ]
    crashed = [
        crash
        for directory, own in found.items()
        for rate, results in own.items()
        for crash in crashes(f"{directory}, {rate} Hz", results)
    ]
    record = MixedRates(command, suite, arms, pairs, crashed)
    out.mkdir(parents=True, exist_ok=True)
    write_record(out / "mixed_hz.json", record)
    write_mixed_rates_page(out / "mixed_hz.html", record)
    return record


def _by_rate(directory: Path, run: Run) -> dict[str, Tree]:
    """The evaluations in a run directory by the rate in Hz; each with the path that it was read from."""
    hz = {source.robot: source.data.hz for source in run.sources} | {"": run.data.hz}
    found: dict[str, Tree] = {}
    for path in sorted(directory.glob(f"eval/**/{RESULTS}")):
        results = read_results(path)
        rate = f"{hz[results['config'].get('robot', '')]:g}"
        if rate in found:
            raise BadInput(
                f"{path}: another evaluation at {rate} Hz than {found[rate]['path']}; move one of them out of "
                f"{directory}"
            )
        found[rate] = results | {"path": path}
    if not found:
        raise BadInput(f"{directory}: no evaluation in eval/; run `wamkit eval {directory}`")
    return found


def _protocol(found: Mapping[Path, Mapping[str, Tree]]) -> Tree:
    """The suite of all evaluations. BadInput where they differ."""
    every = [results for own in found.values() for results in own.values()]
    for results in every:
        for name, expected, got in differing({"suite": every[0]["suite"]}, {"suite": results["suite"]}):
            raise BadInput(
                f"{results['path']}: {name} is {got}, and {expected} in {every[0]['path']}; evaluate both alike"
            )
    suite: Tree = every[0]["suite"]
    return suite


def _arm(directory: Path, run: Run, first: Run, found: Mapping[str, Tree]) -> RateArm:
    ignored = ("recipe", "eval.", "sources")
    trees = [RUN.dump_python(one, mode="json") for one in (first, run)]
    changes = {
        name: json.dumps(value) for name, _, value in differing(*trees) if not name.startswith(ignored)
    }
    if run.recipe != first.recipe:
        changes = {"recipe": run.recipe} | changes
    return RateArm(
        run=str(directory),
        recipe=run.recipe,
        seed=run.train.seed,
        steps=run.train.steps,
        differs=changes,
        trained_at=[source.data.hz for source in run.sources] or [run.data.hz],
        rates={
            rate: Measured(
                RATE.validate_python(results["total"]),
                str(results["path"].relative_to(directory)),
                results["policy"]["weights"],
            )
            for rate, results in found.items()
        },
    )
