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


def test_no_padding_changes_nothing() -> None:
    actions = torch.randn(5, 3)
    assert torch.equal(pad_actions(actions, torch.zeros(5, dtype=torch.bool), SPACE), actions)


def test_mistakes() -> None:
    with pytest.raises(BadInput, match="2 names but 1 kinds"):
        ActionSpace(("a", "b"), ("delta",))
    with pytest.raises(ValueError, match="names 3"):
        pad_actions(torch.zeros(2, 4), torch.zeros(2, dtype=torch.bool), SPACE)
    with pytest.raises(ValueError, match="every action"):
        pad_actions(torch.zeros(2, 3), torch.ones(2, dtype=torch.bool), SPACE)
