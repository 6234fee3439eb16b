"""PEFT adapter folders, against the real peft: each side reads what the other wrote."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from wamkit_client.types import BadInput

from wamkit.nn.lora import LoRALinear, add_lora, merge_lora
from wamkit.nn.lora_peft import lora_layers, read_adapter, write_adapter

LAYERS = ("blocks.0.q", "blocks.1.q", "blocks.1.ffn.2")


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Linear(6, 6)
        self.ffn = nn.Sequential(nn.Linear(6, 10), nn.GELU(), nn.Linear(10, 6))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.ffn(self.q(x))


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


@pytest.fixture
def plain() -> Model:
    return Model().requires_grad_(False)


@pytest.fixture
def adapted(plain) -> Model:
    model = copy.deepcopy(plain)
    add_lora(model, LAYERS, rank=3, alpha=4.5)
    for layer in lora_layers(model).values():
        nn.init.normal_(layer.lora_up.weight)
    return model


@pytest.fixture
def x() -> Tensor:
    return torch.randn(5, 6)


def test_peft_reads_what_we_write(plain, adapted, x, tmp_path):
    write_adapter(adapted, tmp_path)
    expected, base = adapted(x), plain(x)
    from peft import PeftModel  # seconds, for which the other workers of the suite need not wait

    theirs = PeftModel.from_pretrained(plain, tmp_path)
    torch.testing.assert_close(theirs(x), expected, rtol=1e-6, atol=1e-6)
    assert (expected - base).abs().max() > 0.1
    wrapped = {n.removeprefix("base_model.model.") for n, m in theirs.named_modules() if hasattr(m, "lora_A")}
    assert wrapped == set(LAYERS)
    torch.testing.assert_close(theirs.merge_and_unload()(x), expected, rtol=1e-5, atol=1e-5)


def test_we_read_what_peft_writes(plain, x, tmp_path):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=2, lora_alpha=7, target_modules=["q", "ffn.0"], init_lora_weights=False)
    theirs = get_peft_model(copy.deepcopy(plain), config)
    theirs.save_pretrained(tmp_path)
    read_adapter(plain, tmp_path)
    assert set(lora_layers(plain)) == {"blocks.0.q", "blocks.1.q", "blocks.0.ffn.0", "blocks.1.ffn.0"}
    torch.testing.assert_close(plain(x), theirs(x), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(merge_lora(plain)(x), theirs.merge_and_unload()(x), rtol=1e-6, atol=1e-6)


def test_round_trip_is_exact_and_fills_existing_lora(adapted, x, tmp_path):
    write_adapter(adapted, tmp_path)
    twin = copy.deepcopy(adapted)
    for layer in lora_layers(twin).values():
        nn.init.zeros_(layer.lora_up.weight)
    read_adapter(twin, tmp_path)
    assert torch.equal(twin(x), adapted(x))
    assert all(layer.lora_up.weight.requires_grad for layer in lora_layers(twin).values())


def test_a_bfloat16_model_keeps_its_precision(plain, adapted, x, tmp_path):
    write_adapter(adapted, tmp_path)
    half = plain.bfloat16()
    read_adapter(half, tmp_path)
    assert half(x.bfloat16()).dtype == torch.bfloat16
    assert (
        isinstance(half.blocks[0].q, LoRALinear) and half.blocks[0].q.lora_down.weight.dtype == torch.bfloat16
    )


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("use_dora", True),
        ("use_rslora", True),
        ("bias", "all"),
        ("rank_pattern", {"q": 4}),
        ("peft_type", "LOHA"),
    ],
)
def test_more_than_plain_lora_is_refused(plain, adapted, tmp_path, setting, value):
    write_adapter(adapted, tmp_path)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {setting: value}))
    with pytest.raises(BadInput, match=rf"only plain LoRA can be read.*{setting}"):
        read_adapter(plain, tmp_path)


def change_weights(folder, change) -> None:
    file = folder / "adapter_model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file)


def test_misfits_are_named_and_leave_the_model_alone(plain, adapted, tmp_path):
    write_adapter(adapted, tmp_path)
    key = "base_model.model.blocks.0.q.lora_A.weight"

    change_weights(tmp_path, lambda weights: weights.update({key: torch.zeros(3, 7)}))
    with pytest.raises(BadInput, match=r"'blocks.0.q.lora_down.weight' is \(3, 7\) in the file, \(3, 6\)"):
        read_adapter(plain, tmp_path)
    change_weights(tmp_path, lambda weights: weights.pop(key))
    with pytest.raises(BadInput, match=r"'blocks.0.q.lora_down.weight' is absent"):
        read_adapter(plain, tmp_path)
    change_weights(tmp_path, lambda weights: weights.pop(key.replace("_A", "_B")))
    with pytest.raises(BadInput, match=r"nothing for 1 LoRA layers of the model, first 'blocks.0.q'"):
        read_adapter(adapted, tmp_path)
    change_weights(
        tmp_path, lambda weights: weights.update({key.replace("blocks.0", "head"): torch.zeros(3, 6)})
    )
    with pytest.raises(BadInput, match="no linear layer"):
        read_adapter(plain, tmp_path)
    assert not lora_layers(plain)


def test_another_rank_or_scale_is_refused(plain, adapted, tmp_path):
    write_adapter(adapted, tmp_path)
    add_lora(plain, LAYERS, rank=3, alpha=3)
    with pytest.raises(BadInput, match=r"rank 3, scale 1.5; blocks.0.q of the model has rank 3, scale 1.0"):
        read_adapter(plain, tmp_path)


def test_models_that_are_no_adapter_are_refused(plain, tmp_path):
    with pytest.raises(BadInput, match="no LoRA"):
        write_adapter(plain, tmp_path)
    with pytest.raises(BadInput, match=r"no adapter_config.json"):
        read_adapter(plain, tmp_path)
    add_lora(plain, LAYERS[:1], rank=2, alpha=2)
    add_lora(plain, LAYERS[1:], rank=3, alpha=3)
    with pytest.raises(BadInput, match="needs one"):
        write_adapter(plain, tmp_path)
