"""Drive a robot of your own with a policy: replace the three methods of MyRobot, HZ, NAMES and LIMITS, nothing else.

    wamkit serve arm/run                              # where the GPU is
    python examples/own_robot.py ws://127.0.0.1:8000  # on the robot, which needs wamkit-client alone
    python examples/own_robot.py arm/run              # or both in one process

Here the robot is the simulated arm of examples/arm, in real time. docs/robot.md says what to try first.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from arm.env import HZ, JOINTS, Arm
from wamkit_client.chunk import EXECUTORS
from wamkit_client.client import RemotePolicy
from wamkit_client.control import ControlConfig, ControlLoop, Dry, Robot
from wamkit_client.limits import Limits
from wamkit_client.types import Observation, Policy

LIMITS = Limits(
    names=JOINTS,
    low=(-1.2, 0.0, -2.9, -3.2, -1.5, 0.0),  # the joints' own ranges, a little inside of their stops
    high=(1.2, 2.4, 0.0, 0.0, 1.5, 1.0),
    largest_change=(0.2, 0.2, 0.2, 0.2, 0.2, 0.5),  # per control step: 3 rad/s
)


class MyRobot(Robot):
    """Angles in radians, gripper opening 0 (closed) to 1 (open); images are RGB. Nothing here may wait."""

    def __init__(self, seed: int) -> None:
        self._arm = Arm()
        self._arm.reset(seed)
        self._target = self._arm.state()
        self.success = False

    def observe(self) -> Observation:
        """The newest image of each camera and the joints' angles, with the names of the dataset that was trained on."""
        return self._arm.observe()

    def act(self, action: np.ndarray) -> None:
        """Send the motors their targets."""
        self._target = action
        self.success = self._arm.step(action).success  # a simulated arm moves only when it is told to

    def stop(self) -> np.ndarray:
        """The motors hold their targets, with power."""
        self._arm.step(self._target)
        return self._target


def connect(policy: str, opened: ExitStack) -> Policy:
    """The policy of a server, or of a run directory in this process."""
    if "://" in policy:
        # An answer about what the robot saw longer ago is worse than none.
        return opened.enter_context(RemotePolicy(policy, answer_seconds=10, patience_seconds=10))
    import wamkit  # has torch

    return wamkit.load_policy(policy)


def main() -> None:
    """One episode; the report is written however it ends."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("policy", help="ws://HOST:PORT of a server, or a run directory")
    parser.add_argument("--executor", choices=list(EXECUTORS), default="async")
    parser.add_argument("--replan-steps", type=int, default=6, help="actions executed of every chunk")
    parser.add_argument("--steps", type=int, default=90, help="control steps, at most")
    parser.add_argument("--dry", action="store_true", help="ask the policy, and do not move")
    parser.add_argument("--seed", type=int, default=0, help="of where the simulated block lies")
    parser.add_argument("--report", type=Path, default=Path("drive.json"))
    args = parser.parse_args()
    robot, executor = MyRobot(args.seed), EXECUTORS[args.executor](args.replan_steps)
    driven = Dry(robot) if args.dry else robot
    with ExitStack() as opened:
        loop = ControlLoop(
            driven,
            connect(args.policy, opened),
            executor,
            ControlConfig(HZ, args.steps, LIMITS),
            until=lambda: robot.success,
        )
        try:
            loop.run()
        finally:
            args.report.write_text(loop.report.to_json())
            print(loop.report.summary())


if __name__ == "__main__":
    main()
