"""The page of a run: what it is made of, read from the run directory, an evaluation and datasets; each may be missing
but the first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from wamkit.config import Run, load_engine, load_normalizer, load_provenance, load_run, to_json
from wamkit.data.clips import Clips
from wamkit.data.joined import dataset_flags
from wamkit.eval.evaluate import RESULTS, read_results
from wamkit.infer.engine import Engine
from wamkit.io.progress import command, say
from wamkit.stages.plan import meta_policy
from wamkit.stages.run import NO_FILE, best_device, open_clips
from wamkit.types import Policy

if TYPE_CHECKING:
    from wamkit.report.facts import Facts
    from wamkit.report.run_page import Evaluation
    from wamkit.report.watched import Watched

WATCHED = 3
"""Episodes of a dataset that the policy is asked about, where no rollout was recorded."""


def report(
    run_dir: Path,
    page: Path,
    *,
    datasets: Sequence[Path] = (),
    results_dir: Path = NO_FILE,
    stage_seconds: Mapping[str, float] = MappingProxyType({}),
    sections: Sequence[str] = (),
) -> None:
    """Write the page of a run.

    datasets: none, or what the run was trained on or another of its robot. results_dir: of an evaluation; NO_FILE: the
    run's own, if there is one. sections: (): all that there is something for. Raises BadInput where the run directory
    is damaged, where a dataset does not fit the run, and as write_run_page.
    """
    # Imported here: matplotlib takes a second and no other stage draws.
    from wamkit.report.distributions import distributions_of
    from wamkit.report.run_page import RunPage, write_run_page
    from wamkit.report.training import read_history

    run, facts = load_run(run_dir), load_provenance(run_dir)
    evaluations = _evaluations(run, run_dir, results_dir)
    histories = [] if "released" in facts else [read_history(run_dir)]
    clips = open_clips(run, datasets) if datasets else []
    distributions = [d for own in clips for d in distributions_of(own.dataset, load_normalizer(run_dir))]
    device = best_device()
    shown = RunPage(
        title=run.recipe,
        engines=_engines(run, run_dir, device),
        facts=_facts(run, facts, evaluations, _repeated(run_dir, datasets, evaluations), stage_seconds),
        evaluations=evaluations,
        histories=histories,
        demonstrations=_demonstrations(clips),
        distributions=distributions,
        world=lambda: run.policy.world_model(run_dir, run.data, device),
    )
    write_run_page(page, shown, sections)


def _evaluations(run: Run, run_dir: Path, results_dir: Path) -> list[Evaluation]:
    """The one to show, or none. BadInput where the one that is named is missing."""
    from wamkit.report.run_page import Evaluation

    folders = [results_dir]
    if results_dir == NO_FILE:
        found = sorted(path.parent for path in run_dir.glob(f"eval/*/{RESULTS}"))
        own = [folder for folder in found if folder.name == run.suite]
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


def _demonstrations(sources: Sequence[Clips]) -> Watched:
    """Some episodes of the first source: the policy is asked about robots one at a time."""
    from wamkit.report.run_page import NOWHERE
    from wamkit.report.watched import Watched, dataset_episodes

    for clips in sources:
        return Watched(dataset_episodes(clips, WATCHED), "These are episodes of the dataset.")
    return NOWHERE


def _repeated(run_dir: Path, datasets: Sequence[Path], evaluations: Sequence[Evaluation]) -> str:
    """The command that gives the same: the evaluation again where there is one, else the page."""
    for shown in evaluations:
        again = ("--like", shown.folder / RESULTS, "--out", run_dir / "eval" / "again")
        return command("wamkit", "eval", run_dir, *again)
    return command("wamkit", "report", run_dir, *dataset_flags(datasets))


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
