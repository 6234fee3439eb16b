"""Light-WAM with its LoRA merged acts as the plain one, and leaves it alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.policies.tiny_policy import query_of, tiny_config, tiny_policy
from wamkit.nn.lora import LoRALinear, merge_lora
from wamkit.policies.light_wam.policy import FullTuning, LightWAM, LoRATuning

LORA = LoRATuning(rank=3, alpha=6.0)


def chunk(policy: LightWAM) -> Tensor:
    return policy.act(query_of(policy))


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 2e-6), (torch.bfloat16, 0.03)])
def test_chunks_are_those_of_the_plain_policy(dtype: torch.dtype, bound: float) -> None:
    policy = tiny_policy(tiny_config(LORA)).to(dtype)
    expected = chunk(policy)
    assert (chunk(merge_lora(policy)) - expected).abs().max() <= bound * expected.abs().max()


def test_no_lora_is_left_and_the_plain_policy_keeps_its_own() -> None:
    policy = tiny_policy(tiny_config(LORA))
    before = {name: (tensor.data_ptr(), tensor.clone()) for name, tensor in policy.state_dict().items()}
    fast = merge_lora(policy)
    assert type(fast) is LightWAM
    assert not any(isinstance(module, LoRALinear) for module in fast.modules())
    assert fast.state_dict().keys() == {name for name in before if ".lora_" not in name}
    after = policy.state_dict()
    assert after.keys() == before.keys()
    for name, (where, tensor) in before.items():
        assert after[name].data_ptr() == where and torch.equal(after[name], tensor)
    lora = {name.replace(".lora_up", "") for name in before if ".lora_up." in name}
    own = {name for name, x in fast.state_dict().items() if x.data_ptr() != before[name][0]}
    assert own == lora and len(lora) == 30


def test_a_policy_without_lora_comes_back_with_the_same_weights() -> None:
    policy = tiny_policy(tiny_config(FullTuning()))
    fast = merge_lora(policy)
    assert all(x is policy.get_parameter(name) for name, x in fast.named_parameters())
    assert torch.equal(chunk(fast), chunk(policy))
