"""Evaluation: what results.json says, what is refused, what survives a kill."""

from __future__ import annotations

import errno
import json
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wamkit_client import suites
from wamkit_client.stats import wilson
from wamkit_client.suites import EVALUATION_SEED, Suite, suite
from wamkit_client.types import ActionChunk, BadInput, NotSaved, Observation, Policy

from tests.client.toy import Reacher, Sleeper, ToyConfig, toy_suite
from tests.client.waiting import waiting_suite
from tests.processes import Running
from wamkit.cli import main
from wamkit.eval.evaluate import EvalConfig, differences, evaluate, like, read_results
from wamkit.io.files import AGAIN

CONFIG = EvalConfig(replan_steps=4, processes=2, record_episodes=1)
FACTS = {"checkpoint": "sha256:abc", "recipe": "toy"}
SUITE = toy_suite("reach", "raise")
PRETRAINED = Path(__file__).parents[2] / "pretrained" / "metaworld3"


def outcomes(results: dict[str, Any]) -> list[tuple[object, ...]]:
    return [
        tuple(row[key] for key in ("task", "seed", "status", "steps", "vector"))
        for row in results["episodes"]
    ]


def test_results_say_what_the_score_depends_on(tmp_path: Path) -> None:
    results = evaluate(Reacher(), SUITE, CONFIG, tmp_path, FACTS)
    assert (
        results
        == json.loads((tmp_path / "results.json").read_text())
        == read_results(tmp_path / "results.json")
    )
    assert results["policy"] == FACTS
    assert results["suite"] == SUITE.to_json() and results["suite"]["first_seed"] == EVALUATION_SEED
    assert results["simulator"]["simulator"] == "toy"
    assert results["versions"]["numpy"] == np.__version__
    assert set(results["machine"]) == {"cpu", "cores", "memory_gb", "system"}
    assert results["config"]["replan_steps"] == 4 and results["revision"]
    assert [row["seed"] - EVALUATION_SEED for row in results["episodes"]] == [0, 1, 2, 3] * 2
    assert all(len(row["vector"]) == 1 for row in results["episodes"])
    assert not (tmp_path / "results.partial.jsonl").exists()


def test_a_crash_is_neither_success_nor_failure(tmp_path: Path) -> None:
    results = evaluate(Reacher(), SUITE, CONFIG, tmp_path, FACTS)
    assert results["tasks"]["reach"]["successes"] == results["tasks"]["reach"]["trials"] == 4
    broken = results["tasks"]["raise"]
    assert (broken["successes"], broken["trials"], broken["errors"], broken["rate"]) == (2, 2, 2, 1.0)
    assert results["total"]["trials"] == 6 and results["total"]["interval"] == list(wilson(6, 6))
    assert results["groups"] == {"toys": results["total"]}
    errors = [row for row in results["episodes"] if row["status"] == "error"]
    assert len(errors) == 2 and all(
        "the toy broke" in row["error"] and not row["recording"] for row in errors
    )


def test_lengths_and_latency(tmp_path: Path) -> None:
    results = evaluate(Reacher(), SUITE, CONFIG, tmp_path / "a", FACTS)
    rows = [row for row in results["episodes"] if row["task"] == "reach"]
    assert results["tasks"]["reach"]["mean_steps"] == np.mean([row["steps"] for row in rows])
    assert results["tasks"]["reach"]["expert_steps"] == 11
    latency = results["latency"]
    assert latency["queries"] == sum(len(row["query_ms"]) for row in results["episodes"])
    assert 0 < latency["median_ms"] <= latency["p95_ms"] and 1 <= latency["mean_batch"] <= 2
    failing = evaluate(Sleeper(), toy_suite("reach"), CONFIG, tmp_path / "b", FACTS)["tasks"]["reach"]
    assert (failing["successes"], failing["rate"], failing["mean_steps"]) == (0, 0.0, None)


def test_the_first_episodes_of_each_task_are_recorded(tmp_path: Path) -> None:
    results = evaluate(Reacher(), toy_suite("reach", "refuse"), CONFIG, tmp_path, FACTS)
    kept = [row["recording"] for row in results["episodes"]]
    names = [f"episodes/{task}_{EVALUATION_SEED}.npz" for task in ("reach", "refuse")]
    assert kept == [names[0], "", "", "", names[1], "", "", ""]
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("episodes/*")) == names
    with np.load(tmp_path / kept[0]) as arrays:
        assert len(arrays["action"]) == results["episodes"][0]["steps"]


