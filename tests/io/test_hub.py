"""hf://OWNER/NAME: found, downloaded once, checked, offline; and what is said where the hub refuses."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from wamkit_client.types import BadInput

from tests import tiny_dataset
from tests.hub_server import COMMIT, Hub, Repository, serving
from wamkit.cli import main
from wamkit.commands.hubbing import KNOWN
from wamkit.commands.overrides import changed
from wamkit.commands.references import found
from wamkit.eval.evaluate import EvalConfig
from wamkit.io.hub import is_reference, local, parsed, pinned, reference_of
from wamkit.policies.fast_wam.policy import FromVideoModel
from wamkit.policies.lawam.features import DINOv3Config
from wamkit.policies.lawam.prompt import QwenPromptConfig
from wamkit.policies.light_wam.policy import LoRATuning
from wamkit.recipes import recipe
from wamkit.stages.run import NO_FILE, train
from wamkit.wan.encoders import UMT5Config

WEIGHTS = bytes(range(256)) * 40


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving() as made:
        made.repositories["lab/model"] = Repository({"run.json": b"{}", "sub/weights.bin": WEIGHTS})
        made.repositories["lab/data"] = Repository({"meta/info.json": b"{1}"}, kind="dataset")
        point_to(made, tmp_path / "cache", monkeypatch)
        yield made


def point_to(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT and HF_HOME do in a new process."""
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)


@pytest.mark.parametrize(
    "word, told",
    [
        ("hf://a/b", ("a/b", "", "", "")),
        ("hf:/a/b", ("a/b", "", "", "")),  # as a Path spells it
        ("hf://a/b.c@v1.0/sub/x.pt", ("a/b.c", "", "v1.0", "sub/x.pt")),
        ("hf://datasets/a/b@main", ("a/b", "dataset", "main", "")),
        ("hf://models/a/b", ("a/b", "model", "", "")),
    ],
)
def test_references(word: str, told: tuple[str, ...]) -> None:
    read = parsed(word)
    assert (read.name, read.kind, read.revision, read.inside) == told
    assert is_reference(word) and not is_reference("runs/x")


@pytest.mark.parametrize("word", ["hf://a", "hf://", "hf://a/b@", "hf://a/b@x@y"])
def test_no_references(word: str) -> None:
    with pytest.raises(BadInput, match="expected hf://OWNER/NAME"):
        local(word)


def test_a_model_is_downloaded_once(hub: Hub) -> None:
    folder = local("hf://lab/model")
    assert (folder / "sub/weights.bin").read_bytes() == WEIGHTS
    assert reference_of(folder) == f"hf://lab/model@{COMMIT}" == pinned("hf://lab/model")
    assert reference_of(folder / "sub/weights.bin") == f"hf://lab/model@{COMMIT}/sub/weights.bin"
    before = sum(n for asked, n in hub.asked.items() if asked.startswith("GET /lab/model/resolve"))
    assert local("hf://lab/model@main") == folder
    assert (
        sum(n for asked, n in hub.asked.items() if asked.startswith("GET /lab/model/resolve")) == before == 2
    )


def test_a_dataset_is_found_by_its_name(hub: Hub) -> None:
    folder = local("hf://lab/data")
    assert (folder / "meta/info.json").read_bytes() == b"{1}"
    assert reference_of(folder) == f"hf://datasets/lab/data@{COMMIT}"


def test_a_file_alone(hub: Hub) -> None:
    assert local("hf://lab/model/run.json").read_bytes() == b"{}"
    assert not any("weights.bin" in asked for asked in hub.asked)
    with pytest.raises(BadInput, match=r"has none of the files no\.bin"):
        local("hf://lab/model/no.bin")


