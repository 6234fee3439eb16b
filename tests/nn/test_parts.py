"""Rotary positions, adapters, LoRA and losses."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wamkit.nn.adapter import Adapter
from wamkit.nn.lora import LoRALinear, add_lora, merge_lora
from wamkit.nn.losses import action_loss_per_sample, latent_is_pad, prefix_weights, video_loss_per_sample
from wamkit.nn.rope import GridRotary, LineRotary, axis_dims, rotate


def test_wan_gives_44_42_42_channels_to_the_axes():
    assert axis_dims(128) == (44, 42, 42)
    with pytest.raises(ValueError, match="head_dim 64"):
        axis_dims(64)


def test_rotation_depends_on_relative_positions_only():
    table = GridRotary(32)([range(1)], 4, 5)
    q, k = torch.randn(2, 32)

    def score(i: int, j: int) -> float:
        rotated = [rotate(x.expand(1, 1, 20, 32), table)[0, 0, position] for x, position in ((q, i), (k, j))]
        return float(rotated[0] @ rotated[1])

    assert score(0, 6) == pytest.approx(
        score(12, 18), abs=1e-4
    )  # the same step: one row down, one column right
    assert score(0, 6) != pytest.approx(score(0, 7), abs=1e-3)


def test_what_is_compiled_turns_by_the_same_bits(monkeypatch):
    torch.manual_seed(0)
    x, table = torch.randn(2, 3, 20, 32), LineRotary(32)(20)
    expected = rotate(x, table)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert torch.equal(rotate(x, table), expected)


def test_an_adapter_starts_as_the_identity():
    x = torch.randn(2, 3, 8)
    assert torch.equal(Adapter(8, 4, gamma=1.0)(x), x)


def test_lora_starts_as_its_base_and_merges_to_the_same_function():
    model = nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.Linear(5, 4))
    x = torch.randn(7, 6)
    base = model(x)
    add_lora(model, ("0", "2"), rank=2, alpha=4.0)
    assert torch.equal(model(x), base)
    for module in model:
        if isinstance(module, LoRALinear):
            nn.init.normal_(module.lora_up.weight)
    adapted = model(x)
    assert not torch.allclose(adapted, base)
    merged = merge_lora(model)
    assert [type(module) for module in merged] == [nn.Linear, nn.GELU, nn.Linear]
    assert torch.allclose(merged(x), adapted, atol=1e-5)
    assert type(model[0]) is LoRALinear and torch.equal(model(x), adapted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_merging_sums_in_float32_and_rounds_once(dtype):
    model = nn.Sequential(nn.Linear(64, 48))
    add_lora(model, ("0",), rank=8, alpha=12.0)
    nn.init.normal_(model[0].lora_up.weight)
    layer = model.to(dtype)[0]
    state = torch.get_rng_state()
    merged = merge_lora(model)[0]
    up, down = layer.lora_up.weight.float(), layer.lora_down.weight.float()
    assert torch.equal(merged.weight, (layer.weight.float() + 12 / 8 * (up @ down)).to(dtype))
    assert merged.bias is layer.bias and not merged.weight.requires_grad
    assert torch.equal(torch.get_rng_state(), state)


def test_a_latent_is_padding_only_when_all_its_frames_are():
    frames = torch.tensor([[0, 0, 0, 0, 0, 0, 1, 1, 1], [0, 1, 1, 1, 1, 1, 1, 1, 1]], dtype=torch.bool)
    assert latent_is_pad(frames, 2).tolist() == [[False, False], [True, True]]
    assert latent_is_pad(frames, 4).tolist() == [[False, False, False, True], [True] * 4]


def test_padding_does_not_move_the_losses():
    predicted, target = torch.randn(2, 2, 3, 2, 2, 2).unbind(0)
    pad = torch.tensor([[False, True]] * 2)
    target[:, :, 1] = 1e6
    expected = (predicted - target)[:, :, 0].square().mean(dim=(1, 2, 3))
    assert torch.allclose(video_loss_per_sample(predicted, target, pad), expected)

    actions, wanted = torch.randn(2, 1, 4, 3).unbind(0)
    wanted[:, 2:] = 1e6
    valid = torch.tensor([True, True, False, False])[None, :, None].expand(1, 4, 3)
    weights = prefix_weights(4, prefix=1, weight=1.0, tail=0.5)
    error = (actions - wanted).square().mean(dim=2)[0]
    assert action_loss_per_sample(actions, wanted, valid, weights)[0] == pytest.approx(
        float((error[0] + 0.5 * error[1]) / 1.5)
    )


def test_only_dimensions_that_a_robot_has_count():
    """The loss of a robot of two dimensions is what it is without the third; a step without any weighs nothing."""
    actions, wanted = torch.randn(2, 1, 4, 3).unbind(0)
    valid = torch.tensor([[1, 1, 0], [1, 1, 0], [1, 0, 1], [0, 0, 0]], dtype=torch.bool)[None]
    weights = torch.tensor([1.0, 0.5, 2.0, 4.0])
    loss = action_loss_per_sample(actions, wanted, valid, weights)
    narrow = [(actions - wanted)[0, step, valid[0, step]].square().mean() for step in range(3)]
    torch.testing.assert_close(loss[0], (narrow[0] + 0.5 * narrow[1] + 2 * narrow[2]) / 3.5)
    wanted[~valid] = 1e6
    assert torch.equal(action_loss_per_sample(actions, wanted, valid, weights), loss)
    wanted[0, 2, 2] += 1
    assert not torch.equal(action_loss_per_sample(actions, wanted, valid, weights), loss)
