"""A policy in a package of its own: commands take examples/own_policy once it is installed, without an edit in src."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import site
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
from wamkit_client.types import BadInput

from wamkit import plugins, recipes
from wamkit.config import load_run
from wamkit.data.lerobot.writer import Writer
from wamkit.plugins import POLICIES
from wamkit.registry import policy_kinds

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "own_policy"
SMALL = (
    *("--policy.channels", "4", "--policy.width", "8", "--train.batch-size", "4", "--train.steps", "60"),
    *("--train.warmup-steps", "1", "--train.save-every", "5", "--eval.processes", "1"),
)
TRAIN = ("train", "metaworld3_cloning", "--dataset", "dataset", *SMALL)

SOURCES = [str(ROOT / "src"), str(ROOT / "packages" / "wamkit-client" / "src")]

# Commands one after the other in one process: most of a command's seconds are the import of torch.
IN_ONE_PROCESS = """
import json, sys
from wamkit.cli import main
for words in json.loads(sys.argv[1]):
    print("$ wamkit", *words, flush=True)
    if status := main(words):
        sys.exit(status)
"""

# Killed after its first checkpoint, when it writes the second.
KILLED = """
import signal, sys
from tests.moments import signal_at
from wamkit.cli import main
signal_at("*/checkpoints/step_000010", signal.SIGKILL)
main(sys.argv[1:])
"""


def plug_in(folder: Path, module: str, source: str, group: str, name: str, target: str) -> Path:
    """A folder as an installer leaves it, to be put on PYTHONPATH."""
    about = folder / f"{module}-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[{group}]\n{name} = {module}:{target}\n")
    (folder / f"{module}.py").write_text(source)
    return folder


# A second package, whose recipe has the first one's policy, and a suite without a simulator.
WAITING = """
from dataclasses import replace
from own_recipes import metaworld3_cloning
from tests.client.waiting import waiting_suite
from wamkit_client.suites import SUITES

SUITES["waiting"] = waiting_suite("waiting")

def waiting_cloning():
    return replace(metaworld3_cloning(), recipe="waiting_cloning", suite="waiting")
"""


class Workplace:
    """A folder with a dataset, and a Python in which the plug-in is installed; it sees the packages of this one."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.python = folder, folder / "env" / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", "env"], cwd=folder, check=True)
        [packages] = folder.glob("env/lib/python*/site-packages")
        (packages / "these.pth").write_text("\n".join([*site.getsitepackages(), *SOURCES]))
        shutil.copytree(EXAMPLE, folder / "own_policy")  # setuptools builds beside the sources
        install = ("install", "--no-index", "--no-deps", "--no-build-isolation", "./own_policy")
        pip = [sys.executable, "-m", "pip", "--python", str(self.python), *install]
        subprocess.run(pip, cwd=folder, check=True, capture_output=True)
        plug_in(folder / "more", "more", WAITING, "wamkit.recipes", "waiting_cloning", "waiting_cloning")
        record(folder / "dataset")

    def start(self, *words: str) -> subprocess.Popen[str]:
        command = [str(self.python), *words]
        variables = os.environ | {"PYTHONPATH": f"{self.folder / 'more'}{os.pathsep}{ROOT}", "COLUMNS": "200"}
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=variables,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def wamkit(self, *words: str, status: int = 0) -> str:
        return ended(self.start("-m", "wamkit.cli", *words), status)

    def commands(self, *commands: Sequence[str], status: int = 0) -> str:
        """One after the other in one process; status: of the last."""
        return ended(self.start("-c", IN_ONE_PROCESS, json.dumps(commands)), status)

    def bytes(self, path: str) -> bytes:
        return (self.folder / path).read_bytes()


def ended(process: subprocess.Popen[str], status: int) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == status, output
    return output


def record(root: Path) -> None:
    """Two short episodes as Meta-World's collector records them, of noise."""
    vector = {"dtype": "float32", "shape": [4], "names": None}
    features = {"action": vector, "observation.state": vector}
    views = ("corner2", "gripperPOV")
    features |= {f"observation.images.{view}": {"dtype": "video", "shape": [64, 64, 3]} for view in views}
    writer, rng = Writer.create(root, 80, "metaworld_sawyer", features), np.random.default_rng(0)
    for length in (20, 24):
        columns = {
            name: rng.uniform(-1, 1, (length, 4)).astype(np.float32)
            for name in ("action", "observation.state")
        }
        frames = {view: rng.integers(0, 256, (length, 64, 64, 3), np.uint8) for view in views}
        writer.add_episode(columns, frames, "press the button")
    writer.finalize()


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return Workplace(tmp_path_factory.mktemp("plug_in"))


