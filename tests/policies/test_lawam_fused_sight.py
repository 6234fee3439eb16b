"""LaWAM's fused prior and world model give the states and features of the plain ones, with fewer operations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.policies.test_no_host_work import META, OnTheDevice
from tests.policies.tiny_lawam import CONFIG, PRIOR, SPEC, inputs
from wamkit.bench.counting import Operations
from wamkit.policies.lawam.fused_prior import FusedPrior
from wamkit.policies.lawam.fused_world import FusedWorld
from wamkit.policies.lawam.latent_action import LatentSize
from wamkit.policies.lawam.prior import Prior, PriorSize
from wamkit.policies.lawam.prompt import HashedPromptConfig
from wamkit.policies.lawam.world_model import LatentWorldModel
from wamkit.tree import Tree, tree_map

WIDE = PriorSize(
    layers=2, vision_blocks=2, vision_taps=(0,), vocabulary=64
)  # few layers of the released size
WIDE_WORLD = LatentSize(world_layers=2)


def random_weights(network: Any) -> Any:
    torch.manual_seed(1)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.04 if parameter.ndim > 1 else 0.3)
    return network.requires_grad_(False)


def released_size() -> Tree:
    """Two views of 256 x 256 pixels, and a prompt with padding."""
    data = replace(SPEC, view_height=256, view_width=256)
    prompt = HashedPromptConfig(length=170, pixels=32, vocabulary=64).load(data)
    images = torch.randint(256, (1, 2, 256, 256, 3), dtype=torch.uint8)
    return {"images": images, **prompt.encode(["push the button"])}


def existing(hidden: Tensor, asked: Tree) -> Tensor:
    """Of all prompts, the tokens before their padding."""
    return torch.cat([row[:length] for row, length in zip(hidden, asked["length"], strict=True)])


def error(found: Tensor, expected: Tensor) -> float:
    return ((found.float() - expected).square().mean() / expected.square().mean()).sqrt().item()


@pytest.mark.parametrize("padding", [True, False])
def test_states_are_those_of_the_plain_prior(padding: bool) -> None:
    prior, asked = random_weights(Prior(PRIOR)), inputs(3, frames=1)
    fused = FusedPrior(prior, SPEC.view_height, SPEC.view_width, CONFIG.prompt.length)
    expected = existing(prior(asked), asked)
    if not padding:
        asked = asked | {"tokens": asked["tokens"][:, : int(asked["length"].max())]}
    found = existing(fused(asked), asked)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_at_released_width_and_in_bfloat16() -> None:
    rounded, asked = random_weights(Prior(WIDE)).bfloat16(), released_size()
    plain, fused = (existing(way(asked), asked) for way in (rounded, FusedPrior(rounded, 256, 256, 170)))
    exact = rounded.float()
    expected = existing(exact(asked), asked)
    found = existing(FusedPrior(exact, 256, 256, 170)(asked), asked)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert error(fused, expected) <= 1.5 * error(plain, expected)


@pytest.mark.parametrize(
    ("size", "features", "grid"), [(CONFIG.latent, 12, (3, 4)), (WIDE_WORLD, 768, (16, 16))]
)
def test_features_are_those_of_the_plain_world_model(
    size: LatentSize, features: int, grid: tuple[int, int]
) -> None:
    world = random_weights(LatentWorldModel(size, features, grid)).bfloat16()
    u, z = torch.randn(1, grid[0] * grid[1], features), torch.randn(1, size.code)
    plain, fused = world(u, z), FusedWorld(world)(u, z)
    exact = world.float()
    expected, found = exact(u, z), FusedWorld(exact)(u, z)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert error(fused, expected) <= 1.5 * error(plain, expected)


def test_operations_at_full_size_and_none_on_the_host() -> None:
    with META:
        prior, world = Prior(PriorSize()), LatentWorldModel(LatentSize(), 768, (16, 16))
    prior, world = (network.to(META).bfloat16() for network in (prior, world))
    asked = tree_map(lambda x: x.to(META), released_size())
    u, z = torch.empty(1, 256, 768, device=META), torch.empty(1, 32, device=META)
    fused, fused_world = FusedPrior(prior, 256, 256, 170), FusedWorld(world)
    ways = ((lambda: prior(asked), lambda: fused(asked)), (lambda: world(u, z), lambda: fused_world(u, z)))
    for plain, fast in ways:
        counts = []
        for way in (plain, fast):
            with torch.inference_mode(), Operations() as operations:
                way()
            counts.append(operations.total())
        assert counts[1] <= 0.72 * counts[0], counts
    with torch.inference_mode(), OnTheDevice() as found:
        fused(asked)
        fused_world(u, z)
    assert not found.elsewhere
