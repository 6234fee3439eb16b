"""LIBERO's HDF5 demonstrations: what is left out, what is discarded, and that the rest is what was demonstrated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from wamkit_client.envs.base import EnvConfig
from wamkit_client.envs.libero import env as libero
from wamkit_client.envs.libero import install as libero_install
from wamkit_client.envs.libero.env import Libero
from wamkit_client.envs.libero.replay import replay
from wamkit_client.envs.libero.tasks import LIBERO_TASKS
from wamkit_client.envs.vector import EnvProcess, Job
from wamkit_client.types import BadInput

from tests.client.libero import InThisProcess, needs_libero
from wamkit.convert import libero_hdf5
from wamkit.convert.libero_hdf5 import REPLAY, Recorded, is_noop, libero_to_lerobot, read_demonstration
from wamkit.data.check import check
from wamkit.data.lerobot.dataset import Dataset
from wamkit.io.progress import console

SOUP, CHEESE = LIBERO_TASKS["libero_object"][:2]
OPEN, CLOSED = -1.0, 1.0  # as the simulator says it
SIZE = 64


def step(move: float, gripper: float) -> list[float]:
    return [move, *[0.0] * 5, gripper]


def write(folder: Path, name: str, demonstrations: dict[str, tuple[np.ndarray, np.ndarray]]) -> Path:
    """A file as LIBERO's: (states, actions) of every demonstration, beside what nobody reads."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}_demo.hdf5"
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["bddl_file_name"] = f"bddl_files/libero_object/{name}.bddl"
        data.attrs["env_args"] = "{}"
        for key, (states, actions) in demonstrations.items():
            group = data.create_group(key)
            group.attrs["model_file"] = "<mujoco/>"
            group["states"], group["actions"] = states, actions
            group["obs/agentview_rgb"] = np.zeros((len(actions), 4, 4, 3), np.uint8)
    return path


def test_steps_that_do_nothing() -> None:
    """OpenVLA's rule: hand still, and the gripper as at the last step that was kept, which may lie further back."""
    rows = [
        (step(0.0, CLOSED), True),  # the first one: whatever the gripper
        (step(0.5, OPEN), False),
        (step(0.0, OPEN), True),
        (step(9e-5, OPEN), True),
        (step(1.1e-4, OPEN), False),
        (step(0.0, CLOSED), False),  # closes
        (step(0.0, CLOSED), True),
        (step(0.0, OPEN), False),
        ([0.0] * 5 + [0.2, OPEN], False),  # turns
    ]
    actions = np.array([row for row, _ in rows])
    assert is_noop(actions).tolist() == [noop for _, noop in rows]


def test_a_gripper_in_the_datasets_convention(tmp_path: Path) -> None:
    actions = np.array([step(0.5, OPEN), step(0.0, CLOSED)])
    states = np.arange(12.0).reshape(2, 6)
    path = write(tmp_path, SOUP.name, {"demo_0": (states, actions)})
    state, read = read_demonstration(Recorded(path, "demo_0", SOUP))
    np.testing.assert_array_equal(state, states[0])
    np.testing.assert_array_equal(read, [step(0.5, 1.0), step(0.0, 0.0)])


