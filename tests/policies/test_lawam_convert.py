"""Released LaWAM files, every published tensor of all three layouts: names and shapes at full size, bytes at small
sizes; runs of both stages made of them, and back; misfits explained."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from wamkit_client.types import BadInput, Observation

from tests.policies import lawam_released as tiny
from tests.policies.lawam_released import COPY, EMBEDDING, ROBOT, Tensors, lerobot, lightning, same
from tests.policies.tiny_qwen import tiny_processor
from wamkit import load_policy
from wamkit.cli import main
from wamkit.commands import converting
from wamkit.config import Run, load_normalizer, load_provenance, load_run
from wamkit.convert import released as conversion
from wamkit.convert.released import from_official, to_official
from wamkit.data.normalize import Normalizer, Stats
from wamkit.data.official_statistics import Statistics
from wamkit.policies.fast_wam import convert as fast_convert
from wamkit.policies.lawam.convert import FORMAT, POLICY_ENVELOPE, WORLD_ENVELOPE, WORLD_FORMAT
from wamkit.policies.lawam.features import BlockFeaturesConfig, canonical
from wamkit.policies.lawam.policy import LaWAMConfig
from wamkit.policies.lawam.released_statistics import read_statistics, unit_statistics
from wamkit.policies.lawam.world import LaWAMWorldConfig
from wamkit.policies.light_wam import convert as light_convert
from wamkit.recipes import earlier, recipe


def normalizer(proprio_dim: int) -> Normalizer:
    stats = {"action": Stats.of(np.zeros((2, 7))), "proprio": Stats.of(np.zeros((2, proprio_dim)))}
    return Normalizer.fit({ROBOT: stats}, {"action": "min_max", "proprio": "min_max"})


def test_names_and_shapes_at_full_size():
    """1,419 tensors, 2,555,179,360 parameters; their structure is the defaults."""
    with torch.device("meta"):
        policy = LaWAMConfig().build(tiny.DATA, normalizer(0))
        world = LaWAMWorldConfig().build(tiny.WORLD_DATA, normalizer(8))
        dino = LaWAMWorldConfig().features.build().model.state_dict()
    own = POLICY_ENVELOPE.official(policy.state_dict())["policy_backend"]
    copied = {f"features.{canonical(name)}": x for name, x in dino.items()}
    lam = WORLD_ENVELOPE.official({**world.state_dict(), **copied})["lam"]
    made = {f"lam.{name}": x for name, x in lam.items()} | own
    expected = tiny.published()
    assert {f"policy_backend.{name}": tuple(x.shape) for name, x in made.items()} == expected
    counts = tiny.KEYS["counts"]
    assert len(expected) == 1419 == sum(group["tensors"] for group in counts.values())
    assert sum(map(math.prod, expected.values())) == 2_555_179_360
    for group, count in counts.items():
        inside = [x for name, x in made.items() if name == group or name.startswith(f"{group}.")]
        assert {"tensors": len(inside), "params": sum(x.numel() for x in inside)} == count

    frozen = [name for name, p in policy.named_parameters() if not p.requires_grad]
    assert frozen == ["prior.text.embed_tokens.weight"]
    official = {"policy_backend": own, "lam": lam, "step": 0}
    assert FORMAT.structure(official, LaWAMConfig(), "a").config == LaWAMConfig()
    assert WORLD_FORMAT.structure(official, LaWAMWorldConfig(), "a").config == LaWAMWorldConfig()
    for name in ("lawam_pretrain", "libero_lawam", "robotwin_lawam"):
        (stage1,) = earlier(name)
        assert FORMAT.structure(official, recipe(name).policy, "a").config == recipe(name).policy
        assert WORLD_FORMAT.structure(official, stage1.policy, "a").config == stage1.policy


def test_a_file_of_full_size_fills_the_policy(tmp_path: Path):
    """All its tensors, each of one number seen everywhere; none is cast, and only the decoder is in both stages."""
    path = tmp_path / "pytorch_model.pt"
    torch.save(
        {
            name: torch.ones((), dtype=tiny.dtype(name)).expand(shape)
            for name, shape in tiny.published().items()
        },
        path,
    )
    with torch.device("meta"):
        policy = LaWAMConfig().build(tiny.DATA, normalizer(0))
    assert FORMAT.load(policy, path) == 0
    for name, tensor in policy.state_dict().items():
        assert tensor.dtype == (
            torch.bfloat16 if name.startswith(("prior.text", "prior.visual")) else torch.float32
        )
        assert not tensor.is_meta and tensor.stride() == (0,) * tensor.dim()
    assert sum(p.numel() for p in policy.parameters() if p.requires_grad) == 1_747_206_144
    assert sum(p.numel() for p in policy.parameters()) + 85_660_416 == 2_144_031_488


@pytest.fixture(scope="module")
def tensors() -> Tensors:
    return tiny.checkpoint()


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tensors: Tensors) -> Path:
    """The working folder of a lab with a released policy, its statistics and the public models."""
    monkeypatch.chdir(tmp_path)
    policy, world = tiny.runs()
    monkeypatch.setattr(conversion, "earlier", lambda name: (world,) if name == policy.recipe else ())
    tiny.local_folders(tmp_path, tensors)
    Path("stats.json").write_text(json.dumps(tiny.statistics()))
    return tmp_path


def convert(file: str, out: str = "run", run: Run | None = None, stats: str = "stats.json") -> Run:
    return from_official("lawam", Path(file), run or tiny.runs()[0], Path(stats), ROBOT, Path(out))


def convert_world(file: str, out: str = "world", stats: str = ".") -> Run:
    return from_official("lawam_world", Path(file), tiny.runs()[1], Path(stats), ROBOT, Path(out))


def test_a_policy_becomes_the_runs_of_both_stages_and_comes_back(lab: Path, tensors: Tensors):
    """Through the torch file, and through LeRobot's."""
    torch.save(tensors, "pytorch_model.pt")
    run = convert("pytorch_model.pt")
    assert run == load_run(Path("run")) and run.policy == replace(tiny.CONFIG, world="run_world")
    stage1 = load_run(Path("run_world"))
    expected = tiny.runs()[1]
    assert stage1 == replace(expected, normalization=replace(expected.normalization, statistics="file"))

    kept, begun = (load_file(f"{name}/weights.safetensors") for name in ("run", "run_world"))
    assert {name.partition(".")[0] for name in kept} == {"prior", "pool", "world", "expert"}
    assert {name.partition(".")[0] for name in begun} == {"inverse", "bottleneck", "world", "state_head"}
    assert len(kept) + len(begun) == 1419 - 211 - 1 + 128  # LaWM is in both
    assert all(torch.equal(x, begun[name]) for name, x in kept.items() if name.startswith("world."))
    teacher = run.policy.stage1(run.data).teacher
    assert torch.equal(teacher.bottleneck.mu.weight, tensors["policy_backend.lam.vq.mu.weight"])
    stats = load_normalizer(Path("run")).stats[ROBOT]["action"]
    assert stats.max.tolist() == tiny.statistics()["franka"]["action"]["max"] and stats.count == 273_465
    assert load_provenance(Path("run"))["dataset"]["episodes"] == 1693

    assert to_official("lawam", Path("run"), Path("back.pt")) == 0
    assert same(torch.load("back.pt", weights_only=True), tensors)
    to_official("lawam", Path("run"), Path("model.safetensors"))
    assert same(load_file("model.safetensors"), lerobot(tensors))
    convert("model.safetensors", "again")
    to_official("lawam", Path("again"), Path("again.pt"))
    assert same(torch.load("again.pt", weights_only=True), tensors)
    assert not list(lab.rglob("*.tmp"))


