"""The plug-in in the real LeRobot: its own commands train, evaluate and resume wamkit's policies (`make test-lerobot`).

In 0.4.4, in the oracle environment, and in the LeRobot of any environment that LEROBOT_PYTHON names the Python of.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wamkit_client.types import Observation

import wamkit
from tests.data.lerobot_oracle import build
from tests.policies import tiny_fast_wam, tiny_lawam
from tests.robotwin.standin import run_directory
from tests.tiny_dataset import RUN, write
from wamkit.config import load_provenance

pytestmark = pytest.mark.lerobot

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
PACKAGE = ROOT / "packages/lerobot_policy_wamkit"
SOURCES = (HERE, ROOT / "src", ROOT / "packages/wamkit-client/src", ROOT)
TOLD = replace(RUN, eval=replace(RUN.eval, replan_steps=4))
FAST = tiny_fast_wam.tiny_config()
RUNS = {
    "light_wam": TOLD,
    "fast_wam": replace(TOLD, policy=replace(FAST, text=replace(FAST.text, length=8))),
    "lawam": replace(TOLD, policy=tiny_lawam.CONFIG, data=replace(tiny_lawam.SPEC, action_dim=2)),
}
RECIPE = """
from tests.lerobot_plug_in.test_lerobot import TOLD


def recipe():
    return TOLD
"""


def oracle(folder: Path, site: Path) -> str:
    """The session with LeRobot 0.4.4; what it printed."""
    build.build()
    install(build.PYTHON, site)
    shim = HERE.parent / "data/lerobot_oracle"
    return build.run("0.4.4", HERE / "session.py", folder, path=(site, *SOURCES, shim))


def named(folder: Path, site: Path) -> str:
    """The session with the LeRobot of the environment that is named; what it printed."""
    if "LEROBOT_PYTHON" not in os.environ:
        pytest.skip("LEROBOT_PYTHON names no Python of an environment with LeRobot and what wamkit needs")
    python = Path(os.environ["LEROBOT_PYTHON"])
    install(python, site)
    settings = {"PYTHONPATH": os.pathsep.join(map(str, (site, *SOURCES))), "HF_HUB_OFFLINE": "1"}
    command = [str(python), str(HERE / "session.py"), str(folder)]
    return subprocess.run(
        command, env={**os.environ, **settings}, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def install(python: Path, site: Path) -> None:
    """The plug-in, as users do, into a folder."""
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--target", str(site), str(PACKAGE))
    subprocess.run([str(python), "-m", "pip", "install", *options], check=True)


@pytest.fixture(scope="module", params=[oracle, named], ids=["0.4.4", "named"])
def session(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a session that has ended."""
    start: Callable[[Path, Path], str] = request.param
    folder = tmp_path_factory.mktemp("lerobot")
    write(folder / "dataset", [30, 24])
    (folder / "recipe.py").write_text(RECIPE)
    for kind, run in RUNS.items():
        (folder / "runs").mkdir(exist_ok=True)
        run_directory(folder / "runs" / kind, run, "robot")
    sys.stdout.write(start(folder, folder / "site"))
    return folder


@pytest.fixture
def found(session: Path) -> dict[str, Any]:
    """What the session wrote down."""
    written: dict[str, Any] = json.loads((session / "found.json").read_text())
    return written


def test_chunks_are_the_engines(found: dict[str, Any]) -> None:
    """Bit for bit: of a run directory, of a copy that LeRobot saved, loaded by its factory and by the class."""
    assert found["chunks"].keys() >= {"light_wam", "fast_wam"}
    for kind, seen in found["chunks"].items():
        assert seen["shape"] == [3, 6, 2] and seen["kind"] == f"wamkit_{kind}"
        assert seen["equal"] == [True] * 3 and seen["steps"]


def test_a_chunk_continues_the_previous_one(found: dict[str, Any]) -> None:
    """By LeRobot's arguments for real-time chunking, as by our engine; Light-WAM cannot, and says so."""
    for kind, seen in found["chunks"].items():
        if kind == "light_wam":
            assert "cannot continue the previous one" in seen["continues"]
        else:
            assert seen["continues"] is True


def test_losses_are_ours(found: dict[str, Any]) -> None:
    """Of LeRobot's samples, bit for bit those of the same samples read by us; every parameter gets a gradient."""
    for seen in found["losses"].values():
        assert all(seen["equal"].values()) and seen["total"]
        assert seen["learns"] == seen["groups"] > 0


def test_lerobot_evaluates(found: dict[str, Any], session: Path) -> None:
    """What `lerobot-eval` executed is what our engine answers to what was seen."""
    assert found["episode"] is True
    info = json.loads((session / "evaluated/eval_info.json").read_text())
    assert info["overall"]["n_episodes"] == 2 and info["overall"]["pc_success"] == 100.0


def test_what_lerobot_trained_is_a_run_directory(found: dict[str, Any], session: Path) -> None:
    """Trained from a recipe, resumed, and evaluated in between; it acts here too, and says what it was trained on."""
    assert found["checkpoints"] == ["000002", "000004", "000006", "last"]
    folders = [session / f"trained/checkpoints/{step:06d}/pretrained_model" for step in (2, 4, 6)]
    engines = [wamkit.load_policy(folder) for folder in folders]
    rng = np.random.default_rng(0)
    images = {view: rng.integers(0, 256, (32, 32, 3), np.uint8) for view in TOLD.data.views}
    asked = Observation(images, np.zeros(3, np.float32), "push the square 1", "robot")
    chunks = [engine.act([asked])[0].actions for engine in engines]
    assert not np.array_equal(chunks[0], chunks[1]) and not np.array_equal(chunks[1], chunks[2])
    about = [load_provenance(folder) for folder in folders]
    assert about[0]["dataset"] == about[2]["dataset"] and about[0]["dataset"]["episodes"] == 2
    assert all("init" not in facts for facts in about)


def test_fine_tuning_remembers_where_it_began(session: Path) -> None:
    tuned = session / "tuned/checkpoints/last/pretrained_model"
    facts = load_provenance(tuned)
    assert facts["init"]["run"] == str(session / "runs/light_wam") and facts["init"]["normalizer"] == "kept"
    assert (tuned / "normalizer.json").read_bytes() == (
        session / "runs/light_wam/normalizer.json"
    ).read_bytes()


SAID = {
    "camera": "observation.images.front is missing from the batch, .*--rename_map",
    "task": "task is missing from the batch",
    "pixels": r"values from -1 to 1, expected pixels in \[0, 1\]",
    "nan": "values from nan to nan",
    "state": r"proprio: expected \[3\] numbers",
    "forward": "was loaded to act",
    "steps": "n_action_steps is 99, expected 1 to 6",
    "engine": "engine 'warp' is none of plain",
    "robot": "knows the robots 'robot', asked as 'ur5'",
    "normalized": "expected IDENTITY throughout",
    "nothing": "give --policy.path with a run directory, or --policy.recipe",
    "kind": "is of light_wam; give --policy.type wamkit_light_wam",
    "no dataset": "a new one is made for a dataset",
    "wide": r"actions have 4 dimensions, those of the environment or dataset \[2\]",
    "folder": "/no/such/folder: no such folder",
    "no run": "run.json is missing",
}


def test_wrong_input_is_one_message(found: dict[str, Any]) -> None:
    assert found["refusals"].keys() == SAID.keys()
    for name, said in SAID.items():
        assert re.search(said, found["refusals"][name]), found["refusals"][name]
        assert "\n" not in found["refusals"][name]
