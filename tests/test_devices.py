"""--device: the one that a command and what it starts can see."""

from __future__ import annotations

import os

import pytest
import torch
from wamkit_client.types import BadInput

from wamkit.cli import main
from wamkit.commands.devices import VISIBLE, use_device
from wamkit.commands.parsing import parse


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def test_all_are_seen_unless_one_is_named(gpus):
    use_device("")
    assert VISIBLE not in os.environ


@pytest.mark.parametrize(
    ("device", "visible"), [("cpu", ""), ("cuda", "0"), ("cuda:0", "0"), ("cuda:1", "1")]
)
def test_one_alone_is_seen(gpus, device, visible):
    use_device(device)
    assert os.environ[VISIBLE] == visible


def test_numbers_are_of_those_that_the_process_may_use(gpus, monkeypatch):
    monkeypatch.setenv(VISIBLE, "5,GPU-7a")
    use_device("cuda:1")
    assert os.environ[VISIBLE] == "GPU-7a"


def test_one_that_is_not_there(gpus):
    with pytest.raises(BadInput, match="--device cuda:2: this machine has cuda:0, cuda:1; give one of these"):
        use_device("cuda:2")


def test_a_machine_without(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(BadInput, match="sees no GPU on this machine; give cpu, or omit the flag"):
        use_device("cuda")


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "cuda1", "mps"])
def test_what_is_no_device(device):
    with pytest.raises(BadInput, match=f"--device {device}: expected cpu, cuda or cuda:N"):
        use_device(device)


LINES = [
    "train metaworld3 --out new",
    "encode metaworld3 --dataset d --cache new",
    "eval run --out new",
    "report run --out new/page.html",
    "inspect run",
    "compare metaworld3 --dataset d --cache c --out new",
    "demo --out new",
]


@pytest.mark.parametrize("line", LINES)
def test_commands_that_compute_take_it(tmp_path, monkeypatch, capsys, line):
    monkeypatch.chdir(tmp_path)
    words = [*line.split(), "--device", "gpu"]
    assert parse(words)[0].device == "gpu"
    assert main(words) == 2
    assert capsys.readouterr().err.startswith("error: --device gpu")
    assert not list(tmp_path.iterdir())