def test_a_converted_policy_acts(lab: Path, tensors: Tensors):
    """In the precision that its run says: the file has two."""
    torch.save(tensors, "pytorch_model.pt")
    tiny_processor(lab / "qwen")
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    seen = Observation(
        dict.fromkeys(tiny.DATA.views, image), np.zeros(0, np.float32), "Open a drawer", ROBOT, 3
    )
    run, chunks = tiny.runs()[0], []
    for precision in ("bf16", "fp32"):
        convert("pytorch_model.pt", precision, replace(run, eval=replace(run.eval, precision=precision)))
        chunks.append(load_policy(precision).act([seen])[0].actions)
    assert chunks[0].shape == (8, 7) and np.isfinite(chunks).all()
    assert np.abs(chunks[0] - chunks[1]).max() < 0.1 * np.abs(chunks[1]).max()
    convert("pytorch_model.pt")
    with pytest.raises(BadInput, match=r"weights of torch.bfloat16, torch.float32; say what to act in"):
        load_policy("run")


@pytest.mark.parametrize("inside", ["", "model."])
def test_the_world_model_alone(lab: Path, tensors: Tensors, inside: str):
    """Lightning's file, with objects that are not read; DINOv3 of any version of transformers."""
    tiny.local_folders(lab, tensors, inside)
    beside = {"hyper_parameters": argparse.Namespace(optimizer=torch.optim.AdamW), "epoch": 3}
    torch.save(lightning(tensors, global_step=100_000, **beside), "lam.ckpt")
    run = convert_world("lam.ckpt")
    assert run == load_run(Path("world")) and run.train.steps == 100_000
    unit = load_normalizer(Path("world"))
    states = torch.rand(2, 8)
    assert torch.equal(unit.to_unit("proprio", states, unit.index([ROBOT] * 2)), states)
    assert to_official("lawam_world", Path("world"), Path("back.ckpt")) == 100_000
    back = torch.load("back.ckpt", weights_only=True)
    assert back.keys() == {"state_dict", "global_step"} and back["global_step"] == 100_000
    assert same(back["state_dict"], lightning(tensors)["state_dict"])


