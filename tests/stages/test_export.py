"""Exported policies: as the engine answers, without wamkit; whole or absent; what cannot be exported is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from wamkit_client.types import BadInput, Observation

from tests import tiny_dataset
from tests.policies import tiny_fast_wam, tiny_lawam
from tests.policies.tiny_policy import engine_of, tiny_normalizer, tiny_policy
from wamkit.cli import main
from wamkit.config import Run, build_policy, save_normalizer, save_run
from wamkit.data.actions import ActionSpace
from wamkit.data.normalize import Normalizer
from wamkit.eval.evaluate import EvalConfig
from wamkit.infer.exported import Program, record, to_onnx
from wamkit.io.weights import save_weights
from wamkit.policies.base import FrozenEncoder
from wamkit.stages import export as stage
from wamkit.tree import Tree
from wamkit.types import Query

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

ROOT = Path(__file__).parents[2]
PRETRAINED = ROOT / "pretrained" / "metaworld3"
OBSERVATIONS = 100
ONE = stage.Asked("onnx", instructions=("push",), count=1)
RUN = replace(tiny_dataset.RUN, eval=EvalConfig(replan_steps=4))


def written(run: Run, folder: Path, normalizer: Normalizer) -> Path:
    """A run directory with random weights."""
    save_run(run, folder)
    save_normalizer(normalizer, folder)
    save_weights(folder, dict(build_policy(run, normalizer).state_dict()))
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 140 steps and the runs of two systems."""
    folder = tmp_path_factory.mktemp("export")
    tiny_dataset.write(folder / "dataset", [70, 70], size=40)
    written(RUN, folder / "light", tiny_normalizer())
    fast = tiny_fast_wam.tiny_config(text=RUN.policy.text, sample_steps=2)
    written(replace(RUN, policy=fast), folder / "fast", tiny_normalizer())
    return folder


@pytest.fixture(scope="module")
def exported(place: Path) -> Path:
    """The policy of "light" as ONNX, checked on recorded observations."""
    words = [
        "export",
        str(place / "light"),
        str(place / "out" / "policy.onnx"),
        "--dataset",
        str(place / "dataset"),
    ]
    assert main([*words, "--count", str(OBSERVATIONS)]) == 0
    return place / "out"


def test_two_files_are_written_and_nothing_else(exported: Path) -> None:
    assert sorted(file.name for file in exported.iterdir()) == ["policy.instructions.npz", "policy.onnx"]


def test_it_says_what_it_takes(exported: Path) -> None:
    session = onnxruntime.InferenceSession(exported / "policy.onnx")
    taken = {given.name: (given.type, given.shape) for given in session.get_inputs()}
    assert taken == {
        "views.front": ("tensor(uint8)", [1, 40, 40, 3]),  # as recorded, not as the policy looks at them
        "views.wrist": ("tensor(uint8)", [1, 40, 40, 3]),
        "proprio": ("tensor(float)", [1, 3]),
        "text.context": ("tensor(float)", [1, 8, 16]),
    }
    about = json.loads(session.get_modelmeta().custom_metadata_map["wamkit"])
    assert about["hz"] == 10 and about["actions"]["names"] == ["x", "grip"]


