"""`wamkit calibrate`: what is usual for the world model of a run, and from where on it is an alarm (warning.json).

Measured on episodes that the policy was not trained on. Every other one says how wrong each patch usually is, the
others how high scores of usual episodes are, so that the threshold is one of split conformal prediction: of episodes
like these, a share of at most `false_alarms` raises an alarm at any of its queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from wamkit_client.envs.base import InitialState
from wamkit_client.types import BadInput

from wamkit.analysis.warning import conformal_threshold, usual_errors
from wamkit.config import Run, inference_overrides, load_provenance, load_run
from wamkit.data.clips import Clips
from wamkit.data.joined import open_datasets
from wamkit.infer.warning import Expectation, Usual, Watcher, errors, replayed
from wamkit.io.files import sha256
from wamkit.io.progress import bar
from wamkit.io.records import write_record
from wamkit.io.weights import WEIGHTS
from wamkit.report.watched import DatasetEpisode
from wamkit.stages.run import everything, fingerprint_of, initial_states, open_clips
from wamkit.stages.warning import WARNING, Calibration, Origin, load_watcher

BATCH = 16
"""Observations that the world model looks ahead from at once."""


@dataclass(frozen=True)
class CalibrationConfig:
    """false_alarms: the share of usual episodes that may raise an alarm. ahead: seconds (infer/warning.py)."""

    false_alarms: float
    ahead: float


def calibrate(
    run_dir: Path,
    run: Run,
    datasets: Sequence[Path],
    config: CalibrationConfig,
    device: torch.device,
    command: str,
) -> Calibration:
    """Write warning.json of a run that acts as `run`.

    Raises BadInput where its policy expects nothing so far ahead or cannot act so, where the episodes are those that it
    was trained on or too few, and as `open_clips`.
    """
    if not 0 < config.false_alarms < 1:
        raise BadInput(
            f"--false-alarms {config.false_alarms:g}: expected a share of episodes between 0 and 1"
        )
    inference_overrides(load_run(run_dir), run)
    watcher, every = load_watcher(run, run_dir, device, config.ahead), run.eval.replan_steps
    robots, origins = {}, {}
    for clips in unseen(run_dir, run, datasets):
        robot = clips.dataset.robot_type
        expected = expectations(watcher, clips, every)
        robots[robot], origins[robot] = _calibrated(watcher, robot, expected, every, config.false_alarms)
        origins[robot] = replace(origins[robot], dataset=clips.dataset.where)
    weights = sha256(run_dir / WEIGHTS)
    made = Calibration(command, weights, config.false_alarms, every, robots, origins, config.ahead)
    write_record(run_dir / WARNING, made)
    return made


def unseen(run_dir: Path, run: Run, datasets: Sequence[Path]) -> list[Clips]:
    """Episodes that the run was not trained on, by robot: those that it held out of its datasets, and all of others.

    BadInput where it held out none, and where others begin where its demonstrations began.
    """
    facts = load_provenance(run_dir)
    whole = _of_robots(everything(run), datasets)
    trained = facts["dataset"]["fingerprint"]
    prints = [clips.dataset.fingerprint() for clips in whole]
    if trained in (fingerprint_of([clips.dataset for clips in whole]), *prints) or set(prints) & {*trained}:
        return [clips.held_out() for clips in _of_robots(run, datasets)]
    known = {InitialState.from_json(state).key() for state in facts["initial_states"]}
    for clips in whole:
        again = [s for s in initial_states(clips.dataset) if InitialState.from_json(s).key() in known]
        if again:
            raise BadInput(
                f"{clips.dataset.where}: {len(again)} of its episodes were demonstrated in training (first: "
                f"{again[0]['task']}, seed {again[0]['seed']}); record others: wamkit collect SUITE --skip 1000"
            )
    return whole


def _of_robots(run: Run, datasets: Sequence[Path]) -> list[Clips]:
    """`open_clips`, of some sources of a mixture, which are known by their robots."""
    if not run.sources:
        return open_clips(run, datasets)
    robots = [open_datasets([path]).robot_type for path in datasets]
    sources = {source.robot: source for source in run.sources}
    for path, robot in zip(datasets, robots, strict=True):
        if robot not in sources:
            raise BadInput(f"{path}: robot_type is {robot!r}, the run was trained for {', '.join(sources)}")
    return open_clips(replace(run, sources=tuple(sources[robot] for robot in robots)), datasets)


def expectations(watcher: Watcher, clips: Clips, every: int) -> dict[str, list[Expectation]]:
    """Of each episode by its label, at every so many of its steps."""
    found = {}
    with bar("look ahead", len(clips.episodes), unit="episodes") as advance:
        for place in range(len(clips.episodes)):
            episode, steps = DatasetEpisode(clips, place), range(0, len(clips.numbers[place]), every)
            seen = [replace(episode.observation(step, step), step=step) for step in steps]
            label = clips.dataset.label(episode.index)
            found[label] = [
                one
                for start in range(0, len(seen), BATCH)
                for one in watcher.expectations(seen[start : start + BATCH])
            ]
            advance(1, note=label)
    return found


def _calibrated(
    watcher: Watcher,
    robot: str,
    expected: dict[str, list[Expectation]],
    every: int,
    false_alarms: float,
) -> tuple[Usual, Origin]:
    """Every other episode, from the first on, says what is usual."""
    labels, near = list(expected), (watcher.slack(robot), watcher.ahead(robot))
    frames = len(watcher.engine.spec(robot).frame_times) - 1
    usual = Usual(_usual([expected[label] for label in labels[::2]], every, frames), threshold=0.0)
    highest = {}
    for label in labels[1::2]:
        scores = [own.score(usual) for found in replayed(expected[label], *near) for own in found]
        if not scores:
            raise BadInput(f"episode {label}: it is too short for a comparison; calibrate with longer ones")
        highest[label] = max(scores)
    threshold = conformal_threshold(list(highest.values()), false_alarms)
    return replace(usual, threshold=threshold), Origin("", labels[::2], highest)


def _usual(episodes: Sequence[Sequence[Expectation]], every: int, frames: int) -> list[list[float]]:
    """Usual errors by frame ahead and patch: each is compared with the query nearest to it, where one is near."""
    found: list[list[np.ndarray]] = [[] for _ in range(frames)]
    for queries in episodes:
        steps = np.array([one.step for one in queries])
        for one in queries:
            for frame, at in enumerate(one.steps):
                nearest = int(np.abs(steps - at).argmin())
                if abs(steps[nearest] - at) <= every / 2 and steps[nearest] > one.step:
                    found[frame].append(errors(one.later[frame], queries[nearest].seen))
    for frame, own in enumerate(found):
        if not own:
            raise BadInput(
                f"no episode is long enough to see what was expected of frame {frame + 1} after the present; calibrate "
                "with longer ones"
            )
    return [usual_errors(own).tolist() for own in found]