def test_a_file_with_other_names_of_dinov3_is_read_alike(lab: Path, tensors: Tensors):
    other = {name.replace(f"{COPY}layer.", f"{COPY}model.layer."): x for name, x in tensors.items()}
    torch.save(lightning(other), "lam.ckpt")
    assert convert_world("lam.ckpt").train.steps == tiny.runs()[1].train.steps  # the file does not tell
    to_official("lawam_world", Path("world"), Path("back.ckpt"))
    assert same(torch.load("back.ckpt", weights_only=True)["state_dict"], lightning(tensors)["state_dict"])


def test_what_lies_beside_a_run_must_be_what_its_file_held(lab: Path, tensors: Tensors):
    torch.save(tensors, "pytorch_model.pt")
    copied, embedding = f"{COPY}layer.3.mlp.up_proj.bias", EMBEDDING
    tiny.local_folders(lab, tensors | {copied: tensors[copied] + 1})
    with pytest.raises(
        BadInput,
        match=r"1 of 211 tensors of DINOv3 in lam.vision_encoder.model are not those of the local folder "
        r"\(features.layer.3.mlp.up_proj.bias\); .* as policy.features.path",
    ):
        convert("pytorch_model.pt")
    assert not Path("run").exists() and not Path("run_world").exists()
    tiny.local_folders(lab, tensors)
    convert("pytorch_model.pt")
    tiny.local_folders(lab, tensors | {embedding: tensors[embedding] + 1})
    with pytest.raises(
        BadInput, match=r"run: its frozen token embedding is not the one that pytorch_model.pt"
    ):
        to_official("lawam", Path("run"), Path("back.pt"))
    tiny.local_folders(
        lab, tensors | {embedding: tensors[embedding].float()}
    )  # the same numbers, stored wider
    to_official("lawam", Path("run"), Path("back.pt"))
    assert same(torch.load("back.pt", weights_only=True), tensors)


