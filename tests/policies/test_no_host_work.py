"""While acting, everything lives on the device: no tensor is made on the host and copied over.

The device is "meta", so that this runs anywhere: what is made on the host shows as a tensor elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.policies import tiny_fast_wam
from tests.policies.full_width import Networks, asked, expert_on, libero, without_padding
from tests.policies.tiny_policy import tiny_config, tiny_policy
from wamkit.nn.lora import merge_lora
from wamkit.policies.fast_wam.fused import FusedSampler
from wamkit.policies.fast_wam.variants import VARIANTS
from wamkit.policies.lawam.action_expert import ExpertSize
from wamkit.policies.lawam.fused import FusedExpert
from wamkit.policies.light_wam.policy import LoRATuning
from wamkit.types import Query
from wamkit.wan.vae import VAESize, WanVAE

META = torch.device("meta")


class OnTheDevice(TorchDispatchMode):
    """Collects the operations that touch a tensor elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.elsewhere: list[str] = []

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = operation(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor)]
        if any(not tensor.is_meta for tensor in tensors):
            self.elsewhere.append(str(operation))
        return result


def test_a_tensor_from_the_host_is_seen() -> None:
    with OnTheDevice() as found:
        torch.zeros(2, device=META) + torch.tensor([1.0, 2.0]).to(META)
    assert found.elsewhere


@pytest.mark.parametrize("merged", [False, True])
def test_light_wam(merged: bool) -> None:
    policy = tiny_policy(tiny_config(LoRATuning(rank=2))).to(META)
    policy = merge_lora(policy) if merged else policy
    present, context = torch.empty(2, 27, 1, 4, 8, device=META), torch.empty(2, 5, 16, device=META)
    with torch.inference_mode(), OnTheDevice() as found:
        chunk = policy.expert(policy.look(present, context), policy.data.horizon)
    assert chunk.is_meta and not found.elsewhere


def test_light_wam_with_every_pass() -> None:
    """Of a query whose instruction is known."""
    policy = tiny_policy(tiny_config(LoRATuning(rank=2))).to(META)
    actor = policy.actor(policy.passes)
    inputs = {
        "present": torch.empty(2, 27, 1, 4, 8, device=META),
        "context": torch.empty(2, 4, 16, device=META),
        "proprio": torch.empty(2, 3, device=META),
    }
    numbers, hz = torch.zeros(2, dtype=torch.int64, device=META), torch.empty(2, device=META)
    query = Query(inputs, numbers, hz, (), instructions=("lift",) * 2)
    actor(query)
    with OnTheDevice() as found:
        assert actor(query).is_meta
    assert not found.elsewhere


@pytest.mark.parametrize("name", VARIANTS)
def test_fused_fast_wam(name: str) -> None:
    networks = Networks.build(tiny_fast_wam.tiny_config(), 3, META, torch.bfloat16)
    networks = replace(networks, acting=VARIANTS[name])
    present, context, noise = libero(networks, batch=2)
    channels = networks.dit.size.channels
    video = torch.empty(2, channels, *noise.video.shape[2:], device=META)
    asked = present[:, :1].expand(-1, channels, -1, -1, -1), context, replace(noise, video=video)
    sampler = FusedSampler(networks, 3)
    with OnTheDevice() as found:
        assert sampler.sample(*asked).action.is_meta
    assert not found.elsewhere


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_lawams_expert(guidance: float) -> None:
    expert = expert_on(META, torch.float32, ExpertSize(width=16, heads=2, ffn=16, layers=4))
    noise, condition = asked(expert)
    short, fast = without_padding(condition), FusedExpert(expert, 3, guidance)
    with OnTheDevice() as found:
        assert fast.sample(noise, short).is_meta
        expert.context(condition)
        expert.velocity(noise, condition.hz, expert.context(condition))
    assert not found.elsewhere


def test_the_wan_vae() -> None:
    size = VAESize(
        width=4,
        multipliers=(1, 2, 4, 4),
        resnets_per_level=2,
        temporal_down=(False, True, True),
        latent_mean=(0.5,) * 4,
        latent_std=(2.0,) * 4,
    )
    vae = WanVAE(size).to(META)
    with OnTheDevice() as found:
        assert vae.encode(torch.empty(1, 3, 1, 16, 16, device=META)).is_meta
    assert not found.elsewhere
