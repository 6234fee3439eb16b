"""`wamkit init`: a recipe for datasets of other robots, that plans, trains and acts."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from wamkit_client.types import BadInput

import wamkit
from wamkit.cli import main
from wamkit.config import Run
from wamkit.data.canvas import canvas_size
from wamkit.data.clips import Clips
from wamkit.data.evidence import Verdict
from wamkit.data.joined import open_datasets
from wamkit.data.lerobot.writer import Writer
from wamkit.policies.lawam.policy import LaWAMConfig
from wamkit.recipes import recipe
from wamkit.recipes.scales import SCALES
from wamkit.stages.fit import Place
from wamkit.stages.proposal import Proposal, _steps, _timing, propose
from wamkit.stages.recipe_text import expect_fitting, fitted, recipe_text

ROBOTS = Path(__file__).parent / "data" / "fixtures" / "robots"
# Written by the real lerobot package: cameras, rate, meaning of the first six of seven actions.
FIXTURES = {
    "openpi-delta-5hz": (1, 5, "delta"),
    "openpi-absolute-15hz": (2, 15, "absolute"),
    "lerobot-delta-30hz": (3, 30, "delta"),
    "lerobot-absolute-50hz": (3, 50, "absolute"),
}
SMALL = ("--train.steps", "2", "--train.batch-size", "4", "--train.warmup-steps", "1")


@dataclass(frozen=True)
class Written:
    """The file that `wamkit init` printed, and what it said on standard error."""

    file: Path
    said: str


@pytest.fixture
def init(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Written]:
    """The command, in a folder of its own; its recipe is saved there under the name that it tells."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> Written:
        assert main(["init", *map(str, words)]) == 0
        printed = capsys.readouterr()
        [name] = re.findall(r"^wamkit train ([\w]+\.py) ", printed.out, re.MULTILINE)
        (tmp_path / name).write_text(printed.out)
        return Written(tmp_path / name, printed.err)

    return run


def text_of(proposal: Proposal) -> str:
    return recipe_text(proposal, "mine.py")


def run_of(text: str, function: str = "recipe") -> Run:
    made: dict[str, Any] = {}
    exec(text, made)
    run = made[function]()
    assert isinstance(run, Run)
    return run


