"""`wamkit eval RUN --env my_env.py:make`: a policy in an environment that a user wrote, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.tiny_dataset import RUN, write
from wamkit.cli import main
from wamkit.eval.evaluate import EvalConfig
from wamkit.report.recordings import read_recording
from wamkit.stages.evaluation import results_folder
from wamkit.stages.run import NO_FILE, best_device, train

OWN_ENV = '''"""An environment as a user writes it: what every Env says, and three methods."""

import numpy as np
from wamkit_client.envs.base import Env, InitialState, StepResult, Task
from wamkit_client.types import Observation


class Pusher(Env):
    embodiment = "robot"
    control_hz = 10.0
    max_steps = 8
    action_names = ("x", "grip")
    proprio_names = ("x", "y", "z")
    view_names = ("front", "wrist")

    def __init__(self, task=Task("push", "push the square 0")):
        self.task = task

    def reset(self, seed):
        self.steps, self.needed = 0, 2 + seed % 2 * 100
        return InitialState(self.task.name, seed, (float(seed),))

    def observe(self):
        image = np.full((24, 40, 3), self.steps, np.uint8)
        images = {view: image for view in self.view_names}
        return Observation(images, np.zeros(3, np.float32), self.task.instruction, self.embodiment)

    def step(self, action):
        assert action.shape == (2,)
        self.steps += 1
        return StepResult(success=self.steps >= self.needed, done=False)


class Several(Pusher):
    tasks = (Task("push", "push the square 0"), Task("pull", "pull the square"))


def make():
    return Pusher()


def needs_a_task(task):
    return Pusher(task)


def nothing():
    return 7


class Deaf(Several):
    def __init__(self, task=None):
        super().__init__(self.tasks[0])


class Silent(Env):
    task, embodiment = Task("push", "push the square 0"), "robot"


class Breaks(Pusher):
    def step(self, action):
        raise RuntimeError("the gripper is stuck")
'''


OWN = replace(RUN, suite="", eval=EvalConfig(replan_steps=3, processes=1))


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run without a suite."""
    root = tmp_path_factory.mktemp("own")
    dataset = write(root / "dataset", [9, 9])
    train(OWN, [dataset], NO_FILE, root / "run", best_device())
    return root / "run"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my_env.py"
    path.write_text(OWN_ENV)
    return path


def evaluate(run_dir: Path, *words: object) -> int:
    return main(["eval", str(run_dir), *map(str, words)])


