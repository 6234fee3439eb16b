"""The twins of the official work give our policies' chunks, and hand the device about as much as was counted there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from tests.policies import tiny_fast_wam, tiny_lawam
from tests.policies.tiny_policy import query_of, seeded, tiny_config, tiny_policy
from wamkit.bench.counting import work
from wamkit.bench.reference import fast_wam, lawam, light_wam
from wamkit.nn.lora import add_lora
from wamkit.policies.light_wam.policy import LORA_LAYERS, LoRATuning
from wamkit.types import Actor
from wamkit.wan.dit import SIZES, Adapters, WanDiT

READING = replace(tiny_config().expert, reads_proprio=True)
CASES: dict[str, tuple[Callable[[], nn.Module], Callable[..., Actor]]] = {
    "Light-WAM": (lambda: tiny_policy(tiny_config(LoRATuning(rank=4, alpha=8.0))), light_wam.twin),
    "Light-WAM, all trained": (lambda: tiny_policy(tiny_config()), light_wam.twin),
    "Light-WAM, reading proprio": (lambda: tiny_policy(tiny_config(expert=READING)), light_wam.twin),
    "Fast-WAM": (lambda: tiny_fast_wam.tiny_policy(tiny_fast_wam.tiny_config()), fast_wam.twin),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("batch", [1, 3])
def test_a_twin_gives_the_chunks_of_the_plain_policy(name: str, batch: int) -> None:
    build, twin = CASES[name]
    policy = build()
    plain = policy.act(query_of(policy, batch, seeded(range(batch))))
    answered = twin(policy)(query_of(policy, batch, seeded(range(batch))))
    assert answered.shape == plain.shape
    assert (answered - plain).abs().max() <= 1e-5 * plain.abs().max()


def test_the_blocks_of_light_wam_do_the_work_that_was_counted() -> None:
    """At RoboTwin's 480 tokens officially 26 operations before the blocks, 114 in each of 30, and 18 in the adapters;
    18.6 + 1,368.8 GF without them (2.3 GF)."""
    with torch.device("meta"):
        network = WanDiT(SIZES["1.3B"], Adapters(layers=(8, 16, 24), dim=256))
        layers = tuple(f"blocks.{i}.{layer}" for i in range(30) for layer in LORA_LAYERS)
        add_lora(network, layers, rank=64, alpha=128.0)
    network.to("meta", torch.bfloat16)
    present, context = (torch.empty(shape, device="meta") for shape in ((1, 16, 1, 48, 40), (1, 129, 4096)))
    counted = work(lambda: light_wam.look(network, present, context))
    assert abs(counted.operations / (26 + 30 * 114 + 18) - 1) < 0.02
    assert abs(counted.flops / 1389.7e9 - 1) < 0.005


@pytest.mark.parametrize("changes", [{}, {"subgoal": "shuffled"}, {"guidance": 2.0}])
def test_the_twin_of_lawam_gives_the_chunks_of_the_plain_policy(changes: dict[str, Any]) -> None:
    policy = tiny_lawam.tiny_lawam(**changes).eval()
    plain = policy.act(tiny_lawam.query(3))
    answered = lawam.twin(policy)(tiny_lawam.query(3))
    assert (answered - plain).abs().max() <= 1e-5 * plain.abs().max()
