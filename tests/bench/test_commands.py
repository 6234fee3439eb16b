"""Every measurement runs on small policies, writes what it found, and refuses what it cannot do."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median

import pytest
from wamkit_client import suites

from tests.client.waiting import waiting_suite
from tests.processes import command
from tests.test_plug_in import record
from wamkit.bench import latency
from wamkit.bench.agreement import Agreement
from wamkit.bench.depths import layers_of, of_depth
from wamkit.bench.limits import gpu
from wamkit.cli import main
from wamkit.recipes import recipe
from wamkit.stages.plan import meta_policy

pytestmark = pytest.mark.scale

PRETRAINED = Path(__file__).parents[2] / "pretrained" / "metaworld3"
SMALL = ("metaworld3", "metaworld3_fast_wam", "metaworld3_lawam")


def bench(*words: str, out: Path) -> None:
    """In a process of its own: the suite's checks of shapes would be part of what is measured."""
    done = command(["wamkit", "bench", *words, "--out", str(out), "--device", "cpu"], out)
    assert done.status == 0, done.out + done.err


def found(folder: Path, what: str) -> dict:
    (path,) = folder.glob(f"{what}_*.json")
    assert path.with_suffix(".md").is_file()
    return json.loads(path.read_text())


@pytest.mark.parametrize("name", SMALL)
def test_latency_beside_the_twin(name: str, tmp_path: Path) -> None:
    words = ("--reference", "--rounds", "2", "--batch", "1", "2", "--limit", "H200")
    bench("latency", name, *words, out=tmp_path)
    result = found(tmp_path, "latency")["found"]
    assert result["gate"]["errors"]["exact"] <= result["gate"]["allowed"]
    assert [batch["size"] for batch in result["batches"]] == [1, 2]
    for batch in result["batches"]:
        assert batch["spans"].keys() == {"official work", "exact"}
        assert {"images", "codec", "blocks", "expert", "copy"} <= batch["spans"]["exact"].keys()
    assert "exact" in result["work"] and 0 < sum(result["limit"].values()) < 1e-3
    (image,) = tmp_path.glob("*.svg")
    assert "limit of H200" in image.read_text()


def test_passes_of_a_run_directory_and_a_new_process(tmp_path: Path) -> None:
    bench("latency", str(PRETRAINED), "--passes", "--cold", "--rounds", "2", out=tmp_path)
    result = found(tmp_path, "latency")
    assert result["found"]["ladder"][0]["name"] in ("merged_lora", "still_codec")
    assert {"load", "first query", "second query"} == result["cold"]["seconds"].keys()


def test_nothing_is_timed_where_the_gate_fails(tmp_path: Path, monkeypatch) -> None:
    failed = Agreement({"exact": 1.0}, 1e-5)
    monkeypatch.setattr(latency, "agreement", lambda *given: failed)
    assert main(["bench", "latency", "metaworld3", "--reference", "--out", str(tmp_path)]) == 1
    assert found(tmp_path, "latency")["found"]["batches"] == []


def test_the_gate_sees_another_chunk(tmp_path: Path, monkeypatch) -> None:
    def wrong(subject):
        return subject.encoder, lambda query: subject.policy.act(query) * 1.01

    monkeypatch.setattr(latency, "twin_of", wrong)
    assert main(["bench", "latency", "metaworld3", "--reference", "--out", str(tmp_path)]) == 1


def test_training_steps_of_several_sizes(tmp_path: Path) -> None:
    bench("train-step", "metaworld3", "--batch", "2", "4", "--rounds", "1", out=tmp_path)
    small, large = (step["work"]["ours"] for step in found(tmp_path, "train-step")["found"])
    assert large["flops"] > 1.9 * small["flops"] > 0 and large["kept"] > small["kept"] > 0


@pytest.mark.parametrize("name", SMALL)
def test_a_training_step_beside_the_twin(name: str, tmp_path: Path) -> None:
    bench("train-step", name, "--batch", "2", "--rounds", "1", "--reference", out=tmp_path)
    (step,) = found(tmp_path, "train-step")["found"]
    work = step["work"]
    assert step["seconds"].keys() == work.keys() == {"official work", "ours"}
    for what in ("flops", "kept"):
        assert work["official work"][what] > work["ours"][what]


def test_encoding(tmp_path: Path) -> None:
    bench("encode", "metaworld3", "--rounds", "1", out=tmp_path)
    assert {rate["size"] for rate in found(tmp_path, "encode")["found"]} == {1, 4}


def test_loading(tmp_path: Path) -> None:
    """With and without a cache; a sample of the cache is read sooner than one is decoded and encoded."""
    dataset, cache = tmp_path / "dataset", tmp_path / "cache"
    record(dataset)
    assert main(["encode", "metaworld3", "--dataset", str(dataset), "--cache", str(cache)]) == 0
    rates = []
    for given in ((), ("--cache", str(cache))):
        out = tmp_path / f"out{len(given)}"
        words = ["bench", "loading", "metaworld3", "--dataset", str(dataset), *given, "--rounds", "3"]
        assert main([*words, "--train.batch-size", "8", "--out", str(out), "--device", "cpu"]) == 0
        (rate,) = found(out, "loading")["found"]
        assert (rate["name"], rate["size"], len(rate["seconds"]["wall"])) == ("samples", 8, 3)
        rates.append(median(rate["seconds"]["cpu"]))
    assert rates[1] < rates[0]


