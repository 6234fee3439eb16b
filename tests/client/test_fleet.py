"""Many episodes at once: the same results for any number of processes, and crashes that stay where they happen."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from wamkit_client.envs.base import StepResult, Task
from wamkit_client.envs.vector import EnvCrashed, EnvProcess, Host, env_processes
from wamkit_client.fleet import EpisodeJob, EpisodeResult, run_episodes
from wamkit_client.rollout import EpisodeConfig, rollout
from wamkit_client.types import ActionChunk, BadInput, Observation, Policy

from tests.client.toy import Reacher, Toy, ToyConfig, toy_suite
from tests.until import until

CONFIG = EpisodeConfig(replan_steps=4, max_steps=40)


def jobs(*tasks: str, seeds: Sequence[int] = range(4)) -> list[EpisodeJob]:
    return [EpisodeJob(task, seed, CONFIG) for task in toy_suite(*tasks).tasks for seed in seeds]


def run(
    work: list[EpisodeJob], processes: int, policy: Policy, **options: object
) -> dict[tuple[str, int], EpisodeResult]:
    with env_processes(ToyConfig(), processes) as environments:
        results = list(run_episodes(policy, environments, work, **options))  # type: ignore[arg-type]
    assert len(results) == len(work)
    return {(result.task, result.seed): result for result in results}


def essence(results: dict[tuple[str, int], EpisodeResult]) -> dict[tuple[str, int], object]:
    return {key: (row.status, row.steps, row.vector, len(row.query_ms)) for key, row in results.items()}


def test_results_do_not_depend_on_processes() -> None:
    work = jobs("reach", seeds=range(5))
    plain = {}
    for job in work:
        outcome = rollout(Reacher(), ToyConfig().make(job.task), job.seed, CONFIG)
        plain["reach", job.seed] = ("success", outcome.steps, outcome.initial_state.vector, outcome.queries)
    alone, beside, together = Reacher(), Reacher(), Reacher()
    assert essence(run(work, 1, alone)) == plain
    assert essence(run(work, 3, beside)) == plain
    assert essence(run(work, 3, together, batched=True)) == plain
    assert set(alone.batches) == set(beside.batches) == {1} and together.batches[0] == 3
    assert sum(alone.batches) == sum(beside.batches) == sum(together.batches) and together.resets == 1


@dataclass(frozen=True)
class GatedConfig(ToyConfig):
    gate: str = ""

    def make(self, task: Task) -> Toy:
        return Gated(self, task) if task.name == "gated" else Toy(self, task)


class Gated(Toy):
    """Its first step takes until a file is there."""

    def step(self, action: np.ndarray) -> StepResult:
        assert isinstance(self.config, GatedConfig)
        until(Path(self.config.gate).exists)
        return super().step(action)


class Rounding(Reacher):
    """Its chunks depend on how many observations it is asked about at a time, as the last bits of a network's do."""

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        share = 1 - 0.2 * (len(observations) > 1)
        return [ActionChunk(share * chunk.actions) for chunk in super().act(observations)]


def test_an_episode_is_the_same_whatever_runs_beside_it() -> None:
    work = jobs("reach", seeds=range(4))
    alone, beside = (essence(run(work, processes, Rounding())) for processes in (1, 4))
    assert alone == beside
    assert essence(run(work, 4, Rounding(), batched=True)) != alone


def test_an_injected_delay_gives_the_same_episodes_in_any_number_of_processes() -> None:
    delayed = replace(CONFIG, replan_steps=3, delay_ms=300, executor="async")
    work = [replace(job, config=delayed) for job in jobs("reach")]
    alone = essence(run(work, 1, Reacher()))
    assert alone == essence(run(work, 3, Reacher())) == essence(run(work, 3, Reacher(), batched=True))
    assert alone != essence(run(jobs("reach"), 1, Reacher()))


