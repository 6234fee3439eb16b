"""What stands in for actions after the end: "stay", whatever that means in each dimension."""

from __future__ import annotations

import pytest
import torch
from wamkit_client.types import BadInput

from wamkit.data.actions import ActionSpace, pad_actions

SPACE = ActionSpace(names=("dx", "joint", "grip"), kinds=("delta", "absolute", "gripper"))


def test_padding_means_stay() -> None:
    actions = torch.tensor([[1.0, 2.0, 0.0], [3.0, 4.0, 1.0], [9.0, 9.0, 9.0], [8.0, 8.0, 8.0]])
    padded = pad_actions(actions, torch.tensor([False, False, True, True]), SPACE)
    assert padded.tolist() == [[1.0, 2.0, 0.0], [3.0, 4.0, 1.0], [0.0, 4.0, 1.0], [0.0, 4.0, 1.0]]
    assert actions[2, 0] == 9.0  # the input is left alone


def test_rotations_stay_and_quaternions_are_held() -> None:
    space = ActionSpace(
        (*"xyz", *"abc", *"wijk", "g"), (*["delta"] * 3, *["rotation"] * 3, *["quaternion"] * 4, "gripper")
    )
    assert [(kind, len(dims)) for kind, dims in space.runs()] == [
        ("delta", 3),
        ("rotation", 3),
        ("quaternion", 4),
        ("gripper", 1),
    ]
    actions = torch.randn(3, 11)
    padded = pad_actions(actions, torch.tensor([False, False, True]), space)
    assert not padded[2, :6].any() and torch.equal(padded[2, 6:], actions[1, 6:])


def test_no_padding_changes_nothing() -> None:
    actions = torch.randn(5, 3)
    assert torch.equal(pad_actions(actions, torch.zeros(5, dtype=torch.bool), SPACE), actions)


def test_mistakes() -> None:
    with pytest.raises(BadInput, match="2 names but 1 kinds"):
        ActionSpace(("a", "b"), ("delta",))
    with pytest.raises(BadInput, match=r"3 dimensions of kind 'quaternion' in a row, from 'w' on; .* of 4"):
        ActionSpace(("x", "w", "i", "j"), ("absolute", *["quaternion"] * 3))
    with pytest.raises(BadInput, match=r"4 dimensions of kind 'rotation' in a row, from 'a' on; .* of 3"):
        ActionSpace(tuple("abcd"), ("rotation",) * 4)
    with pytest.raises(ValueError, match="names 3"):
        pad_actions(torch.zeros(2, 4), torch.zeros(2, dtype=torch.bool), SPACE)
    with pytest.raises(ValueError, match="every action"):
        pad_actions(torch.zeros(2, 3), torch.ones(2, dtype=torch.bool), SPACE)
