"""LaWAM on demonstrations at three rates, asked at each of them, and the page over its arms."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from wamkit_client import suites

from tests.client.waiting import waiting_suite
from tests.stages.test_lawam_stages import SMALL, small
from tests.test_bad_input import record, refused
from wamkit.cli import main
from wamkit.config import load_run
from wamkit.io.records import read_record
from wamkit.recipes import metaworld_lawam, metaworld_lawam_rates
from wamkit.report.mixed_rates import MixedRates
from wamkit.serve.dialects.base import Service
from wamkit.serve.dialects.spoken import dialects, greeting
from wamkit.serve.scheduler import Scheduler
from wamkit.serve.served import Policies
from wamkit.serve.server import Server
from wamkit.stages.serving import load_served

ARMS = {"seconds": (), "none": ("--policy.time-code=none", "--normalization.robots=shared")}
RATES = {"80": "", "40": "metaworld_sawyer-40hz", "20": "metaworld_sawyer-20hz"}
FLAGS = [f"--train.{name.replace('_', '-')}={value}" for name, value in SMALL.items()]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two arms, each evaluated at three rates; do not change them."""
    folder = tmp_path_factory.mktemp("rates")
    record(folder / "80")
    for by in (2, 4):
        words = ["data", "downsample", folder / "80", "--by", by, "--out", folder / f"{80 // by}"]
        assert main([*map(str, words), "--recipe", "metaworld3"]) == 0
    data = [f"--dataset={folder / rate}" for rate in RATES]
    world = folder / "world"
    assert main(["train", "metaworld3_lawam_world", data[0], "--out", str(world), *FLAGS]) == 0
    for name, flags in ARMS.items():
        run = folder / name
        train = ["train", "metaworld3_lawam_rates", *data, f"--policy.world={world}", "--out", str(run)]
        assert main([*train, *FLAGS, *flags]) == 0
        for rate, robot in RATES.items():
            words = ["eval", str(run), f"--out={run / 'eval' / rate}", "--eval.processes=1"]
            assert main([*words, *([f"--eval.robot={robot}"] if robot else [])]) == 0
    return folder


@pytest.fixture(scope="module", autouse=True)
def small_recipes() -> Iterator[None]:
    """The recipes with tiny networks, in a world without a simulator."""
    whole, world = metaworld_lawam.metaworld3_lawam, metaworld_lawam.metaworld3_lawam_world
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metaworld_lawam_rates, "metaworld3_lawam", lambda: small(whole()))
        patch.setattr(metaworld_lawam, "metaworld3_lawam_world", lambda: small(world()))
        patch.setitem(suites.SUITES, "metaworld3", waiting_suite("metaworld3"))
        yield


def test_arms_and_rates_on_one_page(measured, tmp_path):
    runs = [str(measured / name) for name in ARMS]
    assert main(["analyse", "mixed-hz", *runs, "--out", str(tmp_path)]) == 0
    record = read_record(tmp_path / "mixed_hz.json", MixedRates, "")
    assert record.format == "wamkit-mixed-hz-1" and record.rates == list(RATES)
    first, second = record.arms
    assert first.differs == {} and first.trained_at == [80.0, 40.0, 20.0]
    assert second.differs == {"normalization.robots": '"shared"', "policy.time_code": '"none"'}
    for arm in record.arms:
        assert set(arm.rates) == set(RATES) and all(own.total.trials == 4 for own in arm.rates.values())
    assert [own.rate for own in record.pairs] == sorted(RATES) and record.pairs[0].pair.trials == 4
    page = (tmp_path / "mixed_hz.html").read_text()
    assert "Asked at 40 Hz" in page and "time_code" in page and page.count('<svg class="plot"') == 1


def test_results_say_at_which_rate(measured):
    results = json.loads((measured / "seconds" / "eval" / "40" / "results.json").read_text())
    assert results["config"]["robot"] == "metaworld_sawyer-40hz"


def test_what_cannot_be_put_on_one_page(measured, tmp_path, capsys):
    out = ["--out", str(tmp_path / "out")]
    run = str(measured / "seconds")
    assert "each once" in refused(capsys, ["analyse", "mixed-hz", run, run, *out])
    assert "run.json is missing" in refused(capsys, ["analyse", "mixed-hz", str(measured), *out])
    assert "no evaluation in eval/" in refused(capsys, ["analyse", "mixed-hz", str(measured / "world"), *out])
    copy = Path(shutil.copytree(measured / "seconds", tmp_path / "copy"))
    shutil.copytree(copy / "eval" / "40", copy / "eval" / "again")
    error = refused(capsys, ["analyse", "mixed-hz", str(copy), *out])
    assert "another evaluation at 40 Hz" in error
    shutil.rmtree(copy / "eval" / "again")
    path = copy / "eval" / "20" / "results.json"
    path.write_text(path.read_text().replace('"max_steps": 16', '"max_steps": 17'))
    assert "suite.max_steps is" in refused(capsys, ["analyse", "mixed-hz", run, str(copy), *out])
    error = refused(
        capsys, ["eval", run, "--eval.robot", "metaworld_sawyer-10hz", "--out", str(tmp_path / "e")]
    )
    assert "'metaworld_sawyer-10hz' is not of the policy's mixture; it has metaworld_sawyer," in error


def test_a_served_mixture_is_asked_as_one_of_its_robots(measured, tmp_path):
    """By the client, which divides the actions; the episodes are those of the policy in this process."""
    run, robot = measured / "seconds", "--eval.robot=metaworld_sawyer-40hz"
    served = load_served("rates", run, load_run(run))
    service = Service(Policies(served), Scheduler())
    words = ["eval", "--suite", "metaworld3", "--eval.processes=1", "--out", str(tmp_path)]
    with Server(service, dialects(), greeting=greeting(service.policies)) as server:
        assert main([*words, robot, "--server", server.url]) == 0
        assert main([*words, "--eval.robot=arm", "--server", server.url]) == 2
    here, there = (
        json.loads((folder / "results.json").read_text()) for folder in (run / "eval" / "40", tmp_path)
    )
    assert here["config"] == there["config"] and len(here["episodes"]) == len(there["episodes"]) == 4
    for ours, theirs in zip(here["episodes"], there["episodes"], strict=True):
        for times in ("query_ms", "query_call", "query_batch"):
            assert len(ours.pop(times)) == len(theirs.pop(times))
        assert ours == theirs
