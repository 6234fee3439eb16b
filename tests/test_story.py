"""The story of the documentation: an arm of your own, from recordings to a page and a success rate, by commands alone.

Here with few episodes and seconds of training; docs/train.md has the numbers of the whole.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from wamkit_client.envs.base import project

from tests.pages import ROOT, run
from tests.story import in_short, story

ARM = ROOT / "examples" / "arm"


@pytest.fixture(scope="module")
def module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("arm_env", ARM / "env.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def arm(module: ModuleType) -> Iterator[object]:
    arm = module.make()
    yield arm
    arm.close()


@pytest.mark.parametrize("seed", [0, 7, 1_000_000])
def test_the_expert_takes_the_block(arm, seed: int) -> None:
    state = arm.reset(seed)
    assert state == arm.reset(seed)
    steps = 1
    while not arm.step(arm.expert_action()).success:
        steps += 1
        assert steps < arm.max_steps // 2


def test_the_path_of_a_chunk_is_where_the_fingers_go(arm) -> None:
    """Drawn over the cameras: what forward kinematics says of the present joints is where the simulator has them."""
    arm.reset(3)
    for _ in range(10):
        arm.step(arm.expert_action())
    here = arm.chunk_path(arm.state(), arm.state()[None])
    np.testing.assert_allclose(here[0], arm.fingers, atol=1e-3)
    seen = project(arm.cameras()["image"], here)[0]
    assert (seen > 0).all() and (seen < arm.observe().images["image"].shape[0]).all()


def test_joints_reach_where_inverse_kinematics_says(module: ModuleType, arm) -> None:
    point = np.array([0.18, -0.07, 0.05])
    np.testing.assert_allclose(arm.chunk_path(None, module.reach(point, 0.2)[None])[0], point, atol=1e-9)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each command of the story printed, by its name, in a folder with nothing but the two files of the arm."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "examples").mkdir()
    (folder / "examples/arm").symlink_to(ARM)
    printed = {}
    for words in story(ROOT / "docs/train.md"):
        name = "plan" if "--plan" in words else Path(words[1]).stem
        printed[name] = run(in_short(words), folder)
    return printed | {"folder": str(folder)}


def test_the_story_has_all_its_steps(told: dict[str, str]) -> None:
    assert list(told) == ["record", "init", "inspect", "plan", "train", "report", "eval", "folder"]
    assert "8 episodes" in told["record"]


def test_its_recipe_is_read_on_one_screen_and_right(told: dict[str, str], module: ModuleType) -> None:
    text = (Path(told["folder"]) / "arm.py").read_text()
    assert len(text.splitlines()) < 60
    names: dict[str, object] = {}
    exec(compile(text, "arm.py", "exec"), names)
    found = names["recipe"]()  # type: ignore[operator]
    assert found.actions.names == module.JOINTS
    assert found.actions.kinds == ("absolute",) * 5 + ("gripper",)
    assert found.data.hz == 15 and found.data.views == ("image", "wrist_image")
    assert found.data.held_out > 0


def test_it_ends_with_a_page_and_a_result(told: dict[str, str]) -> None:
    folder = Path(told["folder"])
    assert "image" in (folder / "arm/seen.html").read_text()
    page = (folder / "arm/run/report.html").read_text()
    assert "held out" in page.lower() or "held-out" in page.lower()
    [results] = folder.glob("arm/run/eval/*/results.json")
    total = json.loads(results.read_text())["total"]
    assert (total["trials"], total["errors"]) == (1, 0)


def test_readme_tells_the_same_story(told: dict[str, str]) -> None:
    """Its commands are some of those of train.md, in the same order."""
    here, there = story(ROOT / "README.md"), story(ROOT / "docs/train.md")
    assert [words for words in there if words in here] == here