@pytest.fixture(scope="module")
def trained(work: Workplace) -> str:
    """What was printed while recipes were listed, a run was planned, encoded and trained, dataset and run looked at."""
    return work.commands(
        ("recipes",),
        ("train", "metaworld3_cloning", "--plan", "--dataset", "dataset"),
        ("inspect", "dataset", "--recipe", "metaworld3_cloning", "--out", "recipe.html"),
        ("encode", "metaworld3_cloning", "--dataset", "dataset", "--cache", "cache"),
        (*TRAIN, "--cache", "cache", "--out", "run"),
        (*TRAIN, "--cache", "cache", "--out", "run"),
        ("inspect", "run"),
        ("inspect", "run", "--dataset", "dataset"),
        (*TRAIN, "--cache=cache", "--out=run", "--train.steps=80"),
        status=2,
    )


def test_recipes_lists_it(trained: str) -> None:
    listed = re.findall(r"^  (\w+_cloning) +(plug-in .+)$", trained, re.MULTILINE)
    assert {"metaworld3_cloning", "arm_cloning"} <= {name for name, _ in listed}
    assert all(re.match(r"plug-in [\w-]+ [\d.]+, \w+\S*:\w+$", origin) for _, origin in listed), listed


def test_it_is_planned_trained_and_inspected(work: Workplace, trained: str) -> None:
    assert re.search(r"network +│ +2,270,272", trained)
    assert re.search(r"activations +│ 0.0\d GiB kept for backward", trained)
    assert re.search(r"dataset +│ dataset: 2 episodes, 44 samples", trained)
    assert "encode" in trained and "60/60 steps" in trained
    assert json.loads(work.bytes("run/run.json"))["policy"] == {"channels": 4, "width": 8, "kind": "cloning"}
    assert b"corner2" in work.bytes("recipe.html") and b"corner2" in work.bytes("run/inspection.html")
    assert "describes another run (train.steps: 60 -> 80)" in trained


def test_a_killed_run_goes_on_as_if_nothing_had_happened(work: Workplace, trained: str) -> None:
    """And encoding while training gives the same weights as a cache."""
    ended(work.start("-c", KILLED, *TRAIN, "--out", "killed"), -signal.SIGKILL)
    assert list(work.folder.glob("killed/checkpoints/step_*"))
    assert not (work.folder / "killed/weights.safetensors").exists()
    assert "60/60 steps" in work.wamkit(*TRAIN, "--out", "killed")
    assert work.bytes("killed/weights.safetensors") == work.bytes("run/weights.safetensors")


def test_it_is_measured_reported_and_compared(work: Workplace, trained: str) -> None:
    smoke, results = "metaworld3_smoke", "run/eval/metaworld3_smoke"
    printed = work.commands(
        ("eval", "run", "--suite", smoke, "--tasks", "0", "--episodes", "1"),
        ("report", "run", "--dataset", "dataset", "--results", results),
        (
            *("compare", "waiting_cloning", "--dataset", "dataset", "--cache", "cache", "--out", "compared"),
            *("--seeds", "0", "1", "--episodes", "1", *SMALL, "--train.steps", "2"),
        ),
    )
    found = json.loads(work.bytes(f"{results}/results.json"))
    assert found["total"]["trials"] == 1 and found["total"]["errors"] == 0
    assert found["policy"]["kind"] == "cloning"
    page = work.bytes("run/report.html").decode()
    assert "metaworld3_cloning" in page and "imagined" not in page.lower()
    assert re.search(r"waiting_cloning +\d/4", printed)
    assert json.loads(work.bytes("compared/comparison.json"))["arms"][0]["kind"] == "cloning"