def ruff(text: str, *words: str) -> str:
    """What it has to say of a file, with its own defaults."""
    command = [sys.executable, "-m", "ruff", *words, "--isolated", "--quiet", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def expect_tidy(text: str) -> None:
    """Short, formatted, nothing unused."""
    assert len(text.splitlines()) < 60, text
    assert ruff(text, "format") == text
    ruff(text, "check", "--select", "E4,E7,E9,F,I")
    assert all(len(line) <= 88 for line in text.splitlines() if not line.startswith(('"""', "wamkit train")))


# the whole way


@pytest.mark.parametrize("name", FIXTURES)
def test_from_a_dataset_to_a_policy_that_acts(
    name: str, init: Callable[..., Written], capsys: pytest.CaptureFixture[str]
) -> None:
    cameras, hz, kind = FIXTURES[name]
    written, dataset = init(ROBOTS / name), str(ROBOTS / name)
    run, file = recipe(str(written.file)), written.file.name
    assert (len(run.data.views), run.data.hz, run.actions.kinds) == (cameras, hz, (*[kind] * 6, "gripper"))
    train = f"wamkit train {file} --dataset {dataset} --out runs/{run.recipe}"
    assert f"Next:\n  {train} --plan\n  {train}\n" in written.said and train in written.file.read_text()
    assert main(["train", file, "--dataset", dataset, "--plan"]) == 0
    assert main(["train", file, "--dataset", dataset, "--out", "run", *SMALL]) == 0
    assert "warning" not in capsys.readouterr().out
    assert acts(Path("run"), run, ROBOTS / name) == (run.data.horizon, 7)


@pytest.mark.parametrize("policy", ["fast_wam", "lawam"])
def test_other_policies_train_and_act_too(policy: str, init: Callable[..., Written]) -> None:
    dataset = ROBOTS / "openpi-absolute-15hz"
    written = init(dataset, "--policy", policy, "--name", "arm")
    if policy == "lawam":
        world = f"wamkit train arm.py:world --dataset {dataset} --out runs/arm_world"
        assert world in written.file.read_text() and world in written.said
        assert main(["train", "arm.py:world", "--dataset", str(dataset), "--plan"]) == 0
        assert main([*world.split()[1:], *SMALL]) == 0
    assert main(["train", "arm.py", "--dataset", str(dataset), "--plan"]) == 0
    assert main(["train", "arm.py", "--dataset", str(dataset), "--out", "run", *SMALL]) == 0
    run = recipe("arm.py")
    assert acts(Path("run"), run, dataset) == (run.data.horizon, 7)


def test_the_commands_name_the_file_that_is_written(tmp_path: Path) -> None:
    """`wamkit init ... > recipes/mine.py`"""
    file = tmp_path / "recipes" / "mine.py"
    file.parent.mkdir()
    command = [sys.executable, "-m", "wamkit.cli", "init", str(ROBOTS / "openpi-delta-5hz")]
    with file.open("w") as out:
        done = subprocess.run(
            command, stdout=out, stderr=subprocess.PIPE, text=True, cwd=tmp_path, check=False
        )
    assert done.returncode == 0, done.stderr
    assert "wamkit train recipes/mine.py --dataset" in done.stderr
    assert "wamkit train recipes/mine.py --dataset" in file.read_text()
    assert recipe(str(file)).recipe == "openpi_delta_5hz"


def acts(run_dir: Path, run: Run, dataset: Path) -> tuple[int, ...]:
    clips = Clips(open_datasets([dataset], run.data.columns), run.data, run.actions)
    chunk = wamkit.load_policy(run_dir).act([clips.sample(0).observation()])[0]
    assert np.isfinite(chunk.actions).all()
    return chunk.actions.shape


@pytest.mark.parametrize("name", FIXTURES)
@pytest.mark.parametrize("scale", SCALES, ids="-".join)
def test_the_file_is_short_and_tidy(scale: tuple[str, str], name: str) -> None:
    proposal = propose([ROBOTS / name], SCALES[scale])
    text = text_of(proposal)
    expect_tidy(text)
    expect_fitting(text, proposal)
    assert run_of(text).data.augmentation.draws == (scale[1] == "full")
    if scale[0] == "lawam":  # which changes images in its own way
        assert not run_of(text, "world").data.augmentation.draws


def test_reading_of_the_recipe_may_stop_early() -> None:
    command = f"{sys.executable} -m wamkit.cli init {ROBOTS / 'openpi-delta-5hz'} | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.stdout.startswith('"""Small Light-WAM for robot') and "Traceback" not in done.stderr


# timing, views


@pytest.mark.parametrize("size", ["tiny", "full"])
@pytest.mark.parametrize("hz", [5.0, 6.25, 10.0, 15.0, 20.0, 30.0, 50.0])
def test_every_rate_has_whole_steps(hz: float, size: str) -> None:
    for policy in ("light_wam", "lawam"):
        proposal = replace(of_fixture(policy, size), hz=hz)
        proposal = replace(proposal, timing=_timing(hz, proposal.scale))
        run = run_of(text_of(proposal))
        assert 8 <= run.data.horizon <= 36
        assert 0.3 <= run.data.chunk_seconds <= 1.7
        assert 1 <= run.eval.replan_steps <= run.data.horizon
        if policy == "light_wam":
            gaps = np.diff(run.data.frame_offsets)
            assert len({*gaps}) == 1 and len(gaps) % 4 == 0
        else:
            assert run.data.frame_offsets == (0, run.data.horizon - 1)
            assert run_of(text_of(proposal), "world").data.frame_offsets == run.data.frame_offsets


def of_fixture(policy: str = "light_wam", size: str = "tiny", name: str = "lerobot-delta-30hz") -> Proposal:
    return propose([ROBOTS / name], SCALES[policy, size])


def test_published_timing_comes_out_where_the_rate_is_published() -> None:
    full = SCALES["light_wam", "full"]
    libero, robotwin = recipe("libero_spatial"), recipe("robotwin")
    for run in (libero, robotwin):
        timing = _timing(run.data.hz, full)
        assert (timing.stride, timing.horizon) == (run.data.frame_offsets[1], run.data.horizon)
    assert _timing(20.0, full).executed == libero.eval.replan_steps


Episode = dict[str, np.ndarray]


def record(
    root: Path,
    cameras: Sequence[tuple[str, int, int]],
    *,
    dims: int = 3,
    episodes: int = 2,
    names: tuple[str, ...] = (),
    change: Any = lambda columns: columns,
    task: str = "push the block",
    hz: float = 10.0,
) -> Path:
    """Deltas that the state follows. cameras: names, heights and widths. change: of an episode's columns."""
    vector = {"dtype": "float32", "shape": [dims], "names": [*names] if names else None}
    features: dict[str, Any] = {"action": vector, "observation.state": vector}
    for camera, height, width in cameras:
        features[f"observation.images.{camera}"] = {"dtype": "video", "shape": [height, width, 3]}
    writer, rng = Writer.create(root, hz, "arm", features), np.random.default_rng(0)
    for _ in range(episodes):
        moves = rng.normal(0, 0.01, (16, dims)).cumsum(axis=0)
        state = np.concatenate([np.zeros((1, dims)), moves.cumsum(axis=0)[:-1]])
        columns = change({"action": moves, "observation.state": state})
        images = {
            camera: rng.integers(0, 256, (16, height, width, 3), np.uint8)
            for camera, height, width in cameras
        }
        writer.add_episode({k: v.astype(np.float32) for k, v in columns.items()}, images, task)
    writer.finalize()
    return root


@pytest.mark.parametrize(
    ("sizes", "tiny", "full"),
    [
        ([(48, 64)], ("single", 64, 80), ("single", 224, 304)),
        ([(64, 64)] * 2, ("horizontal", 64, 64), ("horizontal", 224, 224)),
        ([(48, 64)] * 3, ("robotwin", 60, 80), ("robotwin", 240, 320)),
        ([(36, 64)] * 4, ("robotwin", 60, 112), ("robotwin", 240, 432)),
    ],
)
def test_cameras_are_tiled_by_their_number(
    sizes: list[tuple[int, int]], tiny: tuple[str, int, int], full: tuple[str, int, int], tmp_path: Path
) -> None:
    cameras = [(f"cam_{i}", *size) for i, size in enumerate(sizes)]
    dataset = record(tmp_path / "dataset", cameras)
    for size, expected in (("tiny", tiny), ("full", full)):
        proposal = propose([dataset], SCALES["light_wam", size], "mine")
        text = text_of(proposal)
        data = run_of(text).data
        assert (data.canvas, data.view_height, data.view_width) == expected
        assert all(side % 16 == 0 for side in canvas_size(data))
        assert data.views == tuple(name for name, _, _ in cameras[:3])
        expect_tidy(text)
        assert ("# not used: cam_3" in text) == (len(sizes) == 4)
        assert f"recorded in {sizes[0][0]}x{sizes[0][1]}" in text
    fast = run_of(text_of(propose([dataset], SCALES["fast_wam", "full"], "mine"))).data
    assert all(side % 32 == 0 for side in canvas_size(fast))


def test_a_view_whose_shape_changes_is_named(tmp_path: Path) -> None:
    dataset = record(tmp_path / "dataset", [("front", 64, 64), ("wrist", 48, 64)])
    text = text_of(propose([dataset], SCALES["light_wam", "tiny"], "mine"))
    assert "# front: recorded in 64x64\n" in text
    assert "# wrist: recorded in 48x64, which makes it 25 % narrower" in text
    square = text_of(propose([dataset], SCALES["lawam", "full"], "mine"))
    assert "view_height=256,\n    view_width=256," in square


def test_columns_and_views_may_be_given(init: Callable[..., Written]) -> None:
    dataset = ROBOTS / "lerobot-delta-30hz"
    words = ("--data.columns", "action=action[0:6],proprio=observation.state[0:6]")
    cameras = ("--data.views", "front=observation.images.cam_high", "cam_left_wrist")
    for policy in ("light_wam", "lawam"):
        file = init(dataset, "--policy", policy, *words, *cameras).file
        data = recipe(str(file)).data
        assert data.views == ("front", "cam_left_wrist")
        assert data.columns["front"] == "observation.images.cam_high"
        assert (data.columns["action"], data.action_dim) == ("action[0:6]", 6)
        expect_tidy(file.read_text())
    world = recipe(f"{file}:world").data
    assert (world.views, world.proprio_dim, world.frame_proprio) == (("front",), 6, True)


# numbers


def test_still_dimensions_are_asked_about_and_keep_min_max(tmp_path: Path) -> None:
    def still(columns: Episode) -> Episode:
        columns["action"][:, 2] = 0
        columns["action"][0, 0] = 50
        return columns

    dataset = record(tmp_path / "dataset", [("front", 32, 32)], names=("x", "y", "z"), change=still)
    text = text_of(propose([dataset], SCALES["light_wam", "tiny"], "mine"))
    assert "# ? always 0: should it be omitted?" in text
    assert "# action z: never moves, min_max only shifts it" in text
    assert run_of(text).normalization.action == "min_max"
    expect_tidy(text)


def test_outliers_are_normalized_by_deviation(tmp_path: Path) -> None:
    jolts = iter([50.0])

    def outlier(columns: Episode) -> Episode:
        columns["action"][3, 1] = next(jolts, 0.0)
        return columns

    dataset = record(tmp_path / "dataset", [("front", 32, 32)], episodes=30, change=outlier)
    text = text_of(propose([dataset], SCALES["light_wam", "tiny"], "mine"))
    normalization = run_of(text).normalization
    assert (normalization.action, normalization.proprio) == ("z_score", "min_max")
    assert "# action 1: min .. max is" in text and "times what 98 % of the steps" in text


@pytest.mark.parametrize(("episodes", "share"), [(2, 0.0), (5, 0.2), (10, 0.1), (30, 0.05)])
def test_a_share_is_held_out_where_there_is_enough(episodes: int, share: float, tmp_path: Path) -> None:
    dataset = record(tmp_path / "dataset", [("front", 32, 32)], episodes=episodes)
    run = run_of(text_of(propose([dataset], SCALES["light_wam", "tiny"], "mine")))
    clips = Clips(open_datasets([dataset]), run.data, run.actions)
    assert run.data.held_out == share
    assert (len(clips.episodes) < episodes) == (share > 0)


def test_longer_training_for_more_data() -> None:
    tiny, full = SCALES["light_wam", "tiny"], SCALES["fast_wam", "full"]
    assert [_steps(tiny.steps, n, tiny) for n in (10, 10_000, 20_000, 10**9)] == [2100, 2100, 4200, 8400]
    assert [_steps(full.steps, n, full) for n in (10, 270_000, 10**9)] == [4000, 20_000, 60_000]


def test_a_robot_of_many_dimensions_fits_the_page() -> None:
    base = of_fixture()
    arms = [f"{side}_arm_joint_{i}" for side in ("left", "right") for i in range(7)]
    names = (*arms[:7], "left_gripper", *arms[7:], "right_gripper")
    verdicts = tuple(
        Verdict("gripper", "by its name; 0 .. 1")
        if "grip" in name
        else Verdict("absolute", f"r {i}", i / 100)
        for i, name in enumerate(names)
    )
    proposal = replace(base, names=names, verdicts=verdicts)
    text = text_of(proposal)
    expect_tidy(text)
    run = run_of(text)
    assert run.actions.names == names and run.data.action_dim == 16
    assert "# at worst right_arm_joint_6: r 14" in text


def test_odd_names_are_quoted() -> None:
    names = ('a"b', "c\\d", "e\nf", "ü", "'", "x", "y")
    text = text_of(replace(of_fixture(), names=names, about='robot \'a"""b\\\''))
    assert run_of(text).actions.names == names
    compile(text, "recipe", "exec")


def test_questions_are_repeated(tmp_path: Path, init: Callable[..., Written]) -> None:
    def blind(columns: Episode) -> Episode:
        return {**columns, "observation.state": np.zeros_like(columns["observation.state"])}

    dataset = record(tmp_path / "dataset", [("front", 32, 32)], change=blind)
    written = init(dataset, "--name", "mine")
    assert "mine.py says what the dataset does not tell" in written.said
    asked = re.findall(r"  action_\d: \? mean .* like nothing in the state: is 0 'stay'\?\n", written.said)
    assert len(asked) == 3, written.said
    expect_tidy(written.file.read_text())


def test_long_instructions_have_room(tmp_path: Path) -> None:
    dataset = record(tmp_path / "dataset", [("front", 32, 32)], task=" ".join(["push"] * 16))
    for policy in ("light_wam", "lawam"):
        text = text_of(propose([dataset], SCALES[policy, "tiny"], "mine"))
        assert "words=32" in text
        encoder_takes(run_of(text), dataset)


def encoder_takes(run: Run, dataset: Path) -> None:
    run.policy.example_inputs(run.data, 1)
    if run.policy.kind == "light_wam":
        run.policy.encoder(run.data).text([*open_datasets([dataset]).tasks.values()])
    else:
        assert isinstance(run.policy, LaWAMConfig)
        run.policy.prompt.load(run.data).encode([*open_datasets([dataset]).tasks.values()])


# memory


def test_a_batch_is_divided_until_it_fits() -> None:
    base = of_fixture(size="full")
    scale = replace(base.scale, policy="tiny_light_wam(DATA, words={words})")
    proposal = replace(base, scale=scale)
    roomy, narrow = (fitted(proposal, Place(f"{size} GiB", int(size * 2**30))) for size in (64, 2))
    assert "accumulation=1)" in text_of(roomy) and "# fits 64 GiB: yes, " in text_of(roomy)
    run = run_of(text_of(narrow))
    assert run.train.accumulation > 1 and run.train.batch_size == 64
    assert "# fits 2 GiB: yes, " in text_of(narrow)
    none = text_of(fitted(proposal, Place("0.01 GiB", int(0.01 * 2**30))))
    assert "# fits 0.01 GiB: no, " in none and run_of(none).train.accumulation == 1
    for proposed in (roomy, narrow):
        expect_tidy(text_of(proposed))


def test_both_stages_have_parts_of_their_own() -> None:
    text = text_of(replace(of_fixture("lawam", "full"), parts=4, stage1_parts=2))
    assert (run_of(text).train.accumulation, run_of(text, "world").train.accumulation) == (4, 2)
    expect_tidy(text)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "# fits this CPU: yes, "),
        (("--memory", "0.01"), "# fits 0.01 GiB: no, "),
        (("--size", "full"), "# this machine has no GPU; give --memory 80 for one of 80 GiB"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="of machines without a GPU")
