"""`wamkit analyse robustness`: a grid of evaluations, its record and page, and what is refused before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from wamkit_client.suites import Suite

from wamkit.cli import main
from wamkit.io.records import read_record
from wamkit.report.robustness import Robustness
from wamkit.stages import evaluation, robustness

PRETRAINED = Path(__file__).parents[2] / "pretrained" / "metaworld3"
PUBLISHED = PRETRAINED / "eval/published/results.json"


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What is evaluated where; in the dark two of the published episodes are lost."""
    calls: list[tuple[Any, ...]] = []

    def load(directory: Path, run: Any) -> Any:
        def measure(suite: Suite, out: Path) -> dict[str, Any]:
            calls.append((directory, suite.name, suite.episodes, len(suite.tasks), out))
            results: dict[str, Any] = json.loads(PUBLISHED.read_text())
            results["config"]["warn"] = run.eval.warn
            results["warnings"] = {"alarmed": len(calls) - 1}
            if "noise" in suite.name:
                crash(results)
            if "light" in suite.name:
                for row in [row for row in results["episodes"] if row["status"] == "success"][:2]:
                    row["status"] = "failure"
                    results["total"]["successes"] -= 1
                results["total"]["rate"] = results["total"]["successes"] / results["total"]["trials"]
            return results

        return measure

    monkeypatch.setattr(robustness, "loaded", load)
    return calls


def crash(results: dict[str, Any]) -> None:
    """Every environment fails."""
    for row in results["episodes"]:
        row |= {"status": "error", "error": "OSError: no <display>\nTraceback"}
    results["total"] = {"successes": 0, "trials": 0, "errors": 60, "rate": None, "interval": [0.0, 1.0]}


def command(out: Path, *words: str) -> int:
    return main(["analyse", "robustness", str(PRETRAINED), "--out", str(out), *words])


def test_every_axis_at_every_strength(evaluated: list[tuple[Any, ...]], tmp_path: Path) -> None:
    words = ("--axes", "light", "camera", "--episodes", "3", "--tasks", "0", "2", "--eval.warn", "True")
    assert command(tmp_path, *words) == 0
    names = [f"metaworld3+{axis}_{level}" for axis in ("camera", "light") for level in (1, 2, 3)]
    assert [name for _, name, *_ in evaluated] == ["metaworld3", *names]
    assert {(episodes, tasks) for _, _, episodes, tasks, _ in evaluated} == {(3, 2)}
    record = read_record(tmp_path / "robustness.json", Robustness, "")
    assert record.policies == ["metaworld3"] and list(record.axes) == ["camera", "light"]
    assert record.suite["episodes"] == 3
    first, *cells = record.cells
    assert (first.axis, first.level, first.strength, first.pair.difference) == ("", 0, 0.0, 0.0)
    assert [(cell.axis, cell.level, cell.strength) for cell in cells[:3]] == [
        ("camera", 1, 5.0),
        ("camera", 2, 10.0),
        ("camera", 3, 20.0),
    ]
    dark = cells[-1]
    assert (dark.pair.only_first, dark.pair.only_second, dark.strength) == (2, 0, 0.7)
    assert dark.results == "metaworld3/metaworld3+light_3/results.json"
    assert [cell.alarmed for cell in record.cells] == list(range(7))
    page = (tmp_path / "robustness.html").read_text()
    for said in ("light_3", "degrees", "the lights are dimmer and coloured", "Episodes with an alarm"):
        assert said in page
    assert "Crashed environments" not in page


def test_what_crashed_is_named_and_was_not_measured(evaluated: list[tuple[Any, ...]], tmp_path: Path) -> None:
    assert command(tmp_path, "--axes", "light", "noise") == 0
    record = read_record(tmp_path / "robustness.json", Robustness, "")
    *known, lost = [cell for cell in record.cells if cell.axis != "action_noise"][:7]
    assert (lost.axis, lost.level, lost.pair, lost.total.rate) == ("noise", 3, None, None)
    assert all(cell.pair for cell in known[:4])
    assert len(record.crashes) == 3 * 60 and record.crashes[0].where == "metaworld3, noise_1"
    page = (tmp_path / "robustness.html").read_text()
    assert page.count("<div>not measured</div>") == 2 * 3, "solved, and against the suite as it is"
    assert "OSError: no &lt;display&gt;" in page and "Crashed environments" in page
    assert "where it does worst: the lights are dimmer" in page, "what was not measured is not the worst"


def test_nothing_but_crashes(evaluated: list[tuple[Any, ...]], tmp_path: Path) -> None:
    assert command(tmp_path, "--axes", "noise") == 0
    assert (
        "metaworld3 as it is: 100 %; nothing else was measured" in (tmp_path / "robustness.html").read_text()
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--axes", "gravity"), "--axes gravity: expected some of layout, robot, camera"),
        (("--axes", "lights_off"), "--axes lights_off: expected some of layout"),
        (("--suite", "metaworld3+light_1"), "expected a suite as it is; choose perturbations with --axes"),
        (("--server", "ws://127.0.0.1:1"), "expected run directories, or --server"),
        (("--served", "mine"), "expected run directories, or --server"),
    ],
)
def test_what_cannot_be_is_refused_at_once(
    evaluated: list[tuple[Any, ...]], tmp_path: Path, capsys: Any, words: tuple[str, ...], says: str
) -> None:
    assert command(tmp_path, *words) == 2
    assert says in " ".join(capsys.readouterr().err.split())
    assert not evaluated


def test_a_real_policy_is_loaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[Path] = []
    load = evaluation.acting_as
    monkeypatch.setattr(evaluation, "acting_as", lambda *words: loads.append(words[0]) or load(*words))
    words = (
        "--suite",
        "metaworld3_smoke",
        "--tasks",
        "1",
        "--axes",
        "action_delay",
        "--eval.record-episodes",
        "0",
    )
    assert command(tmp_path, *words, "--eval.processes", "1") == 0
    assert loads == [PRETRAINED]
    cells = read_record(tmp_path / "robustness.json", Robustness, "").cells
    assert [cell.total.trials for cell in cells] == [1] * 4 and cells[-1].strength == 50
    results = json.loads((tmp_path / cells[-1].results).read_text())
    assert results["suite"]["env"]["perturbation"]["kind"] == "action_delay"
