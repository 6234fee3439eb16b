"""The loop that drives a robot: its clock, late answers, limits, what ends it, and what it says of itself."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from wamkit_client.chunk import AsyncExecutor, SyncExecutor
from wamkit_client.client import RemotePolicy
from wamkit_client.control import Clock, ControlConfig, ControlLoop, Dry, Robot
from wamkit_client.limits import Limits
from wamkit_client.rollout import EpisodeConfig, rollout
from wamkit_client.types import ActionChunk, BadInput, Observation, Policy

from tests.client.toy import Reacher, Toy, ToyConfig, toy_suite
from tests.serve.reacher_process import server
from tests.until import SECONDS

ROOT = Path(__file__).parents[2]
FAST = 500.0  # Hz
NAMES = ("x",)


class Hand(Robot):
    """The toy, which stands still while nobody tells it anything; keeps what it was told."""

    def __init__(self, seed: int = 0) -> None:
        self.env = Toy(ToyConfig(), toy_suite("reach").tasks[0])
        self.env.reset(seed)
        self.told: list[float] = []
        self.success = False
        self.stops = 0
        self.asked: list[int] = []  # actions executed before each observation

    def observe(self) -> Observation:
        self.asked.append(len(self.told))
        return self.env.observe()

    def act(self, action: np.ndarray) -> None:
        self.told.append(float(action[0]))
        self.success = self.env.step(action).success

    def stop(self) -> np.ndarray:
        self.stops += 1
        return np.zeros(1, np.float32)

    def until_held(self, times: int) -> None:
        """Return when it has been stopped so many times more."""
        enough = self.stops + times
        while self.stops < enough:
            time.sleep(0.001)


class Counter(Policy):
    """Its n-th chunk of an episode holds 100 n, 100 n + 1, ...; that of the warm-up has n = 0. `before` is called with
    n before each answer."""

    def __init__(self, before: Callable[[int], object] = lambda number: None) -> None:
        self._before, self.seen, self._number = before, [], 0
        self.resets = 0

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        number, self._number = self._number, self._number + 1
        self.seen.extend(observations[: number > 0])
        self._before(number)
        return [ActionChunk(np.arange(8, dtype=np.float32)[:, None] + 100 * number)]

    def reset(self) -> None:
        self.resets += 1
        self._number = 1


class Scripted(Clock):
    """Time passes when it is waited for, and while the robot works."""

    def __init__(self) -> None:
        self.time = 5.0

    def now(self) -> float:
        return self.time

    def wait(self, until: float) -> None:
        self.time = max(self.time, until)


def config(hz: float = FAST, max_steps: int = 10**6, limits: Limits = Limits.none(NAMES)) -> ControlConfig:  # noqa: B008
    return ControlConfig(hz, max_steps, limits)


def drive_toy(policy: Policy, seed: int) -> tuple[Hand, ControlLoop]:
    hand = Hand(seed)
    loop = ControlLoop(hand, policy, SyncExecutor(3), config(), until=lambda: hand.success)
    loop.run()
    return hand, loop


def test_a_remote_policy_drives_as_one_in_this_process_does() -> None:
    """A hand that waits stands still, so the actions are those of the evaluation, however long the answers take."""
    with server() as running, RemotePolicy(running.url) as remote:
        for seed in range(2):
            outcome = rollout(
                Reacher(), ToyConfig().make(toy_suite("reach").tasks[0]), seed, EpisodeConfig(3, 100)
            )
            local, loop = drive_toy(Reacher(), seed)
            assert local.told == drive_toy(remote, seed)[0].told
            assert local.success and len(local.told) == outcome.steps
            report = loop.report
            assert report.ended == "finished" and report.idle_s == pytest.approx(
                (report.steps - outcome.steps) / FAST
            )
            assert report.holds > 0
            assert report.answers.count == outcome.queries


def test_the_robot_moves_while_the_policy_thinks_and_no_action_is_repeated_or_omitted() -> None:
    hand, policy = Hand(), Counter()
    ControlLoop(hand, policy, AsyncExecutor(4), config(), until=lambda: len(policy.seen) > 5).run()
    assert policy.resets == 1
    for before, after in pairwise(hand.told):
        if before // 100 == after // 100:
            assert after == before + 1
        else:  # what was executed since the question is omitted of its answer
            number = int(after // 100)
            asked = hand.asked[number]  # the first observation is that of the warm-up
            assert after % 100 == hand.told.index(after) - asked


def test_a_robot_holds_while_an_answer_is_late() -> None:
    hand = Hand()
    policy = Counter(lambda number: number != 2 or hand.until_held(3))
    loop = ControlLoop(
        hand, policy, AsyncExecutor(4), config(), until=lambda: max(hand.told, default=0) > 200
    )
    loop.run()
    assert hand.told[:8] == [100 + i for i in range(8)] and hand.told[8] > 200
    assert loop.report.idle_s >= 3 / FAST and loop.report.holds >= 2


def test_questions_say_when_and_of_which_episode() -> None:
    policy = Counter()
    executor = SyncExecutor(3)
    for _ in range(2):
        policy._number = 0
        ControlLoop(Hand(), policy, executor, config(max_steps=40)).run()
    episodes = {seen.episode for seen in policy.seen}
    assert len(episodes) == 2 and "" not in episodes
    first = [seen for seen in policy.seen if seen.episode == policy.seen[0].episode]
    steps = [seen.step for seen in first]
    assert steps[0] == 0 and all(b - a >= 3 for a, b in pairwise(steps))
    assert len({seen.noise_seed for seen in first}) == len(first)


def test_an_alarm_can_end_an_episode() -> None:
    class Watched(Counter):
        def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
            (chunk,) = super().act(observations)
            said = {
                "step": observations[0].step,
                "score": len(self.seen),
                "threshold": 2.0,
                "alarm": len(self.seen) > 2,
            }
            return [ActionChunk(chunk.actions, {"warning": said} if len(self.seen) > 1 else {})]

    loop = ControlLoop(Hand(), Watched(), SyncExecutor(3), config(max_steps=10**6), until=lambda: loop.alarm)
    loop.run()
    report = loop.report
    assert report.ended == "finished" and [said["alarm"] for said in report.warnings] == [False, True]
    assert "warnings 1 alarms in 2 answers" in report.summary()


def test_limits_stand_between_policy_and_robot() -> None:
    limits = Limits(NAMES, (-1.0,), (150.0,), (60.0,))
    hand = Hand()
    loop = ControlLoop(
        hand, Counter(), SyncExecutor(4), config(limits=limits), until=lambda: len(hand.told) >= 4
    )
    loop.run()
    assert hand.told == [60, 101, 102, 103]  # from a standstill, then as asked
    (found,) = loop.report.numbers
    assert (found.low, found.high) == (0, 103) and found.jerk > 0
    assert (found.limited.clamped, found.limited.slowed, found.limited.slowed_by) == (0, 1, 40)


def test_a_dry_run_asks_the_policy_and_moves_nothing() -> None:
    hand, policy = Hand(), Counter()
    loop = ControlLoop(Dry(hand), policy, SyncExecutor(4), config(), lambda: len(policy.seen) > 2)
    loop.run()
    assert hand.told == [] and hand.stops >= loop.report.steps + 2
    assert loop.report.numbers[0].high >= 203


def test_control_steps_that_were_missed_are_omitted() -> None:
    clock = Scripted()

    class Slow(Hand):
        def act(self, action: np.ndarray) -> None:
            self.stop()

        def stop(self) -> np.ndarray:
            clock.time += 0.25 if loop.report.steps == 3 else 0.01
            return np.zeros(1)

    loop = ControlLoop(Slow(), Counter(), SyncExecutor(4), config(hz=10, max_steps=6), clock=clock)
    loop.run()
    report = loop.report
    assert (report.ended, report.steps, report.overruns) == ("max_steps", 6, 1)
    assert report.rate_hz == pytest.approx(5 / (4 * 0.1 + 0.25), abs=1e-3)
    assert (report.jitter.p50, report.jitter.largest, report.late.largest) == (0, 150, 0)


@pytest.mark.parametrize("answers", [-1, 0, 1], ids=["warm-up", "first", "second"])
def test_a_policy_that_breaks_stops_the_robot(answers: int) -> None:
    hand = Hand()
    policy = Counter(lambda number: 1 // (answers + 1 - number))
    loop = ControlLoop(hand, policy, SyncExecutor(3), config())
    with pytest.raises(ZeroDivisionError):
        loop.run()
    assert len(hand.told) == 3 * max(answers, 0) and hand.stops >= 2
    assert loop.report.ended == "ZeroDivisionError: integer division or modulo by zero"


class Broken(Policy):
    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        return [ActionChunk(np.full((8, 1), np.nan))]

    def reset(self) -> None:
        pass


def test_nan_never_reaches_the_robot() -> None:
    hand = Hand()
    with pytest.raises(BadInput, match="NaN"):
        ControlLoop(hand, Broken(), SyncExecutor(3), config()).run()
    assert hand.told == []


def test_a_broken_robot_is_stopped_nevertheless() -> None:
    class Stuck(Hand):
        def observe(self) -> Observation:
            raise OSError("camera unplugged")

    hand = Stuck()
    loop = ControlLoop(hand, Counter(), SyncExecutor(3), config())
    with pytest.raises(OSError, match="unplugged"):
        loop.run()
    assert hand.stops == 2 and loop.report.ended == "OSError: camera unplugged"


def test_impossible_rates_are_refused() -> None:
    for hz, steps in ((0.0, 1), (float("inf"), 1), (10.0, 0)):
        with pytest.raises(BadInput, match="above 0"):
            ControlConfig(hz, steps, Limits.none(NAMES))


DRIVE = """
import sys
import threading
from tests.client.test_control import Counter, Hand, config
from wamkit_client.chunk import SyncExecutor
from wamkit_client.control import ControlLoop

class Careful(Hand):
    def stop(self):
        self.stopped = len(self.told)
        return super().stop()

def think(number):
    if number == int(sys.argv[1]):
        print("thinking", flush=True)
        threading.Event().wait()

hand = Careful()
loop = ControlLoop(hand, Counter(think), SyncExecutor(3), config(max_steps=10**9))
loop.run()
print(hand.stopped == len(hand.told) and loop.report.to_json())
"""


@pytest.mark.parametrize(("number", "asked"), [(signal.SIGINT, 2), (signal.SIGTERM, 0)])
def test_ctrl_c_stops_the_robot_though_the_policy_never_answers(number: signal.Signals, asked: int) -> None:
    """In its second question, and while it warms up."""
    words = [sys.executable, "-c", DRIVE, str(asked)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "thinking\n"
        process.send_signal(number)
        said, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0
    assert json.loads(said)["ended"] == "interrupted"