def test_an_own_environment_is_measured_recorded_and_repeated(
    run_dir: Path, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results"
    words = ("--env", f"{file}:make", "--episodes", 4, "--out", out)
    assert evaluate(run_dir, *words) == 0
    results = json.loads((out / "results.json").read_text())
    assert results["suite"]["name"] == "my_env" and results["suite"]["max_steps"] == 8
    assert results["total"]["successes"] == 2 and results["total"]["trials"] == 4
    assert results["total"]["interval"][0] > 0
    assert [row["steps"] for row in results["episodes"]] == [2, 8, 2, 8]
    assert results["simulator"]["actions"] == "x, grip"
    first = results["episodes"][0]
    recording = read_recording(out / first["recording"], "push", first["seed"], "push the square 0", "robot")
    assert recording.display.shape == (3, 24, 40, 3), "the first camera, where there is no larger image"
    assert np.isnan(recording.query_paths).all(), "nothing says where a chunk leads"
    assert "2/4" in capsys.readouterr().out

    file.write_text(OWN_ENV + "# another\n")
    again = tmp_path / "again"
    assert evaluate(run_dir, "--like", out / "results.json", "--out", again) == 0
    told = capsys.readouterr().out
    assert f"simulator.versions.{file}" in told, "a changed file is another environment"
    assert json.loads((again / "results.json").read_text())["total"] == results["total"]
    assert evaluate(run_dir, *words) == 2, "nor are its results those of the old one"
    assert "simulator.versions" in capsys.readouterr().err


def test_its_results_are_called_as_its_file(run_dir: Path, file: Path) -> None:
    assert evaluate(run_dir, "--env", file, "--episodes", 1) == 0
    assert (run_dir / "eval/my_env/results.json").is_file()
    assert results_folder(run_dir, f"{file}:Several") == run_dir / "eval/my_env_Several"
    assert results_folder(run_dir, "my.package:make") == run_dir / "eval/package"
    assert results_folder(run_dir, "metaworld:reach") == run_dir / "eval/metaworld:reach"


def test_an_environment_may_have_several_tasks(
    run_dir: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "several"
    assert evaluate(run_dir, "--env", "my_env:Several", "--episodes", 1, "--out", out) == 0
    results = json.loads((out / "results.json").read_text())
    assert list(results["tasks"]) == ["push", "pull"] and results["total"]["trials"] == 2
    some = tmp_path / "some"
    words = ("--env", "my_env.py:Several", "--tasks", "pull", "--episodes", 1, "--out", some)
    assert evaluate(run_dir, *words) == 0
    assert list(json.loads((some / "results.json").read_text())["tasks"]) == ["pull"]


def test_the_suite_of_a_run_may_be_an_own_environment(file: Path, tmp_path: Path) -> None:
    dataset = write(tmp_path / "dataset", [9])
    run = replace(OWN, suite=f"{file}:make")
    train(run, [dataset], NO_FILE, tmp_path / "run", best_device())
    assert evaluate(tmp_path / "run", "--episodes", 1) == 0
    assert (tmp_path / "run/eval/my_env/results.json").is_file()


Change = Callable[[str], str]


def changed(old: str, new: str) -> Change:
    return lambda text: text.replace(old, new)


WRONG: dict[str, tuple[Change, str, str]] = {
    "no function": (str, "mak", "has no function 'mak'; it has Pusher, Several, make"),
    "no import": (changed("import numpy", "import nunpy"), "make", "line 3: ModuleNotFoundError"),
    "no Env": (str, "nothing", "gives a int, expected a function or class that gives an Env"),
    "an argument": (str, "needs_a_task", "needs_a_task failed, TypeError: needs_a_task() missing 1 required"),
    "raises": (changed("return Pusher()", "return 1 / 0"), "make", "make failed, line 39: ZeroDivisionError"),
    "no rate": (str, "Silent", "'Silent' object has no attribute 'control_hz'; every Env says so"),
    "rate": (changed("10.0", "20.0"), "make", "executes 20 actions per second, and the policy acts at 10 Hz"),
    "robot": (
        changed('"robot"', '"other"'),
        "make",
        "unknown embodiment 'other'; it was fitted on ['robot']",
    ),
    "action names": (
        changed('("x", "grip")', '("grip", "x")'),
        "make",
        "its action_names are grip, x, and the policy's actions are x, grip; give the environment's actions",
    ),
    "camera": (
        changed('("front", "wrist")', '("front", "hand")'),
        "make",
        "its view_names are front, hand, and the policy is shown front, wrist; observe the missing camera (wrist)",
    ),
    "proprio": (
        changed('("x", "y", "z")', '("x",)'),
        "make",
        "its proprio_names are 1 (x), and the policy was trained with 3 numbers of proprio",
    ),
    "task ignored": (str, "Deaf", "expected an environment of the task 'pull', got 'push'"),
    "delay": (str, "make", "Pusher has no idle_action, which a delay needs: set eval.delay_ms to 0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_one_message(
    run_dir: Path, file: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change, function, message = WRONG[name]
    file.write_text(change(OWN_ENV))
    words = ("--eval.delay-ms", 200) if name == "delay" else ()
    code = evaluate(
        run_dir, "--env", f"{file}:{function}", "--episodes", 1, "--out", tmp_path / "out", *words
    )
    told = capsys.readouterr().err
    assert code == 2 and message in told, told
    assert not (tmp_path / "out/results.json").exists()


def test_an_environment_that_breaks_is_an_error_of_its_episodes(
    run_dir: Path, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert evaluate(run_dir, "--env", f"{file}:Breaks", "--episodes", 2, "--out", out) == 0
    results = json.loads((out / "results.json").read_text())
    assert results["total"]["errors"] == 2 and "the gripper is stuck" in results["episodes"][0]["error"]
    assert "the gripper is stuck" in capsys.readouterr().out


def test_demonstrations_of_its_expert_are_collected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "with_expert.py"
    expert = "    def expert_action(self):\n        return np.full(2, 0.5, np.float32)\n\n    def reset"
    path.write_text(OWN_ENV.replace("    def reset", expert, 1))
    words = ("--episodes", "1", "--workers", "1", "--out", str(tmp_path / "collected"))
    assert main(["collect", f"{path}:make", *words]) == 0
    info = json.loads((tmp_path / "collected/meta/info.json").read_text())
    assert info["robot_type"] == "robot" and info["fps"] == 10 and info["total_episodes"] == 1
    assert info["features"]["action"]["names"] == ["x", "grip"]


def test_a_run_without_a_suite_says_what_to_give(
    run_dir: Path, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(run_dir) == 2
    assert (
        "name one with --suite, or your own environment with --env my_env.py:make" in capsys.readouterr().err
    )
    assert evaluate(run_dir, "--env", "metaworld3") == 2
    assert "expected my_env.py:make or package.module:Class" in capsys.readouterr().err
    assert evaluate(run_dir, "--env", file, "--suite", "metaworld3") == 2
    assert "measured on one of them" in capsys.readouterr().err
    assert evaluate(run_dir, "--env", "nowhere.py") == 2
    assert "nowhere.py: missing; expected a Python file with 'make' in it" in capsys.readouterr().err
