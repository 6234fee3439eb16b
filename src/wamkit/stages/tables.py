"""What the command line prints about datasets, plans, runs and results: rich tables, no work of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from wamkit.config import Run, diff, load_provenance, load_run
from wamkit.data.canvas import canvas_size
from wamkit.data.conventions import columns_flag, proposal
from wamkit.data.lerobot.columns import SOURCES, numeric_columns
from wamkit.data.lerobot.dataset import Dataset
from wamkit.data.lerobot.disk import inside
from wamkit.data.lerobot.files import dimension_names, image_size, read_info
from wamkit.data.normalize import field_rows
from wamkit.data.statistics import Stats
from wamkit.io.progress import shortened
from wamkit.recipes import OURS, recipe
from wamkit.report.results import RESULTS, Compared, Motion, Rate
from wamkit.stages.findings import warn_of_kinds
from wamkit.stages.fit import Fit, Place, fit
from wamkit.stages.plan import Part, meta_policy, parts
from wamkit.stages.run import fit_normalizer, open_clips, what_is_read, with_statistics


def dataset_table(path: Path) -> Table:
    """Facts of a dataset and the ranges of its numbers, of which its columns are taken by their names."""
    with inside(path):
        proposed = proposal(read_info(path))
    dataset = Dataset.open(path, proposed.columns)
    table = _facts(
        str(path),
        {
            "format": f"LeRobot {dataset.version}",
            "robot": dataset.robot_type,
            "episodes": f"{len(dataset.episodes)}, {dataset.total_steps} steps at {dataset.fps:g} Hz",
            "cameras": ", ".join(f"{name} {_size(dataset, name)}" for name in dataset.cameras),
            "columns": ", ".join(numeric_columns(dataset.info.features)),
            **({"to read it": columns_flag(proposed.columns)} if proposed.columns else {}),
            "instructions": shortened("; ".join(dataset.tasks.values())),
            "fingerprint": dataset.fingerprint()[:16],
        },
    )
    for name in (name for name, column in SOURCES.items() if column in dataset.features):
        stats = Stats.of(field_rows(dataset, name, dataset.episodes))
        names = dimension_names(dataset.features[SOURCES[name]], len(stats.min))
        ranges = [
            f"{label} {low:.3g} .. {high:.3g}".strip()
            for label, low, high in zip(names, stats.min, stats.max, strict=True)
        ]
        table.add_row(f"{name} range", "   ".join(ranges))
        changes = [
            f"{label} {most:.3g}".strip() for label, most in zip(names, _changes(dataset, name), strict=True)
        ]
        table.add_row(f"{name} change", "   ".join(changes) + " per step at most")
    return table


def _changes(dataset: Dataset, field: str) -> np.ndarray:
    """The largest change of each dimension between two steps of an episode, [d]."""
    episodes = [field_rows(dataset, field, [episode]) for episode in dataset.episodes]
    return np.concatenate([np.abs(np.diff(rows, axis=0)) for rows in episodes]).max(axis=0, initial=0)


def _size(dataset: Dataset, camera: str) -> str:
    return "x".join(map(str, image_size(dataset.features[dataset.camera_keys[camera]])))


def plan_tables(run: Run, datasets: Sequence[Path], released: Path, place: Place) -> list[Table]:
    """Parameters, memory and data facts of a run that has not begun, and how a published recipe and ours differ.

    datasets: may be none. released: as of stages.run.train. place: where it will be trained. Raises BadInput where the
    datasets do not exist or do not fit the run, as training does.
    """
    run = with_statistics(run, released)
    policy = meta_policy(run)
    data = _facts("data", _data_facts(run, datasets, released))  # first: what does not fit is refused at once
    parameters, need = parameter_table(run.recipe, parts(run, policy)), fit(run, policy, place)
    return [parameters, _memory_table(run, need), data, *deviation_tables(run.recipe)]


def _memory_table(run: Run, found: Fit) -> Table:
    need = found.need
    parted = f" in {run.train.accumulation} parts" if run.train.accumulation > 1 else ""
    kinds = ("weights", "gradients", "optimizer", *(("average",) if need.average else ()))
    return _facts(
        f"memory of a training step, batch {run.train.batch_size}{parted} on one device ({run.train.precision})",
        {name: f"{getattr(need, name) / 2**30:.2f} GiB" for name in kinds}
        | {
            "activations": f"{need.activations / 2**30:.2f} GiB kept for backward, counted",
            "sum": f"{need.total / 2**30:.2f} GiB, and the encoder where no --cache is given",
            f"fits {found.place.name}": found.sentence(),
        },
    )


def _data_facts(run: Run, datasets: Sequence[Path], released: Path) -> dict[str, str]:
    spec = run.data
    height, width = canvas_size(spec)
    facts = {
        "views": f"{', '.join(spec.views)} at {spec.view_height}x{spec.view_width}",
        "canvas": "none, each view by itself"
        if spec.canvas == "separate"
        else f"{spec.canvas}, {height}x{width}",
        "frames": f"{len(spec.frame_times)} at steps {', '.join(map(str, spec.frame_offsets))} ({spec.hz:g} Hz)",
        "chunk": f"{spec.horizon} actions of {spec.action_dim}, proprio {spec.proprio_dim}",
        "steps": f"{run.train.steps} x {run.train.batch_size} samples",
        "statistics": run.normalization.statistics,
        "held out": f"{spec.held_out:g} of the episodes",
    }
    facts = what_is_read(spec) | facts
    if not datasets:
        return facts | {"dataset": "none named; give --dataset FOLDER for its facts"}
    sources = open_clips(run, datasets)
    warn_of_kinds(sources)
    fit_normalizer(run, sources, released)
    episodes = sum(len(source.episodes) for source in sources)
    recorded = sum(len(source.dataset.episodes) for source in sources)
    samples = sum(map(len, sources))
    epochs = run.train.steps * run.train.batch_size / samples
    where = ", ".join(source.dataset.where for source in sources)
    return facts | {
        "held out": f"{facts['held out']}: {recorded - episodes} of {recorded}",
        "dataset": f"{where}: {episodes} episodes, {samples} samples, {epochs:.1f} epochs",
    }


def deviation_tables(name: str) -> list[Table]:
    """What our version of a published recipe changes and why, for either name; nothing for other recipes."""
    from wamkit.recipes.ours import REASONS  # with every policy's config

    tables: list[Table] = []
    for ours, published in OURS.items():
        if name in (ours, published):
            table = Table(title=f"{published} and {ours}", title_justify="left")
            for column in ("value", "published", "ours"):
                table.add_column(column)
            changes = dict(change.split(": ", 1) for change in diff(recipe(published), recipe(ours)))
            del changes["recipe"]
            for value, both in changes.items():
                table.add_row(value, *both.split(" -> "))
            tables += [table, _facts("why", {value: REASONS[value] for value in changes})]
    return tables


def parameter_table(title: str, rows: list[Part]) -> Table:
    """Parameters by part; of a policy, how many acting loads."""
    table = Table(title=f"{title}: parameters", title_justify="left")
    table.add_column("part")
    counts = ("parameters", "trainable", *(("deployed",) if any(row.deployed for row in rows) else ()))
    for column in counts:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(row.name, *(f"{getattr(row, count):,}" for count in counts))
    table.add_section()
    totals = (sum(getattr(row, count) for row in rows) for count in counts)
    table.add_row("total", *(f"{total:,}" for total in totals), style="bold")
    return table


def run_tables(directory: Path) -> list[Table]:
    """What a run directory is."""
    run = load_run(directory)
    facts: dict[str, Any] = load_provenance(directory)
    results = sorted(directory.glob("eval/*/results.json"))
    about = {
        "recipe": run.recipe,
        "suite": run.suite,
        "trained": f"{run.train.steps} steps of {run.train.batch_size}, seed {run.train.seed}, {run.train.precision}",
        "dataset": f"{facts['dataset']['episodes']} episodes, {facts['dataset']['steps']} steps",
        "revision": facts["revision"],
        "machine": facts["machine"]["cpu"],
        "results": ", ".join(str(path) for path in results) or "none; run `wamkit eval`",
    }
    return [_facts(str(directory), about), parameter_table(run.recipe, parts(run, meta_policy(run)))]


def results_table(results: Mapping[str, Any]) -> Table:
    """Success per task with Wilson 95 % intervals, latency and episode lengths."""
    shown, latency = RESULTS.validate_python(results), results["latency"]["median_ms"]
    title = f"{shown.suite['name']}: closed-loop success"
    table = _scores(title, "task", ("success", "95 % CI", "errors", "steps", "expert", "ms/query"))
    for name, task in shown.tasks.items():
        steps = "-" if task.mean_steps is None else f"{task.mean_steps:.0f}"
        table.add_row(
            name, *_rate(task), steps, str(task.expert_steps or "-"), f"{latency:.0f}" if latency else "-"
        )
    table.add_section()
    table.add_row("all", *_rate(shown.total), "", "", "", style="bold")
    table.caption = _motion(shown.smoothness)
    table.caption_justify = "left"
    return table


def _motion(motion: Motion) -> str:
    """How episodes were executed; "" where it is not known."""
    if motion.idle_s is None:
        return ""
    jerk = "" if motion.jerk is None else f"jerk {motion.jerk:.3g} m/s³, "
    stale = "" if motion.staleness_ms is None else f", actions {motion.staleness_ms:.0f} ms old"
    return f"per episode: {jerk}idle {motion.idle_s:.2f} s, {motion.holds:.1f} holds{stale}"


def comparison_table(compared: Compared) -> Table:
    """Success, parameters and cost of every policy of a comparison."""
    title = f"{compared.suite['name']}: closed-loop success, {len(compared.seeds)} training seed(s)"
    table = _scores(title, "policy", ("success", "95 % CI", "size", "ms/query", "s/step"))
    table.columns[0].no_wrap = True
    for arm in compared.arms:
        size = f"{arm.parameters['total'] / 1e6:.1f} M"
        costs = f"{arm.query_ms:.1f}", f"{arm.step_seconds:.3f}"
        table.add_row(arm.name, *_rate(arm.total)[:2], size, *costs)
    return table


def _scores(title: str, first: str, numbers: Sequence[str]) -> Table:
    """An empty table of scores; long names give way, numbers do not."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False)
    table.add_column(first, overflow="ellipsis")
    for column in numbers:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _rate(rate: Rate) -> tuple[str, str, str]:
    low, high = rate.interval
    return f"{rate.successes}/{rate.trials}", f"{100 * low:.0f}-{100 * high:.0f} %", str(rate.errors)


def _facts(title: str, facts: dict[str, str]) -> Table:
    table = Table(title=escape(title), title_justify="left", show_header=False)
    for name, value in facts.items():
        table.add_row(name, escape(value))
    return table
