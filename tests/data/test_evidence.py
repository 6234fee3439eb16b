"""What recorded numbers say of action dimensions, on arms that are simulated in a line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.tiny_dataset import write
from wamkit.data.actions import ActionSpace
from wamkit.data.evidence import EPISODES, Recording, contradictions, judge, measure
from wamkit.data.joined import open_datasets

RATES = (5.0, 15.0, 30.0, 50.0)


def arm(
    kind: str,
    *,
    hz: float = 15.0,
    joints: int = 6,
    episodes: int = 8,
    seconds: float = 8.0,
    lag: float = 0.5,
    names: tuple[str, ...] = (),
    seed: int = 0,
) -> Recording:
    """A smooth motion of every joint and a gripper that closes once. lag: of the tracking, share of a step's way."""
    rng = np.random.default_rng(seed)
    actions, states = [], []
    for _ in range(episodes):
        steps = round(seconds * hz)
        time = np.arange(steps + 1)[:, None] / hz
        rates, phases = rng.uniform(0.1, 0.4, (1, joints)), rng.uniform(0, 6, (1, joints))
        target = rng.uniform(-1, 1, (1, joints)) + 0.6 * np.sin(2 * np.pi * rates * time + phases)
        state = [target[0]]
        for aim in target[1:]:
            state.append(state[-1] + (1 - lag) * (aim - state[-1]))
        state = np.stack(state)[:steps]
        action = {"absolute": target[1:], "delta": target[1:] - target[:-1]}[kind]
        grip = (np.arange(steps) > steps // 2).astype(float)
        actions.append(np.concatenate([action + rng.normal(0, 1e-3, action.shape), grip[:, None]], axis=1))
        states.append(np.concatenate([state, grip[:, None] * 0.08], axis=1))
    blank = ("",) * (joints + 1)
    return Recording(tuple(actions), tuple(states), hz, names or blank, blank)


def with_columns(recording: Recording, more: np.ndarray, names: tuple[str, ...]) -> Recording:
    """The same, with further action dimensions behind the others; more: [d], constant, or [t d] of every episode."""
    actions = tuple(
        np.concatenate([own, np.broadcast_to(more, (len(own), more.shape[-1]))], axis=1)
        for own in recording.actions
    )
    return Recording(actions, recording.states, recording.hz, recording.names + names, recording.state_names)


@pytest.mark.parametrize("hz", RATES)
@pytest.mark.parametrize("kind", ["absolute", "delta"])
def test_an_arm_is_told(kind: str, hz: float) -> None:
    verdicts = judge(arm(kind, hz=hz))
    assert [verdict.kind for verdict in verdicts] == [*[kind] * 6, "gripper"]
    assert not [verdict for verdict in verdicts if verdict.asks]
    assert "state 0" in verdicts[0].reason and "0 or 1 in 100 %" in verdicts[6].reason


def test_a_target_that_the_robot_reaches_late_is_still_one() -> None:
    verdicts = judge(arm("absolute", hz=50.0, lag=0.9))
    assert {verdict.kind for verdict in verdicts[:6]} == {"absolute"}
    assert not any(verdict.asks for verdict in verdicts)


def test_targets_in_other_units_are_told_by_their_course() -> None:
    recording = arm("absolute", lag=0.1)
    degrees = tuple(np.degrees(own) for own in recording.actions)
    verdict = judge(Recording(degrees, recording.states, 15.0, recording.names, recording.state_names))[0]
    assert verdict.kind == "absolute" and "it follows state 0" in verdict.reason


def test_scaled_displacements_are_told() -> None:
    recording = arm("delta")
    scaled = tuple(20 * own for own in recording.actions)
    verdicts = judge(Recording(scaled, recording.states, 15.0, recording.names, recording.state_names))
    assert {verdict.kind for verdict in verdicts[:6]} == {"delta"}


def test_mixed_actions_are_told_apart() -> None:
    delta, absolute = arm("delta", joints=3, seed=1), arm("absolute", joints=3, seed=2)
    both = Recording(
        tuple(np.concatenate(pair, axis=1) for pair in zip(delta.actions, absolute.actions, strict=True)),
        tuple(np.concatenate(pair, axis=1) for pair in zip(delta.states, absolute.states, strict=True)),
        15.0,
        ("",) * 8,
        ("",) * 8,
    )
    kinds = [verdict.kind for verdict in judge(both)]
    assert kinds == ["delta"] * 3 + ["gripper"] + ["absolute"] * 3 + ["gripper"]


def test_what_the_state_does_not_tell_is_asked() -> None:
    recording = arm("absolute", episodes=2)
    blind = Recording(
        tuple(own[:, :2] + (5, 0) for own in recording.actions),
        tuple(np.zeros((len(own), 0)) for own in recording.states),
        15.0,
        ("", ""),
        (),
    )
    far, near = judge(blind)
    assert (far.kind, near.asks, far.asks) == ("absolute", True, True)
    assert "like nothing in the state" in far.reason


def test_still_dimensions_are_asked_about() -> None:
    verdicts = judge(with_columns(arm("delta"), np.array([0.0, 3.0]), ("", "")))
    assert [(verdict.kind, verdict.asks) for verdict in verdicts[7:]] == [("delta", True), ("absolute", True)]
    assert "always 3" in verdicts[8].reason
    named = judge(with_columns(arm("delta"), np.array([1.0]), ("gripper",)))[7]
    assert (named.kind, named.asks) == ("gripper", True) and "never moves" in named.reason


def test_a_gripper_is_known_by_its_name() -> None:
    opening = np.linspace(0, 0.08, 120)[:, None]
    verdict = judge(with_columns(arm("delta"), opening, ("left_gripper_width",)))[7]
    assert (verdict.kind, verdict.asks) == ("gripper", False)


@pytest.mark.parametrize(
    ("names", "kind", "asks"),
    [
        (("qw", "qx", "qy", "qz"), "quaternion", False),
        (("",) * 4, "quaternion", True),
        (("qx", "qy", "qz", "qw"), "absolute", True),
    ],
)
def test_quaternions_are_four_of_length_one(names: tuple[str, ...], kind: str, asks: bool) -> None:
    angle = np.linspace(0.1, 1.0, 120)
    turn = np.stack([np.cos(angle), np.sin(angle) * 0.6, np.sin(angle) * 0.8, 0 * angle], axis=1)
    verdicts = judge(with_columns(arm("absolute"), turn, names))
    assert [(verdict.kind, verdict.asks) for verdict in verdicts[7:]] == [(kind, asks)] * 4
    assert [verdict.kind for verdict in verdicts[:7]] == ["absolute"] * 6 + ["gripper"]


@pytest.mark.parametrize(
    "names", [("rx", "ry", "rz"), ("droll", "dpitch", "dyaw"), ("eef_roll", "eef_pitch", "eef_yaw")]
)
def test_displacements_named_as_turns_are_rotations(names: tuple[str, ...]) -> None:
    recording = arm("delta", names=("x", "y", "z", *names, "gripper"))
    assert [verdict.kind for verdict in judge(recording)] == ["delta"] * 3 + ["rotation"] * 3 + ["gripper"]
    absolute = arm("absolute", names=("x", "y", "z", *names, "gripper"))
    assert [verdict.kind for verdict in judge(absolute)] == ["absolute"] * 6 + ["gripper"]


def test_an_episode_of_one_step_says_nothing() -> None:
    recording = Recording((np.ones((1, 2)),), (np.ones((1, 2)),), 15.0, ("", ""), ("", ""))
    assert all(verdict.asks for verdict in judge(recording))


# kinds that were given


def space(*kinds: str) -> ActionSpace:
    return ActionSpace(tuple(f"dim{i}" for i in range(len(kinds))), kinds)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["absolute", "delta"])