def test_without_a_network(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = local("hf://lab/model")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.asked.clear()
    assert local("hf://lab/model") == folder and not hub.asked
    with pytest.raises(BadInput, match="is not in the cache of this machine"):
        local("hf://lab/other")


def test_a_download_goes_on(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)
    hub.breaks = 1
    try:
        folder = local("hf://lab/model")
    except BadInput as error:  # huggingface_hub did not go on by itself
        assert "run the same command again" in str(error)
        folder = local("hf://lab/model")
    assert (folder / "sub/weights.bin").read_bytes() == WEIGHTS
    assert hub.ranges == [f"sub/weights.bin {len(WEIGHTS) // 2}"]


@pytest.mark.parametrize("path", ["sub/weights.bin", "run.json"])
def test_wrong_bytes_are_not_kept(hub: Hub, path: str) -> None:
    hub.damaged.add(path)
    with pytest.raises(BadInput, match=rf"{path} is damaged.*it was removed"):
        local("hf://lab/model")
    hub.damaged.clear()
    assert (local("hf://lab/model") / path).read_bytes() == hub.repositories["lab/model"].files[path]


@pytest.mark.parametrize(
    "status, told",
    [(401, "hf auth login"), (404, "nothing of that name"), (429, "wait some minutes"), (503, "503")],
)
def test_refusals(hub: Hub, status: int, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    hub.status = status
    with pytest.raises(BadInput, match=told):
        local("hf://models/lab/model")


def test_gated_and_unknown(hub: Hub) -> None:
    hub.repositories["lab/gated"] = Repository({"x": b"1"}, gated=True)
    with pytest.raises(BadInput, match="is gated; ask for access"):
        local("hf://lab/gated")
    with pytest.raises(BadInput, match="nothing of that name"):
        local("hf://lab/mdoel")
    with pytest.raises(BadInput, match="no such revision"):
        local("hf://lab/model@v9")


def test_a_full_disk(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device", "weights.bin")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    with pytest.raises(OSError) as caught:
        local("hf://lab/model")
    assert caught.value.errno == errno.ENOSPC  # told by the command line as of every other disk


def test_words_of_a_command_line(hub: Hub) -> None:
    folder = str(local("hf://lab/model"))
    assert found(["eval", "hf://lab/model", "--like=hf://lab/model/run.json"]) == [
        "eval",
        folder,
        f"--like={folder}/run.json",
    ]
    assert found(["serve", "old=hf://lab/model"]) == ["serve", f"old={folder}"]
    named = f"hf://lab/model@{COMMIT}"
    assert found(["train", "x", "--policy.codec.path", "hf://lab/model"])[-1] == named
    assert found(["train", "x", "--policy.codec.path=hf://lab/model"])[-1] == f"--policy.codec.path={named}"
    with pytest.raises(BadInput, match="nothing is written"):
        found(["train", "x", "--out", "hf://lab/model"])
    assert found(["train", "--help", "hf://no/such"])[-1] == "hf://no/such"


def test_a_run_keeps_the_commit(hub: Hub) -> None:
    """Whether a command line or a recipe names the hub."""
    run = recipe("libero_spatial")
    named = replace(run, policy=replace(run.policy, tuning=LoRATuning(base="hf://lab/model")))
    told = f"hf://lab/model@{COMMIT}"
    assert changed(named, {}).policy.tuning.base == told
    assert changed(run, {"policy.tuning.base": "hf://lab/model"}).policy.tuning.base == told
    hub.asked.clear()
    assert pinned(told) == told and not hub.asked


def test_a_dataset_and_a_start_are_recorded_by_commit(hub: Hub, tmp_path: Path) -> None:
    """Trained on a dataset of the hub, from a run of the hub: provenance names commits, no folder of this machine."""
    tiny_dataset.write(tmp_path / "dataset", [12, 12])
    run = replace(
        tiny_dataset.RUN,
        eval=EvalConfig(replan_steps=4),
        train=replace(tiny_dataset.RUN.train, steps=1, warmup_steps=0),
    )
    train(run, [tmp_path / "dataset"], NO_FILE, tmp_path / "first", torch.device("cpu"))
    for name, kind, folder in (("lab/moves", "dataset", "dataset"), ("lab/first", "model", "first")):
        files = {
            str(f.relative_to(tmp_path / folder)): f.read_bytes()
            for f in (tmp_path / folder).rglob("*")
            if f.is_file()
        }
        hub.repositories[name] = Repository(files, kind)
    train(
        run,
        [local("hf://lab/moves")],
        NO_FILE,
        tmp_path / "second",
        torch.device("cpu"),
        init=local("hf://lab/first"),
    )
    told = (tmp_path / "second/provenance.json").read_text()
    assert json.loads(told)["dataset"]["folders"] == [f"hf://datasets/lab/moves@{COMMIT}"]
    assert json.loads(told)["init"]["run"] == f"hf://lab/first@{COMMIT}" and str(tmp_path) not in told


def test_the_environment_says_where_the_hub_is(hub: Hub, tmp_path: Path) -> None:
    """In a process of its own, by the command line."""
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "wamkit.cli", "report", "hf://lab/model"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 2 and COMMIT in done.stderr and "run.json" in done.stderr


def test_nothing_but_references_is_looked_up(hub: Hub) -> None:
    assert local("runs/x") == Path("runs/x") and pinned("weights/Wan") == "weights/Wan"
    assert reference_of(Path("/data/runs/x")) == "/data/runs/x" and not hub.asked


def test_pull(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["hub", "pull", "lab/model", "--out", "here", "--revision", COMMIT]) == 0
    assert (tmp_path / "here/sub/weights.bin").read_bytes() == WEIGHTS
    assert f"hf://lab/model@{COMMIT}, complete" in " ".join(capsys.readouterr().out.split())
    (tmp_path / "here/sub/weights.bin").write_bytes(WEIGHTS[:-1] + b"?")  # damaged here, later
    assert main(["hub", "pull", "lab/model", "--out", "here"]) == 2
    assert "sub/weights.bin is damaged" in capsys.readouterr().err
    assert main(["hub", "pull", "lab/model", "--out", "here"]) == 0
    assert (tmp_path / "here/sub/weights.bin").read_bytes() == WEIGHTS
    assert main(["hub", "pull", "hf://lab/model@main", "--revision", "main"]) == 2


def test_pull_by_the_names_of_the_docs(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Into the folder where recipes look, only the files that are read."""
    monkeypatch.chdir(tmp_path)
    names = [
        "Wan2.1_VAE.pth",
        "google/umt5-xxl/spiece.model",
        "models_t5_umt5-xxl-enc-bf16.pth",
        "assets/film.mp4",
    ]
    hub.repositories["Wan-AI/Wan2.1-T2V-1.3B"] = Repository({name: name.encode() for name in names})
    assert main(["hub", "pull", "wan2.1"]) == 0
    folder = tmp_path / LoRATuning().base
    found = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    assert {name for name in found if not name.startswith(".cache")} == set(names[:3])
    assert (
        KNOWN["dinov3"].folder == DINOv3Config().path and KNOWN["qwen3-vl"].folder == QwenPromptConfig().path
    )
    assert KNOWN["wan2.2"].folder == FromVideoModel().base and KNOWN["umt5"].folder == UMT5Config().path
