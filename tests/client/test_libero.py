"""The LIBERO adapter against the real simulator: conventions, pictures, initial states, the scripted expert."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wamkit_client.envs.base import Task, project
from wamkit_client.envs.foreign import PYTHON_VARIABLE
from wamkit_client.envs.libero import contents
from wamkit_client.envs.libero import install as libero_install
from wamkit_client.envs.libero.bodies import Bodies
from wamkit_client.envs.libero.env import PUBLISHED_STATES, Libero, LiberoConfig, rotation_vector
from wamkit_client.envs.libero.expert import matrix, rotation_between
from wamkit_client.envs.libero.tasks import LIBERO_TASKS
from wamkit_client.envs.vector import describe, env_processes
from wamkit_client.suites import suite, suite_from_json
from wamkit_client.types import BadInput

from tests.client.libero import needs_libero

SOUP = LIBERO_TASKS["libero_object"][0]
FRAMES = Path(__file__).parent / "libero_frames.npz"
ORIGINAL = "08533abd9f45d3fa"
# A sample of the 130, of every kind of table. The first two have fixtures whose doors or knobs draw numbers of their
# own at every reset.
SAMPLE = (
    LIBERO_TASKS["libero_spatial"][4],
    LIBERO_TASKS["libero_10"][3],
    LIBERO_TASKS["libero_goal"][0],
    LIBERO_TASKS["libero_10"][6],
    LIBERO_TASKS["libero_90"][80],
)
WITH_DOORS = SAMPLE[:2]


def of_tasks(tasks: Sequence[Task]) -> pytest.MarkDecorator:
    """Environments are expensive: all tests of one task share one, after each other."""
    return pytest.mark.parametrize(
        "env", tasks, indirect=True, ids=lambda task: f"{task.group} {task.name[:20]}"
    )


@pytest.fixture(scope="module")
def soup() -> Iterator[Libero]:
    env = LiberoConfig(settle_steps=5).make(SOUP)
    yield env
    env.close()


@pytest.fixture(scope="module")
def env(request: pytest.FixtureRequest) -> Iterator[Libero]:
    env = LiberoConfig(settle_steps=2, fixtures="per_trial").make(request.param)
    yield env
    env.close()


def thumbnail(picture: np.ndarray) -> np.ndarray:
    """256x256 pixels averaged to 32x32, in 0..255."""
    return picture.reshape(32, 8, 32, 8, 3).mean(axis=(1, 3))


def own_context(own: Any) -> None:
    """robosuite frees and draws in whichever graphics context is current: let it be that of its own environment."""
    own.sim._render_context_offscreen.gl_ctx.make_current()


@needs_libero
def test_an_observation_is_what_the_types_say(soup: Libero) -> None:
    state = soup.reset(3)
    seen = soup.observe()
    assert list(seen.images) == ["image", "wrist_image"]
    assert all(image.shape == (256, 256, 3) and image.dtype == np.uint8 for image in seen.images.values())
    assert (seen.instruction, seen.embodiment) == (
        "pick up the alphabet soup and place it in the basket",
        "panda",
    )
    assert seen.proprio.shape == (8,) and seen.proprio.dtype == np.float32
    assert 3.0 < np.linalg.norm(seen.proprio[3:6]) < 2 * np.pi  # the hand points down
    published = libero_install.find_installation().initial_states("libero_object", SOUP.name)[3]
    np.testing.assert_array_equal(state.vector, published[1 : 1 + len(state.vector)])


@needs_libero
def test_pictures_are_robosuites_own_at_rest_and_in_motion(soup: Libero) -> None:
    """Two environments in one process, one of which draws at every step, as the published evaluation does."""
    own = libero_install.control_env()(
        bddl_file_name=str(libero_install.find_installation().bddl("libero_object", SOUP.name)),
        use_camera_obs=True,
        camera_heights=256,
        camera_widths=256,
    )
    own.seed(42)
    own.reset()
    sensed = own.set_init_state(
        libero_install.find_installation().initial_states("libero_object", SOUP.name)[3]
    )
    for _ in range(soup.config.settle_steps):
        sensed = own.step([0, 0, 0, 0, 0, 0, -1])[0]
    soup.reset(3)
    for moves in (0, 5):
        for _ in range(moves):
            sensed = own.step([0.5, 0.3, -0.8, 0, 0, 0.2, -1])[0]
            soup.step(np.array([0.5, 0.3, -0.8, 0, 0, 0.2, 1.0]))
        seen = soup.observe()
        assert (seen.images["image"] == sensed["agentview_image"][::-1, ::-1]).all()
        assert (seen.images["wrist_image"] == sensed["robot0_eye_in_hand_image"][::-1, ::-1]).all()
        np.testing.assert_array_equal(seen.proprio[:3], sensed["robot0_eef_pos"].astype(np.float32))
    own_context(own)
    own.close()


@needs_libero
def test_pictures_look_as_they_did(soup: Libero, monkeypatch: pytest.MonkeyPatch) -> None:
    """Golden frames: rotation, order of channels and range. Another renderer may differ by a few levels."""
    if libero_install.asset_pack(libero_install.find_installation().assets)["hash"] != ORIGINAL:
        pytest.skip("the golden frames show the original assets")
    monkeypatch.setattr(soup, "config", LiberoConfig())
    soup.reset(0)
    golden = np.load(FRAMES)
    for view, picture in soup.observe().images.items():
        difference = np.abs(thumbnail(picture) - golden[view])
        assert difference.mean() < 2 and np.quantile(difference, 0.99) < 15
        for wrong in (picture[::-1, ::-1], picture[:, ::-1], picture[..., ::-1], picture // 2):
            assert np.abs(thumbnail(np.ascontiguousarray(wrong)) - golden[view]).mean() > 5


@needs_libero
def test_actions_move_the_hand_as_they_say(soup: Libero) -> None:
    soup.reset(1)
    for axis, sign in ((0, 1), (1, -1), (2, 1)):
        for _ in range(10):
            soup.step(np.array([0.0] * 6 + [1.0]))
        before = soup.observe().proprio
        action = np.array([0.0] * 6 + [0.0])  # 0 closes
        action[axis] = 0.5 * sign
        for _ in range(10):
            soup.step(action)
        moved = soup.observe().proprio - before
        assert moved[axis] * sign > 0.05 and np.abs(np.delete(moved[:3], axis)).max() < 0.03
        assert moved[6] < -0.02 and moved[7] > 0.02  # both fingers inwards
    for _ in range(10):
        soup.step(np.array([0.0] * 6 + [1.0]))
    assert soup.observe().proprio[6] > 0.035
    before = matrix(soup._sensed["robot0_eef_quat"])
    for _ in range(10):
        soup.step(np.array([0, 0, 0, 0, 0, 0.1, 1.0]))
    turn = rotation_between(before, matrix(soup._sensed["robot0_eef_quat"]))
    assert turn[2] > 0.08 and np.abs(turn[:2]).max() < 0.05


@needs_libero
def test_a_policy_may_count_the_gripper_the_other_way_round() -> None:
    """LaWAM's command: above 0.5 closes, anything else opens."""
    objects = suite("libero_object_lawam")
    assert objects.acted_by(["dx", "gripper"]) == objects
    closing = objects.acted_by(["dx", "gripper_closing"])
    assert suite_from_json(closing.to_json()) == closing and closing.env.gripper == "gripper_closing"
    with pytest.raises(BadInput, match="gripper: 'hand'; expected one of gripper, gripper_closing"):
        LiberoConfig(gripper="hand")
    env = replace(closing.env, settle_steps=1).make(SOUP)
    try:
        env.reset(0)
        assert env.action_names[-1] == "gripper_closing" and env.idle_action(None)[6] == 0
        assert env.expert_action()[6] == 0  # open on the way to the object
        for command, opening in ((1.0, 0.03), (0.0, 0.06)):
            for _ in range(15):
                env.step(np.array([0.0] * 6 + [command]))
            fingers = env.observe().proprio[6:]
            assert (fingers[0] - fingers[1] > opening) == (command == 0), fingers
    finally:
        env.close()


