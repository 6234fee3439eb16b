"""UMT5: prompt and cleaning, the official file's names and arithmetic, padding, layouts, stored rows, refusals."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel
from wamkit_client.types import BadInput

from wamkit.wan.umt5 import StoredText, UMT5Text, clean, config_of, prompt, to_transformers

VOCABULARY, WIDTH, INNER, FFN, HEADS, LAYERS, BUCKETS = 40, 24, 16, 20, 2, 3, 32
WORDS = [
    "<pad>",
    "</s>",
    "<unk>",
    *[
        "A",
        "video",
        "recorded",
        "from",
        "a",
        "robot",
        "s",
        "point",
        "of",
        "view",
        "executing",
        "the",
        "following",
    ],
]
LENGTH = 32


def official_shapes(
    vocabulary: int, width: int, inner: int, ffn: int, heads: int, layers: int
) -> dict[str, tuple]:
    """Names and shapes of `models_t5_umt5-xxl-enc-bf16.pth`."""
    shapes: dict[str, tuple] = {"token_embedding.weight": (vocabulary, width), "norm.weight": (width,)}
    for i in range(layers):
        block = {
            "norm1": (width,),
            "attn.q": (inner, width),
            "attn.k": (inner, width),
            "attn.v": (inner, width),
            "attn.o": (width, inner),
            "norm2": (width,),
            "ffn.gate.0": (ffn, width),
            "ffn.fc1": (ffn, width),
            "ffn.fc2": (width, ffn),
            "pos_embedding.embedding": (BUCKETS, heads),
        }
        shapes |= {f"blocks.{i}.{name}.weight": shape for name, shape in block.items()}
    return shapes


@pytest.fixture(scope="module")
def official() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    shapes = official_shapes(VOCABULARY, WIDTH, INNER, FFN, HEADS, LAYERS)
    return {name: torch.randn(shape, generator=generator) * 0.3 for name, shape in shapes.items()}


def save_tokenizer(folder: Path, end: str = " </s>") -> None:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(dict.fromkeys(WORDS))}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A{end}", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    fast.save_pretrained(folder)


@pytest.fixture(scope="module")
def folder(official, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("umt5")
    torch.save(official, folder / "models_t5_umt5-xxl-enc-bf16.pth")
    save_tokenizer(folder / "google" / "umt5-xxl")
    return folder


def umt5(folder: Path, stored: Path, length: int = LENGTH) -> UMT5Text:
    return UMT5Text(folder, StoredText(stored, WIDTH, length))


@pytest.fixture
def text(folder, tmp_path) -> UMT5Text:
    return umt5(folder, tmp_path / "stored")


def reference(weights: dict[str, Tensor], ids: Tensor) -> Tensor:
    """The encoder as Light-WAM spec 1.9 describes it, over unpadded ids [l], under the official names."""

    def norm(x: Tensor, name: str) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * weights[f"{name}.weight"]

    place = torch.arange(len(ids))
    ahead = place[None] - place[:, None]
    far = 8 + (torch.log(ahead.abs().clamp(min=1) / 8) / math.log(128 / 8) * 8).long()
    bucket = (ahead > 0) * 16 + torch.where(ahead.abs() < 8, ahead.abs(), far.clamp(max=15))

    x = weights["token_embedding.weight"][ids]
    for i in range(LAYERS):
        block = f"blocks.{i}"
        bias = weights[f"{block}.pos_embedding.embedding.weight"][bucket].permute(2, 0, 1)
        u = norm(x, f"{block}.norm1")
        q, k, v = (
            (u @ weights[f"{block}.attn.{p}.weight"].T).unflatten(-1, (HEADS, -1)).transpose(0, 1)
            for p in "qkv"
        )
        heads = torch.softmax(q @ k.mT + bias, -1) @ v
        x = x + heads.transpose(0, 1).flatten(1) @ weights[f"{block}.attn.o.weight"].T
        u = norm(x, f"{block}.norm2")
        gate = F.gelu(u @ weights[f"{block}.ffn.gate.0.weight"].T, approximate="tanh")
        x = x + (gate * (u @ weights[f"{block}.ffn.fc1.weight"].T)) @ weights[f"{block}.ffn.fc2.weight"].T
    return norm(x, "norm")


def test_encodes_like_the_specification_and_zeroes_padding(text, official):
    tasks = ["follow the robot", "view a point of a robot from the video"]
    rows = text.encode(tasks)
    assert rows.shape == (2, LENGTH, WIDTH) and rows.dtype == torch.float32
    for row, task in zip(rows, tasks, strict=True):
        ids = torch.tensor(text.tokenizer(clean(prompt(task))).input_ids)
        assert ids[-1] == 1  # the end token
        states, mask = text.states([task])
        assert mask[0].sum() == len(ids)
        torch.testing.assert_close(states[0, : len(ids)], reference(official, ids), rtol=2e-5, atol=2e-5)
        assert torch.equal(row[: len(ids)], states[0, : len(ids)].bfloat16().float())
        assert row[len(ids) :].abs().sum() == 0


def test_an_instruction_is_encoded_once_for_ever(text, folder, monkeypatch):
    seen = []
    states = UMT5Text.states
    monkeypatch.setattr(UMT5Text, "states", lambda self, which: seen.extend(which) or states(self, which))
    rows = text.encode(["a robot", "a view", "a robot"])
    assert seen == ["a robot", "a view"]
    assert torch.equal(rows[0], rows[2]) and not torch.equal(rows[0], rows[1])
    later = UMT5Text(folder, text.stored)
    assert torch.equal(later.encode(["a view", "a point", "scene@a robot"])[0], rows[1])
    assert seen == ["a robot", "a view", "a point"]


def test_where_every_prompt_is_stored_the_encoder_need_not_exist(text, tmp_path):
    rows, fingerprint = text.encode(["a robot"]), text.fingerprint
    elsewhere = UMT5Text(tmp_path / "no weights here", text.stored)
    assert torch.equal(elsewhere.encode(["a robot"]), rows)
    assert elsewhere.fingerprint == fingerprint
    with pytest.raises(BadInput, match="no UMT5-XXL, which a prompt that is not stored needs"):
        elsewhere.encode(["a view"])


def test_rows_of_two_encoders_do_not_mix(text, official, tmp_path):
    text.encode(["a robot"])
    other = tmp_path / "other"
    save_tokenizer(other / "google" / "umt5-xxl")
    torch.save(official | {"norm.weight": torch.ones(WIDTH)}, other / "models_t5_umt5-xxl-enc-bf16.pth")
    with pytest.raises(
        BadInput, match=r"has rows of text encoder umt5:\w+, .* another folder as policy.text.stored"
    ):
        UMT5Text(other, text.stored).encode(["a view"])
    assert not text.stored.has("a view")


def test_a_folder_that_cannot_be_written_is_named(folder, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(BadInput, match=r"cannot be written .* policy.text.stored"):
        umt5(folder, tmp_path / "file").encode(["a robot"])


def test_long_prompts_are_cut_and_keep_the_end_token(text):
    rows = text.encode(["robot " * 60])
    assert (rows.abs().sum(-1) > 0).all()
    ids = text.tokenizer(["robot " * 60], truncation=True, max_length=LENGTH).input_ids[0]
    assert len(ids) == LENGTH and ids[-1] == 1


def test_prompt_is_exact():
    start = "A video recorded from a robot's point of view executing the following instruction: "
    assert prompt("open the drawer") == start + "open the drawer"
    assert prompt("kitchen@open the drawer") == start + "open the drawer"
    for bad in ("", "  ", "scene@", "a@b@c"):
        with pytest.raises(BadInput, match="expected words"):
            prompt(bad)


def test_cleaning_mends_mojibake_html_and_spaces():
    assert clean(" pick  the\n caf\u00c3\u00a9 cup &amp;amp; go ") == "pick the caf\u00e9 cup & go"


def test_full_size_names_shapes_and_count():
    with torch.device("meta"):
        official = {
            name: torch.empty(shape)
            for name, shape in official_shapes(256384, 4096, 4096, 10240, 64, 24).items()
        }
        model = UMT5EncoderModel(UMT5Config(**config_of(official, Path("official"))))
    own = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    mapped = {name: list(tensor.shape) for name, tensor in to_transformers(official).items()}
    assert own.pop("encoder.embed_tokens.weight") == mapped["shared.weight"]
    assert mapped == own
    assert len(official) == 242
    assert sum(parameter.numel() for parameter in model.parameters()) == 5_680_910_336
    config = model.config
    assert (config.d_kv, config.relative_attention_max_distance, config.layer_norm_epsilon) == (64, 128, 1e-6)


def test_a_transformers_folder_gives_the_same_rows(text, tmp_path):
    text.model.save_pretrained(tmp_path / "text_encoder")
    save_tokenizer(tmp_path / "tokenizer")
    other = umt5(tmp_path, tmp_path / "others")
    torch.testing.assert_close(other.encode(["a robot"]), text.encode(["a robot"]), rtol=0, atol=0)
    assert other.fingerprint == text.fingerprint


def test_sharded_folder(text, tmp_path):
    text.model.save_pretrained(tmp_path / "text_encoder", max_shard_size="20KB")
    assert len(list((tmp_path / "text_encoder").glob("*.safetensors"))) > 1
    save_tokenizer(tmp_path / "tokenizer")
    assert torch.equal(umt5(tmp_path, tmp_path / "shards").encode(["a robot"]), text.encode(["a robot"]))


def test_fingerprint_follows_length_and_precision(text, official, folder, tmp_path):
    assert umt5(folder, tmp_path / "same").fingerprint == text.fingerprint
    assert umt5(folder, tmp_path / "stored", 16).fingerprint != text.fingerprint
    half = tmp_path / "half"
    save_tokenizer(half / "google" / "umt5-xxl")
    torch.save({k: v.bfloat16() for k, v in official.items()}, half / "models_t5_umt5-xxl-enc-bf16.pth")
    assert umt5(half, half).fingerprint != text.fingerprint
    assert umt5(half, half).encode(["a robot"]).dtype == torch.float32


def test_what_an_encoder_leaves_behind(text):
    text.encode(["a robot", "scene@a view", "a robot"])
    names = sorted(path.name.partition(".")[2] for path in text.stored.folder.iterdir())
    assert names == ["t5_len32.txt", "t5_len32.wan21t2v13b.pt", "t5_len32.wan21t2v13b.pt"]
    rows = text.stored.encode(["a view", "a robot"])
    assert torch.equal(rows, text.encode(["a view", "a robot"]))
    assert text.stored.encoder() == text.fingerprint


def test_storing_lets_go_of_the_network(folder, text, tmp_path):
    other = umt5(folder, tmp_path / "stored")
    other.store(["a robot", "a view", "a robot"], torch.device("cpu"))
    assert "model" not in vars(other)
    assert torch.equal(other.encode(["a view", "a robot"]), text.encode(["a view", "a robot"]))
    other.store(["a robot"], torch.device("cpu"))
    assert "model" not in vars(other) and other.fingerprint == text.fingerprint


PICK = "4d62d857ed8a387ad3e034d231123ee981a29e7de390e59d95521dc30421c42c"


@pytest.mark.parametrize("download", ["wan21t2v13b", "wan22ti2v5b"])
def test_stored_rows_of_the_released_formats(tmp_path, download):
    mask = torch.arange(128) < 20
    entry = {"context": torch.ones(128, 4096, dtype=torch.bfloat16), "mask": mask}
    torch.save(entry, tmp_path / f"{PICK}.t5_len128.{download}.pt")
    for reader in (StoredText(tmp_path), UMT5Text(tmp_path, StoredText(tmp_path))):
        rows = reader.encode(["pick up the bowl"])[0]
        assert (rows[:20] == 1).all() and (rows[20:] == 0).all()


def test_stored_rows_that_lack_or_differ_are_named(tmp_path):
    stored = StoredText(tmp_path, WIDTH, LENGTH)
    with pytest.raises(BadInput, match=r"no stored text for instruction 'a robot'"):
        stored.encode(["a robot"])
    torch.save({"context": torch.ones(LENGTH, 8), "mask": torch.ones(LENGTH)}, stored.file("a robot"))
    with pytest.raises(BadInput, match="belongs to another encoder"):
        stored.encode(["a robot"])


def test_missing_files_say_what_to_download_and_where(tmp_path):
    with pytest.raises(BadInput, match=rf"hf download Wan-AI/Wan2.1-T2V-1.3B .* --local-dir {tmp_path}"):
        umt5(tmp_path, tmp_path / "stored").encode(["a robot"])


def test_foreign_files_are_explained(official, tmp_path):
    save_tokenizer(tmp_path / "google" / "umt5-xxl")
    file = tmp_path / "models_t5_umt5-xxl-enc-bf16.pth"
    torch.save({"weight": torch.ones(2)}, file)
    with pytest.raises(BadInput, match="not Wan's UMT5 encoder"):
        umt5(tmp_path, tmp_path / "stored").encode(["a robot"])
    torch.save(official | {"blocks.0.extra.weight": torch.ones(2)}, file)
    with pytest.raises(BadInput, match=r"unexpected: encoder.block.0.extra.weight"):
        umt5(tmp_path, tmp_path / "stored").encode(["a robot"])


def test_a_tokenizer_without_end_token_is_refused(official, tmp_path):
    torch.save(official, tmp_path / "models_t5_umt5-xxl-enc-bf16.pth")
    save_tokenizer(tmp_path / "google" / "umt5-xxl", end="")
    with pytest.raises(BadInput, match="does not append the end token"):
        umt5(tmp_path, tmp_path / "stored").encode(["a robot"])