def test_results_do_not_depend_on_processes(tmp_path: Path) -> None:
    runs = [
        evaluate(Reacher(), SUITE, replace(CONFIG, processes=count), tmp_path / str(count), FACTS)
        for count in (1, 3)
    ]
    assert outcomes(runs[0]) == outcomes(runs[1])
    changed = [line for line in differences(*runs) if not line.startswith("config.processes")]
    assert changed == []


EVALUATE = """
import os, signal, sys
from pathlib import Path
from tests.client.toy import Reacher
from tests.eval.test_evaluate import CONFIG, FACTS, SUITE
from wamkit.eval.evaluate import evaluate

class Killed(Reacher):
    def act(self, observations):
        if (Path(sys.argv[1]) / "results.partial.jsonl").read_text().count("\\n") >= int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().act(observations)

if __name__ == "__main__":
    evaluate(Killed(), SUITE, CONFIG, Path(sys.argv[1]), FACTS)
"""


def test_a_killed_evaluation_goes_on_where_it_was(tmp_path: Path) -> None:
    script, folder = tmp_path / "script.py", tmp_path / "killed"
    script.write_text(EVALUATE)
    partial = folder / "results.partial.jsonl"
    assert Running(["python", str(script), str(folder), "4"], tmp_path).end().status == -signal.SIGKILL
    with partial.open("a") as file:
        file.write('{"task": "reach", "se')  # killed in the middle of a line
    policy = Reacher()
    results = evaluate(policy, SUITE, CONFIG, folder, FACTS)
    assert 3 <= results["resumed"] < 8
    whole = Reacher()
    assert outcomes(results) == outcomes(evaluate(whole, SUITE, CONFIG, tmp_path / "whole", FACTS))
    assert sum(policy.batches) < sum(whole.batches)


def test_latency_is_a_condition_of_the_score(tmp_path: Path) -> None:
    delayed = replace(CONFIG, replan_steps=3, delay_ms=300)
    steps = {}
    for name in ("sync", "async"):
        config = replace(delayed, executor=name)
        results = evaluate(Reacher(), toy_suite("reach"), config, tmp_path / name, FACTS)
        assert results["total"]["successes"] == 4 and results["config"]["executor"] == name
        steps[name] = results["tasks"]["reach"]["mean_steps"]
        rows = [row["smoothness"] for row in results["episodes"]]
        assert results["smoothness"]["idle_s"] == pytest.approx(np.mean([row["idle_s"] for row in rows]))
        assert results["smoothness"]["largest_staleness_ms"] == max(
            row["largest_staleness_ms"] for row in rows
        )
    assert steps["sync"] > steps["async"]
    with pytest.raises(BadInput, match=r'config.executor = "sync", asked for "async"'):
        evaluate(Reacher(), toy_suite("reach"), replace(delayed, executor="async"), tmp_path / "sync", FACTS)


def test_a_finished_evaluation_is_not_repeated(tmp_path: Path) -> None:
    results = evaluate(Reacher(), SUITE, CONFIG, tmp_path, FACTS)
    again = Reacher()
    assert evaluate(again, SUITE, replace(CONFIG, processes=1), tmp_path, FACTS) == results
    assert again.batches == []


def test_another_evaluation_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    evaluate(Reacher(), SUITE, CONFIG, tmp_path, FACTS)
    with pytest.raises(BadInput, match=r"policy.checkpoint = \"sha256:abc\", asked for \"sha256:def\""):
        evaluate(Reacher(), SUITE, CONFIG, tmp_path, {**FACTS, "checkpoint": "sha256:def"})
    with pytest.raises(BadInput, match=r"suite.max_steps = 40, asked for 50"):
        evaluate(Reacher(), replace(SUITE, max_steps=50), CONFIG, tmp_path, FACTS)
    (tmp_path / "results.json").rename(tmp_path / "elsewhere.json")
    request = {
        key: read_results(tmp_path / "elsewhere.json")[key]
        for key in ("suite", "config", "policy", "simulator")
    }
    (tmp_path / "results.partial.jsonl").write_text(json.dumps(request) + "\n")
    with pytest.raises(
        BadInput, match=r"partial.jsonl belongs to an evaluation with config.replan_steps = 4"
    ):
        evaluate(Reacher(), SUITE, replace(CONFIG, replan_steps=2), tmp_path, FACTS)


