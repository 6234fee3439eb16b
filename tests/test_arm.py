"""The arm of the examples: its environment and its expert. test_docs.py has what becomes of its recordings."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
from wamkit_client.envs.base import project

from tests.pages import ROOT

ARM = ROOT / "examples" / "arm"


@pytest.fixture(scope="module")
def module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("arm_env", ARM / "env.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def arm(module: ModuleType) -> Iterator[object]:
    arm = module.make()
    yield arm
    arm.close()


@pytest.mark.parametrize("seed", [0, 7, 1_000_000])
def test_the_expert_takes_the_block(arm, seed: int) -> None:
    state = arm.reset(seed)
    assert state == arm.reset(seed)
    steps = 1
    while not arm.step(arm.expert_action()).success:
        steps += 1
        assert steps < arm.max_steps // 2


def test_the_path_of_a_chunk_is_where_the_fingers_go(arm) -> None:
    """Drawn over the cameras: what forward kinematics says of the present joints is where the simulator has them."""
    arm.reset(3)
    for _ in range(10):
        arm.step(arm.expert_action())
    here = arm.chunk_path(arm.state(), arm.state()[None])
    np.testing.assert_allclose(here[0], arm.fingers, atol=1e-3)
    seen = project(arm.cameras()["image"], here)[0]
    assert (seen > 0).all() and (seen < arm.observe().images["image"].shape[0]).all()


def test_joints_reach_where_inverse_kinematics_says(module: ModuleType, arm) -> None:
    point = np.array([0.18, -0.07, 0.05])
    np.testing.assert_allclose(arm.chunk_path(None, module.reach(point, 0.2)[None])[0], point, atol=1e-9)