@needs_libero
def test_an_idle_robot_keeps_its_place_and_its_gripper(soup: Libero) -> None:
    soup.reset(0)
    np.testing.assert_array_equal(soup.idle_action(None), [0] * 6 + [1])
    last = np.array([0.0] * 6 + [0.0], np.float32)
    for _ in range(10):
        soup.step(last)
    before = soup.observe().proprio
    for _ in range(10):
        last = soup.idle_action(last)
        soup.step(last)
    after = soup.observe().proprio
    np.testing.assert_allclose(after[:3], before[:3], atol=2e-3)
    assert abs(after[6]) <= abs(before[6]) + 1e-3  # closed it stays


@needs_libero
def test_points_of_the_world_are_where_the_pictures_show_them(
    soup: Libero, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hand covers what was seen behind it: moving it changes the picture there and nowhere far away."""
    monkeypatch.setattr(soup, "config", LiberoConfig())  # until no object falls any more
    soup.reset(2)
    before, place = soup.observe(), project(soup.cameras()["image"], soup.observe().proprio[None, :3])[0]
    for _ in range(8):
        soup.step(np.array([0, 0.8, 0, 0, 0, 0, 1.0]))
    after = soup.observe()
    changed = np.argwhere(np.abs(after.images["image"].astype(int) - before.images["image"]).sum(axis=2) > 60)
    moved = project(soup.cameras()["image"], after.proprio[None, :3])[0]
    low, high = np.minimum(place, moved) - 60, np.maximum(place, moved) + 60
    assert len(changed) > 100
    inside = ((changed[:, ::-1] > low) & (changed[:, ::-1] < high)).all(axis=1).mean()
    assert inside > 0.9
    path = soup.chunk_path(before.proprio, np.array([[0.5, 0, 0, 0, 0, 0, 1], [0.5, 0, -2.0, 0, 0, 0, 1]]))
    np.testing.assert_allclose(path - before.proprio[:3], [[0.025, 0, 0], [0.05, 0, -0.05]], atol=1e-6)


@needs_libero
def test_a_seed_is_a_state_whatever_happened_before(soup: Libero, monkeypatch: pytest.MonkeyPatch) -> None:
    first = {seed: (soup.reset(seed), soup.observe().images["image"]) for seed in (1000, 0)}
    for _ in range(5):
        soup.step(np.array([0.3, 0.2, -0.5, 0, 0, 0, 0.0]))
    monkeypatch.setattr(soup._scenes, "_xml", "another model")  # is built anew once
    for seed, (state, picture) in first.items():
        assert soup.reset(seed) == state
        assert (soup.observe().images["image"] == picture).all()
    assert first[1000][0].key() != first[0][0].key() != soup.reset(1).key()
    with pytest.raises(BadInput, match=r"seeds 50 to 50; .* at most 50 trials; seeds from 1000 on"):
        soup.reset(50)
    with pytest.raises(BadInput, match="a state of 3 numbers, expected 110"):
        soup.reset_to(np.zeros(3), 0)


def scene(env: Libero) -> tuple[np.ndarray, ...]:
    """Everything an episode begins from: joints, places and turns of all bodies, pictures."""
    sim = env.simulator.sim
    values = (sim.data.qpos, sim.data.qvel, sim.model.body_pos, sim.model.body_quat)
    return (*(value.copy() for value in values), *env.observe().images.values())


@needs_libero
@of_tasks(WITH_DOORS)
def test_fixtures_are_a_function_of_the_seed(env: Libero) -> None:
    env.reset(0)
    first = scene(env)
    env.reset(7)
    other = scene(env)
    env.reset(0)
    for before, after in zip(first, scene(env), strict=True):
        np.testing.assert_array_equal(before, after)
    moved = np.linalg.norm(other[2] - first[2], axis=1).max()
    assert 0.001 < moved < 0.03  # metres


@needs_libero
@of_tasks(WITH_DOORS[:1])
def test_fixtures_stand_where_the_published_loop_has_them(
    env: Libero, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fresh environment, seeded once, one reset before every trial: the places, and everything after settling."""
    task, steps = env.task, env.config.settle_steps
    installation = libero_install.find_installation()
    states = installation.initial_states(task.group, task.name)
    own = libero_install.control_env()(
        bddl_file_name=str(installation.bddl(task.group, task.name)), use_camera_obs=False
    )
    own.seed(42)
    places = []
    for trial in range(3):
        own_context(own)
        own.reset()
        generator = np.random.get_state()  # ours draws from the same
        own.set_init_state(states[trial])
        for _ in range(steps):
            own.step([0, 0, 0, 0, 0, 0, -1])
        places.append(own.sim.model.body_pos.copy())
        if trial != 1:  # by itself, whatever was run before
            env.reset(trial)
            np.testing.assert_array_equal(env.simulator.sim.model.body_pos, places[trial])
            np.testing.assert_array_equal(env.simulator.sim.model.body_quat, own.sim.model.body_quat)
            np.testing.assert_array_equal(env.simulator.sim.data.qpos, own.sim.data.qpos)
            np.testing.assert_array_equal(env.simulator.sim.data.qvel, own.sim.data.qvel)
        np.random.set_state(generator)
    assert np.abs(places[0] - places[2]).max() > 0.001
    monkeypatch.setattr(env, "config", replace(env.config, fixtures="fixed"))
    env.reset(2)
    np.testing.assert_array_equal(env.simulator.sim.model.body_pos, places[0])
    own_context(own)
    own.close()


@needs_libero
def test_the_expert_does_what_the_goal_check_wants(soup: Libero) -> None:
    soup.reset(1000)
    steps = next(step for step in range(1, 250) if soup.step(soup.expert_action()).success)
    assert 80 < steps < 200
    with pytest.raises(BadInput, match=r"shape \(4,\), expected \(7,\)"):
        soup.step(np.zeros(4))


@needs_libero
@of_tasks(SAMPLE[2:3])
def test_the_expert_opens_a_drawer(env: Libero) -> None:
    """What it knows of the scene, and a whole episode with the tilted hand."""
    env.reset(1000)
    bodies, drawer = Bodies(env.simulator), "wooden_cabinet_1_middle_region"
    shut = bodies.joints(drawer)[0]
    assert bodies.goals() == [("open", drawer)] and abs(shut.value) < 1e-3
    assert bodies.owner(drawer) == "wooden_cabinet_1" and bodies.is_fixture("wooden_cabinet_1")
    assert not bodies.joints("main_table_stove_front_region")
    top = bodies.centre("wooden_cabinet_1_top_side")
    assert bodies.surface(top, top[2] + 0.05) == pytest.approx(
        bodies.box("wooden_cabinet_1").high[2], abs=0.01
    )
    bowl = bodies.box("akita_black_bowl_1")
    assert bodies.in_the_way(bowl) > bodies.in_the_way(bowl, "akita_black_bowl_1")
    steps = next(step for step in range(1, 150) if env.step(env.expert_action()).success)
    assert steps > 30 and bodies.joints(drawer)[0].value < -0.14 and not bodies.goals()


@needs_libero
@of_tasks(SAMPLE)
def test_tasks_load_reset_to_their_states_and_step(env: Libero, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        env, "config", replace(env.config, fixtures="fixed")
    )  # else after the draws of 49 trials
    task = env.task
    states = libero_install.find_installation().initial_states(task.group, task.name)
    assert len(states) == PUBLISHED_STATES
    state = env.reset(49)
    np.testing.assert_array_equal(state.vector, states[49, 1 : 1 + len(state.vector)])
    assert not env.step(np.array([0.0] * 6 + [1.0])).success
    if task.group == "libero_90":
        with pytest.raises(BadInput, match="no scripted expert can do LIBERO task STUDY_SCENE"):
            env.expert_action()


@needs_libero
def test_every_task_of_the_suites_is_installed() -> None:
    installation = libero_install.find_installation()
    tasks = [task for tasks in LIBERO_TASKS.values() for task in tasks]
    assert len(tasks) == 130
    assert all(installation.bddl(task.group, task.name).is_file() for task in tasks)
    counts = {len(installation.initial_states(task.group, task.name)) for task in tasks}
    assert counts == {PUBLISHED_STATES}


@needs_libero
def test_simulators_may_run_in_another_python(soup: Libero, monkeypatch: pytest.MonkeyPatch) -> None:
    config = soup.config
    here = describe(config)
    monkeypatch.setenv(PYTHON_VARIABLE, sys.executable)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # as --device cpu leaves it
    assert describe(config) == here
    with env_processes(config, 1) as (process,):
        process.send(_look, SOUP)
        images = process.receive()
    soup.reset(0)
    for name, image in soup.observe().images.items():
        assert (images[name] == image).all()


def _look(host: Any, task: Task) -> Any:
    env = host.env(task)
    env.reset(0)
    return env.observe().images


def test_a_python_without_the_client_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(PYTHON_VARIABLE, str(tmp_path / "python"))
    with pytest.raises(BadInput, match=r"cannot host a simulator .*pip install wamkit-client"):
        describe(LiberoConfig())


def test_no_libero_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libero_install, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"LIBERO is not installed .*make libero"):
        LiberoConfig().prepare()


