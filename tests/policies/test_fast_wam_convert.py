"""Released Fast-WAM checkpoints: bit-exact both ways, LeRobot's names read, misfits explained; runs made of them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from wamkit_client.types import BadInput, Observation

from tests.policies import tiny_policy as light
from tests.policies.tiny_fast_wam import tiny_config, tiny_policy
from tests.policies.tiny_policy import SPEC, shaken, tiny_normalizer
from wamkit import load_policy
from wamkit.cli import main
from wamkit.config import Run, load_run
from wamkit.data.normalize import Normalizer
from wamkit.data.official_statistics import read_statistics
from wamkit.flow import Shift
from wamkit.infer.engine import Engine
from wamkit.policies.fast_wam.convert import FORMAT, SECTIONS
from wamkit.policies.fast_wam.policy import FastWAM
from wamkit.policies.light_wam import convert as light_convert
from wamkit.policies.light_wam.policy import LightWAM, LoRATuning
from wamkit.recipes import recipe
from wamkit.wan.checkpoint import load_wan
from wamkit.wan.dit import NO_ADAPTERS, WanDiT

GOLDEN = Path(__file__).parents[1] / "golden" / "fastwam_seed1"
TINY = tiny_config()
# the same but for everything that a file shows
OTHER = replace(
    TINY,
    size=replace(TINY.size, width=36, ffn=30, heads=3, layers=4, channels=16, text_dim=14, time_dim=20),
    action_width=28,
    action_ffn=20,
)


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Equal checkpoint dicts: names, facts, values and dtypes."""
    return (
        a.keys() == b.keys()
        and all(a[key] == b[key] for key in a.keys() - set(SECTIONS))
        and all(
            a[section].keys() == b[section].keys()
            and all(equal(x, b[section][name]) for name, x in a[section].items())
            for section in SECTIONS
        )
    )


def equal(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)


def filled(policy: FastWAM, seed: int) -> FastWAM:
    """No parameter has a special value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return policy


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("config", [TINY, OTHER])
def test_round_trip_is_bit_exact(config, dtype, tmp_path):
    policy, other = (filled(tiny_policy(config).to(dtype), seed) for seed in (1, 2))
    torch.save(FORMAT.write(policy, step=20_000), tmp_path / "a.pt")
    assert FORMAT.load(other, tmp_path / "a.pt") == 20_000
    assert all(equal(x, other.state_dict()[name]) for name, x in policy.state_dict().items())
    again = torch.load(tmp_path / "a.pt", weights_only=True)
    assert again["torch_dtype"] == str(dtype)
    assert same(FORMAT.write(other, step=20_000), again)


def test_structure_is_read_off_the_file():
    found = FORMAT.structure(FORMAT.write(tiny_policy(OTHER), step=0), replace(TINY, variant="idm"), "a.pt")
    assert found.config == replace(OTHER, variant="idm")
    assert found.dims == {"action_dim": SPEC.action_dim, "proprio_dim": SPEC.proprio_dim}


def test_a_checkpoint_of_the_released_code(tmp_path):
    """The committed vectors hold a whole small one."""
    tensors, about = (
        load_file(GOLDEN.with_suffix(".safetensors")),
        json.loads(GOLDEN.with_suffix(".json").read_text()),
    )
    official: dict[str, Any] = {"step": 7, "torch_dtype": "torch.float32"}
    for section in SECTIONS:
        start = f"weights.{section}."
        official[section] = {n.removeprefix(start): x for n, x in tensors.items() if n.startswith(start)}
    dims = about["config"]
    found = FORMAT.structure(
        official, replace(TINY, size=replace(TINY.size, head_dim=dims["head_dim"])), "golden.pt"
    )
    size = found.config.size
    assert (size.width, size.ffn, size.heads, size.layers) == (64, 96, 2, 3)
    assert (size.channels, size.text_dim, size.time_dim) == (dims["cin"], dims["text"], dims["freq"])
    assert (found.config.action_width, found.config.action_ffn) == (dims["a_hidden"], dims["a_ffn"])
    assert found.dims == {"action_dim": dims["adim"], "proprio_dim": dims["pdim"]}

    torch.save(official, tmp_path / "golden.pt")
    policy = FastWAM(found.config, replace(SPEC, **found.dims), tiny_normalizer())
    assert FORMAT.load(policy, tmp_path / "golden.pt") == 7
    assert same(FORMAT.write(policy, 7), official)


def lerobot_names(official: dict[str, Any], legacy: bool) -> dict[str, Tensor]:
    """As LeRobot's policy names the same tensors: today it puts the blocks of both models into layers."""
    names = {"model." + f"{section}.{key}": x for section in SECTIONS for key, x in official[section].items()}
    if legacy:
        return names
    moved = {}
    for name, x in names.items():
        parts = name.split(".")
        if parts[4:5] == ["blocks"]:  # model mot mixtures video blocks 3 ...
            parts = ["model", "mot", "layers", parts[5], "blocks", parts[3], *parts[6:]]
        moved[".".join(parts)] = x
    return moved


