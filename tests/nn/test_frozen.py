"""Frozen Linears kept in autocast's precision: the same training, bit for bit, in less memory."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from tests.policies.tiny_policy import batch_of, tiny_config, tiny_policy
from wamkit.nn.frozen import store_frozen_linears
from wamkit.policies.light_wam.policy import LightWAM, LoRATuning
from wamkit.train.loop import TrainConfig, initial_state, optimize

CONFIG = TrainConfig(steps=3, batch_size=3, warmup_steps=1, learning_rate=1e-2, precision="bf16")


def policy() -> LightWAM:
    return tiny_policy(tiny_config(LoRATuning(rank=2)))


def losses(trained: LightWAM) -> Iterator[dict[str, torch.Tensor]]:
    state, batch = initial_state(trained, CONFIG), batch_of(trained)
    for step in range(CONFIG.steps):
        yield optimize(state.module, batch, step, state, CONFIG)


def test_training_is_the_same_bit_for_bit():
    plain, stored = policy(), policy()
    store_frozen_linears(stored, torch.bfloat16)
    for before, after in zip(losses(plain), losses(stored), strict=True):
        assert before.keys() == after.keys() and all(
            torch.equal(before[name], after[name]) for name in before
        )
    for name, parameter in plain.named_parameters():
        assert torch.equal(parameter, stored.get_parameter(name)) or not parameter.requires_grad


def test_only_frozen_linears_are_stored_otherwise():
    stored = policy()
    store_frozen_linears(stored, torch.bfloat16)
    halved = {name for name, x in stored.named_parameters() if x.dtype == torch.bfloat16}
    assert not any(stored.get_parameter(name).requires_grad for name in halved)
    assert {
        "dit.blocks.0.self_attn.q.weight",
        "dit.blocks.2.ffn.2.bias",
        "dit.time_projection.1.weight",
    } <= halved
    for name in ("dit.blocks.0.modulation", "dit.blocks.0.norm3.weight", "dit.patch_embedding.weight"):
        assert stored.get_parameter(name).dtype == torch.float32
    assert stored.get_parameter("dit.blocks.0.self_attn.q.lora_down.weight").dtype == torch.float32
