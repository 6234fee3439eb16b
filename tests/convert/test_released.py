"""Released Light-WAM files with every tensor of the published ones, at tiny sizes -> run directories, and back."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from wamkit_client.types import BadInput

from tests.official_run import LIBERO, ROBOTWIN, config, put, statistics, write_config
from wamkit import policies
from wamkit.config import Run, build_policy, load_normalizer, load_run
from wamkit.convert import released as conversion
from wamkit.convert.released import from_official, to_official
from wamkit.policies.light_wam import official_config
from wamkit.policies.light_wam.convert import FORMAT, SECTIONS
from wamkit.policies.light_wam.official_config import read_config
from wamkit.recipes import recipe
from wamkit.stages.start import start_of
from wamkit.train.checkpoint import trained_tensors
from wamkit.wan.dit import SIZES, WanSize

KEYS = Path(__file__).parents[1] / "golden/lightwam_keys.json.gz"
# Every number that stands in a published shape -> a small one. 4608 is the expert's level and three times the width.
TINY = {1536: 24, 8960: 40, 4608: 72, 9216: 144, 13824: 216, 6144: 28, 4096: 10, 256: 12}
SIZE = WanSize(width=24, ffn=40, heads=2, head_dim=12, layers=30, channels=16, text_dim=10, time_dim=12)
SMALL = {
    "model.wam_adapter.adapter_dim": 12,
    "model.state_fusion_action_expert_config.per_layer_dim": 72,
    "model.state_fusion_action_expert_config.trunk_dim": 28,
    "model.state_fusion_action_expert_config.step_pos_dim": 12,
}
ADAPTERS = (2, 5, 11, 17, 24)  # another set than the published one

Official = dict[str, Any]


def checkpoint(published: dict[str, Any], dims: str, dtype: torch.dtype) -> Official:
    """A file with the published names; dims: "libero" or "robotwin"."""
    libero = dims == "libero"
    expert = published["state_fusion_action_expert"]
    shapes = {
        "mot": published["mot"],
        "state_fusion_action_expert": expert
        | ({} if libero else published["state_fusion_action_expert_action14"]),
        "proprio_encoder": published["proprio_encoder"]["libero_8d" if libero else "robotwin_and_real_14d"],
    }
    generator = torch.Generator().manual_seed(0)
    return {
        section: {
            name: torch.randn([TINY.get(n, n) for n in shape], generator=generator).to(dtype)
            for name, shape in shapes[section].items()
        }
        for section in SECTIONS
    } | {"step": 55_000, "torch_dtype": str(dtype)}


def with_adapters(official: Official, layers: tuple[int, ...]) -> Official:
    """The same file with adapters after other blocks, each with its level of the expert."""
    mot, expert = dict(official["mot"]), dict(official["state_fusion_action_expert"])
    start = "mixtures.video.wam_adapters."
    first = {n.split(".", 4)[4]: mot.pop(n) for n in list(mot) if n.startswith(start) and ".8." in n}
    for name in [name for name in mot if name.startswith(start)]:
        mot.pop(name)
    mot |= {f"{start}{i}.{name}": x + i for i in layers for name, x in first.items()}
    for part in ("layer_poolers", "layer_compressors"):
        level = {n.split(".", 2)[2]: expert[n] for n in list(expert) if n.startswith(f"{part}.0.")}
        expert |= {f"{part}.{i}.{name}": x + i for i in range(len(layers)) for name, x in level.items()}
    wide = 72 * len(layers)
    expert |= {
        f"fused_norm.{w}": torch.randn(wide).to(expert["output_norm.bias"].dtype) for w in ("weight", "bias")
    }
    expert["fused_proj.weight"] = torch.randn(28, wide).to(expert["output_norm.bias"].dtype)
    return official | {"mot": mot, "state_fusion_action_expert": expert}


def equal(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)


def same(a: Official, b: Official) -> bool:
    return a.keys() == b.keys() and all(
        a[key].keys() == b[key].keys() and all(equal(x, b[key][name]) for name, x in a[key].items())
        if key in SECTIONS
        else a[key] == b[key]
        for key in a
    )


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    return json.loads(gzip.decompress(KEYS.read_bytes()))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a lab that has tiny files; the released code's table of sizes is tiny too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(official_config.PRESETS, "wan2_1_t2v", SIZE)
    return tmp_path


def released(folder: Path, official: Official, dims: str, changes: dict[str, Any] = SMALL) -> Run:
    """step.pt, stats.json and config.yaml as released; the run that the config describes."""
    fields = LIBERO if dims == "libero" else ROBOTWIN
    torch.save(official, folder / "step.pt")
    (folder / "stats.json").write_text(json.dumps(statistics(fields["state"], fields["action"])))
    written = config(fields)
    for path, value in changes.items():
        put(written, path, value)
    return read_config(write_config(folder / "config.yaml", written), recipe)


def convert(run: Run, out: str = "run", stats: str = "stats.json") -> Run:
    return from_official("light_wam", Path("step.pt"), run, Path(stats), "panda", Path(out))


def save_base(run: Run, official: Official, dtype: torch.dtype) -> Path:
    """The frozen video model where the run looks for it."""
    start = "mixtures.video."
    tensors = {
        name.removeprefix(start): x.to(dtype)
        for name, x in official["mot"].items()
        if "lora_" not in name and "wam_adapters" not in name
    }
    base = Path(run.policy.tuning.base)
    base.mkdir(parents=True, exist_ok=True)
    save_file(tensors, base / "diffusion_pytorch_model.safetensors")
    return base / "diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dims", ["libero", "robotwin"])
def test_every_published_tensor_goes_there_and_back(folder, published, dims, dtype):
    official = checkpoint(published, dims, dtype)
    assert {section: len(official[section]) for section in SECTIONS} == {
        "mot": 1443,
        "state_fusion_action_expert": 70,
        "proprio_encoder": 2,
    }
    stated = released(folder, official, dims)
    run = convert(stated)
    assert load_run(Path("run")) == run
    assert run.train.steps == 55_000 and run.policy == stated.policy and run.policy.size == SIZE
    assert load_normalizer(Path("run")).stats.keys() == {"panda"}
    kept = load_file("run/weights.safetensors")
    mot = {f"mot.{name}" for name in published["trainable_mot_keys"]}
    assert len(kept) == len(mot) + 72 and all(x.dtype == dtype for x in kept.values())

    save_base(run, official, torch.float32)  # as Wan's own is, whatever the released file's dtype
    assert to_official("light_wam", Path("run"), Path("back.pt")) == 55_000
    assert same(torch.load("back.pt", weights_only=True), official)
    assert not list(folder.rglob("*.tmp"))


def test_a_file_with_other_adapters(folder, published):
    """The released LIBERO runs are named query_adapted_layer5_02; what their files hold is not known."""
    official = with_adapters(checkpoint(published, "libero", torch.bfloat16), ADAPTERS)
    stated = released(
        folder, official, "libero", SMALL | {"model.wam_adapter.adapter_layer_indices": list(ADAPTERS)}
    )
    run = convert(stated)
    assert run.policy.adapters.layers == ADAPTERS
    save_base(run, official, torch.bfloat16)
    to_official("light_wam", Path("run"), Path("back.pt"))
    assert same(torch.load("back.pt", weights_only=True), official)


def test_a_plug_in_brings_its_released_files(monkeypatch):
    entry = EntryPoint("my_policy", "wamkit.policies.light_wam.convert:FORMAT", "wamkit.released")
    monkeypatch.setattr(policies, "entry_points", lambda group: [entry] if group == entry.group else [])
    assert list(policies.released_formats()) == [*policies.RELEASED, "my_policy"]
    assert conversion.released("my_policy") is FORMAT
    broken = EntryPoint("my_policy", "wamkit.nowhere:FORMAT", "wamkit.released")
    monkeypatch.setattr(policies, "entry_points", lambda group: [broken])
    with pytest.raises(BadInput, match=r"my_policy = wamkit.nowhere:FORMAT cannot be loaded"):
        conversion.released("my_policy")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.wam_adapter.adapter_layer_indices": [7, 16, 24]}, r"layers: \[7, 16, 24\] -> \[8, 16, 24\]"),
        ({"model.wam_adapter.lora_rank": 32}, r"policy.tuning.rank: 32 -> 64"),
        ({"model.wam_adapter.adapter_dim": 16}, r"policy.adapters.dim: 16 -> 12"),
        (
            {"model.state_fusion_action_expert_config.token_pooling_num_queries": 4},
            r"policy.expert.queries: 4 -> 16",
        ),
    ],
)
def test_a_config_that_contradicts_the_weights_is_refused(folder, published, change, message):
    stated = released(folder, checkpoint(published, "libero", torch.bfloat16), "libero", SMALL | change)
    with pytest.raises(
        BadInput, match=r"step.pt: contradicts what its run released_libero_spatial states"
    ) as error:
        convert(stated)
    assert not Path("run").exists()
    with pytest.raises(BadInput, match=message):
        raise error.value


def test_by_recipe_the_weights_decide(folder, published):
    """A recipe names what was published; the file shows its own structure, and keeps the recipe's alpha per rank."""
    official = with_adapters(checkpoint(published, "libero", torch.bfloat16), ADAPTERS)
    stated = released(folder, official, "libero").policy
    near = recipe("libero_spatial")
    run = convert(replace(near, policy=replace(near.policy, size=stated.size)))
    assert run.policy.adapters.layers == ADAPTERS
    assert (run.policy.expert.level_dim, run.policy.tuning.alpha) == (72, 128.0)


