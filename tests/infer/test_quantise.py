"""Eight bits: what is stored, what it costs in memory and in the last bits of actions, by every policy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from wamkit_client.types import BadInput

from tests.infer.test_properties import POLICIES, answers
from tests.policies.tiny_policy import encoder_of
from wamkit.infer.engine import Engine
from wamkit.infer.presets import PresetName
from wamkit.infer.quantise import Kind, Quantised, expect_multiplies, quantised, quantising
from wamkit.nn.lora import LoRALinear
from wamkit.taking import SHARED

CPU = torch.device("cpu")
NAMES = ("light_wam", "fast_wam, fast", "lawam")


def linear(dtype: torch.dtype) -> nn.Linear:
    return nn.Linear(64, 48).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("kind", "bound"), [("int8", 0.01), ("int8_inputs", 0.02), ("float8_weights", 0.04), ("float8", 0.05)]
)
def test_a_layer(kind: Kind, bound: float, dtype: torch.dtype) -> None:
    """bound: of the result; a row of small weights loses no more than one of large ones."""
    layer, x = linear(dtype), torch.randn(2, 5, 64).to(dtype)
    with torch.no_grad():
        layer.weight[7] *= 1e-3
    fast = quantised(nn.Sequential(layer), kind)[0]
    assert isinstance(fast, Quantised) and fast.bits.element_size() == 1
    assert fast.weight.dtype == dtype and fast(x).dtype == dtype and fast(x).shape == (2, 5, 48)
    for expected, found in ((layer.weight, fast.weight), (layer(x), fast(x))):
        assert (found.float() - expected.float()).norm() < bound * expected.float().norm()
    small = fast.weight[7].float() - layer.weight[7].float()
    assert small.norm() < bound * layer.weight[7].float().norm()


def error(name: str, preset: PresetName, dtype: torch.dtype) -> float:
    """Of chunks, against the plain policy's in float32; root mean square, relative."""

    def chunks(preset: PresetName, dtype: torch.dtype) -> np.ndarray:
        policy = POLICIES[name]().to(dtype).eval()
        return answers(Engine(encoder_of(policy), policy, CPU, preset), range(8))

    expected = chunks("plain", torch.float32)
    return float(
        np.linalg.norm(chunks(preset, dtype) - expected) / np.linalg.norm(expected - expected.mean())
    )


@pytest.mark.parametrize("name", NAMES)
def test_actions_beside_those_in_bfloat16(name: str) -> None:
    """Of random weights; docs/serve.md has trained ones."""
    plain, small = error(name, "plain", torch.bfloat16), error(name, "small", torch.bfloat16)
    assert small < 2.5 * plain and small < 0.05


def stored(module: Any) -> int:
    return sum(x.nbytes for x in (*module.parameters(), *module.buffers()))


@pytest.mark.parametrize("name", NAMES)
def test_a_quantised_policy_is_a_copy(name: str) -> None:
    policy = POLICIES[name]().bfloat16()
    before = {key: (x.data_ptr(), x.clone()) for key, x in policy.state_dict().items()}
    small = quantised(policy, "int8")
    bits = sum(x.bits.numel() for x in small.modules() if isinstance(x, Quantised))
    # a byte less for each number of theirs; its scales are one for each row
    assert type(small) is type(policy) and bits > 3000
    assert stored(small) < stored(policy) - 0.9 * bits
    assert not any(isinstance(module, LoRALinear) for module in small.modules())
    shared: dict[int, Tensor] = {x.data_ptr(): x for x in policy.parameters()}
    assert all(x.data_ptr() in shared for x in small.parameters())
    for key, (where, x) in before.items():
        assert policy.state_dict()[key].data_ptr() == where and torch.equal(policy.state_dict()[key], x)


def test_float8_needs_a_device_for_it() -> None:
    policy = POLICIES["light_wam"]()
    with pytest.raises(
        BadInput, match=r"needs a CUDA device of compute capability 8\.9 .* got cpu; choose small"
    ):
        Engine(encoder_of(policy), policy, CPU, "float8")
    with pytest.raises(BadInput):
        expect_multiplies(CPU, "float8")


@pytest.mark.parametrize("kind", ["int8_inputs", "float8_weights", "float8"])
@pytest.mark.parametrize("name", NAMES)
def test_eight_bits_act_nearly_alike(name: str, kind: Kind) -> None:
    """The arithmetic of the GPU, composed of float32 products; with all passes."""
    policy = POLICIES[name]().eval()
    engine = Engine(encoder_of(policy), policy, CPU, "plain")
    expected = answers(engine, range(4))
    engine._answer = policy.actor(policy.passes, quantising(SHARED, kind))
    found = answers(engine, range(4))
    assert 0 < np.linalg.norm(found - expected) < 0.1 * np.linalg.norm(expected - expected.mean())
