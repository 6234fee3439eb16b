"""The Meta-World adapter against the real simulator: conventions, determinism, cameras."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from wamkit_client.envs.base import Task, project
from wamkit_client.envs.metaworld.env import MetaWorld, MetaWorldConfig
from wamkit_client.envs.metaworld.tasks import metaworld_task
from wamkit_client.envs.rendering import RenderSettings, everything, inside
from wamkit_client.expert import ExpertConfig, demonstrate
from wamkit_client.types import BadInput

CONFIG = MetaWorldConfig()


@pytest.fixture(scope="module")
def reach() -> Iterator[MetaWorld]:
    env = CONFIG.make(metaworld_task("reach-v3"))
    yield env
    env.close()


@pytest.fixture(scope="module")
def drawer() -> Iterator[MetaWorld]:
    env = CONFIG.make(metaworld_task("drawer-open-v3"))
    yield env
    env.close()


def test_an_observation_is_what_the_types_say(drawer: MetaWorld) -> None:
    drawer.reset(0)
    seen = drawer.observe()
    assert list(seen.images) == ["corner2", "gripperPOV"]
    for image in seen.images.values():
        assert image.shape == (64, 64, 3) and image.dtype == np.uint8 and image.std() > 20
    assert seen.proprio.shape == (4,) and seen.proprio.dtype == np.float32
    np.testing.assert_allclose(seen.proprio[:3], drawer.simulator.data.body("hand").xpos, atol=1e-6)
    assert 0 <= seen.proprio[3] <= 1
    assert (seen.instruction, seen.embodiment) == ("Open a drawer", "metaworld_sawyer")
    assert drawer.display().shape == (256, 256, 3)


def test_a_seed_is_a_state_whatever_happened_before(drawer: MetaWorld) -> None:
    first = drawer.reset(7)
    before = [drawer.observe()]
    for _ in range(20):
        drawer.step(drawer.expert_action())
    before.append(drawer.observe())
    for seed in (8, 9):
        assert drawer.reset(seed).key() != first.key()
        for _ in range(100):
            drawer.step(drawer.expert_action())  # the drawer is open now
    assert drawer.reset(7) == first
    after = [drawer.observe()]
    for _ in range(20):
        drawer.step(drawer.expert_action())
    after.append(drawer.observe())
    fresh = CONFIG.make(drawer.task)
    assert fresh.reset(7) == first
    elsewhere = fresh.observe()
    fresh.close()
    for old, new in zip([*before, before[0]], [*after, elsewhere], strict=True):
        np.testing.assert_array_equal(old.proprio, new.proprio)
        for view in drawer.view_names:
            np.testing.assert_array_equal(old.images[view], new.images[view])


def test_the_initial_state_follows_from_the_vector(drawer: MetaWorld) -> None:
    state = drawer.reset(11)
    assert (state.task, state.seed) == ("drawer-open-v3", 11)
    np.testing.assert_allclose(drawer.simulator.model.body("drawer").pos, state.vector)


def test_actions_are_clipped_as_the_simulator_does(drawer: MetaWorld) -> None:
    ends = []
    for scale in (1.0, 5.0):
        drawer.reset(3)
        for _ in range(10):
            drawer.step(scale * np.array([1.0, 1.0, -1.0, 1.0]))
        ends.append(drawer.observe().proprio)
    np.testing.assert_array_equal(ends[0], ends[1])


def test_an_idle_robot_keeps_its_place_and_its_gripper(drawer: MetaWorld) -> None:
    drawer.reset(3)
    np.testing.assert_array_equal(drawer.idle_action(None), [0, 0, 0, -1])
    last, seen = np.array([0.0, 0.0, 1.0, 1.0], np.float32), []
    for _ in range(15):
        drawer.step(last)
    for _ in range(3):
        for _ in range(15):  # after the first ones the arm has caught up with the last command
            last = drawer.idle_action(last)
            drawer.step(last)
        seen.append(drawer.observe().proprio)
    np.testing.assert_allclose(seen[2], seen[1], atol=1e-3)
    assert seen[2][3] < 0.5  # the gripper stays closed


def test_what_a_camera_cannot_see_is_left_out_and_images_are_the_same(drawer: MetaWorld) -> None:
    renderer, data = drawer._renderer, drawer.simulator.data
    model = drawer.simulator.model
    groups = model.geom_group.copy()
    everywhere = [model.camera(index).name for index in range(model.ncam)]
    drawer.reset(3)
    for _ in range(4):
        for _ in range(20):
            drawer.step(drawer.expert_action())
        for camera in everywhere:
            for size in ((64, 64), (48, 96), (96, 40)):
                image = renderer.render(data, camera, *size)
                renderer._drawn, culled = everything, renderer._drawn
                np.testing.assert_array_equal(image, renderer.render(data, camera, *size), err_msg=camera)
                renderer._drawn = culled
    np.testing.assert_array_equal(model.geom_group, groups)
    left_out = ~inside(model, data, model.camera("gripperPOV").id, 1.0)
    bodies = {model.body(body).name for body in model.geom_bodyid[left_out]}
    assert {"right_l0", "right_l1", "head"} <= bodies and not {"hand", "rightpad", "drawer"} & bodies


@pytest.mark.parametrize("settings", [RenderSettings(shadows=True), RenderSettings(reflections=True)])
def test_nothing_is_left_out_that_may_cast_a_shadow(settings: RenderSettings) -> None:
    env = replace(CONFIG, render=settings).make(metaworld_task("drawer-open-v3"))
    assert env._renderer._drawn is everything
    env.close()


@pytest.mark.parametrize(
    ("action", "message"),
    [(np.zeros(7), r"shape \(7,\), expected \(4,\)"), (np.array([0, 0, np.nan, 0]), "NaN or infinity")],
)
def test_broken_actions_are_refused(drawer: MetaWorld, action: np.ndarray, message: str) -> None:
    with pytest.raises(BadInput, match=f"drawer-open-v3.*{message}"):
        drawer.step(action)


def test_unknown_tasks_and_cameras_are_refused() -> None:
    with pytest.raises(BadInput, match=r"no task 'fly-v3'; it has:.*reach-v3"):
        CONFIG.make(Task("fly-v3", "fly"))
    with pytest.raises(BadInput, match=r"no camera 'wrist'; it has:.*gripperPOV"):
        replace(CONFIG, views=("wrist",)).make(metaworld_task("reach"))


def test_the_step_limit_of_the_simulator(drawer: MetaWorld) -> None:
    drawer.reset(0)
    done = [drawer.step(np.zeros(4)).done for _ in range(drawer.max_steps)]
    assert done[-1] and not any(done[:-1])


@pytest.mark.parametrize("view", ["display", "corner2", "gripperPOV"])
def test_points_project_to_their_pixels(reach: MetaWorld, view: str) -> None:
    """The goal is a sphere: it covers the pixels around the projection of its centre."""
    model, config = reach.simulator.model, reach.config
    reach.reset(2)
    site = model.site("goal")
    hand = reach.observe().proprio[:3]
    site.pos = hand + np.array([0.01, 0.03, -0.12])  # where every camera sees it
    reach.simulator.data.site("goal").xpos[:] = site.pos
    colour = site.rgba.copy()

    def picture() -> np.ndarray:
        return (reach.display() if view == "display" else reach.observe().images[view]).astype(int)

    shown = picture()
    site.rgba[3] = 0
    hidden = picture()
    site.rgba[:] = colour
    rows, columns = np.nonzero(np.abs(shown - hidden).sum(axis=2))
    assert len(rows) > 3
    pixel = project(reach.cameras()[view], np.asarray(site.pos)[None])[0]
    assert np.hypot(columns.mean() + 0.5 - pixel[0], rows.mean() + 0.5 - pixel[1]) < (
        1.0 if view != "display" else 2.0
    )
    height = config.display_height if view == "display" else config.view_height
    assert 0 < pixel[1] < height


def test_a_chunk_path_leads_where_the_hand_goes(reach: MetaWorld) -> None:
    reach.reset(4)
    for _ in range(10):
        reach.step(np.zeros(4))
    proprio = reach.observe().proprio
    chunk = np.tile(np.array([0.3, 0.5, 0.2, -1.0], np.float32), (20, 1))
    path = reach.chunk_path(proprio, chunk)
    for action in chunk:
        reach.step(action)
    for _ in range(20):
        reach.step(np.array([0, 0, 0, -1.0]))  # let the arm catch up
    assert path.shape == (20, 3)
    np.testing.assert_allclose(path[-1], reach.simulator.tcp_center, atol=0.02)


def test_an_expert_demonstrates(drawer: MetaWorld) -> None:
    shown = demonstrate(drawer, 0, ExpertConfig(max_steps=200, steps_after_success=10))
    steps = shown.success_step + 10
    assert 80 < shown.success_step < 100
    assert shown.proprio.shape == shown.actions.shape == (steps, 4)
    assert shown.views["corner2"].shape == (steps, 64, 64, 3)
    assert np.abs(shown.actions).max() <= 1
    drawer.reset(0)
    for step, action in enumerate(shown.actions):  # row i is what was seen before action i
        if step % 10 == 0:
            seen = drawer.observe()
            np.testing.assert_array_equal(seen.proprio, shown.proprio[step])
            np.testing.assert_array_equal(seen.images["gripperPOV"], shown.views["gripperPOV"][step])
        assert drawer.step(action).success == (step + 1 >= shown.success_step)


def test_noise_is_executed_and_not_recorded(drawer: MetaWorld) -> None:
    shown = demonstrate(drawer, 0, ExpertConfig(max_steps=200, steps_after_success=0, noise=0.3))
    assert shown.success_step > 0 and np.abs(shown.actions).max() <= 1
    assert (shown.actions[:, 3] == -1).all()  # the gripper stays open: no noise in what is recorded
    drawer.reset(0)
    for action in shown.actions[:20]:
        drawer.step(action)
    assert np.abs(drawer.observe().proprio - shown.proprio[20])[:3].max() > 1e-3  # but in what was done


def test_noise_that_lasts_is_as_strong_and_takes_the_robot_farther(reach: MetaWorld) -> None:
    def noise(seconds: float) -> np.ndarray:
        disturbance = ExpertConfig(200, noise=0.3, noise_seconds=seconds).disturbance(reach, 0)
        return np.stack([disturbance.on(np.zeros(4)) for _ in range(20_000)])

    short, lasting = noise(0.0), noise(0.25)  # 20 steps at 80 Hz
    np.testing.assert_allclose([short.std(), lasting.std()], 0.3, rtol=0.05)
    correlations = [np.corrcoef(own[:-20, 0], own[20:, 0])[0, 1] for own in (short, lasting)]
    np.testing.assert_allclose(correlations, [0, np.exp(-1)], atol=0.08)

    def farthest(seconds: float) -> float:
        config = ExpertConfig(500, steps_after_success=0, noise=0.3, noise_seconds=seconds)
        paths = [demonstrate(reach, seed, config).proprio[:30, :3] for seed in range(3)]
        clean = [demonstrate(reach, seed, ExpertConfig(200)).proprio[:30, :3] for seed in range(3)]
        return float(np.mean([np.abs(a - b).max() for a, b in zip(paths, clean, strict=True)]))

    assert farthest(0.25) > 2 * farthest(0.0) > 0


def test_noise_that_pauses_is_the_same_noise_between_pauses(reach: MetaWorld) -> None:
    def noise(seed: int, pause: float) -> np.ndarray:
        config = ExpertConfig(200, noise=0.8, noise_seconds=0.25, noise_pause_seconds=pause)
        disturbance = config.disturbance(reach, seed)
        return np.stack([disturbance.on(np.zeros(4)) for _ in range(600)])  # 10 periods of 0.75 s at 80 Hz

    whole, pausing = noise(0, 0.0), noise(0, 0.5)
    there = pausing.any(1)
    assert there.sum() == 200 and not np.diff(np.flatnonzero(np.diff(there.astype(int)))[::2] % 60).any()
    np.testing.assert_array_equal(pausing, np.where(there[:, None], whole, 0))
    assert len({int(np.argmin(noise(seed, 0.5).any(1))) for seed in range(8)}) > 1  # they begin anywhere


def test_at_a_lower_rate_an_action_is_divided_among_steps_of_the_simulator(drawer: MetaWorld) -> None:
    slow = replace(CONFIG, control_hz=20.0).make(drawer.task)
    try:
        assert (slow.control_hz, slow.max_steps) == (20.0, 125)
        drawer.reset(3)
        slow.reset(3)
        action = np.array([0.4, -0.8, 4.0, 0.5])
        slow.step(action)
        for _ in range(4):
            drawer.step(action / [4, 4, 4, 1])
        np.testing.assert_array_equal(slow.observe().proprio, drawer.observe().proprio)
        assert demonstrate(slow, 0, ExpertConfig(max_steps=63)).success_step > 0
    finally:
        slow.close()


@pytest.mark.parametrize("hz", [0.0, -20.0, 30.0, 160.0])
def test_a_rate_is_a_whole_part_of_the_simulators(hz: float) -> None:
    with pytest.raises(BadInput, match="control_hz"):
        replace(CONFIG, control_hz=hz)


def test_what_older_results_say_nothing_of_is_not_written() -> None:
    assert "control_hz" not in CONFIG.to_json()
    slow = replace(CONFIG, control_hz=20.0)
    assert slow.to_json()["control_hz"] == 20.0 and MetaWorldConfig.from_json(slow.to_json()) == slow


def test_a_config_survives_json() -> None:
    config = replace(CONFIG, view_width=96, render=replace(CONFIG.render, shadows=True))
    assert MetaWorldConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    assert set(CONFIG.facts()["versions"]) >= {"mujoco", "metaworld"}