def test_on_the_command_line(
    lab: Path, tensors: Tensors, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    run, stage1 = tiny.runs()
    monkeypatch.setattr(converting, "recipe", {run.recipe: run, stage1.recipe: stage1}.__getitem__)
    torch.save(tensors, "pytorch_model.pt")
    torch.save(lightning(tensors), "lam.ckpt")
    words = ["convert", "lawam", "pytorch_model.pt", "run", "--recipe", run.recipe, "--stats", "stats.json"]
    assert main(words) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "run_world: done, the stage that it started from" in printed
    assert "Not in any file, taken from recipe tiny_lawam: heads of the world model (16)" in printed
    assert main(["convert", "lawam", "run", "back.pt", "--to", "official"]) == 0
    assert same(torch.load("back.pt", weights_only=True), tensors)

    assert main(["convert", "lawam-world", "lam.ckpt", "world", "--recipe", stage1.recipe]) == 0
    assert "statistics of states: they are taken as they are" in " ".join(capsys.readouterr().out.split())
    assert main(["convert", "lawam-world", "lam.ckpt", "other", "--recipe", run.recipe]) == 2
    assert "recipe tiny_lawam is of lawam, not of lawam-world" in " ".join(capsys.readouterr().err.split())
    assert main(["convert", "lawam-world", "run", "a.ckpt", "--to", "official"]) == 2
    assert "run is of lawam, not of lawam-world" in " ".join(capsys.readouterr().err.split())


def test_what_exists_is_not_overwritten(lab: Path, tensors: Tensors):
    torch.save(tensors, "pytorch_model.pt")
    Path("run_world").mkdir()
    with pytest.raises(BadInput, match="run_world exists"):
        convert("pytorch_model.pt")
    assert not Path("run").exists()
    Path("run_world").rename("elsewhere")
    with pytest.raises(
        BadInput, match="recipe other: no recipe of lawam-world is known that comes before it"
    ):
        convert("pytorch_model.pt", run=replace(tiny.runs()[0], recipe="other"))


def test_a_robot_that_the_run_does_not_know_is_refused(lab: Path, tensors: Tensors):
    torch.save(tensors, "pytorch_model.pt")
    run, _ = tiny.runs()
    other = replace(run.policy, robots=(("another_robot", 3),))
    with pytest.raises(BadInput, match=r"robot 'panda' has no row"):
        convert("pytorch_model.pt", run=replace(run, policy=other))


# errors, on files of fewer layers

LAM = "policy_backend.lam."
DEPTHS = {
    "vlm.model.visual.blocks.": 1,
    "vlm.model.visual.deepstack_merger_list.": 1,
    "vlm.model.language_model.layers.": 1,
    "lam.vision_encoder.model.layer.": 2,
    "lam.encoder.QFormer.layers.": 1,
    "lam.decoder.dec_layers.": 1,
    "flow.DiT.transformer_blocks.": 4,
}


def sections(tensors: Tensors) -> dict[str, Any]:
    """The checkpoint dict of a file, without the file."""
    lam = {name.removeprefix(LAM): x for name, x in tensors.items() if name.startswith(LAM)}
    own = {
        name.removeprefix("policy_backend."): x
        for name, x in tensors.items()
        if not name.startswith(LAM) or name.startswith(f"{LAM}decoder.")
    }
    return {"policy_backend": own, "lam": lam, "step": 0}


@pytest.fixture(scope="module")
def shallow(tensors: Tensors) -> Tensors:
    """A file with the first layers only."""

    def first(name: str) -> bool:
        name = name.removeprefix("policy_backend.")
        stacks = [(stack, depth) for stack, depth in DEPTHS.items() if name.startswith(stack)]
        return all(int(name.removeprefix(stack).partition(".")[0]) < depth for stack, depth in stacks)

    return {name: x for name, x in tensors.items() if first(name)}


def fill(path: str, shallow: Tensors) -> None:
    """Networks of the structure of `shallow` take the tensors of a file, as conversion lets them."""
    official, found = sections(shallow), FORMAT.read(Path(path))
    recipe = replace(tiny.CONFIG, prior=replace(tiny.CONFIG.prior, vision_taps=(0,)))
    stage1 = WORLD_FORMAT.structure(official, tiny.runs()[1].policy, "shallow").config
    config = FORMAT.structure(official, replace(recipe, features=stage1.features), "shallow").config
    with torch.device("meta"):
        world = stage1.build(tiny.WORLD_DATA, normalizer(8))
        policy = config.build(tiny.DATA, normalizer(0))
    WORLD_FORMAT.fill(world, found, path)
    FORMAT.fill(policy, found, path)


def drop(start: str) -> Callable[[Tensors], Tensors]:
    full = f"policy_backend.{start}"
    return lambda tensors: {
        name: x for name, x in tensors.items() if name != full and not name.startswith(f"{full}.")
    }


def put(name: str, *shape: int) -> Callable[[Tensors], Tensors]:
    return lambda tensors: tensors | {f"policy_backend.{name}": torch.ones(shape)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            drop("vlm.model.language_model.norm.weight"),
            r"lacks 'prior.text.norm.weight' in policy_backend.vlm$",
        ),
        (
            drop("vlm.model.visual.merger"),
            r"lacks 'prior.visual.merger.linear_fc1.weight' in policy_backend.vlm$",
        ),
        (drop("vlm.model.visual.merger.norm"), r"2 missing in policy_backend.vlm: prior.visual.merger.norm"),
        (drop("vlm_to_lam"), r"19 missing in policy_backend.vlm_to_lam: pool.query"),
        (drop("flow"), r"lacks 'expert.trunk.last.weight' in policy_backend.flow$"),
        (drop("flow.cfg_embeddings"), r"1 missing in policy_backend.flow: expert.null_subgoal"),
        (drop("act_query"), r"1 missing in policy_backend.act_query: prior.latent_queries"),
        (drop("flow_action_query"), r"1 missing in policy_backend.flow_action_query: prior.action_queries"),
        (drop("lam.encoder"), r"lacks 'inverse.layers.0.weight' in lam.encoder$"),
        (
            drop("lam.encoder.out_proj"),
            r"2 missing in lam.encoder: inverse.output.weight, inverse.output.bias",
        ),
        (drop("lam.decoder"), r"lacks 'world.input.weight' in lam.decoder$"),
        (drop("lam.state_decoder"), r"lacks 'state_head.state.0.weight' in lam.state_decoder$"),
        (drop("lam.vq"), r"6 missing in lam.vq: bottleneck.norm.weight"),
        (
            drop("lam.vision_encoder.model.norm"),
            r"2 of 41 tensors of DINOv3 in lam.vision_encoder.model are not those",
        ),
        (drop("lam"), r"not a LaWAM checkpoint; expected policy_backend, lam"),
        (
            put("lam.vision_encoder.model.extra", 2),
            r"1 unexpected in lam.vision_encoder.model: features.extra",
        ),
        (
            put("lam.vq.extra.weight", 2),
            r"'lam.vq.extra.weight' is no part of a LaWAM world model checkpoint",
        ),
        (put("flow.extra", 2), r"'policy_backend.flow.extra' is no part of a LaWAM checkpoint"),
        (put("vlm.lm_head.weight", 2), r"'policy_backend.vlm.lm_head.weight' is no part"),
        (put("vlm.model.visual.extra", 2), r"1 unexpected in policy_backend.vlm: prior.visual.extra"),
        (
            put("act_query", 8, 5),
            r"1 of another shape in .*act_query: prior.latent_queries \[8, 5\] instead of",
        ),
        (put("lam.decoder.last_ln.weight", 5), r"of another shape in lam.decoder: world.norm.weight \[5\]"),
        (
            put("flow.DiT.transformer_blocks.6.ff.net.2.bias", 64),
            r"a.pt: policy.expert.layers: expected a multiple of 4, at least 4, got 5",
        ),
        (put("flow.DiT.proj_out_2.weight", 64), r"expert.trunk.last.weight \[64\] instead of \[64, 64\]"),
    ],
)
def test_misfits_are_named_with_their_group(
    change: Callable[[Tensors], Tensors],
    message: str,
    shallow: Tensors,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    tiny.local_folders(tmp_path, shallow, size=replace(tiny.DINO, blocks=2))
    torch.save(change(shallow), "a.pt")
    with pytest.raises(BadInput, match=message) as error:
        fill("a.pt", shallow)
    assert str(error.value).startswith("a.pt: ")
    torch.save(shallow, "a.pt")
    fill("a.pt", shallow)


def refused(path: Path, message: str, form: Any = FORMAT) -> None:
    with pytest.raises(BadInput, match=message):
        form.read(path)


def test_each_systems_file_is_told_from_the_others(tmp_path: Path, shallow: Tensors):
    policy, world, light, fast = (tmp_path / f"{name}.pt" for name in ("policy", "world", "light", "fast"))
    torch.save(shallow, policy)
    torch.save(lightning(shallow), world)
    fast_wam = {"mot": {}, "proprio_encoder": {}, "step": 1, "torch_dtype": "torch.float32"}
    torch.save(fast_wam, fast)
    torch.save(fast_wam | {"state_fusion_action_expert": {}}, light)
    refused(
        world,
        r"world.pt: not a LaWAM checkpoint; it is a world model without a policy: `wamkit convert lawam-w",
    )
    refused(
        policy, r"not a LaWAM world model checkpoint; it is a policy .* `wamkit convert lawam`", WORLD_FORMAT
    )
    for form in (FORMAT, WORLD_FORMAT):
        refused(light, r"light.pt: not a LaWAM.* checkpoint; it is a Light-WAM checkpoint", form)
        refused(fast, r"fast.pt: not a LaWAM.* checkpoint; it is a Fast-WAM checkpoint", form)
    for other in (light_convert.FORMAT, fast_convert.FORMAT):
        refused(
            policy, r"policy.pt: not a .* checkpoint; it is a LaWAM checkpoint: `wamkit convert lawam`", other
        )


def test_files_that_are_no_checkpoints(tmp_path: Path, shallow: Tensors):
    path = tmp_path / "a.pt"
    torch.save({"state_dict": {"lam.vq.mu.bias": argparse.Namespace()}}, path)
    refused(path, r"a.pt: expected tensors by name in state_dict", WORLD_FORMAT)
    torch.save(lightning(shallow, global_step=argparse.Namespace()), path)
    refused(path, r"a number in global_step; got something else", WORLD_FORMAT)
    torch.save({"state_dict": {"encoder.project_in.weight": torch.ones(2, 2)}}, path)
    refused(path, r"not a LaWAM world model checkpoint; expected lam .*'encoder'", WORLD_FORMAT)
    torch.save(shallow | {"extra.weight": torch.ones(1)}, path)
    refused(path, r"not a LaWAM checkpoint; expected policy_backend, lam .*'extra'")
    torch.save([1, 2], path)
    refused(path, r"not a LaWAM checkpoint; expected policy_backend, lam .* got list")
    path.write_bytes(path.read_bytes()[:100])
    refused(path, r"a.pt: not a complete torch file")
    refused(tmp_path / "none.pt", r"none.pt: no such weight file")


def test_a_recipe_of_other_features_cannot_take_a_file(shallow: Tensors):
    recipe = tiny.runs()[1].policy
    with pytest.raises(BadInput, match=r"a: its features are DINOv3's, the recipe's are block"):
        WORLD_FORMAT.structure(sections(shallow), replace(recipe, features=BlockFeaturesConfig()), "a")
    with pytest.raises(
        BadInput, match=r"a: its world model takes features of 48 numbers per patch, .* have 768"
    ):
        FORMAT.structure(sections(shallow), replace(tiny.CONFIG, features=LaWAMConfig().features), "a")


def test_statistics(tmp_path: Path):
    path = tmp_path / "stats.json"

    def read(saved: Any, robot: str = ROBOT) -> Statistics:
        path.write_text(json.dumps(saved))
        return read_statistics(path, tiny.DATA, robot)

    def wrong(message: str, saved: Any) -> None:
        with pytest.raises(BadInput, match=message):
            read(saved)

    saved = tiny.statistics()
    found = read(saved)
    assert (found.episodes, found.steps, found.fields["proprio"].mean.size) == (1693, 273_465, 0)
    assert found.fields["action"].std.tolist() == saved["franka"]["action"]["std"]
    assert np.isnan(found.fields["action"].q99).all()
    two = tiny.statistics(tag="other") | {"panda": {**saved["franka"], "num_trajectories": 5}}
    assert read(two).episodes == 5
    wrong(r"has the robots \['franka', 'other'\], not 'panda'", saved | tiny.statistics(tag="other"))
    wrong(r"stats.json: franka has 16 action dimensions, the recipe 7", tiny.statistics(16))
    wrong(
        r"not the statistics of a released checkpoint of LaWAM \('num_trajectories'\)", {"a": {"action": {}}}
    )
    for name, value in (("min", [1.0]), ("max", [float("nan")] * 7), ("mean", None), ("std", "x")):
        wrong(
            "not the statistics",
            {"a": {**saved["franka"], "action": saved["franka"]["action"] | {name: value}}},
        )
    wrong(
        "maximum below its minimum",
        {"a": {**saved["franka"], "action": saved["franka"]["action"] | {"max": [-9] * 7}}},
    )
    wrong("not the statistics", [1])
    path.unlink()
    with pytest.raises(BadInput, match=r"no such file; name the dataset_statistics\.json"):
        read_statistics(path, tiny.DATA, ROBOT)
    with pytest.raises(BadInput, match="no statistics were released with LaWAM's world model; omit --stats"):
        unit_statistics(path, tiny.WORLD_DATA, ROBOT)