@pytest.mark.parametrize("legacy", [False, True])
def test_lerobots_names_are_the_same_policy(legacy, tmp_path):
    policy, other = (filled(tiny_policy(TINY).bfloat16(), seed) for seed in (1, 2))
    tensors = lerobot_names(FORMAT.write(policy, 0), legacy)
    assert ("model.mot.layers.2.blocks.action.norm3.bias" in tensors) != legacy
    save_file(tensors, tmp_path / "model.safetensors")
    for path in (tmp_path, tmp_path / "model.safetensors"):
        assert FORMAT.load(other, path) == 0
        assert all(equal(x, other.state_dict()[name]) for name, x in policy.state_dict().items())
    save_file(tensors | {"extra": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(BadInput, match="not a LeRobot fastwam policy: tensor 'extra' is unknown"):
        FORMAT.load(other, tmp_path)
    tensors.pop("model.proprio_encoder.weight")
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(BadInput, match=r"'model.proprio_encoder.weight' is unknown or missing"):
        FORMAT.load(other, tmp_path)


def drop(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda official: official["mot"].pop(name)


def put(name: str, shape: tuple[int, ...]) -> Callable[[dict[str, Any]], object]:
    return lambda official: official["mot"].update({name: torch.ones(shape)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("mixtures.video.blocks.1.ffn.2.bias"), r"1 missing: dit.blocks.1.ffn.2.bias"),
        (drop("mixtures.action.blocks.2.modulation"), r"1 missing: action.blocks.2.modulation"),
        (drop("mixtures.action.head.weight"), r"lacks 'action.head.weight'"),
        (lambda official: official["proprio_encoder"].pop("bias"), r"1 missing: proprio_encoder.bias"),
        (put("mixtures.video.head.extra", (2,)), r"1 unexpected: dit.head.extra"),
        (put("mixtures.video.blocks.x.bias", (2,)), r"1 unexpected: dit.blocks.x.bias"),
        (put("mixtures.future.head.weight", (2,)), r"'mot.mixtures.future.head.weight' is no part"),
        (
            put("mixtures.action.blocks.0.norm3.bias", (5,)),
            r"1 of another shape: .*norm3.bias \[5\] instead of \[24\]",
        ),
        (
            put("mixtures.video.blocks.0.self_attn.q.weight", (50, 32)),
            r"width 50 is no multiple of the recipe's 20",
        ),
        (lambda official: official.pop("proprio_encoder"), r"not a Fast-WAM checkpoint; expected mot"),
        (lambda official: official.pop("step"), r"not a Fast-WAM checkpoint; expected mot"),
        (lambda official: official.update(mot=torch.ones(1)), r"not a Fast-WAM checkpoint"),
        (lambda official: official.update(extra={}), r"not a Fast-WAM checkpoint"),
        (lambda official: official.update(step=Path("x")), r"more than tensors"),
    ],
)
def test_misfits_are_named(change, message, tmp_path):
    official = FORMAT.write(tiny_policy(TINY), step=1)
    change(official)
    torch.save(official, tmp_path / "a.pt")
    with pytest.raises(BadInput, match=message):
        FORMAT.load(tiny_policy(TINY), tmp_path / "a.pt")


def test_an_optimizer_in_the_file_is_passed_over(tmp_path):
    torch.save(FORMAT.write(tiny_policy(TINY), step=3) | {"optimizer": {}}, tmp_path / "a.pt")
    assert FORMAT.load(tiny_policy(TINY), tmp_path / "a.pt") == 3


def test_another_structure_is_named_leaf_by_leaf(tmp_path):
    torch.save(FORMAT.write(tiny_policy(OTHER), step=1), tmp_path / "a.pt")
    with pytest.raises(BadInput) as error:
        FORMAT.load(tiny_policy(TINY), tmp_path / "a.pt")
    for leaf in (
        "size.layers is 4 in the file and 3 in the policy",
        "action_width is 28",
        "action_ffn is 20",
    ):
        assert leaf in str(error.value)


def test_each_systems_file_is_told_from_the_others(tmp_path):
    fast, other = tiny_policy(TINY), light.tiny_policy(light.tiny_config(LoRATuning(rank=2, alpha=4.0)))
    torch.save(FORMAT.write(fast, 1), tmp_path / "fast.pt")
    torch.save(light_convert.FORMAT.write(other, 1), tmp_path / "light.pt")
    with pytest.raises(BadInput, match=r"light\.pt: not a Fast-WAM checkpoint; it is a Light-WAM checkpoint"):
        FORMAT.load(fast, tmp_path / "light.pt")
    with pytest.raises(BadInput, match=r"fast\.pt: not a Light-WAM checkpoint; it is a Fast-WAM checkpoint"):
        light_convert.FORMAT.load(other, tmp_path / "fast.pt")


def test_a_legacy_file_is_a_video_model(tmp_path):
    policy = tiny_policy(TINY)
    video = {f"dit.{name}": x for name, x in policy.dit.state_dict().items()}
    legacy = {"dit": policy.dit.state_dict(), "step": 1, "torch_dtype": "torch.float32"}
    torch.save(legacy, tmp_path / "a.pt")
    with pytest.raises(BadInput, match=r'video model only: save its "dit" alone and name that file'):
        FORMAT.load(policy, tmp_path / "a.pt")

    torch.save(torch.load(tmp_path / "a.pt", weights_only=True)["dit"], tmp_path / "dit.pt")  # as it says
    dit = WanDiT(TINY.size, NO_ADAPTERS)
    load_wan(dit, tmp_path / "dit.pt")
    assert all(equal(x, video[f"dit.{name}"]) for name, x in dit.state_dict().items())


# run directories, through the command line

RECIPE = recipe("metaworld3_fast_wam")
SIZES = {
    "size": replace(RECIPE.policy.size, width=24, ffn=20, heads=1, layers=2, time_dim=8, present_skip=False)
}
RELEASED = {
    "video_predicts": "velocity",
    "action_predicts": "velocity",
    "action_shift": Shift(),
    "sample_steps": 10,
}
SMALL = replace(
    RECIPE,
    policy=replace(RECIPE.policy, **SIZES, **RELEASED, action_width=16, action_ffn=12, variant="joint"),
    train=replace(RECIPE.train, steps=20_000),
)
FLAGS = {
    "fast-wam": shlex.split(
        "--policy.action-predicts velocity --policy.action-shift.train 5 --policy.action-shift.sample 5 "
        "--policy.sample-steps 10"
    ),
    "light-wam": [],
}
ROBOT = "metaworld_sawyer"


def statistics(run: Run) -> dict[str, Any]:
    """The official JSON, with nothing in it that is the same twice."""
    rng = np.random.default_rng(0)

    def section(dim: int, per: int) -> dict[str, Any]:
        names = ("min", "max", "mean", "std", "q01", "q99")
        values = {name: np.sort(rng.uniform(-2, 2, dim)) for name in names}
        values |= {"max": values["min"] + 3, "std": values["std"] + 3}
        whole = {f"global_{name}": v.tolist() for name, v in values.items()}
        return {"default": whole | {f"stepwise_{name}": [v.tolist()] * per for name, v in values.items()}}

    return {
        "action": section(run.data.action_dim, run.data.horizon),
        "state": section(run.data.proprio_dim, 1),
        "num_episodes": 40,
        "num_transition": 1234,
    }


@pytest.fixture
def released(tmp_path) -> Path:
    """A folder with a released checkpoint in bfloat16 and its statistics."""
    (tmp_path / "stats.json").write_text(json.dumps(statistics(SMALL)))
    policy = SMALL.policy.build(SMALL.data, tiny_normalizer())
    torch.save(FORMAT.write(shaken(policy).bfloat16(), step=20_000), tmp_path / "official.pt")
    return tmp_path


def convert(folder: Path, source: str, *more: str, model: str = "fast-wam", run: str = SMALL.recipe) -> int:
    flags = ["--recipe", run, "--stats", str(folder / "stats.json"), "--robot", ROBOT]
    flags += ["--policy.video-predicts", "velocity", "--policy.size.present-skip", "False", *FLAGS[model]]
    return main(["convert", model, str(folder / source), str(folder / "run"), *flags, *more])


def test_a_released_file_becomes_a_run_that_acts_and_comes_back_identical(released, capsys):
    before = (released / "official.pt").read_bytes()
    assert convert(released, "official.pt", "--policy.variant", "joint") == 0
    run = load_run(released / "run")
    normalization = replace(SMALL.normalization, statistics="file")
    assert run == replace(SMALL, normalization=normalization)
    assert main(["inspect", str(released / "run")]) == 0
    printed = capsys.readouterr().out
    assert "20000 steps" in printed and "40 episodes, 1234 steps" in printed

    modes = {"action": "min_max", "proprio": "min_max"}
    stats = read_statistics(released / "stats.json", SMALL.data).fields
    policy = SMALL.policy.build(SMALL.data, Normalizer.fit({ROBOT: stats}, modes)).eval()
    FORMAT.load(policy, released / "official.pt")
    for parameter in policy.parameters():
        parameter.data = parameter.data.bfloat16()  # a run acts in the precision of its file
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    views = dict.fromkeys(SMALL.data.views, image)
    seen = Observation(views, np.zeros(4, np.float32), "Open a drawer", ROBOT, noise_seed=3)
    chunk = load_policy(released / "run").act([seen])[0].actions
    assert chunk.shape == (SMALL.data.horizon, 4) and np.isfinite(chunk).all()
    engine = Engine(SMALL.policy.encoder(SMALL.data), policy, torch.device("cpu"))
    assert np.array_equal(chunk, engine.act([seen])[0].actions)

    words = ["convert", "fast-wam", str(released / "run"), str(released / "new" / "back.pt")]
    assert main([*words, "--to", "official"]) == 0
    first, back = (torch.load(released / name, weights_only=True) for name in ("official.pt", "new/back.pt"))
    assert same(first, back) and first["torch_dtype"] == "torch.bfloat16"
    assert (released / "official.pt").read_bytes() == before
    assert not list(released.rglob("*.tmp"))


def test_the_statistics_become_the_normaliser(released):
    fields = read_statistics(released / "stats.json", SMALL.data).fields
    saved = statistics(SMALL)
    normalizer = Normalizer.fit({ROBOT: fields}, {"action": "min_max", "proprio": "z_score"})
    one, two = normalizer.index([ROBOT]), normalizer.index([ROBOT, ROBOT])
    low, high = (torch.tensor([saved["action"]["default"][f"global_{x}"]]) for x in ("min", "max"))
    assert torch.allclose(normalizer.to_unit("action", torch.cat([low, high]), two)[0], -torch.ones(4))
    assert torch.allclose(normalizer.to_physical("action", torch.ones(1, 4), one), high)
    mean, std = (torch.tensor([saved["state"]["default"][f"global_{x}"]]) for x in ("mean", "std"))
    assert torch.allclose(normalizer.to_unit("proprio", mean + std, one), torch.ones(1, 4), atol=1e-5)
    assert Normalizer.from_json(normalizer.to_json(), "normalizer.json").stats[ROBOT]["action"].count == 1234
    assert (
        np.isnan(fields["action"].q50).all() and np.isnan(fields["action"].q01).all()
    )  # unknown, not invented


def test_lerobots_file_becomes_a_run(released):
    official = torch.load(released / "official.pt", weights_only=True)
    save_file(lerobot_names(official, legacy=False), released / "model.safetensors")
    assert convert(released, "model.safetensors") == 0
    assert load_run(released / "run").train.steps == RECIPE.train.steps  # the file does not tell
    main(["convert", "fast-wam", str(released / "run"), str(released / "b.pt"), "--to", "official"])
    back = torch.load(released / "b.pt", weights_only=True)
    assert back["step"] == 0 and same(back | {"step": official["step"]}, official)


def refused(capsys: pytest.CaptureFixture[str], status: int) -> str:
    assert status == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "Traceback" not in error
    return " ".join(error.split())


def test_what_does_not_fit_is_refused_and_nothing_written(released, capsys):
    run = released / "run"
    assert "2 action and 3 proprio dimensions, the recipe 4 and 4" in _refused_file(released, capsys, TINY)
    wide = replace(SMALL.policy, size=replace(SMALL.policy.size, channels=12))
    assert "takes 12 latent channels" in _refused_file(released, capsys, wide)
    words = ["convert", "fast-wam", str(released / "official.pt"), str(run)]
    assert "--recipe" in refused(capsys, main(words))
    error = refused(capsys, main([*words, "--recipe", "metaworld3"]))
    assert "recipe metaworld3 is of light-wam, not of fast-wam" in error
    error = refused(capsys, convert(released, "official.pt", model="light-wam", run="libero_spatial"))
    assert "stats.json has 4 action" in error
    assert "no such weight file" in refused(capsys, convert(released, "no.pt"))

    path, saved = released / "stats.json", statistics(SMALL)
    for change, message in (
        (lambda s: s.pop("state"), "'state'"),
        (lambda s: s["action"]["default"].pop("global_std"), "'global_std'"),
        (lambda s: s["action"]["default"]["global_min"].pop(), "inhomogeneous"),
        (lambda s: s["action"]["default"]["global_min"].__setitem__(0, float("nan")), "finite numbers"),
    ):
        broken = json.loads(json.dumps(saved))
        change(broken)
        path.write_text(json.dumps(broken))
        error = refused(capsys, convert(released, "official.pt"))
        assert "stats.json: not the statistics" in error and message in error
    path.write_text(json.dumps(saved)[:100])
    assert "not the statistics" in refused(capsys, convert(released, "official.pt"))
    path.unlink()
    assert "no such file" in refused(capsys, convert(released, "official.pt"))
    assert not run.exists() and not list(released.rglob("*.tmp"))


def _refused_file(released: Path, capsys: pytest.CaptureFixture[str], config: Any) -> str:
    """The error for a checkpoint of that config (in the dimensions of its own data)."""
    data = SPEC if config is TINY else SMALL.data
    policy = FastWAM(config, data, tiny_normalizer())
    torch.save(FORMAT.write(policy, 1), released / "other.pt")
    heads = ["--policy.size.head-dim", str(config.size.head_dim)]
    return refused(capsys, convert(released, "other.pt", *heads))


def test_the_shift_travels_with_the_run_and_is_told(released, capsys):
    """Files trained with other shifts look alike. Fails when it is a constant of the code, or nobody is told."""
    more = ["--policy.action-shift.train", "1", "--policy.action-shift.sample", "1"]
    assert convert(released, "official.pt", *more) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert (
        f"from recipe {SMALL.recipe}: shift of flow times: chunks 1 in training and 1 in sampling, video 5"
        in printed
    )
    assert load_run(released / "run").policy.action_shift == Shift(train=1.0, sample=1.0)
    image = np.zeros((64, 64, 3), np.uint8)
    views = dict.fromkeys(SMALL.data.views, image)
    seen = Observation(views, np.zeros(4, np.float32), "Open a drawer", ROBOT, noise_seed=3)
    chunk = load_policy(released / "run").act([seen])[0].actions
    (released / "run").rename(released / "unshifted")
    assert convert(released, "official.pt") == 0
    other = load_policy(released / "run").act([seen])[0].actions
    assert np.abs(chunk - other).max() > 1e-3


@pytest.mark.parametrize("mode", ["idm", "first_frame"])
def test_optional_idm_is_converted_both_ways(released, mode):
    """The released file has no tensors of its own; the mode is chosen when acting."""
    more = ["--policy.variant", "optional_idm", "--policy.mode", mode]
    assert convert(released, "official.pt", *more) == 0
    run = load_run(released / "run")
    assert (run.policy.variant, run.policy.mode) == ("optional_idm", mode)
    words = ["convert", "fast-wam", str(released / "run"), str(released / "back.pt"), "--to", "official"]
    assert main(words) == 0
    first, back = (torch.load(released / name, weights_only=True) for name in ("official.pt", "back.pt"))
    assert same(first, back)


def test_what_exists_is_not_overwritten(released, capsys):
    assert convert(released, "official.pt") == 0
    weights = (released / "run" / "weights.safetensors").read_bytes()
    assert "run exists" in refused(capsys, convert(released, "official.pt"))
    assert (released / "run" / "weights.safetensors").read_bytes() == weights
    words = [str(released / "run"), str(released / "official.pt"), "--to", "official"]
    assert "official.pt exists" in refused(capsys, main(["convert", "fast-wam", *words]))
    words[1] = str(released / "light.pt")
    error = refused(capsys, main(["convert", "light-wam", *words]))
    assert "is of fast-wam, not of light-wam" in error
    (released / "run" / "weights.safetensors").unlink()
    assert "weights.safetensors" in refused(capsys, main(["convert", "fast-wam", *words]))
    assert not (released / "light.pt").exists()


def test_light_wam_goes_the_same_way(tmp_path, monkeypatch):
    """Its run holds what was trained; the frozen video model is read where the recipe says, in its dtype."""
    monkeypatch.chdir(tmp_path)
    run = recipe("libero_spatial")
    config = replace(
        run.policy,
        codec=light.tiny_config().codec,
        text=light.tiny_config().text,
        size=replace(run.policy.size, width=24, ffn=20, heads=1, layers=3, text_dim=16, time_dim=8),
        tuning=LoRATuning(rank=2, alpha=4.0),
        adapters=replace(run.policy.adapters, layers=(0, 1), dim=6),
        expert=replace(run.policy.expert, queries=3, level_dim=16, trunk_dim=20, trunk_blocks=1, step_dim=8),
    )
    policy = shaken(LightWAM(config, run.data, tiny_normalizer())).bfloat16()
    official = light_convert.FORMAT.write(policy, step=60_000)
    torch.save(official, tmp_path / "official.pt")
    (tmp_path / "stats.json").write_text(json.dumps(statistics(run)))
    assert convert(tmp_path, "official.pt", model="light-wam", run="libero_spatial") == 0
    assert load_run(tmp_path / "run").train.steps == 60_000
    kept = load_file(tmp_path / "run" / "weights.safetensors")
    assert kept.keys() == {name for name, p in policy.named_parameters() if p.requires_grad}

    frozen = {name: p for name, p in policy.dit.state_dict().items() if "lora_" not in name}
    base = tmp_path / run.policy.tuning.base
    base.mkdir(parents=True)
    save_file(
        {name: p for name, p in frozen.items() if not name.startswith("adapters.")},
        base / "diffusion_pytorch_model.safetensors",
    )
    assert main(["convert", "light-wam", "run", "back.pt", "--to", "official"]) == 0
    back = torch.load("back.pt", weights_only=True)
    assert back.keys() == official.keys() and back["step"] == 60_000
    for section in light_convert.SECTIONS:
        assert back[section].keys() == official[section].keys()
        assert all(equal(back[section][name], x) for name, x in official[section].items())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"video_predicts": "clean"}, "policy.video_predicts is clean: released code knows velocity"),
        ({"action_predicts": "clean"}, "policy.action_predicts is clean: released code knows velocity"),
        (
            {"size": replace(TINY.size, present_skip=True)},
            "policy.size.present_skip is True: released code knows False",
        ),
    ],
)
def test_what_released_code_does_not_know_is_neither_written_nor_read(
    changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(BadInput, match=named):
        FORMAT.write(tiny_policy(replace(TINY, **changes)), step=1)
    with pytest.raises(BadInput, match=f"a.pt: {named}"):
        FORMAT.structure(FORMAT.write(tiny_policy(TINY), step=1), replace(TINY, **changes), "a.pt")