def test_it_learns_from_the_recordings_of_the_arm(work: Workplace) -> None:
    """The other example: its demonstrations have columns of other names, and its environment is no suite."""
    examples = ROOT / "examples"
    for name, most in (("arm/env.py", 200), ("arm/record.py", 100), ("own_policy/own_policy.py", 130)):
        assert len((examples / name).read_text().splitlines()) < most
    ended(work.start(str(examples / "arm/record.py"), "arm", "--episodes", "2"), 0)
    few = ("--train.steps", "2", "--train.warmup-steps", "1")
    train = ("train", "arm_cloning", "--dataset=arm", "--out=runs/arm", *few)
    measure = ("eval", "runs/arm", "--env", str(examples / "arm/env.py"), "--episodes", "1")
    printed = work.commands(train, measure, ("eval", "runs/arm"), status=2)
    trained, measured, refused = printed.split("$ wamkit eval")
    assert "2/2 steps" in trained and re.search(r"take-block +\d/1", measured)
    assert "--suite" in refused and "--env" in refused


def test_without_the_plug_in_its_run_is_refused(work: Workplace, trained: str) -> None:
    with pytest.raises(BadInput, match=r"policy: Input tag 'cloning' .* does not match any of"):
        load_run(work.folder / "run")


POLICY = """
from dataclasses import dataclass
from typing import Literal
from wamkit.policies.base import PolicyConfig

@dataclass(frozen=True)
class Config(PolicyConfig):
    kind: Literal["mine"] = "mine"
"""


@pytest.mark.parametrize(
    ("source", "group", "name", "message"),
    [
        ("import missing", "policies", "mine", "mine = broken:Config cannot be loaded (ModuleNotFoundError"),
        (POLICY, "policies", "light_wam", "wamkit.policies has 'light_wam' already, which is part of wamkit"),
        (POLICY, "recipes", "metaworld3", "wamkit.recipes has 'metaworld3' already, which is part of wamkit"),
    ],
    ids=["not importable", "a taken kind", "a taken recipe"],
)
def test_a_plug_in_that_does_not_fit_is_one_message(
    tmp_path: Path, source: str, group: str, name: str, message: str
) -> None:
    folder = plug_in(tmp_path / "broken", "broken", source, f"wamkit.{group}", name, "Config")
    command = [sys.executable, "-m", "wamkit.cli", "train", "metaworld3", "--plan"]
    variables = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), *SOURCES])}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("error: plug-in broken 1.0: ") and message in line


@pytest.mark.parametrize(
    ("name", "target", "message"),
    [
        ("other", "Config", r"has kind 'mine'; give it the field `kind: Literal\[\"other\"\]"),
        (
            "mine",
            "dataclass",
            "dataclass is no dataclass that derives from wamkit.policies.base.PolicyConfig",
        ),
    ],
)
def test_a_config_class_is_one_of_its_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, target: str, message: str
) -> None:
    (tmp_path / "fitting.py").write_text(POLICY)
    monkeypatch.syspath_prepend(tmp_path)
    entry = EntryPoint(name, f"fitting:{target}", POLICIES)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [entry])
    with pytest.raises(BadInput, match=message):
        policy_kinds.__wrapped__()


def test_a_recipe_is_named_as_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("mine", "wamkit.recipes.metaworld:metaworld3", plugins.RECIPES)
    monkeypatch.setattr(recipes, "PLUG_INS", {"mine": entry})
    with pytest.raises(BadInput, match="recipe mine returns a Run with recipe='metaworld3'"):
        recipes.recipe("mine")


ABOUT_ONE = ("policies/", "recipes/", "bench/reference/")
NAMES = re.compile("light_?wam|fast_?wam", re.IGNORECASE)
EXAMPLES = (  # of command lines
    "commands/analysing.py",
    "commands/benching.py",
    "commands/demo.py",
    "commands/training.py",
)
ALLOWED = {
    *EXAMPLES,
    "bench/depths.py",  # what the depth of each kind is
    "bench/twins.py",  # the table of the twins of released programs
    "convert/official_cache.py",  # the format's name in a released file
}


def test_only_policies_and_recipes_name_a_policy() -> None:
    found = {}
    for path in sorted((ROOT / "src" / "wamkit").rglob("*")):
        name = path.relative_to(ROOT / "src" / "wamkit").as_posix()
        if path.suffix in (".py", ".html", ".css") and not name.startswith(ABOUT_ONE):
            lines = [line.strip() for line in path.read_text().splitlines() if NAMES.search(line)]
            found |= {name: lines} if lines else {}
    assert found.keys() == ALLOWED, found
    assert all(
        line.startswith(("wamkit ", "Example: wamkit ", "Examples: wamkit "))
        for name in EXAMPLES
        for line in found[name]
    )