@pytest.mark.parametrize("hz", RATES)
def test_kinds_that_fit_are_not_spoken_against(kind: str, hz: float) -> None:
    assert not contradictions(space(*[kind] * 6, "gripper"), arm(kind, hz=hz))


def test_targets_that_are_called_deltas_are_named_with_numbers() -> None:
    found = contradictions(space("delta", *["absolute"] * 5, "gripper"), arm("absolute"))
    assert len(found) == 1
    assert found[0].startswith(
        "action 0 (dim0) is called a delta and is nearly equal to the state's 0 (mean difference"
    )


def test_a_delta_whose_mean_is_a_pose_is_named_with_numbers() -> None:
    recording = arm("delta")
    posed = tuple(own + 0.5 * (np.arange(7) == 2) for own in recording.actions)
    recording = Recording(posed, recording.states, 15.0, recording.names, recording.state_names)
    [sentence] = contradictions(space(*["delta"] * 6, "gripper"), recording)
    assert sentence.startswith("action 2 (dim2) is called a delta and is never negative (0.4")
    outlier = tuple(own.copy() for own in posed)
    outlier[0][0, 2] = -0.01
    recording = Recording(outlier, recording.states, 15.0, recording.names, recording.state_names)
    [sentence] = contradictions(space(*["delta"] * 6, "gripper"), recording)
    assert "its mean is 0." in sentence and "times its standard deviation" in sentence


def test_deltas_that_are_called_targets_are_named_with_numbers() -> None:
    found = contradictions(space(*["absolute"] * 6, "gripper"), arm("delta"))
    assert len(found) == 6
    assert all("is called an absolute target, and added up over 0.2 s it goes with" in one for one in found)


def test_quaternions_of_other_lengths_are_named() -> None:
    recording = with_columns(arm("absolute"), np.array([[0.5, 0.1, 0.1, 0.1]]), ("",) * 4)
    [sentence] = contradictions(space(*["absolute"] * 6, "gripper", *["quaternion"] * 4), recording)
    assert sentence.startswith("actions 7 to 10 (dim7, ...) are called a quaternion and have lengths 0.529")


# reading


def test_a_dataset_is_read_evenly(tmp_path: Path) -> None:
    dataset = open_datasets([write(tmp_path / "dataset", [3] * 70)])
    recording = Recording.of(dataset)
    assert len(recording.actions) == EPISODES and recording.flat.shape == (3 * EPISODES, 2)
    assert recording.names == ("", "") and len(recording.state_names) == recording.states[0].shape[1]
    last = dataset.rows("action", [dataset.episodes[-1]])
    assert np.array_equal(recording.actions[-1], last)
    assert len(measure(recording)) == 2


def test_what_was_seen_after_the_last_action_is_used(tmp_path: Path) -> None:
    recording = Recording.of(open_datasets([write(tmp_path / "dataset", [5, 6], last_look=True)]))
    assert [len(own) for own in recording.actions] == [4, 5]
    assert [len(own) for own in recording.states] == [5, 6]
    assert all(np.isfinite(found.target.r) for found in measure(recording))
