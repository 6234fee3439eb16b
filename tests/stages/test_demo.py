"""The demo of a policy that begins with an earlier stage: which stages there are, in which order, of which run."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from wamkit_client.suites import suite
from wamkit_client.types import BadInput

from wamkit.config import diff
from wamkit.policies.light_wam.policy import LightWAMConfig
from wamkit.recipes import DEMOS, EARLIER, recipe
from wamkit.stages import demo
from wamkit.stages import run as stages


@dataclass(frozen=True)
class Second(LightWAMConfig):
    """A policy that another stage comes before."""

    before: str = ""

    def started_from(self, directory: Path) -> Second:
        return replace(self, before=str(directory))


@pytest.fixture
def calls(monkeypatch) -> list[tuple[str, Any]]:
    """What the demo asks of the stages, which do nothing."""
    found: list[tuple[str, Any]] = []

    def spy(name):
        return lambda *arguments, **named: found.append((name, arguments))

    for name in ("encode", "train"):
        monkeypatch.setattr(stages, name, spy(name))
    for name in ("collect", "evaluate", "report"):
        monkeypatch.setattr(demo, name, spy(name))
    monkeypatch.setattr(demo, "check", lambda dataset: [])
    monkeypatch.setattr(demo, "results_table", lambda results: "")
    monkeypatch.setattr(demo, "read_results", lambda path: {})
    return found


def test_an_earlier_stage_is_trained_before(calls, tmp_path, capsys):
    first = recipe("metaworld3")
    fields = {name: getattr(first.policy, name) for name in asdict(first.policy)}
    second = replace(first, recipe="second", policy=Second(**fields))
    assert demo.demo(second, "metaworld_mt10", "other", tmp_path, 3, [first]) == 0
    started = replace(second, policy=replace(second.policy, before=str(tmp_path / "stage1" / "run")))
    names, arguments = zip(*calls, strict=True)
    assert names == ("collect", "encode", "train", "encode", "train", "evaluate", "report")
    assert arguments[0][0] == suite("metaworld_mt10") and arguments[5][2] == "metaworld3"
    assert [own[0] for own in arguments[1:5]] == [first, first, started, started]
    assert [own[2] for own in arguments[1:5]] == [tmp_path / "stage1" / "cache"] * 2 + [
        tmp_path / "cache"
    ] * 2
    assert arguments[2][3] == tmp_path / "stage1" / "run" and arguments[4][3] == tmp_path / "run"
    assert arguments[5][1] == started
    times = json.loads((tmp_path / "stages.json").read_text())
    trained = ["encode stage 1", "train stage 1", "encode", "train"]
    assert list(times) == ["collect", "check", *trained, "evaluate", "report"]
    assert f"--cache {tmp_path}/stage1/cache" in capsys.readouterr().out.replace("\n", " ")


def test_a_policy_without_an_earlier_stage_cannot_start_from_one():
    with pytest.raises(BadInput, match="light_wam: has no earlier stage"):
        recipe("metaworld3").policy.started_from(Path("run"))


def test_demos_and_earlier_stages_are_recipes():
    for name in {*EARLIER, *EARLIER.values(), *(name for pair in DEMOS.values() for name in pair)}:
        assert recipe(name).recipe == name
    for after, before in EARLIER.items():  # what cannot start from it is refused there
        assert recipe(after).policy.started_from(Path(before)) != recipe(after).policy


def test_ablations_differ_from_the_whole_in_one_setting():
    whole = recipe("metaworld3_lawam")
    arms = {
        "no_lawm": "policy.subgoal: predicted -> none",
        "no_distill": "policy.distill_weight: 0.1 -> 0.0",
        "no_stop": "policy.stop_subgoal_grad: True -> False",
        "oracle": "policy.subgoal: predicted -> oracle",
        "shuffled": "policy.subgoal: predicted -> shuffled",
    }
    for name, change in arms.items():
        changes = diff(whole, recipe(f"metaworld3_lawam_{name}"))
        assert sorted(changes) == [change, f"recipe: metaworld3_lawam -> metaworld3_lawam_{name}"]
