"""The frozen half of LaWAM's policy, from views of any size and instructions to what the networks take."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from wamkit_client.types import BadInput

from tests.policies.test_lawam_features import SIZE as DINO
from tests.policies.test_lawam_features import tiny_dinov3
from tests.policies.tiny_lawam_world import CONFIG, PAIR_RUN, PAIRS, tiny_world
from tests.policies.tiny_qwen import SIZE, tiny_prompt, tiny_qwen
from tests.tiny_dataset import write
from wamkit.config import save_run
from wamkit.data.cache import Cache, fill
from wamkit.data.clips import Clips
from wamkit.data.joined import open_datasets
from wamkit.data.samples import Fresh, read_all
from wamkit.io.weights import save_weights
from wamkit.policies.lawam.encoder import LaWAMEncoder, encoder_facts, example_inputs
from wamkit.policies.lawam.features import BlockFeaturesConfig, DINOv3Config
from wamkit.policies.lawam.images import squeezed
from wamkit.policies.lawam.prior import FromQwen, FromScratch, Prior
from wamkit.policies.lawam.prompt import HashedPrompt, HashedPromptConfig
from wamkit.policies.lawam.stage1 import Stage1
from wamkit.tree import tree_leaves, tree_map
from wamkit.types import Clip, encode

PROMPT = HashedPromptConfig(length=40)


@pytest.fixture(scope="module")
def stage1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    save_run(PAIR_RUN, folder)
    save_weights(folder, tiny_world().state_dict())
    return folder


def loaded(world: Path, **changes: Any) -> LaWAMEncoder:
    given = {"features": CONFIG.features, "latent": CONFIG.latent, "prompt": PROMPT, "data": PAIRS} | changes
    features, data = given["features"], given["data"]
    stage1 = Stage1(world, features, given["latent"], features.grid(data.view_height, data.view_width))
    return LaWAMEncoder(features.load(), given["prompt"].load(data), stage1, data)


def views(frames: int, batch: int = 1) -> dict[str, Tensor]:
    """Cameras of several shapes; the first is wider than 4:3."""
    return {
        "front": torch.randint(256, (batch, frames, 36, 64, 3), dtype=torch.uint8),
        "wrist": torch.randint(256, (batch, frames, 40, 40, 3), dtype=torch.uint8),
    }


def test_a_training_sample(stage1: Path) -> None:
    encoder, seen = loaded(stage1), views(2)
    prepare = pickle.loads(pickle.dumps(encoder.prepare))
    made = encoder.frames(prepare(seen, torch.Generator()))
    assert not encoder.augments
    front, wrist = (squeezed(seen[name][0], 32, 32) for name in ("front", "wrist"))
    assert torch.equal(made["images"], torch.stack([front[0], wrist[0]])[None])
    features = CONFIG.features.load()(front)[None]
    torch.testing.assert_close(made["features"], features)
    with torch.no_grad():
        torch.testing.assert_close(made["code"], tiny_world().infer(features).mu)
    words = encoder.text(["open it", "close it", "open it"])
    shapes = tree_map(
        lambda x: torch.tensor(x.shape), example_inputs(CONFIG.features, CONFIG.latent, PROMPT, PAIRS, 1)
    )
    for name, x in {**made, **tree_map(lambda x: x[:1], words)}.items():
        assert shapes[name].tolist() == list(x.shape), name


def test_acting_needs_no_stage_1(tmp_path: Path) -> None:
    encoder = loaded(tmp_path / "gone")
    clip = Clip(views(1, batch=3), torch.zeros(3, 3), ("open it",) * 3, ("arm",) * 3)
    made = encode(encoder, clip)
    assert made["images"].shape == (3, 2, 32, 32, 3) and made["features"].shape == (3, 1, 16, 24)
    assert "code" not in made and made["tokens"].shape == (3, 40)
    with pytest.raises(BadInput, match=r"run\.json: missing"):
        encoder.frames(encoder.prepare(views(2), torch.Generator()))
    with pytest.raises(BadInput, match=r"weights\.safetensors: missing; policy\.world names"):
        _ = encoder.fingerprint


@pytest.mark.parametrize(
    "passes",
    [
        ("device_images",),
        ("bare_prompts",),
        ("fused_features",),
        ("device_images", "bare_prompts", "fused_features"),
    ],
)
def test_an_acting_encoder_gives_the_same_but_for_padding(tmp_path: Path, passes: tuple[str, ...]) -> None:
    encoder, told = loaded(tmp_path / "gone"), ("open it", "close it at once please")
    clip = Clip(views(1, batch=2), torch.zeros(2, 3), told, ("arm",) * 2)
    whole, acting = encode(encoder, clip), encode(encoder.acting(passes), clip)
    longest = int(whole["length"].max()) if "bare_prompts" in passes else 40
    assert acting.keys() == whole.keys()
    for name, x in (whole | {"tokens": whole["tokens"][:, :longest]}).items():
        exact = name != "features" or "fused_features" not in passes
        torch.testing.assert_close(acting[name], x, rtol=0, atol=0 if exact else 1e-5, msg=name)


def test_a_prompt_is_tokenised_once(stage1: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = HashedPrompt.encode
    monkeypatch.setattr(
        HashedPrompt, "encode", lambda self, texts: [asked.extend(texts), real(self, texts)][1]
    )
    encoder = loaded(stage1)
    first = encoder.text(["open it", "close it", "open it"])
    again = encoder.text(["close it", "open it", "push it"])
    assert asked == ["open it", "close it", "push it"]
    assert torch.equal(again["tokens"][:2], first["tokens"][[1, 0]])
    assert encoder.to(torch.device("meta")).text(["open it", "lift it"])["latent_at"].is_meta


def test_the_fingerprint_names_everything(stage1: Path, tmp_path: Path) -> None:
    before = loaded(stage1).fingerprint
    assert set(before) == {"features", "prompt", "images", "teacher"}
    save_run(PAIR_RUN, tmp_path)
    save_weights(tmp_path, {name: x + 1 for name, x in tiny_world().state_dict().items()})
    changed = {
        "teacher": loaded(tmp_path),
        "prompt": loaded(stage1, prompt=replace(PROMPT, length=41)),
        "features": loaded(stage1, features=BlockFeaturesConfig(13)),
        "images": loaded(stage1, data=replace(PAIRS, views=("wrist", "front"))),
    }
    for name, encoder in changed.items():
        own = encoder.fingerprint
        assert [key for key in own if own[key] != before[key]] == [name]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"features": BlockFeaturesConfig(13)}, "features: expected .*13.*, got .*12"),
        ({"latent": replace(CONFIG.latent, code=5)}, "latent sizes: expected .*'code': 5.*, got .*'code': 4"),
        ({"data": replace(PAIRS, view_width=64)}, r"grid of patches: expected \(4, 8\), got \(4, 4\)"),
    ],
)
def test_another_stage_1_is_refused(stage1: Path, changes: dict[str, Any], told: str) -> None:
    encoder = loaded(stage1, **changes)
    with pytest.raises(BadInput, match=told):
        encoder.frames(encoder.prepare(views(2), torch.Generator()))


def test_what_is_no_stage_1_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"policy": {"kind": "light_wam"}}')
    encoder = loaded(tmp_path)
    with pytest.raises(BadInput, match=r"name a run directory .* of kind lawam_world"):
        encoder.frames(encoder.prepare(views(2), torch.Generator()))
    with pytest.raises(BadInput, match="camera 'wrist' is missing"):
        encoder.prepare({"front": views(1)["front"]}, torch.Generator())


def test_a_cache_holds_what_it_says(stage1: Path, tmp_path: Path) -> None:
    clips = Clips(open_datasets([write(tmp_path / "dataset", (9, 12))]), PAIRS, PAIR_RUN.actions)
    fresh = Fresh(clips, loaded(stage1))
    fill(fresh, tmp_path / "cache", fresh.encoder.fingerprint, shard_size=8, batch_size=3)
    cached = Cache.open(tmp_path / "cache", fresh.encoder.fingerprint, PAIRS.hz)
    numbers = [0, 20, 7, 8]
    told, own = (tree_leaves(read_all(source, numbers).inputs) for source in (cached, fresh))
    assert told.keys() == own.keys() >= {"images", "features", "code", "tokens", "latent_at", "length"}
    for name, x in own.items():
        assert told[name].dtype == x.dtype
        torch.testing.assert_close(told[name], x, msg=name)


def test_the_whole_path_with_real_parts(tmp_path: Path) -> None:
    """Tokenizer, chat template and processor of transformers, its Qwen3-VL and DINOv3, all from folders."""
    tiny_dinov3(tmp_path / "dino")
    tiny_qwen(tmp_path / "qwen")
    data = replace(PAIRS, view_height=256, view_width=256)
    features = DINOv3Config(str(tmp_path / "dino"), DINO)
    prompt = replace(tiny_prompt(tmp_path / "qwen"), length=560)
    encoder = loaded(tmp_path, features=features, prompt=prompt, data=data)
    clip = Clip(views(1, batch=2), torch.zeros(2, 3), ("open the drawer", "push"), ("arm",) * 2)
    inputs = encode(encoder, clip)
    assert inputs["features"].shape == (2, 1, 64 * 64, 16)
    prior = Prior(SIZE)
    FromQwen(str(tmp_path / "qwen")).initialize(prior)
    with torch.no_grad():
        hidden = prior(inputs)
        other = prior(encode(encoder, replace(clip, instructions=("push", "push"))))
    assert hidden.shape == (2, 560, SIZE.width) and hidden.isfinite().all()
    torch.testing.assert_close(hidden[1], other[1])
    at = inputs["latent_at"][0]
    assert (hidden[0, at] - hidden[1, inputs["latent_at"][1]]).abs().max() > 0.01
    assert at[0] != inputs["latent_at"][1, 0]


def test_what_can_be_said_of_prompts(tmp_path: Path) -> None:
    told = ("open it", "word " * 30, "push the red button")
    facts = encoder_facts(CONFIG.features, PROMPT, FromScratch(), PAIRS, told)
    assert [prompt.instruction for prompt in facts.prompts] == [told[1], told[2], told[0]]
    assert "policy.prompt.length is 40" in facts.prompts[0].problem
    assert facts.prompts[1].tokens == ("push", "the", "red", "button")
    assert facts.prompts[1].used == 4 + 4 + 1 + 8 + 4 + 8 and facts.prompts[1].rows == 40
    assert not facts.missing
    nowhere = str(tmp_path / "none")
    missing = encoder_facts(DINOv3Config(nowhere), PROMPT, FromQwen(nowhere), PAIRS, told).missing
    assert "no DINOv3" in missing and "no Qwen3-VL" in missing
    tiny_qwen(tmp_path)
    data = replace(PAIRS, view_height=256, view_width=256)
    prompt = replace(tiny_prompt(tmp_path), length=560)
    shown = encoder_facts(CONFIG.features, prompt, FromQwen(str(tmp_path)), data, told[:1]).prompts[0]
    assert shown.tokens.count("<ACT_PH>") == 16 and shown.tokens.count("<|image_pad|>") == 2
    assert shown.used == len(shown.tokens) + 2 * 63
