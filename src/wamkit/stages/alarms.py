"""`wamkit analyse warning`: does the world model of a run warn of what breaks an episode, and of nothing else?

The run is evaluated in a suite as it is and with each perturbation in it, from the same initial states; each is an
ordinary evaluation in OUT/<suite>, which is gone on with. At every query the warning stands beside scores that need no
world model. What a score says within `seconds` after the perturbation is compared with what it says at the same steps
of the unperturbed episode from the same initial state, so that longer episodes do not look more alarming.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from wamkit_client.stats import wilson
from wamkit_client.suites import Suite
from wamkit_client.suites import suite as find_suite
from wamkit_client.types import WHOLE, ActionChunk, BadInput, Observation
from wamkit_client.types import Policy as ClientPolicy

from wamkit.analysis.warning import auroc, auroc_interval
from wamkit.config import Run, load_normalizer
from wamkit.data.statistics import Stats
from wamkit.eval.evaluate import evaluate
from wamkit.infer.engine import Engine
from wamkit.infer.warning import Watched
from wamkit.io.records import write_record
from wamkit.report.alarms import Alarms, Kind, Score, write_alarms_page
from wamkit.report.rates import crashes
from wamkit.report.results import RATE
from wamkit.stages.evaluation import demonstrated, expect_fit, policy_facts
from wamkit.stages.warning import load_watched, read_calibration

Row = dict[str, Any]
SCORES = {
    "score": "the world model's warning: what it expected for now, against what is seen",
    "still": "the same, as if nothing had been expected to move since",
    "frame difference": "mean absolute difference of the images since the last query",
    "proprio range": "distance of the proprio from the middle of its training range, in halves of it; the largest",
    "chunk difference": "squared difference of the actions that this chunk and the last one have for the same steps",
    "action variance": "of the chunk over draws of its noise",
}
"""What is compared, and what it is."""
DRAWS = 4
"""Chunks that an action's variance is of."""
STILL = 1e-3
"""Half the range of a proprio that hardly moved in training."""


class Beside(ClientPolicy):
    """A watched policy, whose warnings get further scores. proprio: by robot, of training.

    draws: of noise for the action's variance; 0: the policy draws nothing.
    """

    def __init__(self, watched: Watched, proprio: Mapping[str, Stats], draws: int) -> None:
        self._watched, self._proprio, self._draws = watched, proprio, draws
        self._last: dict[str, tuple[Observation, ActionChunk]] = {}  # by episode

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        """The policy's chunks, whole, so that two in a row have actions for the same steps."""
        chunks = self._watched.act([replace(seen, steps=WHOLE) for seen in observations])
        for seen, chunk in zip(observations, chunks, strict=True):
            if "warning" in chunk.info:
                chunk.info["warning"] |= self._scores(seen, chunk, *self._last[seen.episode])
            self._last[seen.episode] = seen, chunk
        return chunks

    def reset(self) -> None:
        """A new evaluation."""
        self._watched.reset()
        self._last = {}

    def _scores(
        self, seen: Observation, chunk: ActionChunk, before: Observation, last: ActionChunk
    ) -> dict[str, float]:
        pairs = [(seen.images[view], before.images[view]) for view in seen.images]
        moved = [np.abs(now.astype(float) - earlier).mean() for now, earlier in pairs]
        passed = seen.step - before.step
        same = min(len(last.actions) - passed, len(chunk.actions))
        found = {"frame difference": float(np.mean(moved))}
        if same > 0:
            change = last.actions[passed : passed + same] - chunk.actions[:same]
            found["chunk difference"] = float(np.square(change).mean())
        own = self._proprio[seen.embodiment]
        if len(own.min):
            half = np.maximum((own.max - own.min) / 2, STILL)
            middle = (own.max + own.min) / 2
            found["proprio range"] = float(np.abs((seen.proprio - middle) / half).max())
        if self._draws:
            asked = [replace(seen, noise_seed=seen.noise_seed + n) for n in range(self._draws)]
            several = np.stack([one.actions for one in self._watched.engine.act(asked)])
            found["action variance"] = float(several.var(axis=0).mean())
        return found


@dataclass(frozen=True)
class AlarmsConfig:
    """perturbations: words after the suite's name. episodes: per task; 0: as the suite says. seconds: after a
    perturbation, in which it should be noticed."""

    suite: str
    perturbations: tuple[str, ...]
    episodes: int
    seconds: float