def test_the_memory_of_a_step_is_told(
    words: tuple[str, ...], said: str, init: Callable[..., Written]
) -> None:
    text = init(ROBOTS / "openpi-delta-5hz", *words).file.read_text()
    assert said in text
    expect_tidy(text)


# what is refused


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main(["init", *map(str, words)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    return re.sub(r"\s+", " ", printed.err)


def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound = ROBOTS / "lerobot-delta-30hz"
    assert "no dataset; name at least one folder" in refused(capsys)
    assert "must be a LeRobot dataset" in refused(capsys, tmp_path / "none")
    assert "metaworld3 is a recipe of wamkit; give another name" in refused(
        capsys, sound, "--name", "metaworld3"
    )
    assert "--memory -1: expected GiB" in refused(capsys, sound, "--memory", "-1")
    assert "--name a/b: expected letters" in refused(capsys, sound, "--name", "a/b")
    assert "this command takes no recipe values" in refused(capsys, sound, "--train.steps", "3")
    found = refused(capsys, sound, "--data.columns", "action=nothing")
    assert "column 'nothing' is missing" in found
    other = refused(capsys, sound, ROBOTS / "lerobot-absolute-50hz")
    assert "fps is 50" in other and "have one rate" in other


def test_several_datasets_are_read_as_one(tmp_path: Path, init: Callable[..., Written]) -> None:
    first, second = (
        record(tmp_path / name, [("front", 32, 32)], episodes=3) for name in ("monday", "tuesday")
    )
    written = init(first, second, "--name", "week")
    text = written.file.read_text()
    assert "for robot 'arm': 6 episodes, 96 steps at 10 Hz" in text
    assert f"wamkit train week.py --dataset {first} --dataset {second} --out runs/week\n" in text
    assert run_of(text).data.held_out == 0.2


def test_a_dataset_without_actions_or_cameras_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blind = record(tmp_path / "blind", [])
    assert "no camera; a policy cannot be trained without one" in refused(capsys, blind)
    odd = record(tmp_path / "odd", [("front", 32, 32)])
    info = odd / "meta" / "info.json"
    info.write_text(info.read_text().replace('"action"', '"q1"').replace("observation.state", "q2"))
    found = refused(capsys, odd)
    assert (
        "no column is named as actions are; name it with --data.columns action=COLUMN. It has q1, q2" in found
    )


def test_a_dataset_without_instructions_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = tmp_path / "dataset"
    shutil.copytree(ROBOTS / "openpi-absolute-15hz", dataset)
    tasks = dataset / "meta" / "tasks.jsonl"
    tasks.write_text(re.sub(r'"task": ".*"', '"task": ""', tasks.read_text()))
    assert "a policy is told what to do in words" in refused(capsys, dataset)


def test_the_name_is_that_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROBOTS / "openpi-delta-5hz")
    assert propose([Path()], SCALES["light_wam", "tiny"]).name == "openpi_delta_5hz"


def test_a_name_that_is_taken_is_refused() -> None:
    with pytest.raises(BadInput, match="another name, such as --name my_libero_10"):
        propose([ROBOTS / "openpi-delta-5hz"], SCALES["light_wam", "tiny"], "libero_10")