def test_a_slow_environment_delays_no_other(tmp_path: Path) -> None:
    """The episode that hangs is begun first and waits for a file that the last of the others leaves."""
    gate = str(tmp_path / "gate")
    with env_processes(GatedConfig(gate=gate), 2) as environments:
        work = jobs("gated", seeds=[0]) + jobs("reach", seeds=range(4))
        results = run_episodes(Reacher(), environments, work)
        order = []
        for result in results:
            order.append(result.task)
            if len(order) == 4:
                Path(gate).touch()
    assert order == ["reach"] * 4 + ["gated"]


@pytest.mark.parametrize(
    ("task", "words"), [("raise", "ZeroDivisionError: the toy broke"), ("die", "exit code 9")]
)
def test_a_crash_is_an_error_and_the_others_go_on(task: str, words: str) -> None:
    results = run(jobs(task, "reach"), 2, Reacher())
    for seed in range(4):
        row = results[task, seed]
        if seed % 2:
            assert row.status == "error" and words in row.error
        else:
            assert row.status == "success" and row.error == ""
        assert results["reach", seed].status == "success"


def test_a_hanging_environment_is_ended() -> None:
    with env_processes(ToyConfig(), 2) as environments:
        for process in environments:  # their start may take longer than an answer
            process.send(double, 4)
            assert process.receive() == 8
        first = environments[0]._process
        results = list(run_episodes(Reacher(), environments, jobs("hang", seeds=(1, 2)), answer_seconds=3.0))
    hung, other = sorted(results, key=lambda result: result.seed)
    assert hung.status == "error" and "no answer for 3 s" in hung.error
    assert first.exitcode == -signal.SIGKILL and other.status == "success"


def test_demonstrated_states_are_refused() -> None:
    work = jobs("reach")
    forbidden = {ToyConfig().make(work[2].task).reset(2).key()}
    with pytest.raises(BadInput, match=r"seed 2 begins from a state that was demonstrated"):
        run(work, 2, Reacher(), demonstrated=forbidden)


class Broken(Reacher):
    """Gives `chunks` whatever it is asked."""

    def __init__(self, chunks: list[ActionChunk]) -> None:
        super().__init__()
        self.chunks = chunks

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        return self.chunks


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([], "0 chunks for 1 observations"),
        ([ActionChunk(np.full((6, 1), np.nan))], "NaN"),
        ([ActionChunk(np.zeros((3, 1)))], "3 actions, expected at least 4"),
        ([ActionChunk(np.zeros((6, 2)))], r"shape \(2,\), expected \(1,\)"),
    ],
)
def test_a_broken_policy_is_no_crash_of_the_environment(chunks: list[ActionChunk], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        run(jobs("reach", seeds=[0]), 1, Broken(chunks))


def fail(host: Host) -> None:
    raise KeyError("nothing here")


def double(host: Host, number: int) -> int:
    return 2 * number


def test_a_process_lives_on_after_an_exception_and_is_replaced_after_death() -> None:
    process = EnvProcess(ToyConfig())
    try:
        process.send(fail)
        with pytest.raises(EnvCrashed, match=r"KeyError: 'nothing here'(.|\n)*Traceback"):
            process.receive()
        process.send(double, 4)
        assert process.receive() == 8
        process._process.kill()
        process._process.join()
        process.send(double, 5)
        assert process.receive() == 10
    finally:
        process.close()
    assert process._process.exitcode == 0


PARENT = """
import time
from tests.client.toy import ToyConfig
from wamkit_client.envs.base import StepResult, Task
from wamkit_client.envs.vector import EnvProcess
if __name__ == "__main__":
    process = EnvProcess(ToyConfig())
    print(process._process.pid, flush=True)
    time.sleep(60)
"""


def test_a_process_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen(
        [sys.executable, str(script)], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = Path("/proc") / parent.stdout.readline().strip()
    assert child.exists()
    parent.kill()
    parent.communicate()
    until(lambda: not _alive(child))


def _alive(process: Path) -> bool:
    """Neither gone nor a zombie that nobody waits for."""
    try:
        return process.joinpath("stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