@pytest.mark.parametrize("name", ["results.json", "results.partial.jsonl"])
def test_what_was_asked_otherwise_is_compared_both_ways(tmp_path: Path, name: str) -> None:
    """Euler steps of a policy: the folder's is what was trained, or what was asked, in either order."""
    trained = {**FACTS, "run": {"policy": {"sample_steps": 10}}}
    asked = {**FACTS, "run": {"policy": {"sample_steps": 1}}, "asked": ["policy.sample_steps: 10 -> 1"]}
    one = toy_suite("reach", episodes=1)
    for number, (first, second) in enumerate(((asked, trained), (trained, asked))):
        folder = tmp_path / str(number)
        there = evaluate(Reacher(), one, CONFIG, folder, first)
        if name != "results.json":
            (folder / "results.json").rename(tmp_path / "elsewhere.json")
            request = {key: there[key] for key in ("suite", "config", "policy", "simulator")}
            (folder / name).write_text(json.dumps(request) + "\n")
        with pytest.raises(BadInput, match=rf"{name} belongs to an evaluation with policy\.(run|asked)"):
            evaluate(Reacher(), one, CONFIG, folder, second)


def test_results_of_older_versions_are_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They say of the policy only what was not as trained, and lack later settings of an evaluation."""
    monkeypatch.setitem(suites.ENV_CONFIGS, "toy", ToyConfig)
    one, facts = toy_suite("reach", episodes=1), {**FACTS, "run": {"policy": {"sample_steps": 10}}}
    new = evaluate(Reacher(), one, CONFIG, tmp_path, facts)
    path = tmp_path / "results.json"
    old = json.loads(json.dumps(new))
    del old["policy"]["run"], old["config"]["processes"], old["config"]["record_episodes"]
    path.write_text(json.dumps(old))
    idle = Reacher()
    assert evaluate(idle, one, CONFIG, tmp_path, facts) == old and idle.batches == []
    assert differences(old, new) == ["config.processes: 4 -> 2"]
    assert like(path) == (one, replace(CONFIG, processes=4))
    with pytest.raises(BadInput, match=r"config.record_episodes = 1, asked for 0"):
        evaluate(Reacher(), one, replace(CONFIG, record_episodes=0), tmp_path, facts)
    # Whatever the weights were stored in, older versions acted in float32.
    del old["smoothness"]
    for row in old["episodes"]:
        del row["smoothness"]
    for name in ("precision", "preprocessing", "executor", "delay_ms", "ensemble_decay"):
        del old["config"][name]
    path.write_text(json.dumps(old))
    assert evaluate(idle, one, CONFIG, tmp_path, {**facts, "precision": "float32"}) == old
    assert like(path) == (one, replace(CONFIG, processes=4, precision="fp32"))
    with pytest.raises(BadInput, match=r'policy\.precision = "float32", asked for "bfloat16"'):
        evaluate(Reacher(), one, CONFIG, tmp_path, {**facts, "precision": "bfloat16"})
    old["policy"]["asked"] = ["policy.sample_steps: 10 -> 1"]
    path.write_text(json.dumps(old))
    with pytest.raises(BadInput, match=r"policy.asked = \[\"policy.sample_steps: 10 -> 1\"\], asked for"):
        evaluate(Reacher(), one, CONFIG, tmp_path, facts)


def test_a_delay_in_control_steps_of_an_older_version_is_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(suites.ENV_CONFIGS, "toy", ToyConfig)
    one = toy_suite("reach", episodes=1)
    config = replace(CONFIG, replan_steps=3, delay_ms=300, executor="async")
    old = evaluate(Reacher(), one, config, tmp_path, FACTS)
    del old["config"]["delay_ms"], old["config"]["ensemble_decay"]
    old["config"]["delay_steps"], old["simulator"]["control_hz"] = 3, 10.0
    path = tmp_path / "results.json"
    path.write_text(json.dumps(old))
    assert like(path) == (one, config)
    assert differences(old, old) == []


def test_two_evaluations_in_one_folder(tmp_path: Path) -> None:
    """A second process is refused while the first works, and later finds its results."""
    script, folder = tmp_path / "script.py", tmp_path / "shared"
    script.write_text(EVALUATE)
    first = Running(["python", str(script), str(folder), "100"], tmp_path, "*/results.partial.jsonl")
    first.until_stopped()
    with pytest.raises(BadInput, match="shared: another process evaluates here"):
        evaluate(Reacher(), SUITE, CONFIG, folder, FACTS)
    first.send(signal.SIGCONT)
    assert first.end().status == 0
    assert evaluate(Sleeper(), SUITE, CONFIG, folder, FACTS)["total"]["successes"] == 6
    assert not (folder / ".lock").exists()


def test_a_recording_that_the_disk_refuses_is_no_error_of_the_episode(tmp_path: Path) -> None:
    (tmp_path / "episodes").mkdir()
    full = tmp_path / "episodes" / f"raise_{EVALUATION_SEED}.npz.tmp"
    full.symlink_to("/dev/full")
    with pytest.raises(NotSaved) as caught:
        evaluate(Reacher(), SUITE, replace(CONFIG, processes=1), tmp_path, FACTS)
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(full)[: -len(".tmp")]
    assert not full.is_symlink()  # half a recording would take what little room there is
    kept = (tmp_path / "results.partial.jsonl").read_text().splitlines()[1:]
    assert len(kept) == 4 and f'"seed": {EVALUATION_SEED}, "status": "error"' not in "".join(kept)
    results = evaluate(Reacher(), SUITE, CONFIG, tmp_path, FACTS)
    assert results["resumed"] == len(kept)
    assert outcomes(results) == outcomes(evaluate(Reacher(), SUITE, CONFIG, tmp_path / "whole", FACTS))


def test_a_full_disk_ends_the_command_with_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(suites.SUITES, "metaworld3", waiting_suite("metaworld3"))
    (tmp_path / "episodes").mkdir()
    (tmp_path / "episodes" / f"rest_{EVALUATION_SEED}.npz.tmp").symlink_to("/dev/full")
    words = ["eval", str(PRETRAINED), "--out", str(tmp_path), "--eval.processes", "1"]
    assert main(words) == 2
    said = " ".join(capsys.readouterr().err.split())
    recording = tmp_path / "episodes" / f"rest_{EVALUATION_SEED}.npz"
    assert said.startswith(f"error: {recording}: the disk is full") and AGAIN in said
    assert main(words) == 0
    assert read_results(tmp_path / "results.json")["resumed"] == 2


@pytest.mark.parametrize("name", ["results.json", "results.partial.jsonl"])
def test_full_disks_that_older_versions_called_errors_are_repeated(tmp_path: Path, name: str) -> None:
    whole = evaluate(Reacher(), SUITE, CONFIG, tmp_path / "whole", FACTS)
    old = json.loads(json.dumps(whole))
    trace = "Traceback (most recent call last):\n    episode.save(job.recording)"
    for number, error in ((0, "[Errno 28] No space left on device"), (4, "[Errno 13] Permission denied")):
        failed = {"status": "error", "error": f"OSError: {error}\n{trace}", "recording": ""}
        old["episodes"][number].update(failed)
    lines = [{key: old[key] for key in ("suite", "config", "policy", "simulator")}, *old["episodes"]]
    text = json.dumps(old) if name == "results.json" else "".join(json.dumps(line) + "\n" for line in lines)
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / name).write_text(text)
    results = evaluate(Reacher(), SUITE, CONFIG, folder, FACTS)
    assert (results["resumed"], results["total"]) == (6, whole["total"])
    assert [path.name for path in folder.iterdir() if path.is_file()] == ["results.json"]


def test_demonstrated_states_are_refused(tmp_path: Path) -> None:
    one = toy_suite("reach", episodes=1)
    state = one.env.make(one.tasks[0]).reset(EVALUATION_SEED)
    with pytest.raises(BadInput, match=r"1 of the evaluation's episodes were demonstrated"):
        evaluate(Reacher(), one, CONFIG, tmp_path / "seed", FACTS, [state])
    with pytest.raises(BadInput, match=r"seed 1000000 begins from a state that was demonstrated"):
        evaluate(Reacher(), one, CONFIG, tmp_path / "state", FACTS, [replace(state, seed=3)])
    other = replace(state, seed=3, vector=(state.vector[0] + 1e-3,))
    assert evaluate(Reacher(), one, CONFIG, tmp_path / "fine", FACTS, [other])["demonstrated"] == 1


def test_a_result_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(suites.ENV_CONFIGS, "toy", ToyConfig)
    before = evaluate(Reacher(), SUITE, CONFIG, tmp_path / "first", FACTS)
    same_suite, same_config = like(tmp_path / "first" / "results.json")
    assert (same_suite, same_config) == (SUITE, CONFIG)
    after = evaluate(Reacher(), same_suite, same_config, tmp_path / "second", FACTS)
    assert differences(before, after) == []
    worse = evaluate(Sleeper(), same_suite, same_config, tmp_path / "third", {**FACTS, "checkpoint": "x"})
    lines = differences(before, worse)
    steps = before["episodes"][0]["steps"]
    assert lines[0] == 'policy.checkpoint: "sha256:abc" -> "x"'
    assert f"reach seed 1000000: success after {steps} -> failure after 40 steps" in lines
    del worse["episodes"][0]
    assert "reach seed 1000000: not repeated" in differences(before, worse)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "damaged"), ("[]", "not a results file"), ('{"format": "wamkit-results-0"}', "expected format")],
)
def test_damaged_results_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "results.json"
    with pytest.raises(BadInput, match="missing"):
        like(path)
    path.write_text(text)
    with pytest.raises(BadInput, match=message):
        like(path)


def test_an_evaluation_of_no_episodes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="at least 1"):
        evaluate(Reacher(), replace(SUITE, episodes=0), CONFIG, tmp_path, FACTS)


class ByHeart(Policy):
    """Knows the expert's chunk for every picture it will be shown: works only if rendering repeats exactly."""

    def __init__(self, benchmark: Suite, replan_steps: int) -> None:
        self.chunks: dict[bytes, np.ndarray] = {}
        self.expected: dict[tuple[str, int], int] = {}
        for task in benchmark.tasks:
            env = benchmark.env.make(task)
            for seed in range(benchmark.first_seed, benchmark.first_seed + benchmark.episodes):
                self._learn(env, seed, replan_steps)
            env.close()

    def _learn(self, env: Any, seed: int, replan_steps: int) -> None:
        env.reset(seed)
        step, solved = 0, False
        while not solved:
            key, chunk = self._key(env.observe()), []
            for _ in range(replan_steps):
                chunk.append(env.expert_action())
                if not solved:
                    solved = env.step(chunk[-1]).success
                    step += 1
            self.chunks[key] = np.stack(chunk)
        self.expected[env.task.name, seed] = step

    @staticmethod
    def _key(observation: Observation) -> bytes:
        return b"".join(observation.images[name].tobytes() for name in sorted(observation.images))

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        return [ActionChunk(self.chunks[self._key(observation)]) for observation in observations]

    def reset(self) -> None:
        pass


def test_the_real_simulator_repeats_to_the_pixel_in_other_processes(tmp_path: Path) -> None:
    benchmark = replace(suite("metaworld:button-press-topdown"), episodes=2, max_steps=150)
    policy = ByHeart(benchmark, replan_steps=8)
    results = evaluate(policy, benchmark, replace(CONFIG, replan_steps=8), tmp_path, FACTS)
    assert {(row["task"], row["seed"]): row["steps"] for row in results["episodes"]} == policy.expected
    assert results["total"]["successes"] == 2
    (same_suite, same_config) = like(tmp_path / "results.json")
    assert (same_suite, same_config) == (benchmark, replace(CONFIG, replan_steps=8))
    with np.load(tmp_path / results["episodes"][0]["recording"]) as kept:
        assert kept["display"].shape[1:] == (256, 256, 3) and kept["query_path"].shape[1:] == (8, 2)
        inside = kept["query_path"][0]
        assert ((inside > 0) & (inside < 256)).all()  # the button is in the picture