@needs_libero
def test_assets_that_are_none_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(libero_install.ASSETS_VARIABLE, str(tmp_path))
    with pytest.raises(BadInput, match="no LIBERO assets; expected a folder with scenes"):
        LiberoConfig().make(SOUP)


@needs_libero
def test_assets_come_from_the_packages_when_all_of_them_are_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(libero_install.ASSETS_VARIABLE, raising=False)
    package = tmp_path / libero_install.ASSETS_PACKAGE
    for part in libero_install.PACK_PARTS:
        (package / "assets" / part).mkdir(parents=True)
    spec = ModuleSpec(libero_install.ASSETS_PACKAGE, None, is_package=True)
    spec.submodule_search_locations = [str(package)]
    monkeypatch.setattr(
        libero_install,
        "find_spec",
        lambda name: spec if name == libero_install.ASSETS_PACKAGE else find_spec(name),
    )
    for part in libero_install.ASSETS_PARTS:  # a broken installation is never taken
        assert package / "assets" not in libero_install._places(tmp_path)
        (package / part).touch()
    assert libero_install.find_installation().assets == package / "assets"


def test_assets_are_hashed_in_pieces_by_name_and_content(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "scenes").mkdir()
    (tmp_path / "scenes" / "a.xml").write_bytes(b"0123456789")
    (tmp_path / "b.png").write_bytes(b"")
    digest = sha256(b"b.png 0\nscenes/a.xml 10\n0123456789").hexdigest()[:16]
    for block in (3, 1 << 20):
        libero_install.asset_pack.cache_clear()
        monkeypatch.setattr(contents, "BLOCK", block)
        monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} was read as a whole"))
        assert libero_install.asset_pack(tmp_path) == {"hash": digest, "name": ""}
    monkeypatch.setitem(libero_install.PACKS, digest, "a name")
    libero_install.asset_pack.cache_clear()
    assert libero_install.asset_pack(tmp_path)["name"] == "a name"


