"""`wamkit hub push`: what is published can be used from the hub, says what was measured, and tells of no machine."""

from __future__ import annotations

import base64
import getpass
import json
import shutil
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard
from safetensors.numpy import load

import wamkit
from tests.hub_server import Hub, serving
from tests.io.test_hub import point_to
from tests.policies.tiny_policy import tiny_config, tiny_normalizer
from tests.tiny_dataset import RUN
from wamkit.cli import main
from wamkit.config import build_policy, save_normalizer, save_run
from wamkit.io.weights import save_weights
from wamkit.policies.light_wam.policy import LoRATuning
from wamkit.train.checkpoint import trained_tensors

PRETRAINED = Path(__file__).parents[2] / "pretrained" / "metaworld3"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving() as made:
        point_to(made, tmp_path / "cache", monkeypatch)
        monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
        yield made


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with a page, and with a folder of this machine in its records."""
    folder = Path(shutil.copytree(PRETRAINED, tmp_path / "mine" / "run"))
    facts = json.loads((folder / "provenance.json").read_text())
    facts["init"] = {"run": str(tmp_path / "mine" / "before"), "recipe": "metaworld3"}
    (folder / "provenance.json").write_text(json.dumps(facts))
    film = base64.b64encode(b"a film").decode()
    (folder / "report.html").write_text(
        f'<section id="rollouts"><video src="data:video/mp4;base64,AAAA"></section>\n<section id="future"><h2>F</h2>'
        f'<video src="data:video/mp4;base64,{film}"></video></section>'
    )
    return folder


def published(hub: Hub, name: str = "lab/policy") -> dict[str, bytes]:
    return hub.repositories[name].files


def test_what_is_published_acts_from_there(hub: Hub, run: Path) -> None:
    assert main(["hub", "push", str(run), "lab/policy", "--private"]) == 0
    files = published(hub)
    names = "README.md eval/published/results.json imagined.mp4 metrics.jsonl normalizer.json provenance.json run.json"
    assert sorted(files) == [*names.split(), "weights.safetensors"] and hub.private == {"lab/policy"}
    assert files["weights.safetensors"] == (PRETRAINED / "weights.safetensors").read_bytes()
    assert files["imagined.mp4"] == b"a film"
    assert wamkit.load_policy("hf://lab/policy").policy.data.views == ("corner2", "gripperPOV")


def test_nothing_of_this_machine_or_of_the_dataset_is_told(hub: Hub, run: Path, tmp_path: Path) -> None:
    assert main(["hub", "push", str(run), "lab/policy"]) == 0
    texts = {
        name: data.decode()
        for name, data in published(hub).items()
        if not name.endswith((".safetensors", ".mp4"))
    }
    words = [str(tmp_path), str(Path.home()) + "/", "/tmp/", str(PRETRAINED.parent)]
    words += [name for name in (socket.gethostname(), getpass.getuser()) if len(name) > 5]
    assert not [(name, word) for name, text in texts.items() for word in words if word in text]
    assert json.loads(texts["provenance.json"])["initial_states"] == []
    assert json.loads(texts["provenance.json"])["init"]["run"] == "weights/before"
    episodes = json.loads(texts["eval/published/results.json"])["episodes"]
    assert len(episodes) == 60 and all(episode["vector"] == [] for episode in episodes)
    state = json.loads((PRETRAINED / "provenance.json").read_text())["initial_states"][0]["vector"][0]
    assert not [name for name, text in texts.items() if str(state) in text]


def test_a_text_that_tells_of_this_machine_is_refused(
    hub: Hub, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "metrics.jsonl").write_text(json.dumps({"step": 1, "note": f"see {run.resolve()}/x"}) + "\n")
    assert main(["hub", "push", str(run), "lab/policy"]) == 2
    assert "metrics.jsonl: tells of this machine" in " ".join(capsys.readouterr().err.split())
    assert "lab/policy" not in hub.repositories


def test_the_card(hub: Hub, run: Path) -> None:
    assert main(["hub", "push", str(run), "lab/policy", "--license", "mit"]) == 0
    card = ModelCard(published(hub)["README.md"].decode())
    assert card.data.license == "mit" and card.data.library_name == "wamkit"
    (row,) = card.data.eval_results
    assert (row.metric_value, row.dataset_type) == (1.0, "published")
    for words in (
        "| button-press-topdown-v3 | 20 of 20 | 100.0% | 83.9% to 100.0% |",
        "| **metaworld3** | 60 of 60 | 100.0% | 94.0% to 100.0% |",
        "wamkit eval hf://lab/policy --suite metaworld3 --episodes 20",
        "AMD EPYC",
        "mujoco 3.3.0",
        "120 episodes",
        "[imagined.mp4](imagined.mp4)",
    ):
        assert words in card.text


def test_low_rank_additions_alone(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = "weights/Wan2.1-T2V-1.3B"
    run = replace(RUN, policy=tiny_config(LoRATuning(base=str(tmp_path / base), rank=2)))
    folder, policy = tmp_path / "run", build_policy(run, tiny_normalizer())
    save_run(run, folder)
    save_normalizer(tiny_normalizer(), folder)
    save_weights(folder, trained_tensors(policy))
    facts = json.loads((PRETRAINED / "provenance.json").read_text()) | {"initial_states": []}
    (folder / "provenance.json").write_text(json.dumps(facts))
    assert main(["hub", "push", str(folder), "lab/lora"]) == 0
    files = published(hub, "lab/lora")
    names = load(files["weights.safetensors"])
    frozen = {name for name, weight in policy.named_parameters() if not weight.requires_grad}
    assert frozen and not frozen & names.keys() and any("lora_down" in name for name in names)
    assert np.isfinite(next(iter(names.values()))).all()
    assert json.loads(files["run.json"])["policy"]["tuning"]["base"] == base
    assert f"is published as {base}" in " ".join(capsys.readouterr().out.split())
    card = ModelCard(files["README.md"].decode())
    assert card.data.base_model == "Wan-AI/Wan2.1-T2V-1.3B" and "low-rank additions" in card.text
    assert "not been measured" in card.text


@pytest.mark.parametrize(
    "status, told", [(401, "hf auth login"), (403, "does not allow it"), (429, "wait some minutes")]
)
def test_the_hub_refuses(
    hub: Hub,
    run: Path,
    status: int,
    told: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    hub.status = status
    assert main(["hub", "push", str(run), "lab/policy"]) == 2
    assert told in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("name", ["policy", "lab/policy@main", "datasets/lab/policy", "hf://lab/policy"])
def test_no_name_of_a_repository(run: Path, name: str) -> None:
    assert main(["hub", "push", str(run), name]) == 2


def test_a_run_that_is_not_whole(hub: Hub, run: Path) -> None:
    (run / "weights.safetensors").unlink()
    assert main(["hub", "push", str(run), "lab/policy"]) == 2 and not hub.repositories