def test_episodes(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(suites.SUITES, "metaworld3", waiting_suite("metaworld3"))
    words = ["bench", "episodes", str(PRETRAINED), "--episodes", "1", "--eval.processes", "1"]
    assert main([*words, "--out", str(tmp_path), "--device", "cpu"]) == 0
    result = found(tmp_path, "episodes")["found"]
    assert (result["episodes"], result["steps"]) == (2, 2 * 9)
    assert result["latency"]["median_ms"] > 0


def test_full_depth_follows_from_two_small_depths(tmp_path: Path) -> None:
    words = ("--layers", "1", "2", "--reference", "--rounds", "2")
    bench("latency", "metaworld3_fast_wam", *words, out=tmp_path)
    result = found(tmp_path, "latency")["found"]
    (whole,) = result["batches"]
    small, large = (result["depths"][layers][0]["seconds"] for layers in ("1", "2"))
    for way, seconds in whole["seconds"].items():
        measured = zip(small[way]["wall"], large[way]["wall"], strict=True)
        assert seconds["wall"] == pytest.approx([a + 5 * (b - a) for a, b in measured])
    (page,) = tmp_path.glob("*.md")
    assert "Two small depths" in page.read_text()


@pytest.mark.parametrize("name", ["robotwin", "libero_fast_wam", "libero_lawam"])
def test_a_policy_of_another_depth_needs_as_much_more_for_every_layer(name: str) -> None:
    """Of the published policies only the depth changes, so what each layer has is always the same."""
    run, counts = recipe(name), []
    assert of_depth(run, layers_of(run)) == run
    for layers in (8, 12, 16):
        policy = meta_policy(of_depth(run, layers))
        counts.append(sum(weight.numel() for weight in policy.parameters()))
    assert counts[0] < counts[1] and counts[2] - counts[1] == counts[1] - counts[0]


@pytest.mark.parametrize("over", ["batch", "horizon", "resolution", "cameras", "depth"])
def test_growth(over: str, tmp_path: Path) -> None:
    bench("growth", "metaworld3", "--over", over, "--factors", "1", "2", "--rounds", "1", out=tmp_path)
    first, second = found(tmp_path, "growth")["found"]
    assert second["flops"] > first["flops"]


def test_the_official_code_is_timed_by_a_program_of_its_owner(tmp_path: Path, capsys) -> None:
    program = tmp_path / "theirs"
    program.write_text(
        f"#!{sys.executable}\nimport json, sys\nasked = json.load(open(sys.argv[1]))\n"
        'print(json.dumps({"seconds": [0.5] * asked["rounds"]}))\n'
    )
    words = ["bench", "latency", "metaworld3", "--rounds", "2", "--out", str(tmp_path / "out")]
    assert main([*words, "--official", str(program)]) == 2  # not executable
    program.chmod(0o755)
    assert main([*words, "--official", str(program)]) == 0
    assert found(tmp_path / "out", "latency")["official"] == [0.5, 0.5]
    program.write_text(f"#!{sys.executable}\nprint('hello')\n")
    capsys.readouterr()
    assert main([*words, "--official", str(program)]) == 2
    assert "its last line is not" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["latency", "nothing_like_it"], "unknown recipe"),
        (["latency", "metaworld3", "--limit", "abacus"], "no peaks are known"),
        (["latency", "metaworld3", "--rounds", "0"], "expected numbers from 1"),
        (["latency", "metaworld3_fast_wam_joint", "--reference"], "no twin"),
        (["growth", "metaworld3", "--factors", "2"], "at least two different"),
        (["growth", "robotwin", "--over", "cameras", "--factors", "1", "2"], "canvas 'robotwin'"),
        (["latency", "metaworld3", "--layers", "2"], "expected two depths"),
        (["latency", "metaworld3_lawam", "--layers", "1", "2"], "another part would have"),
        (["latency", str(PRETRAINED), "--layers", "1", "2"], "name a recipe"),
        (["latency", "metaworld3", "--layers", "4", "5", "--cold"], "omit --cold"),
    ],
)
def test_what_cannot_be_measured_is_said(words, says: str, tmp_path: Path, capsys) -> None:
    assert main(["bench", *words, "--out", str(tmp_path)]) == 2
    assert says in " ".join(capsys.readouterr().err.split())


def test_a_gpu_is_found_by_the_name_of_its_driver() -> None:
    names = {
        "NVIDIA H100 80GB HBM3": "H100",
        "NVIDIA A100-SXM4-80GB": "A100",
        "NVIDIA L40S": "L40S",
        "NVIDIA L4": "L4",
    }
    assert {name: gpu(name).name for name in names} == names
