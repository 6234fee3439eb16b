"""Evaluating with RoboTwin's evaluator: a stand-in of it, as a process of its own, over a real socket."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wamkit_client.rollout import noise_seed
from wamkit_client.stats import wilson
from wamkit_client.types import BadInput, Observation

from tests.robotwin.standin import (
    HERE,
    SUITE,
    behave,
    checkout,
    executed,
    module,
    run_directory,
    tiny_hands,
    tiny_run,
)
from tests.until import SECONDS, until
from wamkit.cli import main
from wamkit.config import Run, load_engine, load_engine_as, load_run
from wamkit.eval.evaluate import read_results
from wamkit.robotwin import SUITES, evaluate, evaluation, find_suite
from wamkit.robotwin.evaluator import Transcript

FIRST = 4_300_000
SEEDS = [
    FIRST,
    FIRST + 3,
    FIRST + 4,
]  # of every five, the second falls over and the third is beyond the expert


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_directory(tmp_path_factory.mktemp("run"), tiny_run())


def measured(run_dir: Path, out: Path, root: Path, suite: str = SUITE, episodes: int = 3) -> dict[str, Any]:
    return evaluate(run_dir, load_run(run_dir), suite, episodes, out, root)


def outcomes(results: dict[str, Any], task: str) -> list[tuple[int, str]]:
    return [(row["seed"], row["status"]) for row in results["episodes"] if row["task"] == task]


def first_observation(seed: int) -> Observation:
    """What the stand-in shows at the beginning of an episode, in our words."""
    table = module(HERE / "shared" / "envs" / "table.py")
    seen = table.pictures(seed, 0)
    names = {"cam_high": "head_camera", "cam_left_wrist": "left_camera", "cam_right_wrist": "right_camera"}
    images = {view: seen[name] for view, name in names.items()}
    state, words = table.joints(seed, 6).ravel(), f"unseen words {seed}"
    return Observation(images, state, words, "aloha", noise_seed(seed, 0))


@pytest.mark.parametrize("age", ["present", "former"])
def test_episodes_of_both_ages(run_dir: Path, tmp_path: Path, age: str) -> None:
    root, out = checkout(tmp_path / "RoboTwin", age), tmp_path / "out"
    results = measured(run_dir, out, root)
    assert results == read_results(out / "results.json")
    expected = [(SEEDS[0], "success"), (SEEDS[1], "failure"), (SEEDS[2], "success")]
    for task in ("adjust_bottle", "place_fan"):
        assert outcomes(results, task) == expected
        assert results["tasks"][task]["rate"] == pytest.approx(2 / 3)
    assert results["total"]["interval"] == list(wilson(4, 6))
    # Solved at the fifth action; a failure runs to the simulator's limit of 30, which is a chunk of 24 and one of 6.
    steps = [row["steps"] for row in results["episodes"][:3]]
    assert steps == ([24, 30, 24] if age == "present" else [5, 30, 5])
    assert [len(row["query_ms"]) for row in results["episodes"][:3]] == [1, 2, 1]
    calls = sorted(call for row in results["episodes"] for call in row["query_call"])
    # The former age has begun a fourth episode when it is ended, and asked again.
    assert calls[0] == 0 and len(set(calls)) == 8
    assert all(row["instruction"] == f"unseen words {row['seed']}" for row in results["episodes"])
    assert results["simulator"]["step_limits"] == {"adjust_bottle": 30, "place_fan": 30}
    assert results["simulator"]["versions"]["numpy"] == np.__version__
    assert results["suite"]["first_seed"] == FIRST and results["suite"]["env"]["embodiment"] == "aloha"
    assert not (out / "results.partial.jsonl").exists()
    # Not only some actions arrive: those that the policy answers to the picture, the joints and the words.
    done = next(row for row in executed(root) if row["seed"] == SEEDS[1] and row["task"] == "place_fan")
    assert len(done["executed"]) == 30 and {row[0] for row in done["executed"]} == {"qpos"}
    chunk = load_engine(run_dir, evaluation.best_device()).act([first_observation(SEEDS[1])])[0].actions
    np.testing.assert_allclose([row[1:] for row in done["executed"][:24]], chunk[:24], rtol=1e-5, atol=1e-6)


def test_the_precision_that_is_asked_for_is_served_and_told(run_dir: Path, tmp_path: Path) -> None:
    root, out = checkout(tmp_path / "RoboTwin", "present"), tmp_path / "out"
    words = [
        "--suite",
        "robotwin_clean:place_fan",
        "--episodes",
        "1",
        "--robotwin",
        str(root),
        "--out",
        str(out),
    ]
    assert main(["eval", str(run_dir), *words, "--precision", "bf16"]) == 0
    results = read_results(out / "results.json")
    assert (results["policy"]["precision"], results["config"]["precision"]) == ("bfloat16", "bf16")
    (done,) = executed(root)
    run = load_run(run_dir)
    chunks = {}
    for precision in ("bf16", "fp32"):
        asked = replace(run, eval=replace(run.eval, precision=precision))
        engine = load_engine_as(asked, run_dir, evaluation.best_device())
        chunks[precision] = engine.act([first_observation(SEEDS[0])])[0].actions
    assert np.abs(chunks["bf16"] - chunks["fp32"]).max() > 1e-4
    actions = np.array([row[1:] for row in done["executed"][:5]])
    np.testing.assert_allclose(actions, chunks["bf16"][: len(actions)], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("age", "odd"),
    [
        ("present", ["warms up", "resets twice", "gives up"]),
        ("former", ["resets twice"]),
        ("former", ["gives up"]),
    ],
)
def test_rows_are_those_of_the_episodes_whatever_else_is_asked(
    run_dir: Path, tmp_path: Path, age: str, odd: list[str]
) -> None:
    """A crash in the second episode, and resets and queries that belong to none."""
    root = checkout(tmp_path / "RoboTwin", age, odd=odd)
    if age == "present":
        behave(root, odd=odd, crash_at=26, crash_seed=SEEDS[1])
    rows = measured(run_dir, tmp_path / "out", root, "robotwin_clean:place_fan")["episodes"]
    assert [row["seed"] for row in rows] == SEEDS
    assert [row["instruction"] for row in rows] == [f"unseen words {seed}" for seed in SEEDS]
    assert [len(row["query_ms"]) for row in rows] == [1, 2, 1]
    if age == "present":
        assert [row["status"] for row in rows] == ["success", "error", "success"]
        assert "the planner has lost its mind" in rows[1]["error"]
    else:
        assert [row["status"] for row in rows] == ["success", "failure", "success"]
        assert [row["steps"] for row in rows] == [5, 30, 5]


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        ("fails once before", r"did not tell which of its attempts at seed 4300000 this was"),
        ("tells no seed", r"asked this policy nothing in this episode, as far as it told"),
    ],
)
def test_what_cannot_be_told_is_an_error_and_not_a_guess(
    run_dir: Path, tmp_path: Path, odd: str, said: str
) -> None:
    root = checkout(tmp_path / "RoboTwin", "present", odd=[odd])
    results = measured(run_dir, tmp_path / "out", root, "robotwin_clean:place_fan", 1)
    (row,) = results["episodes"]
    assert (row["status"], row["query_ms"], row["instruction"]) == ("error", [], "")
    assert re.search(said, row["error"]) and results["total"]["rate"] is None


@pytest.mark.parametrize("age", ["present", "former"])
def test_the_token_is_nowhere_where_others_can_read_it(run_dir: Path, tmp_path: Path, age: str) -> None:
    root, out = checkout(tmp_path / "RoboTwin", age), tmp_path / "out"
    (out / "logs").mkdir(parents=True)
    (out / "logs" / "place_fan.log").touch(0o644)
    measured(run_dir, out, root, "robotwin_clean:place_fan", 1)
    log = out / "logs" / "place_fan.log"
    assert log.stat().st_mode & 0o077 == 0
    if age == "present":
        token = re.search(r"ws://127.0.0.1:\d+/(\w{32}) ", log.read_text())[1]  # the evaluator prints it
        seen = (root / "arguments").read_bytes()
        assert b"--additional_info" in seen and token.encode() not in seen


def test_end_effector_poses(tmp_path: Path) -> None:
    run_dir, root = (
        run_directory(tmp_path / "run", tiny_run("ee")),
        checkout(tmp_path / "RoboTwin", "present"),
    )
    results = measured(run_dir, tmp_path / "out", root, "robotwin_randomized:place_fan")
    assert outcomes(results, "place_fan")[0] == (SEEDS[0], "success")
    assert results["simulator"]["actions"] == "absolute end-effector poses, reached by the planner"
    rows = np.array([row[1:] for episode in executed(root) for row in episode["executed"]])
    assert rows.shape[1] == 16 and {row[0] for row in executed(root)[0]["executed"]} == {"ee"}
    for first in (3, 11):
        np.testing.assert_allclose(np.linalg.norm(rows[:, first : first + 4], axis=1), 1, rtol=1e-5)


def test_lawams_protocol(tmp_path: Path) -> None:
    """Whole chunks of poses, without proprio, in scenes and words of its own."""
    run_dir = run_directory(tmp_path / "run", tiny_hands(), "aloha-agilex")
    root = checkout(tmp_path / "RoboTwin", "former")
    results = measured(run_dir, tmp_path / "out", root, "robotwin_clean_lawam:place_fan", 2)
    assert [(row["seed"], row["status"], row["steps"]) for row in results["episodes"]] == [
        (100_000, "success", 5),
        (100_003, "failure", 30),  # the simulator's limit, within one chunk of 36
    ]
    assert [len(row["query_ms"]) for row in results["episodes"]] == [1, 1]
    assert [row["instruction"] for row in results["episodes"]] == ["seen words 100000", "seen words 100003"]
    assert results["suite"]["env"]["instructions"] == "seen" and results["policy"]["precision"] == "bfloat16"
    rows = executed(root)[1]["executed"]
    assert {row[0] for row in rows} == {"ee"}
    poses = np.array([row[1:] for row in rows])
    for first in (3, 11):
        np.testing.assert_allclose(np.linalg.norm(poses[:, first : first + 4], axis=1), 1, rtol=1e-5)


def test_finished_tasks_survive_a_dead_evaluator(run_dir: Path, tmp_path: Path) -> None:
    root = checkout(tmp_path / "RoboTwin", "present", die_at=2, tasks=["place_fan"])
    with pytest.raises(BadInput, match=r"place_fan ended with status 9 after 2 of 3 episodes") as caught:
        measured(run_dir, tmp_path / "out", root)
    assert "out of memory on the simulator's GPU" in str(caught.value)
    behave(root)
    (root / "executed.jsonl").unlink()
    results = measured(run_dir, tmp_path / "out", root)
    assert results["resumed"] == 3 and {row["task"] for row in executed(root)} == {"place_fan"}
    assert results["total"]["trials"] == 6
    assert measured(run_dir, tmp_path / "out", root) == results
    with pytest.raises(BadInput, match=r"suite.episodes = 3, asked for 2"):
        measured(run_dir, tmp_path / "out", root, episodes=2)


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ({"cameras": ["head_camera", "left_camera"]}, "camera 'cam_right_wrist' is missing"),
        ({"joints": 7}, "'left_arm_joint_state': expected 6 finite numbers"),
        ({"crash_at": 3}, "the planner has lost its mind"),
    ],
)
def test_what_the_policy_is_not_to_blame_for(
    run_dir: Path, tmp_path: Path, behaviour: dict[str, object], said: str
) -> None:
    """The evaluator swallows these and counts a failure."""
    root = checkout(tmp_path / "RoboTwin", "present", **behaviour)
    results = measured(run_dir, tmp_path / "out", root, "robotwin_clean:place_fan")
    assert results["total"]["errors"] == 3 and results["total"]["rate"] is None
    assert all(said in row["error"] for row in results["episodes"])


def test_the_former_age_stops_at_the_first_refusal(run_dir: Path, tmp_path: Path) -> None:
    root = checkout(tmp_path / "RoboTwin", "former", joints=7)
    with pytest.raises(BadInput, match=r"place_fan ended with status 1 after 0 of 3") as caught:
        measured(run_dir, tmp_path / "out", root, "robotwin_clean:place_fan")
    assert "'left_arm_joint_state': expected 6 finite numbers" in str(caught.value)


def test_a_silent_evaluator_is_ended(run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = checkout(tmp_path / "RoboTwin", "present", silent=True)
    heard, pid = Transcript.silent_seconds, root / "evaluator.pid"

    def silent_seconds(transcript: Transcript) -> float:
        return heard(transcript) if pid.exists() and pid.read_text() else 0.0

    monkeypatch.setattr(Transcript, "silent_seconds", silent_seconds)
    monkeypatch.setattr(evaluation, "SILENT_SECONDS", 0.5)
    with pytest.raises(BadInput, match="after 0 of 3 episodes"):
        measured(run_dir, tmp_path / "out", root, "robotwin_clean:place_fan")
    assert not Path(f"/proc/{pid.read_text()}").exists()


EVALUATE = """
import sys
from pathlib import Path
from wamkit.config import load_run
from wamkit.robotwin import evaluate
run, out, root = map(Path, sys.argv[1:])
evaluate(run, load_run(run), "robotwin_clean:place_fan", 3, out, root)
"""


def test_a_folder_has_one_evaluation_and_ctrl_c_ends_its_evaluator(run_dir: Path, tmp_path: Path) -> None:
    root = checkout(tmp_path / "RoboTwin", "present", silent=True)
    command = [sys.executable, "-c", EVALUATE, str(run_dir), str(tmp_path / "out"), str(root)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    pid = root / "evaluator.pid"

    def began() -> bool:
        assert process.poll() is None
        return pid.exists() and pid.read_text() != ""

    until(began)
    child = int(pid.read_text())
    with pytest.raises(BadInput, match="out: another process evaluates here"):
        measured(run_dir, tmp_path / "out", root, "robotwin_clean:place_fan")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=SECONDS)
    assert process.returncode != 0 and "finished tasks are kept" in said
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_half_a_task_in_the_partial_file_is_run_again(run_dir: Path, tmp_path: Path) -> None:
    root, out = checkout(tmp_path / "RoboTwin", "present", die_at=0, tasks=["place_fan"]), tmp_path / "out"
    with pytest.raises(BadInput):
        measured(run_dir, out, root)
    partial = out / "results.partial.jsonl"
    lines = partial.read_text().splitlines()
    assert len(lines) == 4
    partial.write_text("\n".join(lines[:3]) + '\n{"task": "adju')
    behave(root)
    assert measured(run_dir, out, root)["resumed"] == 0
    assert len(executed(root)) == 9


def broken(root: Path, what: str) -> None:
    match what:
        case "checkout":
            (root / "scripts" / "eval_policy_xpolicylab.py").unlink()
        case "XPolicyLab":
            (root / "XPolicyLab" / "client_server" / "ws" / "model_client.py").unlink()
        case "assets":
            (root / "assets" / "embodiments" / "README").unlink()
            (root / "assets" / "embodiments").rmdir()
        case "config":
            (root / "env_cfg" / "task_config" / "demo_clean.yml").unlink()
        case "limits":
            (root / "env_cfg" / "task_config" / "_eval_step_limit.yml").unlink()
        case "python":
            (root / ".venv").unlink()


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("checkout", "is not a RoboTwin 2.0 checkout.*--robotwin CHECKOUT"),
        ("XPolicyLab", "git submodule update --init XPolicyLab"),
        ("assets", r"bash scripts/_download_assets.sh"),
        ("config", "demo_clean.yml is missing"),
        ("limits", "_eval_step_limit.yml is missing"),
        ("python", r"ln -s ENVIRONMENT .*\.venv"),
    ],
)
def test_what_is_missing_is_said(run_dir: Path, tmp_path: Path, what: str, said: str) -> None:
    root = checkout(tmp_path / "RoboTwin", "present")
    broken(root, what)
    with pytest.raises(BadInput, match=said):
        measured(run_dir, tmp_path / "out", root)
    assert not (tmp_path / "out").exists()


def test_the_former_age_needs_our_packages(run_dir: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    root = checkout(tmp_path / "RoboTwin", "former", python=str(bare))
    with pytest.raises(BadInput, match=r"has no msgpack and no websockets.*-m pip install"):
        measured(run_dir, tmp_path / "out", root)
    with pytest.raises(BadInput, match="evaluates 100 episodes per task, 101 are asked for"):
        measured(run_dir, tmp_path / "out", root, episodes=101)


def changed(run: Run, what: str) -> Run:
    match what:
        case "views":
            return replace(run, data=replace(run.data, views=("front", "cam_left_wrist", "cam_right_wrist")))
        case "actions":
            return replace(run, actions=replace(run.actions, names=run.actions.names[::-1]))
        case "executor":
            return replace(run, eval=replace(run.eval, executor="async", delay_ms=80))
        case _:
            return replace(run, eval=replace(run.eval, replan_steps=33))


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("views", "camera 'front', RoboTwin has cam_high"),
        ("actions", "are not RoboTwin's"),
        ("executor", "eval.executor must be sync and eval.delay_ms 0"),
        ("replan", "expected at most the 32 actions of a chunk .* got 33"),
    ],
)
def test_policies_for_something_else_are_refused(tmp_path: Path, what: str, said: str) -> None:
    run_dir = run_directory(tmp_path / "run", changed(tiny_run(), what))
    with pytest.raises(BadInput, match=said):
        measured(run_dir, tmp_path / "out", checkout(tmp_path / "RoboTwin", "present"))


def test_whose_statistics_are_used(tmp_path: Path) -> None:
    root = checkout(tmp_path / "RoboTwin", "present")
    both = run_directory(tmp_path / "both", tiny_run(), "other", "aloha-agilex")
    results = measured(both, tmp_path / "out", root, "robotwin_clean:place_fan", 1)
    assert results["suite"]["env"]["embodiment"] == "aloha-agilex"
    neither = run_directory(tmp_path / "neither", tiny_run(), "other", "another")
    with pytest.raises(BadInput, match="knows several robots"):
        measured(neither, tmp_path / "out", root)


def test_suites() -> None:
    for name, suite in SUITES.items():
        first, instructions = (100_000, "seen") if name.endswith("_lawam") else (FIRST, "unseen")
        assert len({task.name for task in suite.tasks}) == 50
        assert (suite.episodes, suite.first_seed, suite.name) == (100, first, name)
        data = json.loads(json.dumps(suite.to_json()))
        assert data["env"]["instructions"] == instructions
    assert list(SUITES) == [
        f"robotwin_{scenes}{ending}" for ending in ("", "_lawam") for scenes in ("clean", "randomized")
    ]
    assert SUITES["robotwin_randomized"].to_json()["env"]["task_config"] == "demo_randomized"
    assert [task.name for task in find_suite(SUITE).tasks] == ["adjust_bottle", "place_fan"]
    for name in ("robotwin", "robotwin_clean:fly"):
        with pytest.raises(BadInput):
            find_suite(name)