def alarms(
    run_dir: Path, run: Run, config: AlarmsConfig, out: Path, device: torch.device, command: str
) -> Alarms:
    """Write alarms.json and alarms.html into `out`, beside the evaluations.

    Raises BadInput as of `load_watched`, and for a suite that cannot be perturbed.
    """
    if not config.perturbations:
        raise BadInput("--perturbations: expected at least one, as lights_off or lights_off=0.5")
    run = replace(run, eval=replace(run.eval, warn=True))
    suites = {word: _suite(config, word) for word in ("", *config.perturbations)}
    calibration, watched = read_calibration(run_dir), load_watched(run, run_dir, device)
    stats = {robot: own["proprio"] for robot, own in load_normalizer(run_dir).stats.items()}
    for suite in suites.values():
        expect_fit(run, suite, watched.engine.policy.embodiment)
    facts, known = policy_facts(run_dir, run, device), demonstrated(run_dir)
    results, draws = {}, DRAWS * _draws_noise(watched.engine, suites[""].env.embodiment)
    for word, suite in suites.items():
        policy = Beside(watched, stats, draws)
        results[word] = evaluate(policy, suite, run.eval, out / suite.name, facts, known)
    robot = suites[""].env.embodiment
    usual = _by_seed(results[""])
    alarmed = sum(any(said["alarm"] for said in row["warnings"]) for row in usual.values())
    record = Alarms(
        command=command,
        suite=suites[""].to_json(),
        policy=dict(facts),
        false_alarms=calibration.false_alarms,
        ahead=calibration.ahead,
        threshold=calibration.robots[robot].threshold,
        seconds=config.seconds,
        episodes=len(usual),
        alarmed=alarmed,
        alarmed_interval=wilson(alarmed, len(usual)),
        solved=RATE.validate_python(results[""]["total"]),
        kinds=[_kind(suites[word], results[word], usual, config.seconds) for word in config.perturbations],
        scores={name: about for name, about in SCORES.items() if _known(name, results.values())},
        crashes=[
            crash for word, own in results.items() for crash in crashes(word or "without a perturbation", own)
        ],
    )
    write_record(out / "alarms.json", record)
    write_alarms_page(out / "alarms.html", record)
    return record


def _suite(config: AlarmsConfig, word: str) -> Suite:
    found = find_suite(f"{config.suite}+{word}" if word else config.suite)
    return replace(found, episodes=config.episodes) if config.episodes else found


def _draws_noise(engine: Engine[Any], robot: str) -> bool:
    """Whether its chunks depend on noise."""
    spec = engine.spec(robot)
    images = {view: np.zeros((spec.view_height, spec.view_width, 3), np.uint8) for view in spec.views}
    asked = [
        Observation(images, np.zeros(spec.proprio_dim, np.float32), "wait", robot, seed) for seed in (1, 2)
    ]
    one, other = engine.act(asked)
    return not np.allclose(one.actions, other.actions, atol=1e-4)


def _by_seed(results: Mapping[str, Any]) -> dict[tuple[str, int], Row]:
    """Episodes whose environment did not crash."""
    return {(row["task"], row["seed"]): row for row in results["episodes"] if row["status"] != "error"}


def _known(name: str, results: Any) -> bool:
    return any(name in said for one in results for row in one["episodes"] for said in row["warnings"])


def _kind(
    suite: Suite, results: Mapping[str, Any], usual: Mapping[tuple[str, int], Row], seconds: float
) -> Kind:
    """How well a perturbation is noticed."""
    env = suite.env
    steps = round(seconds * env.control_hz)
    pairs: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in SCORES}
    reached, delays, curves = 0, [], []
    for key, row in _by_seed(results).items():
        onset = env.perturbation.step(key[1], env.control_hz)
        after = [said for said in row["warnings"] if said["step"] > onset]
        if not after:  # it was over before
            continue
        reached += 1
        first = [said["step"] for said in after if said["alarm"]][:1]
        delays += [(step - onset) / env.control_hz for step in first]
        curves.append([((s["step"] - onset) / env.control_hz, s["score"]) for s in row["warnings"]])
        for name, found in pairs.items():
            both = [_highest(one, name, onset, steps) for one in (usual.get(key, {}), row)]
            if all(both):
                for own, value in zip(found, both, strict=True):
                    own.extend(value)
    return Kind(
        suite=suite.name,
        solved=RATE.validate_python(results["total"]),
        reached=reached,
        noticed=len(delays),
        noticed_interval=wilson(len(delays), reached),
        median_delay=float(np.median(delays)) if delays else None,
        scores={name: _score(*own) for name, own in pairs.items() if own[0]},
        curves=curves,
    )


def _highest(row: Row, name: str, onset: int, steps: int) -> list[float]:
    """The highest value of a score within `steps` after the perturbation, or nothing where there is none."""
    said = [one for one in row.get("warnings", ()) if onset < one["step"] <= onset + steps and name in one]
    return [max(one[name] for one in said)] if said else []


def _score(low: Sequence[float], high: Sequence[float]) -> Score:
    return Score(len(low), auroc(low, high), auroc_interval(low, high))