def test_it_acts_where_neither_wamkit_nor_torch_is(place: Path, exported: Path) -> None:
    """The example, in a process that can import neither; its actions are those of the engine."""
    from wamkit.config import load_engine
    from wamkit.stages.run import open_clips

    seen = open_clips(RUN, [place / "dataset"])[0][7].observation()
    images = {f"views.{name}": image for name, image in seen.images.items()}
    np.savez(place / "seen.npz", proprio=seen.proprio, **images)
    code = (
        "import sys, runpy; sys.modules['torch'] = sys.modules['wamkit'] = sys.modules['wamkit_client'] = None\n"
        "import numpy as np; policy = runpy.run_path(sys.argv[1])['OnnxPolicy'](sys.argv[2])\n"
        "seen = dict(np.load(sys.argv[3])); proprio = seen.pop('proprio')\n"
        "images = {name.removeprefix('views.'): image for name, image in seen.items()}\n"
        "np.save(sys.argv[4], policy.act(images, proprio, sys.argv[5]))"
    )
    paths = [ROOT / "examples/onnx_robot.py", exported / "policy.onnx", place / "seen.npz", place / "out.npy"]
    command = [sys.executable, "-c", code, *map(str, paths), seen.instruction]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": ""}, cwd=place)
    expected = load_engine(place / "light", torch.device("cpu")).act([seen])[0].actions
    assert np.abs(np.load(place / "out.npy") - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.scale
def test_a_sampler_is_given_its_noise(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All of its steps are in the file; what it draws is an input."""
    words = ["export", str(place / "fast"), str(place / "fast.pt2"), "--format", "torch", "--count", "5"]
    assert main([*words, "--instructions", "push it"]) == 0
    assert "5 random observations are answered as by the engine" in " ".join(capsys.readouterr().out.split())
    program = torch.export.load(place / "fast.pt2").module()
    rows = np.load(place / "fast.instructions.npz")
    assert rows["instructions"].tolist() == ["push it"]
    about = {"wamkit.json": ""}
    torch.export.load(place / "fast.pt2", extra_files=about)
    given = {
        "views.front": torch.zeros(1, 32, 32, 3, dtype=torch.uint8),
        "views.wrist": torch.zeros(1, 32, 32, 3, dtype=torch.uint8),
        "proprio": torch.zeros(1, 3),
        "text.context": torch.from_numpy(rows["text.context"]),
    }
    chunks = [program(given | {"drawn.noise.action": torch.full((1, 6, 2), x)}) for x in (0.0, 1.0)]
    assert chunks[0].shape == (1, 6, 2) and not torch.equal(*chunks)


@pytest.mark.scale
def test_a_vision_language_prior_and_its_subgoal_are_in_the_file(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """LaWAM: prior, world model and expert, with the passes that its config exports."""
    three = ActionSpace(("x", "y", "grip"), ("delta", "delta", "gripper"))
    run = replace(RUN, policy=tiny_lawam.CONFIG, data=tiny_lawam.SPEC, actions=three)
    written(run, place / "lawam", tiny_lawam.normalizer())
    words = ["export", str(place / "lawam"), str(place / "lawam.onnx"), "--count", "5"]
    assert main([*words, "--instructions", "push the button"]) == 0
    assert "5 random observations are answered as by the engine" in " ".join(capsys.readouterr().out.split())


def refused(capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    capsys.readouterr()
    assert main(words) == 2
    return " ".join(capsys.readouterr().err.split())


def test_wrong_words(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, dataset = str(place / "light"), ["--dataset", str(place / "dataset")]
    asked = ["export", run, str(place / "new.onnx")]
    assert "ends with .onnx" in refused(capsys, ["export", run, str(place / "new.pt2")])
    assert "--instructions is missing" in refused(capsys, asked)
    assert "have 140 moments; ask for fewer" in refused(capsys, [*asked, *dataset, "--count", "141"])
    assert "give one of robot" in refused(capsys, [*asked, *dataset, "--robot", "other"])
    assert "give both in pixels" in refused(capsys, [*asked, "--instructions", "go", "--height", "8"])
    assert not list(place.glob("new*"))


def test_a_file_that_answers_otherwise_is_not_kept(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = replace(stage.FORMS["torch"], read=lambda path: lambda leaves: np.zeros((1, 6, 2), np.float32))
    monkeypatch.setattr(stage, "FORMS", {"torch": wrong})
    (seen,) = stage._random(engine_of(tiny_policy(RUN.policy)), "robot", ONE)
    monkeypatch.setattr(stage, "program_of", lambda *_: sums(seen))
    words = ["export", str(place / "light"), str(place / "wrong.pt2"), "--format", "torch"]
    error = refused(capsys, [*words, "--instructions", "push", "--count", "2"])
    assert "answers otherwise than the engine" in error and not list(place.glob("wrong*"))


def test_an_operation_that_onnx_lacks_is_named(place: Path) -> None:
    (seen,) = stage._random(engine_of(tiny_policy(RUN.policy)), "robot", ONE)
    with pytest.raises(BadInput, match=r"operation \S*bessel_j0 of this policy cannot be written as ONNX"):
        to_onnx(sums(seen, torch.special.bessel_j0), place / "bessel.onnx", {})


def test_work_of_the_host_cannot_be_recorded(place: Path) -> None:
    (seen,) = stage._random(engine_of(tiny_policy(RUN.policy)), "robot", ONE)
    with pytest.raises(BadInput, match="cannot be recorded"):
        sums(seen, lambda x: x + 1 if x.sum().item() > 0 else x - 1)


def sums(seen: Observation, function: Callable[[Tensor], Tensor] = torch.exp) -> Program:
    """Of an actor that looks at two numbers of the robot's state alone."""
    policy = tiny_policy(RUN.policy)

    def actor(query: Query) -> Tensor:
        return function(query.inputs["proprio"])[:, None, :2].expand(-1, 6, -1)

    return record(engine_of(policy), Still(), actor, seen)


class Still(FrozenEncoder):
    """Sees nothing and reads nothing."""

    def frames(self, prepared: Tree) -> Tree:
        return {}


@pytest.mark.scale
def test_the_pretrained_policy_as_onnx(tmp_path: Path) -> None:
    words = ["export", str(PRETRAINED), str(tmp_path / "policy.onnx"), "--instructions", "Press a button"]
    assert main([*words, "--height", "480", "--width", "480", "--count", "20"]) == 0


@pytest.mark.scale
def test_a_compiled_package(place: Path) -> None:
    words = [
        "export",
        str(place / "light"),
        str(place / "fast_light.pt2"),
        "--format",
        "compiled",
        "--count",
        "20",
    ]
    assert main([*words, "--dataset", str(place / "dataset")]) == 0
