"""`wamkit golden`: recorded observations with the answers of a run directory, which a served one gives, too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from wamkit_client.client import RemotePolicy
from wamkit_client.golden import Golden, differences

from tests.tiny_dataset import write
from wamkit.cli import main
from wamkit.config import load_run
from wamkit.serve.dialects.base import Service
from wamkit.serve.dialects.spoken import dialects, greeting
from wamkit.serve.scheduler import Scheduler
from wamkit.serve.served import Policies
from wamkit.serve.server import Server
from wamkit.stages.serving import load_served

PRETRAINED = Path(__file__).parents[2] / "pretrained" / "metaworld3"


def recorded(root: Path, lengths: Sequence[int], robot: str = "metaworld_sawyer") -> Path:
    return write(root, lengths, robot=robot, spec=load_run(PRETRAINED).data)


def test_a_server_answers_as_its_run_directory(tmp_path: Path) -> None:
    run = load_run(PRETRAINED)
    dataset, out = recorded(tmp_path / "dataset", [5, 20]), tmp_path / "golden"
    words = ["golden", str(PRETRAINED), "--dataset", str(dataset), "--out", str(out), "--count", "4"]
    assert main(words) == 0
    golden = Golden.load(str(out))
    assert len(golden.observations) == 4 and "metaworld3" in golden.answered_by
    assert tuple(golden.names) == run.actions.names and (golden.spread > 0).all()
    policies = Policies(load_served("metaworld3", PRETRAINED, run))
    with (
        Server(Service(policies, Scheduler()), dialects(), greeting=greeting(policies)) as server,
        RemotePolicy(server.url) as policy,
    ):
        assert [one.share for one in differences(policy, golden)] == [0, 0, 0, 0]


def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["golden", str(PRETRAINED), "--out", str(tmp_path / "golden")]
    dataset = recorded(tmp_path / "dataset", [5])
    other = recorded(tmp_path / "other", [5], "panda")
    for more, said in (
        (["--count", "2"], "--dataset is missing"),
        (["--dataset", str(dataset), "--count", "0"], "--count is 0"),
        (["--dataset", str(other), "--count", "2"], "unknown embodiment 'panda'"),
        (["--dataset", str(dataset), "--count", "6"], "have 5 moments; ask for fewer"),
    ):
        assert main([*words, *more]) == 2
        assert said in " ".join(capsys.readouterr().err.split())