@needs_libero
def test_another_mujoco_is_said_aloud_and_a_broken_one_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """3.3.2 is that of the published scores, 3.3.0 runs beside Meta-World."""
    for version, said in (("3.3.0", 0), ("3.3.2", 0), ("3.3.1", 1), ("3.4.0", 1)):
        monkeypatch.setattr(libero_install.metadata, "version", lambda name, version=version: version)
        assert len([line for line in libero_install.warnings() if line.startswith("MuJoCo")]) == said
        LiberoConfig().prepare()
    monkeypatch.setattr(libero_install.metadata, "version", lambda name: "3.8.1")
    with pytest.raises(BadInput, match=r"MuJoCo 3.8.1: .*pip install mujoco==3.3.2, .* mujoco==3.3.0"):
        LiberoConfig().prepare()


def test_states_are_read_as_arrays_and_nothing_else(tmp_path: Path) -> None:
    import pickle
    import zipfile

    def write(payload: bytes) -> Path:
        path = tmp_path / "states.pruned_init"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", payload)
        return path

    states = np.random.default_rng(0).normal(size=(3, 5))
    assert (libero_install.read_states(write(pickle.dumps(states, protocol=2))) == states).all()
    with pytest.raises(BadInput, match="not LIBERO's initial states"):
        libero_install.read_states(write(pickle.dumps(print)))
    with pytest.raises(BadInput, match=r"expected an array \[states, numbers\]"):
        libero_install.read_states(write(pickle.dumps(states[0])))
    with pytest.raises(BadInput, match="is missing"):
        libero_install.read_states(tmp_path / "none")


