"""The page of a run: what it is made of, read from the run directory, an evaluation and datasets; each may be missing
but the first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from wamkit_client.types import BadInput

from wamkit.config import Run, load_engine, load_normalizer, load_provenance, load_run, to_json
from wamkit.data.clips import Clips
from wamkit.data.joined import dataset_flags
from wamkit.data.lerobot.columns import NO_COLUMNS
from wamkit.eval.evaluate import RESULTS, read_results
from wamkit.infer.engine import Engine
from wamkit.io.progress import command, say
from wamkit.io.records import write_record
from wamkit.stages.evaluation import results_folder
from wamkit.stages.plan import meta_policy
from wamkit.stages.run import NO_FILE, best_device, every_step, everything, fingerprint_of, open_clips
from wamkit.train.overfitting import overfitting
from wamkit.types import Policy

if TYPE_CHECKING:
    from wamkit.report.facts import Facts
    from wamkit.report.run_page import Evaluation
    from wamkit.report.training import History
    from wamkit.report.watched import Watched

WATCHED = 3
"""Episodes of a dataset that the policy is asked about, where no rollout was recorded."""


def report(
    run_dir: Path,
    page: Path,
    *,
    datasets: Sequence[Path] = (),
    results_dir: Path = NO_FILE,
    columns: Mapping[str, str] = NO_COLUMNS,
    stage_seconds: Mapping[str, float] = MappingProxyType({}),
    sections: Sequence[str] = (),
) -> None:
    """Write the page of a run, and beside it, as JSON, the open-loop errors that it shows (report/open_loop.py).

    datasets: none, or what the run was trained on or another of its robot. results_dir: of an evaluation; NO_FILE: the
    run's own, if there is one. columns: where a dataset has what is under another name than in training
    (DataSpec.columns). sections: (): all that there is something for. Raises BadInput where the run directory
    is damaged, where a dataset does not fit the run, and as write_run_page.
    """
    # Imported here: matplotlib takes a second and no other stage draws.
    from wamkit.report.distributions import distributions_of
    from wamkit.report.open_loop import ReportRecord, measure, record_of
    from wamkit.report.run_page import ALL, RunPage, write_run_page
    from wamkit.report.training import read_history

    run, facts = load_run(run_dir), load_provenance(run_dir)
    evaluations = _evaluations(run, run_dir, results_dir)
    histories = [] if "released" in facts else [_warned(read_history(run_dir))]
    normalizer = load_normalizer(run_dir)
    looked_into = judged(_reading(run, columns), facts, datasets) if datasets else []
    distributions = [d for clips, _ in looked_into for d in distributions_of(clips.dataset, normalizer)]
    looked_at = [*dataset_flags(datasets), *_column_flags(columns)]
    device, again = best_device(), _repeated(run_dir, looked_at, evaluations)
    engines = _engines(run, run_dir, device)
    asked = engines if looked_into and "open_loop" in (sections or ALL) else []
    measured = [found for engine in asked for found in measure(engine, normalizer, looked_into)]
    shown = RunPage(
        title=run.recipe,
        engines=engines,
        facts=_facts(run, facts, evaluations, again, stage_seconds),
        evaluations=evaluations,
        histories=histories,
        demonstrations=_demonstrations(looked_into),
        distributions=distributions,
        open_loop=measured,
        world=lambda: run.policy.world_model(run_dir, run.data, device),
    )
    write_run_page(page, shown, sections)
    if measured:
        write_record(page.with_suffix(".json"), ReportRecord(again, [record_of(own) for own in measured]))


def _warned(history: History) -> History:
    found = overfitting(history.held_out, history.metrics)
    return replace(history, warning=f"{found}." if found else "")


def _reading(run: Run, columns: Mapping[str, str]) -> Run:
    """The run, reading these columns."""
    if columns and run.sources:
        names = ", ".join(source.name for source in run.sources)
        raise BadInput(
            f"--data.columns: run {run.recipe} has several sources ({names}), each with its own columns"
        )
    return replace(run, data=replace(run.data, columns={**run.data.columns, **columns}))


def _evaluations(run: Run, run_dir: Path, results_dir: Path) -> list[Evaluation]:
    """The one to show, or none. BadInput where the one that is named is missing."""
    from wamkit.report.run_page import Evaluation

    folders = [results_dir]
    if results_dir == NO_FILE:
        found = sorted(path.parent for path in run_dir.glob(f"eval/*/{RESULTS}"))
        own = [folder for folder in found if folder == results_folder(run_dir, run.suite)]
        folders = own or found if len(own or found) == 1 else []
        if found and not folders:
            say(
                f"{run_dir / 'eval'} has several results: name one of {_listed(found)} with --results to show it"
            )
    return [Evaluation(read_results(folder / RESULTS), folder) for folder in folders]


def _listed(folders: Sequence[Path]) -> str:
    return ", ".join(folder.name for folder in folders)


def _engines(run: Run, run_dir: Path, device: torch.device) -> list[Engine[Any]]:
    """The policy, where the run trains one that acts."""
    return [load_engine(run_dir, device)] if isinstance(meta_policy(run), Policy) else []


def judged(run: Run, facts: dict[str, Any], datasets: Sequence[Path]) -> list[tuple[Clips, str]]:
    """The episodes of each source that the policy is judged by, and what they are, in a sentence.

    Those that training held out; all, where it held out none, and those of another dataset.
    """
    whole = open_clips(everything(run), datasets)
    if facts["dataset"]["fingerprint"] != fingerprint_of([clips.dataset for clips in whole]):
        return [(clips, UNKNOWN.format(clips.dataset.where)) for clips in whole]
    found = []
    for clips in open_clips(every_step(run), datasets):
        chosen, about = (clips.held_out(), HELD_OUT) if clips.spec.held_out else (clips, TRAINED)
        found.append((chosen, about.format(_named(chosen))))
    return found


HELD_OUT = "These episodes were held out of training: {}."
MOST_NAMED = 12
"""Episodes that a sentence names."""
TRAINED = (
    "These are episodes that the policy was trained on: none was held out, as --train.held-out 0.05 would."
)
UNKNOWN = "These are episodes of {}, which is not the dataset that the run says it was trained on."


def _named(clips: Clips) -> str:
    """The episodes, or how many they are."""
    labels = [clips.dataset.label(episode.index) for episode in clips.episodes]
    return (
        ", ".join(labels) if len(labels) <= MOST_NAMED else f"{len(labels)} of {len(clips.dataset.episodes)}"
    )


def _demonstrations(sources: Sequence[tuple[Clips, str]]) -> Watched:
    """Some episodes of the first source: the policy is asked about robots one at a time."""
    from wamkit.report.run_page import NOWHERE
    from wamkit.report.watched import Watched, dataset_episodes

    for clips, about in sources:
        return Watched(dataset_episodes(clips, WATCHED), about)
    return NOWHERE


def _column_flags(columns: Mapping[str, str]) -> list[str]:
    return ["--data.columns", *(f"{name}={column}" for name, column in columns.items())] if columns else []


def _repeated(run_dir: Path, looked_at: Sequence[str | Path], evaluations: Sequence[Evaluation]) -> str:
    """The command that gives the same: the evaluation again where there is one, else the page."""
    for shown in evaluations:
        again = ("--like", shown.folder / RESULTS, "--out", run_dir / "eval" / "again")
        return command("wamkit", "eval", run_dir, *again)
    return command("wamkit", "report", run_dir, *looked_at)


def _facts(
    run: Run,
    facts: dict[str, Any],
    evaluations: Sequence[Evaluation],
    again: str,
    seconds: Mapping[str, float],
) -> Facts:
    from wamkit.report.facts import Facts

    simulator = {}
    for shown in evaluations:
        found = shown.results["simulator"]
        simulator = {"simulator": {**found["versions"], "OpenGL": found["opengl"]}}
    return Facts(
        groups={
            "policy": {"parameters": facts["parameters"], **run.policy.identity},
            "training": {
                "seed": run.train.seed,
                "steps": run.train.steps,
                "batch size": run.train.batch_size,
            },
            "dataset": facts["dataset"],
            **simulator,
            "software": {"revision": facts["revision"], **facts["versions"]},
            "machine": facts["machine"],
        },
        folded={"run": json.loads(to_json(run))},
        stage_seconds=seconds,
        command=again,
    )
