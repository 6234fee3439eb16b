"""Messages as clients of other projects send them become observations; what is wrong with one is said by its key."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from wamkit_client.types import BadInput, Observation

from tests.serve.robots import ROBOT, libero
from wamkit.serve.layouts import LAYOUTS, mapped, observe
from wamkit.serve.limits import Limits
from wamkit.serve.served import Robot

IMAGE = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
ARMS = ("cam_high", "cam_left_wrist", "cam_right_wrist")
ALOHA = Robot("aloha", ARMS, 14, 14, 32, 25.0)


def observed(message: dict[str, Any], robot: Robot = ROBOT, **names: str) -> Observation:
    return observe(
        message,
        mapped(LAYOUTS, names),
        robot,
        5,
        Limits(image_pixels=2000, instruction_length=20, episode_length=9),
    )


def test_liberos_client() -> None:
    seen = observed(libero("lift", 0.5))
    assert (seen.instruction, seen.embodiment, seen.noise_seed, seen.delay) == ("lift", "panda", 5, 0)
    np.testing.assert_array_equal(seen.images["wrist_image"], libero()["observation/wrist_image"])
    np.testing.assert_array_equal(seen.proprio, np.full(8, 0.5, np.float32))
    assert seen.proprio.dtype == np.float32 and seen.previous.shape == (0, 7)


def test_droids_client() -> None:
    robot = Robot("droid", ("exterior_image_1_left", "wrist_image_left"), 8, 8, 10, 15.0)
    images = {"observation/exterior_image_1_left": IMAGE, "observation/wrist_image_left": IMAGE}
    state = {"observation/joint_position": np.arange(7.0), "observation/gripper_position": np.array([9.0])}
    seen = observed({**images, **state, "prompt": "lift"}, robot)
    np.testing.assert_array_equal(seen.proprio, [*range(7), 9])


def test_alohas_client_and_light_wams_own() -> None:
    """openpi's ALOHA sends channels first, and Light-WAM's client calls the prompt task_description."""
    for image in (IMAGE, IMAGE.transpose(2, 0, 1)):
        message = {"images": dict.fromkeys(ARMS, image), "state": np.arange(14.0), "task_description": "lift"}
        seen = observed(message, ALOHA)
        assert all(np.array_equal(seen.images[view], IMAGE) for view in ARMS)


def test_robotwins_observation() -> None:
    vision = {name: {"color": IMAGE} for name in ("cam_head", "cam_left_wrist", "cam_right_wrist")}
    joints = {"left_arm_joint_state": np.arange(6.0), "left_ee_joint_state": np.ones(1)}
    joints |= {"right_arm_joint_state": -np.arange(6.0), "right_ee_joint_state": np.zeros(1)}
    seen = observed({"vision": vision, "state": joints, "instruction": "lift"}, ALOHA)
    np.testing.assert_array_equal(seen.proprio, [*range(6), 1, *(-i for i in range(6)), 0])
    poses = {"left_ee_pose": np.arange(7.0), "right_ee_pose": np.arange(7.0)} | joints
    seen = observed({"vision": vision, "state": poses, "instruction": "lift"}, replace(ALOHA, proprio_dim=14))
    assert len(seen.proprio) == 14


def test_our_own_client_and_lerobots_names() -> None:
    message = {"images": dict.fromkeys(ROBOT.views, IMAGE), "proprio": np.arange(8.0), "prompt": "lift"}
    more = {"seed": 2**63 - 1, "inference_delay": 3, "prev_actions": np.ones((2, 7))}
    seen = observed({**message, **more})
    assert (seen.noise_seed, seen.delay, seen.previous.shape, seen.previous.dtype) == (
        2**63 - 1,
        3,
        (2, 7),
        np.float32,
    )
    assert (seen.episode, seen.step) == ("", 0)
    seen = observed({**message, "episode": 12, "step": np.int64(7)})
    assert (seen.episode, seen.step) == ("12", 7)
    images = {f"observation.images.{view}": IMAGE for view in ROBOT.views}
    assert observed({**images, "observation.state": [1.0] * 8, "task": "lift"}).instruction == "lift"


def test_names_of_ones_own() -> None:
    message = {"cam": {"front": IMAGE}, "hand": IMAGE, "arm": np.arange(9.0), "grip": 4.0, "say": "lift"}
    names = {"image": "cam/front", "wrist_image": "hand", "proprio": "arm[1:8]+grip", "instruction": "say"}
    seen = observed(message, **names)
    np.testing.assert_array_equal(seen.proprio, [*range(1, 8), 4])
    half = {**libero(), "hand": IMAGE}
    del half["observation/wrist_image"]
    assert observed(half, wrist_image="hand").images["wrist_image"].shape == IMAGE.shape


def test_a_policy_without_proprio_needs_none() -> None:
    message = {key: value for key, value in libero().items() if key != "observation/state"}
    assert observed(message, replace(ROBOT, proprio_dim=0)).proprio.shape == (0,)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"observation/image": None}, r"'observation/image': expected uint8 RGB .*, got NoneType"),
        ({"observation/image": IMAGE.astype(np.float32)}, r"expected uint8 .*got float32 \[4, 6, 3\]"),
        ({"observation/image": np.zeros((4, 3, 6), np.uint8)}, r"got uint8 \[4, 3, 6\]"),
        ({"observation/image": np.zeros((0, 3, 3), np.uint8)}, "an image of 0 x 3 pixels"),
        ({"observation/image": np.zeros((100, 21, 3), np.uint8)}, "100 x 21 pixels, .* at most 2000"),
        ({"observation/state": np.zeros(9)}, r"9 numbers, .* a proprio of 8; give parts by --map"),
        ({"observation/state": np.zeros((2, 4))}, r"expected a row of numbers, got float64 \[2, 4\]"),
        ({"observation/state": "none"}, "expected a row of numbers, got str"),
        ({"observation/state": [1.0, "x"]}, "expected a row of numbers"),
        ({"observation/state": np.array([np.nan, *[0] * 7])}, "number 0 is nan"),
        ({"observation/state": np.array([*[0] * 7, 1e300])}, "number 7 is inf, .*float32's range"),
        ({"prompt": 5}, "'prompt': expected what to do, in words; got 5"),
        ({"prompt": "  "}, "'prompt': expected what to do"),
        ({"prompt": "x" * 21}, "21 characters, expected at most 20"),
        ({"seed": -1}, "'seed': expected an integer"),
        ({"seed": True}, "'seed': expected an integer"),
        ({"seed": 2**63}, "'seed': expected an integer"),
        ({"inference_delay": 1.5}, "'inference_delay'"),
        ({"episode": 1.5}, "'episode': expected a name of at most 9 characters or a number, got 1.5"),
        ({"episode": "x" * 10}, "'episode': expected a name of at most 9"),
        ({"step": -1}, "'step': expected an integer"),
        (
            {"prev_actions": np.zeros((2, 6))},
            r"'prev_actions': expected rows of 7 numbers.*got float64 \[2, 6\]",
        ),
        ({"prev_actions": np.zeros((5, 7))}, "at most 4 rows"),
        ({"prev_actions": np.full((2, 7), np.inf)}, "finite"),
        ({"prev_actions": []}, "got list"),
    ],
)
def test_values_that_cannot_be_used(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        observed({**libero(), **changes})


def test_missing_keys_are_named_beside_those_that_came() -> None:
    message = {"observation/image": IMAGE, "observation/state": np.zeros(8), "language": "lift"}
    with pytest.raises(BadInput) as caught:
        observed(message)
    said = str(caught.value)
    assert "has no 'observation/wrist_image', 'prompt'" in said
    assert "observation/image uint8[4, 6, 3], observation/state float64[8], language" in said
    assert "images image, wrist_image, 8 numbers of proprio" in said and "--map" in said
    with pytest.raises(BadInput, match="It came with nothing"):
        observed({})


def test_what_is_far_from_the_training_data() -> None:
    robot = replace(ROBOT, low=(-1.0, 0.0, 5.0), high=(1.0, 0.0, 7.0))
    assert robot.outside(np.array([1.4, 0.01, 7.4]), 1.5) == []
    assert robot.outside(np.array([1.6, 0.1, 4.4]), 1.5) == [0, 1, 2]
    assert ROBOT.outside(np.full(8, 1e9), 1.5) == []