def test_rotation_vectors_follow_the_published_convention() -> None:
    """Half a turn about x, the quaternion's sign is not taken away, and no rotation is the zero vector."""
    np.testing.assert_allclose(rotation_vector(np.array([1.0, 0, 0, 0])), [np.pi, 0, 0])
    np.testing.assert_allclose(
        rotation_vector(np.array([0, 0, np.sin(0.2), -np.cos(0.2)])), [0, 0, 2 * np.pi - 0.4]
    )
    assert (rotation_vector(np.array([0, 0, 0, 1.0])) == 0).all()


def test_results_without_a_word_about_fixtures_had_them_fixed() -> None:
    """Protocols as they were written before there was a choice."""
    results = Path(__file__).parents[2] / "pretrained/libero_object/eval/trials5/results.json"
    old = json.loads(results.read_text())["suite"]
    assert "fixtures" not in old["env"]
    read = suite_from_json(old)
    assert read.env == LiberoConfig(settle_steps=30, scene_seed=42, fixtures="fixed")
    assert suite_from_json(read.to_json()) == read
    with pytest.raises(BadInput, match="fixtures: 'some'; expected one of fixed, per_trial"):
        LiberoConfig(fixtures="some")


def test_more_trials_than_published_states_are_refused() -> None:
    objects = suite("libero_object")
    assert replace(objects, episodes=50) == objects
    with pytest.raises(BadInput, match=r"seeds 0 to 59; a task has 50 published .* at most 50 trials"):
        replace(objects, episodes=60)
    with pytest.raises(BadInput, match="seeds 40 to 59"):
        replace(objects, first_seed=40, episodes=20)
    assert replace(objects, first_seed=1000, episodes=60).episodes == 60