STATES, ACTIONS = np.zeros((3, 6)), np.array([step(0.5, OPEN)] * 3)
BROKEN: dict[str, tuple[Callable[[h5py.File], object], str]] = {
    "no actions": (lambda f: f["data/demo_0"].pop("actions"), "no dataset 'data/demo_0/actions'"),
    "NaN": (
        lambda f: f["data/demo_0/states"].write_direct(STATES * np.nan),
        "states, step 0: dimension 0 is nan",
    ),
    "grippers": (lambda f: f["data/demo_0/actions"].write_direct(ACTIONS * 0.5), "with other grippers"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_demonstrations_that_cannot_be_used(tmp_path: Path, what: str) -> None:
    path = write(tmp_path, SOUP.name, {"demo_0": (STATES, ACTIONS)})
    damage, message = BROKEN[what]
    with h5py.File(path, "a") as file:
        damage(file)
    with pytest.raises(BadInput, match=message) as caught:
        read_demonstration(Recorded(path, "demo_0", SOUP))
    assert str(path) in str(caught.value)


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no demonstration found; expected files like pick_up_the_alphabet"):
        libero_to_lerobot(tmp_path, tmp_path / "out", "libero_object")
    with pytest.raises(BadInput, match="metaworld3 is not of LIBERO"):
        libero_to_lerobot(tmp_path, tmp_path / "out", "metaworld3")
    path = write(tmp_path, SOUP.name, {"take_0": (STATES, ACTIONS)})
    with pytest.raises(BadInput, match=r"expected demo_0, demo_1"):
        libero_to_lerobot(tmp_path, tmp_path / "out", "libero_object")
    with pytest.raises(BadInput, match="suite libero_goal has no such task"):
        libero_to_lerobot(tmp_path, tmp_path / "out", "libero_goal")
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(BadInput, match="cannot be read"):
        libero_to_lerobot(tmp_path, tmp_path / "out", "libero_object")
    assert not (tmp_path / "out").exists()


@needs_libero
@pytest.mark.scale
def test_demonstrations_are_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripted expert's episode is demonstrated, with steps that do nothing in between; a part of it fails."""
    config = replace(REPLAY, view_height=SIZE, view_width=SIZE)
    monkeypatch.setattr(libero_hdf5, "REPLAY", config)
    state = libero_install.find_installation().initial_states("libero_object", SOUP.name)[7]
    env = config.make(SOUP)
    assert isinstance(env, Libero)

    @contextmanager
    def here(asked: EnvConfig, count: int) -> Iterator[list[EnvProcess]]:
        assert (asked, count) == (config, 1)
        yield [InThisProcess(env)]

    monkeypatch.setattr(libero_hdf5, "env_processes", here)
    wanted, proprio, picture = demonstrate(env, state)
    recorded = wanted.astype(np.float64)
    recorded[:, -1] = 1 - 2 * recorded[:, -1]
    rest = np.insert(recorded, [4, 40, 40], np.zeros(7), axis=0)
    rest[[4, 41, 42], -1] = rest[[3, 40, 40], -1]  # [4, 41, 42] are the inserted ones
    states = np.stack([state] * len(rest))
    demonstrations = {"demo_10": (states, rest), "demo_2": (states[:9], rest[:9])}
    source, out = tmp_path / "demonstrations", tmp_path / "out"
    write(source, SOUP.name, demonstrations)
    with console.capture() as printed:
        libero_to_lerobot(source, out, "libero_object", workers=1)
    said = " ".join(printed.get().split())
    assert f"1 of 2 demonstrations succeeded again discarded: {SOUP.name}/demo_2" in said
    assert "NO FILE" in said
    assert check(out) == []
    dataset = Dataset.open(out)
    assert (dataset.fps, dataset.robot_type, tuple(dataset.cameras)) == (
        20,
        "panda",
        ("image", "wrist_image"),
    )
    assert dataset.instruction(0, 0) == SOUP.instruction
    assert dataset.episode_column("source") == [f"{SOUP.name}/demo_10"]
    assert dataset.episode_column("rows_left_out") == [3]
    assert dataset.episode_column("success_step") == [len(wanted)]
    np.testing.assert_array_equal(dataset.column("action", 0), wanted)
    np.testing.assert_allclose(dataset.column("observation.state", 0), proprio, atol=1e-6)
    shown = dataset.frames("image", 0, [0])[0].astype(int)
    assert np.abs(shown - picture).mean() < 4
    before = (out / "meta/info.json").stat().st_mtime_ns
    libero_to_lerobot(source, out, "libero_object", workers=1)  # finished: nothing is done
    assert (out / "meta/info.json").stat().st_mtime_ns == before
    write(source, CHEESE.name, demonstrations)
    with pytest.raises(BadInput, match="other sources"):
        libero_to_lerobot(source, out, "libero_object", workers=1)
    path = write(tmp_path / "stranger", SOUP.name, {"demo_0": (np.zeros((1, 3)), rest)})
    with pytest.raises(BadInput, match=r"data/demo_0: .*a state of 3 numbers, expected 110") as caught:
        libero_to_lerobot(path.parent, tmp_path / "none", "libero_object", workers=1)
    assert str(path) in str(caught.value)
    env.close()


@needs_libero
def test_fixtures_stand_where_the_demonstrations_number_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published datasets were replayed in one environment, seeded once and reset before each of them."""
    task = LIBERO_TASKS["libero_spatial"][4]
    asked: list[int] = []

    class Asked(EnvProcess):
        def __init__(self) -> None:
            """Starts nothing."""

        def send(self, job: Job, *args: Any) -> None:
            asked.append(args[-1])

    path = write(tmp_path, task.name, {"demo_0": (STATES, ACTIONS), "demo_10": (STATES, ACTIONS)})
    recorded = [Recorded(path, key, task) for key in ("demo_0", "demo_10")]
    replays = libero_hdf5._Replays(recorded, [Asked()])
    for number in (0, 1):
        replays._send(number)
    assert asked == [0, 10] and REPLAY.fixtures == "per_trial"
    env = replace(REPLAY, settle_steps=0).make(task)
    assert isinstance(env, Libero)
    state = libero_install.find_installation().initial_states(task.group, task.name)[0]
    places = []
    for trial in (0, 2):
        replay(env, state, np.zeros((0, 7)), trial)
        places.append(env.simulator.sim.model.body_pos.copy())
    env.close()
    assert 0.001 < np.abs(places[0] - places[1]).max() < 0.03


def demonstrate(env: Libero, state: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The expert's actions [t, 7] until it succeeds, proprio [t, 8] before each, and the first picture."""
    env.reset_to(state, -1)
    picture = env.observe().images["image"]
    actions, proprio, success = [], [], False
    while not success:
        proprio.append(libero.proprio(env._sensed))
        actions.append(env.expert_action())
        success = env.step(actions[-1]).success
    return np.stack(actions), np.stack(proprio), picture
