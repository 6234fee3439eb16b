"""Prompts of LaWAM: the released structure with a real tokenizer, and the one that needs no files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer
from wamkit_client.types import BadInput

from tests.policies.tiny_policy import SPEC
from tests.policies.tiny_qwen import TEMPLATE, tiny_processor, tiny_prompt
from wamkit.policies.lawam.prior import past_latent
from wamkit.policies.lawam.prompt import (
    QUERIES,
    HashedPromptConfig,
    QwenPrompt,
    QwenPromptConfig,
    placeholders,
    places,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "lawam_seed1.safetensors"
VIEWS = replace(SPEC, views=("front", "left", "right"), view_height=256, view_width=256, canvas="separate")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("qwen")
    tiny_processor(path)
    return path


def long(folder: Path) -> QwenPrompt:
    return replace(tiny_prompt(folder), length=640).load(VIEWS)


def test_the_released_texts() -> None:
    constants = json.loads(GOLDEN.with_suffix(".json").read_text())["prompt_constants"]
    config = QwenPromptConfig()
    assert config.motion == constants["segment_before_aux_views"]
    assert config.actions == constants["segment_after_aux_views"]


def test_masks_are_the_golden_ones() -> None:
    golden = {name: x for name, x in load_file(GOLDEN).items() if name.startswith("ph.")}
    ids = golden["ph.in.input_ids"]
    latent, action = placeholders(ids, 99, (4, 3))
    assert torch.equal(latent, golden["ph.out.act_mask"].bool())
    assert torch.equal(action, golden["ph.out.flow_mask"].bool())
    expected = golden["ph.out.flow_only_grad_positions"].bool()
    assert torch.equal(past_latent(places(latent), ids.shape[1]), expected)


def test_a_turn_reads_as_published(folder: Path) -> None:
    view = "<|vision_start|><|image_pad|><|vision_end|>"
    queries = " ".join(["<ACT_PH>"] * 8)
    expected = (
        f"<|im_start|>user\n{view}Your task is Open {{it}}!.\n\nFrom main-view observations, infer the robot arm's "
        f"motion.\n{queries}{view}{view}Then use observations and the inferred motion to produce the robot policy "
        f"actions.\n{queries}<|im_end|>\n<|im_start|>assistant\n"
    )
    assert long(folder).text("Open {it}!") == expected


def test_where_images_and_queries_stand(folder: Path) -> None:
    prompt, said = long(folder), ["open the drawer", "push the button twice"]
    made = prompt.encode(said)
    assert {name: tuple(x.shape) for name, x in made.items()} == {
        "tokens": (2, 640),
        "image_at": (2, 192),
        "latent_at": (2, 8),
        "action_at": (2, 8),
        "length": (2,),
    }
    bare = AutoTokenizer.from_pretrained(folder)
    for row, text in enumerate(said):
        ids = prompt.tokenizer(prompt.text(text).replace("<|image_pad|>", "<|image_pad|>" * 64)).input_ids
        tokens, length = made["tokens"][row], int(made["length"][row])
        assert tokens[:length].tolist() == ids and not tokens[length:].any()
        image, latent, action = (made[name][row] for name in ("image_at", "latent_at", "action_at"))
        assert set(tokens[image].tolist()) == {bare.convert_tokens_to_ids("<|image_pad|>")}
        assert set(tokens[torch.cat([latent, action])].tolist()) == {len(bare)}  # the next free id
        assert image[63] < latent[0] < latent[-1] < image[64] and image[-1] < action[0] < length
        assert latent.diff().eq(2).all()  # blanks between them are tokens
        assert text in prompt.tokenizer.decode(tokens[image[63] : latent[0]])


@pytest.mark.parametrize("name", ["chat_template.jinja", "chat_template.json"])
def test_the_processors_template_comes_first(tmp_path: Path, name: str) -> None:
    tiny_processor(tmp_path)
    (tmp_path / "chat_template.jinja").unlink(missing_ok=True)
    own = "of the processor" + TEMPLATE
    (tmp_path / name).write_text(json.dumps({"chat_template": own}) if name.endswith("json") else own)
    prompt = long(tmp_path)
    assert prompt.text("open it").startswith("of the processor<|im_start|>user")


def test_without_a_template(tmp_path: Path) -> None:
    tiny_processor(tmp_path)
    (tmp_path / "chat_template.jinja").unlink(missing_ok=True)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(BadInput, match="no chat template"):
        long(tmp_path)


def test_what_does_not_fit_is_explained(folder: Path, tmp_path: Path) -> None:
    config = replace(tiny_prompt(folder), length=640)
    with pytest.raises(BadInput, match="no such folder"):
        replace(config, path=str(tmp_path / "none")).load(VIEWS)
    with pytest.raises(BadInput, match="its tokenizer cannot be read"):
        replace(config, path=str(tmp_path)).load(VIEWS)
    with pytest.raises(BadInput, match=r"tokens with <ACT_PH>, and the prior's embedding 280 rows"):
        replace(config, vocabulary=280).load(VIEWS)
    with pytest.raises(BadInput, match=r"policy\.prompt\.motion: expected 8 times <ACT_PH>"):
        replace(config, motion="Do {INSTRUCTION}")
    with pytest.raises(BadInput, match=r"expected \{INSTRUCTION\} in it once"):
        replace(config, motion=config.actions)
    prompt = config.load(VIEWS)
    with pytest.raises(BadInput, match=r"has 256 image tokens and 16 placeholders, expected 192 and 16"):
        prompt.encode(["open <|image_pad|>"])
    with pytest.raises(BadInput, match=r"its prompt has \d+ tokens, and policy\.prompt\.length is 300"):
        replace(config, length=300).load(VIEWS).encode(["open the drawer"])
    with pytest.raises(BadInput, match=r"multiples of policy\.prompt\.pixels, 32, got 250"):
        config.load(replace(VIEWS, view_height=250))


def test_a_tokenizer_without_images(tmp_path: Path) -> None:
    tiny_processor(tmp_path)
    file = tmp_path / "tokenizer.json"
    file.write_text(file.read_text().replace("<|image_pad|>", "<|other_pad|>"))
    with pytest.raises(BadInput, match=r"<\|image_pad\|> is not one token of its tokenizer"):
        long(tmp_path)


def test_a_processor_of_another_grid(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"a grid of 1x16x16 of a 224x224 view, expected 1x14x14"):
        replace(tiny_prompt(folder), length=640).load(replace(VIEWS, view_height=224, view_width=224))
    tiny_processor(tmp_path, size={"shortest_edge": 320 * 320, "longest_edge": 16777216})
    with pytest.raises(BadInput, match=r"a grid of 1x20x20 of a 256x256 view, expected 1x16x16"):
        long(tmp_path)
    tiny_processor(tmp_path, image_mean=[0.4, 0.5, 0.5])
    with pytest.raises(BadInput, match="normalizes images otherwise"):
        long(tmp_path)


def test_hashed_prompts_have_the_same_structure() -> None:
    spec = replace(VIEWS, views=("front", "wrist"), view_height=64, view_width=64)
    made = HashedPromptConfig().load(spec).encode(["Open it.", "push the button"])
    assert made["tokens"].shape == (2, 64) and made["tokens"].max() < 1024
    assert made["length"].tolist() == [16 + 3 + 1 + 8 + 16 + 8, 16 + 3 + 1 + 8 + 16 + 8]
    assert made["latent_at"][0].tolist() == list(range(20, 28))
    assert made["image_at"][0].tolist() == [*range(16), *range(28, 44)]
    assert made["action_at"][0].tolist() == list(range(44, 52))
    assert made["action_at"].shape[1] == QUERIES
    assert not torch.equal(made["tokens"][0], made["tokens"][1])
    with pytest.raises(BadInput, match="no words"):
        HashedPromptConfig().load(spec).encode([" "])
    with pytest.raises(BadInput, match=r"72 tokens, and policy\.prompt\.length is 64"):
        HashedPromptConfig().load(spec).encode(["word " * 23])
