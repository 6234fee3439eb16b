"""`wamkit analyse execution`: a grid of evaluations, its record and page, and what is refused before anything runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wamkit.cli import main
from wamkit.config import Run
from wamkit.io.records import read_record
from wamkit.report.execution import Execution
from wamkit.stages import execution

PRETRAINED = Path(__file__).parents[2] / "pretrained" / "metaworld3"
PUBLISHED = PRETRAINED / "eval/published/results.json"
MOTION = {"jerk": 12.5, "idle_s": 0.3, "holds": 2.0, "staleness_ms": 40.0, "largest_staleness_ms": 90.0}


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What each cell is evaluated with; asynchronous ones lose two of the published episodes."""
    calls: list[tuple[Any, ...]] = []

    def evaluate(directory: Path, run: Run, suite: str, episodes: int, out: Path) -> dict[str, Any]:
        calls.append((directory, run.eval.executor, run.eval.delay_ms, suite, episodes, out))
        results: dict[str, Any] = json.loads(PUBLISHED.read_text()) | {"smoothness": MOTION}
        if run.eval.executor == "ensemble":
            for row in results["episodes"]:
                row |= {"status": "error", "error": "OSError: no display"}
            results["total"] = {
                "successes": 0,
                "trials": 0,
                "errors": 60,
                "rate": None,
                "interval": [0.0, 1.0],
            }
        if run.eval.executor == "async":
            for row in [row for row in results["episodes"] if row["status"] == "success"][:2]:
                row["status"] = "failure"
                results["total"]["successes"] -= 1
            results["total"]["rate"] = results["total"]["successes"] / results["total"]["trials"]
        return results

    monkeypatch.setattr(execution, "evaluate", evaluate)
    return calls


def command(out: Path, *words: str) -> int:
    return main(["analyse", "execution", str(PRETRAINED), "--out", str(out), *words])


def test_every_executor_at_every_delay(evaluated: list[tuple[Any, ...]], tmp_path: Path) -> None:
    assert command(tmp_path, "--delays", "50", "0", "--executors", "sync", "async", "--episodes", "3") == 0
    cells = [("sync", 0.0), ("sync", 50.0), ("async", 0.0), ("async", 50.0)]
    assert [(executor, delay) for _, executor, delay, *_ in evaluated] == cells
    assert {(suite, episodes) for *_, suite, episodes, _ in evaluated} == {("metaworld3", 3)}
    record = read_record(tmp_path / "execution.json", Execution, "")
    assert [(cell.executor, cell.delay_ms) for cell in record.cells] == cells
    assert record.runs == ["metaworld3"] and record.replan_steps == {"metaworld3": 8}
    assert record.cells[1].results == "metaworld3/sync_50ms/results.json"
    first, _, late, _ = record.cells
    assert first.pair.difference == 0 and first.smoothness.jerk == 12.5
    assert (late.pair.only_first, late.pair.only_second, late.pair.trials) == (2, 0, first.total.trials)
    page = (tmp_path / "execution.html").read_text()
    assert "async" in page and "50 ms" in page and "12.5" in page and "jerk, m/s³" in page


def test_what_crashed_is_named_and_was_not_measured(evaluated: list[tuple[Any, ...]], tmp_path: Path) -> None:
    assert command(tmp_path, "--delays", "50", "--executors", "sync", "ensemble") == 0
    record = read_record(tmp_path / "execution.json", Execution, "")
    assert [cell.pair is None for cell in record.cells] == [False, True]
    assert {crash.where for crash in record.crashes} == {"metaworld3, ensemble, delay 50 ms"}
    page = (tmp_path / "execution.html").read_text()
    assert "sync 100 %, ensemble not measured" in page and "OSError: no display" in page


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ("--executors", "async", "--delays", "0", "110"),
            "metaworld3, async with a delay of 110 ms: the delay is 9 steps but replan_steps is 8",
        ),
        (
            ("--executors", "ensemble", "--delays", "110"),
            "eval.replan_steps: expected at most the 16 actions of a chunk",
        ),
        (("--delays", "0", "0"), "expected at least one delay, each once; got 0.0, 0.0"),
        (("--eval.delay-ms", "3"), "--eval.delay-ms: this command tries several; use --executors and"),
        (("--eval.executor", "async"), "--eval.executor: this command tries several"),
    ],
)
def test_what_cannot_be_is_refused_at_once(
    evaluated: list[tuple[Any, ...]], tmp_path: Path, capsys: Any, words: tuple[str, ...], says: str
) -> None:
    assert command(tmp_path, *words) == 2
    assert says in " ".join(capsys.readouterr().err.split())
    assert not evaluated


def test_runs_of_one_name_are_told_apart(
    evaluated: list[tuple[Any, ...]], tmp_path: Path, copied: Callable[[str], Path]
) -> None:
    runs = [str(copied(name)) for name in ("seed0", "seed1")]
    words = ["--delays", "0", "--executors", "sync", "--suite", "metaworld3_smoke"]
    assert main(["analyse", "execution", *runs, "--out", str(tmp_path / "out"), *words]) == 0
    assert [out.parent.name for *_, out in evaluated] == ["seed0_run", "seed1_run"]


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[str], Path]:
    """A run directory "run" in a folder of that name."""

    def copy(name: str) -> Path:
        folder = tmp_path / name / "run"
        folder.mkdir(parents=True)
        (folder / "run.json").write_text((PRETRAINED / "run.json").read_text())
        return folder

    return copy


def test_meta_world_with_a_delay(tmp_path: Path) -> None:
    """Three short episodes; when another executor is asked for too, those are only read."""
    words = ("--delays", "50", "--suite", "metaworld3_smoke", "--eval.record-episodes", "0")
    assert command(tmp_path, *words, "--eval.processes", "1", "--executors", "async") == 0
    (first,) = read_record(tmp_path / "execution.json", Execution, "").cells
    made = (tmp_path / first.results).stat().st_mtime_ns
    assert command(tmp_path, *words, "--eval.processes", "1", "--executors", "async", "ensemble") == 0
    again, ensemble = read_record(tmp_path / "execution.json", Execution, "").cells
    assert again == first and (tmp_path / first.results).stat().st_mtime_ns == made
    for motion in (first.smoothness, ensemble.smoothness):
        assert motion.idle_s == pytest.approx(0.05) and motion.holds == 1.0  # before the first answer
        assert motion.jerk is not None and motion.staleness_ms is not None
        assert 50 <= motion.staleness_ms < 200
    assert first.smoothness != ensemble.smoothness
