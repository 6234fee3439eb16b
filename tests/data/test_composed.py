"""Several actions as one: against step-by-step motion of a pose, and scipy's rotations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from wamkit.data.actions import ActionSpace
from wamkit.data.composed import composed

SPACE = ActionSpace(
    (*"xyz", *"abc", "joint", *"wijk", "grip"),
    (*["delta"] * 3, *["rotation"] * 3, "absolute", *["quaternion"] * 4, "gripper"),
)


def actions(length: int, turn: float = 0.3) -> torch.Tensor:
    rows = torch.randn(length, len(SPACE), generator=torch.Generator().manual_seed(0))
    rows[:, 3:6] *= turn
    return rows


@pytest.mark.parametrize("by", [2, 3, 4])
@pytest.mark.parametrize("radians", [1.0, 0.5])
def test_a_pose_gets_to_where_the_steps_lead(by: int, radians: float) -> None:
    """Each turn is about axes of the base: it is multiplied from the left."""
    given = actions(12)
    made = composed(given, by, SPACE, radians)
    assert made.shape == (12 // by, len(SPACE)) and made.dtype == given.dtype

    def moved(rows: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        place, pose = np.zeros(3), Rotation.identity()
        for row in rows.double().numpy():
            place, pose = place + row[:3], Rotation.from_rotvec(row[3:6] * radians) * pose
        return place, pose.as_matrix()

    for one, two in zip(moved(given), moved(made), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)
    assert torch.equal(made[:, 6:], given[by - 1 :: by, 6:])


def test_the_last_steps_are_filled_up_with_staying() -> None:
    given = actions(7)
    made = composed(given, 3, SPACE, 1.0)
    assert made.shape[0] == 3
    torch.testing.assert_close(made[2], given[6])


def test_no_turn_and_half_a_turn() -> None:
    still = composed(torch.zeros(4, len(SPACE)), 4, SPACE, 1.0)
    assert torch.equal(still, torch.zeros(1, len(SPACE)))
    given = torch.zeros(2, len(SPACE))
    given[:, 5] = 2.0  # 4 radians are 2 pi - 4 the other way around
    torch.testing.assert_close(composed(given, 2, SPACE, 1.0)[0, 5].item(), 4 - 2 * np.pi)