def test_the_size_of_the_preset_must_be_the_files(folder, published, monkeypatch):
    monkeypatch.setitem(official_config.PRESETS, "wan2_1_t2v", SIZES["1.3B"])
    stated = released(folder, checkpoint(published, "libero", torch.bfloat16), "libero")
    with pytest.raises(BadInput, match="attention width 24 is no multiple of the recipe's 128"):
        convert(stated)


def test_another_frozen_model_is_noticed_on_the_way_back(folder, published):
    official = checkpoint(published, "libero", torch.bfloat16)
    run = convert(released(folder, official, "libero"))
    other = official | {"mot": {name: x + 1 for name, x in official["mot"].items()}}
    save_base(run, other, torch.bfloat16)
    with pytest.raises(BadInput, match=r"run: its frozen video model is not the one that step.pt held"):
        to_official("light_wam", Path("run"), Path("back.pt"))
    assert not Path("back.pt").exists()


def test_what_does_not_fit_is_refused_and_nothing_is_left(folder, published):
    official = checkpoint(published, "libero", torch.bfloat16)
    run = released(folder, official, "libero")

    def refused(message: str, stats: str = "stats.json") -> None:
        with pytest.raises(BadInput, match=message):
            convert(run, stats=stats)
        assert not Path("run").exists() and not list(folder.rglob("*.tmp"))

    refused(r"stats.json.*no such file|\.: no such file; name the \*_dataset_stats.json", stats="")
    refused("no such file", stats="other.json")
    Path("robotwin.json").write_text(json.dumps(statistics(14, 14)))
    refused(
        r"robotwin.json has 14 action and 14 proprio dimensions, the recipe 7 and 8", stats="robotwin.json"
    )
    Path("config.json").write_text(json.dumps({"model": {}}))
    refused("config.json: not the statistics of a released checkpoint", stats="config.json")

    whole = Path("step.pt").read_bytes()
    Path("step.pt").write_bytes(whole[: len(whole) // 2])
    refused(r"step.pt: not a complete torch file")
    torch.save(checkpoint(published, "robotwin", torch.bfloat16), "step.pt")
    refused(r"step.pt: its policy has 14 action and 14 proprio dimensions, the recipe 7 and 8")
    torch.save({"state_dict": official["mot"], "step": 1, "torch_dtype": "torch.bfloat16"}, "step.pt")
    refused(r"step.pt: not a Light-WAM checkpoint; expected mot")
    torch.save({"mot": official["mot"], "proprio_encoder": {}, "step": 1, "torch_dtype": "x"}, "step.pt")
    refused(r"it is a Fast-WAM checkpoint: `wamkit convert fast-wam`")
    name = "mixtures.video.blocks.29.ffn.2.bias"
    torch.save(official | {"mot": official["mot"] | {name: torch.ones(3)}}, "step.pt")
    refused(r"1 of another shape: dit.blocks.29.ffn.2.bias \[3\] instead of \[24\]")
    torch.save(official | {"mot": {n: x for n, x in official["mot"].items() if n != name}}, "step.pt")
    refused(r"1 missing: dit.blocks.29.ffn.2.bias")
    torch.save(
        official | {"mot": official["mot"] | {"mixtures.video.blocks.29.new": torch.ones(1)}}, "step.pt"
    )
    refused(r"1 unexpected: dit.blocks.29.new")
    torch.save(official | {"step": Path("code")}, "step.pt")  # more than plain tensors: could run code
    refused(r"step.pt: holds more than tensors")


def test_a_converted_run_is_what_fine_tuning_begins_with(folder, published):
    official = checkpoint(published, "libero", torch.bfloat16)
    run = convert(released(folder, official, "libero"))
    save_base(run, official, torch.float32)
    policy = build_policy(run, load_normalizer(Path("run")))
    start_of(Path("run"), "kept", run, Path("tuned")).initialize(policy, run)
    found, expected = trained_tensors(policy), load_file("run/weights.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name].float()) for name in found)
    assert all(tensor.dtype == torch.float32 for tensor in found.values())