def test_suites_are_the_protocols_of_the_papers() -> None:
    for name, steps, theirs, lawams in (
        ("spatial", 400, 220, 250),
        ("object", 400, 280, 300),
        ("goal", 400, 300, 320),
        ("10", 700, 520, 550),
    ):
        published, openvla = suite(f"libero_{name}"), suite(f"libero_{name}_openvla")
        assert (len(published.tasks), published.episodes, published.first_seed) == (10, 50, 0)
        assert published.max_steps == steps
        assert published.env == LiberoConfig(settle_steps=30, scene_seed=42, fixtures="per_trial")
        fixed = suite(f"libero_{name}_fixed")
        assert fixed.env == LiberoConfig(settle_steps=30, scene_seed=42, fixtures="fixed")
        assert openvla.max_steps == theirs
        assert openvla.env == LiberoConfig(settle_steps=10, scene_seed=0, fixtures="per_trial")
        lawam = suite(f"libero_{name}_lawam")
        assert (lawam.max_steps, lawam.env, lawam.episodes) == (lawams, openvla.env, 50)
    four = suite("libero")
    assert len(four.tasks) == 40 and {four.steps(task) for task in four.tasks} == {400, 700}
    assert all(task.instruction == task.instruction.lower() for task in four.tasks)
    assert suite("libero_90").max_steps == 700 and len(suite("libero_90").tasks) == 90
    lawam = suite("libero_lawam")
    assert {lawam.steps(task) for task in lawam.tasks} == {250, 300, 320, 550}
    with pytest.raises(BadInput, match="unknown suite 'libero_90_lawam'"):  # its paper has none
        suite("libero_90_lawam")


def test_tasks_are_chosen_by_number_range_and_name() -> None:
    objects = suite("libero_object")
    names = [task.name for task in objects.tasks]
    assert [task.name for task in objects.only(["7-8", "1", names[0]]).tasks] == [
        names[n] for n in (0, 1, 7, 8)
    ]
    with pytest.raises(BadInput, match=r"has tasks 0 to 9, asked for 8-12"):
        objects.only(["8-12"])
    with pytest.raises(BadInput, match="did you mean 'pick_up_the_milk_and_place_it_in_the_basket'"):
        objects.only(["pick_up_the_milc_and_place_it_in_the_basket"])
    with pytest.raises(BadInput, match="did you mean 'libero_object'"):
        suite("libero_objects")
