"""What goes wrong on purpose, in the real simulators: at its moment or from the reset on, and gone at the next."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from wamkit_client.envs.axes import noisy
from wamkit_client.envs.base import EnvConfig
from wamkit_client.envs.libero import perturbations as libero
from wamkit_client.envs.libero.env import Libero, LiberoConfig
from wamkit_client.envs.libero.tasks import LIBERO_TASKS
from wamkit_client.envs.metaworld.env import CENTRE, MetaWorld, MetaWorldConfig
from wamkit_client.envs.metaworld.perturbations import AXES, EVENTS, KINDS
from wamkit_client.envs.metaworld.tasks import METAWORLD_TASKS, metaworld_task
from wamkit_client.envs.paraphrases import STYLES, paraphrase
from wamkit_client.envs.perturbations import Fate, Perturbation
from wamkit_client.envs.perturbations import perturbation as of_kind
from wamkit_client.suites import suite, suite_from_json
from wamkit_client.types import BadInput

from tests.client.libero import needs_libero

SEED, SOON = 3, (0.025, 0.05)
STILL = np.array([0.0, 0.0, 0.0, -1.0])


def perturbation(word: str) -> Perturbation:
    return of_kind(word, KINDS)


def images(env: MetaWorld, steps: int) -> list[np.ndarray]:
    """Both views before each of the steps and after the last."""
    env.reset(SEED)
    seen = [np.concatenate(list(env.observe().images.values()))]
    for _ in range(steps):
        env.step(STILL)
        seen.append(np.concatenate(list(env.observe().images.values())))
    return seen


@pytest.fixture(scope="module")
def plain() -> Iterator[list[np.ndarray]]:
    env = MetaWorldConfig().make(metaworld_task("drawer-open-v3"))
    yield images(env, 6)
    env.close()


@pytest.mark.parametrize("kind", EVENTS)
def test_it_happens_at_its_step_and_a_reset_takes_it_back(kind: str, plain: list[np.ndarray]) -> None:
    chosen = replace(perturbation(kind), seconds=SOON)
    config = replace(MetaWorldConfig(), perturbation=chosen)
    env = config.make(metaworld_task("drawer-open-v3"))
    step = chosen.step(SEED, env.control_hz)
    assert 2 <= step <= 4
    first, again = images(env, 6), images(env, 6)
    env.close()
    for number, (usual, one, other) in enumerate(zip(plain, first, again, strict=True)):
        np.testing.assert_array_equal(one, other)
        assert (np.abs(one.astype(int) - usual).mean() > 0.05) == (number > step), (kind, number, step)


@pytest.mark.parametrize("task", ["drawer-open-v3", "pick-place-v3"])
def test_an_object_moves_with_what_belongs_to_it(task: str) -> None:
    env = replace(MetaWorldConfig(), perturbation=replace(perturbation("object_moved"), seconds=(0, 0))).make(
        metaworld_task(task)
    )
    env.reset(SEED)
    simulator = env.simulator
    before, goal = simulator._get_pos_objects().copy(), simulator._target_pos.copy()
    env.step(STILL)
    by, goal_by = simulator._get_pos_objects() - before, simulator._target_pos - goal
    assert np.linalg.norm(by[:2]) == pytest.approx(0.1, abs=0.01)
    fixed = task == "drawer-open-v3"  # a goal in the air does not follow a loose block
    np.testing.assert_allclose(goal_by, by if fixed else np.zeros(3), atol=0.01)
    env.close()


def test_a_suite_is_named_with_what_goes_wrong_in_it() -> None:
    dark = suite("metaworld3+lights_off")
    plain = suite("metaworld3")
    assert (dark.name, dark.tasks, dark.max_steps) == ("metaworld3+lights_off", plain.tasks, plain.max_steps)
    assert suite_from_json(dark.to_json()) == dark
    assert dark.to_json()["env"]["perturbation"] == {
        "kind": "lights_off",
        "strength": 0.8,
        "seconds": [0.25, 0.5],
    }
    assert "perturbation" not in plain.to_json()["env"]  # as results of older versions
    half = suite("metaworld3_20hz+lights_off=0.5").env
    assert isinstance(half, MetaWorldConfig) and half.perturbation == Perturbation("lights_off", 0.5)
    assert half.control_hz == 20


def test_its_moment_follows_from_the_seed_alone() -> None:
    chosen = perturbation("distractor")
    steps = [chosen.step(seed, 80) for seed in range(50)]
    assert steps == [chosen.step(seed, 80) for seed in range(50)]
    assert 20 <= min(steps) < max(steps) <= 40
    assert perturbation("lights_off").step(7, 20) == round(chosen.step(7, 80) / 4)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("metaworld3+earthquake", "'earthquake' is unknown; expected one of none, object_moved"),
        ("metaworld3+lights_off=dark", "'dark' is no number"),
        ("metaworld3+lights_off=-1", "expected a strength above 0"),
        ("libero_goal+lights_off", "'lights_off' is unknown; expected one of none, layout_1"),
        ("metaworld3+camera", "no strength; expected camera_1, camera_2, camera_3, or camera=NUMBER"),
        ("metaworld3+camera_4", "'camera_4' is unknown"),
        ("metaworld3+camera=120", r"strength 120; expected a strength up to 90 \(degrees\)"),
        ("metaworld3+instruction=1.5", r"strength 1.5; expected a whole number up to 3 \(1 asked"),
        ("metaworld4+lights_off", "unknown suite 'metaworld4'"),
    ],
)
def test_bad_names(name: str, wrong: str) -> None:
    with pytest.raises(BadInput, match=wrong):
        suite(name)


def test_a_simulator_may_have_none() -> None:
    config = EnvConfig()
    config.simulator = "mine"
    with pytest.raises(BadInput, match="mine has no perturbations, asked for 'camera_1'"):
        config.perturbed("camera_1")


CHANGES = {
    "layout": {"images"},
    "robot": {"images", "proprio"},
    "camera": {"images"},
    "instruction": {"instruction"},
    "light": {"images"},
    "background": {"images"},
    "noise": {"images"},
    "action_delay": {"motion"},
    "action_noise": {"motion"},
}
"""What each axis changes: of the first observation, and of how the hand moves then."""


def beginning(env: MetaWorld | Libero, action: np.ndarray) -> dict[str, np.ndarray | str]:
    """The first observation, and how the hand moves in six steps of one action."""
    env.reset(SEED)
    seen = env.observe()
    for _ in range(6):
        env.step(action)
    moved = env.observe().proprio[:3] - seen.proprio[:3]
    images = np.concatenate([image.ravel() for image in seen.images.values()])
    return {"images": images, "proprio": seen.proprio, "instruction": seen.instruction, "motion": moved}


@pytest.fixture(scope="module")
def usual() -> Iterator[dict[str, np.ndarray | str]]:
    env = MetaWorldConfig().make(metaworld_task("drawer-open-v3"))
    yield beginning(env, np.array([1.0, 0.0, 0.0, -1.0]))
    env.close()


@pytest.mark.parametrize("axis", AXES)
def test_an_axis_holds_from_the_reset_on(axis: str, usual: dict[str, np.ndarray | str]) -> None:
    env = MetaWorldConfig().perturbed(f"{axis}_3").make(metaworld_task("drawer-open-v3"))
    try:
        action = np.array([1.0, 0.0, 0.0, -1.0])
        found = beginning(env, action)
        env.reset(SEED + 1)
        again = beginning(env, action)
        for name, value in found.items():
            np.testing.assert_array_equal(value, again[name])  # nothing is left of earlier episodes
            if name != "motion" or axis != "robot":  # the arm still swings where it came from farther away
                assert np.array_equal(value, usual[name]) == (name not in CHANGES[axis]), name
        before, after = env.observe(), env.observe()
        np.testing.assert_array_equal(
            before.images["corner2"], after.images["corner2"]
        )  # however often one looks
    finally:
        env.close()


def test_strengths_are_in_their_units() -> None:
    envs = [
        MetaWorldConfig().perturbed(word).make(metaworld_task("drawer-open-v3"))
        for word in ("none", "camera_3", "layout_3", "robot_2")
    ]
    states = [env.reset(SEED) for env in envs]
    plain, camera, layout, robot = envs
    lines = [
        env.simulator.model.cam_pos[env.simulator.model.camera("corner2").id] - CENTRE
        for env in (plain, camera)
    ]
    lengths = [np.linalg.norm(line) for line in lines]
    assert lengths[0] == pytest.approx(lengths[1])
    assert np.degrees(np.arccos(lines[0] @ lines[1] / np.prod(lengths))) == pytest.approx(20, abs=6)
    by = np.subtract(states[2].vector, states[0].vector)
    assert np.linalg.norm(by) == pytest.approx(0.1) and by[2] == 0
    np.testing.assert_allclose(
        layout.simulator._target_pos - plain.simulator._target_pos, by, atol=1e-6
    )  # the goal stands there too
    hands = [env.observe().proprio[:3] for env in (plain, robot)]
    assert np.linalg.norm(hands[1] - hands[0]) == pytest.approx(0.1, abs=0.01)
    for env in envs:
        env.close()
    image = np.full((64, 64, 3), 128, np.uint8)
    assert noisy(image, 25.0, np.random.default_rng(0)).std() == pytest.approx(25, abs=1)


def test_actions_are_late_by_whole_steps() -> None:
    env = MetaWorldConfig(control_hz=20.0).perturbed("action_delay=60").make(metaworld_task("drawer-open-v3"))
    env.reset(SEED)
    assert [env._fate.told(np.full(4, float(n)))[0] for n in range(1, 5)] == [0, 0, 1, 2]
    env.close()


@pytest.mark.parametrize("axis", ["layout", "robot", "action_delay", "action_noise"])
def test_the_expert_can_still_do_it(axis: str) -> None:
    env = MetaWorldConfig().perturbed(f"{axis}_3").make(metaworld_task("drawer-open-v3"))
    env.reset(SEED)
    assert any(env.step(env.expert_action()).success for _ in range(250))
    env.close()


def test_every_instruction_can_be_said_otherwise() -> None:
    everything = [*METAWORLD_TASKS, *(task for tasks in LIBERO_TASKS.values() for task in tasks)]
    for told in {task.instruction for task in everything}:
        said = [paraphrase(told, style, np.random.default_rng(0)) for style in range(1, len(STYLES) + 1)]
        assert len({told.lower(), *(one.lower() for one in said)}) == 4, said
        assert all(len(one.split()) <= len(told.split()) + 10 for one in said), said
        assert told.lower() in said[0].lower() and said[0][0].isupper() == told[0].isupper()
        assert said == [paraphrase(told, style, np.random.default_rng(0)) for style in range(1, 4)]


@pytest.fixture(scope="module")
def bowl() -> Iterator[Libero]:
    """A bowl in the drawer of a cabinet."""
    env = LiberoConfig(settle_steps=2).make(LIBERO_TASKS["libero_spatial"][4])
    yield env
    env.close()


@needs_libero
def test_the_axes_in_libero(bowl: Libero, monkeypatch: pytest.MonkeyPatch) -> None:
    def began(word: str) -> dict[str, np.ndarray | str]:
        monkeypatch.setattr(bowl, "_fate", Fate(of_kind(word, libero.KINDS), libero.KINDS))
        return beginning(bowl, np.array([0.5, 0.0, 0.3, 0.0, 0.0, 0.0, 1.0]))

    def places() -> np.ndarray:
        sim = bowl.simulator.sim
        names = ("akita_black_bowl_1_main", "wooden_cabinet_1_main", "plate_1_main")
        return np.array([sim.data.get_body_xpos(name) for name in names])

    plain, stood = began("none"), places()
    for axis in ("layout", "robot", "camera", "background", "action_delay"):
        found = began(f"{axis}_3")
        for name in CHANGES[axis] - {"proprio"}:
            assert not np.array_equal(found[name], plain[name]), (axis, name)
        moved = places() - stood
        far = 0.08 if axis == "layout" else 0.0  # all by as much, and what lies in a drawer stays in it
        np.testing.assert_allclose(np.linalg.norm(moved, axis=1), far, atol=5e-3)
        hand = np.linalg.norm(np.subtract(found["proprio"], plain["proprio"])[:3])
        assert hand == pytest.approx(0.15 if axis == "robot" else 0.0, abs=0.015), axis
    again = began("none")
    for name, value in plain.items():
        np.testing.assert_array_equal(value, again[name])


def test_libero_says_nothing_of_no_perturbation() -> None:
    plain, dark = suite("libero_goal"), suite("libero_goal+light_2")
    assert "perturbation" not in plain.to_json()["env"] and suite_from_json(plain.to_json()) == plain
    assert suite_from_json(dark.to_json()) == dark
    assert dark.to_json()["env"]["perturbation"] == {"kind": "light", "strength": 0.5, "seconds": [0.0, 0.0]}
