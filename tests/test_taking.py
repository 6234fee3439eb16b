"""An actor made of weights that are taken from a policy answers as one that shares them, and holds no part twice."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.infer.test_properties import POLICIES, answers
from tests.policies.full_width import Networks
from tests.policies.tiny_policy import encoder_of
from wamkit.infer.engine import Engine
from wamkit.infer.presets import PresetName
from wamkit.policies.fast_wam.fused import FusedSampler
from wamkit.policies.fast_wam.policy import FastWAMConfig
from wamkit.taking import SHARED, Take, taken
from wamkit.wan.dit import SIZES

CPU, META = torch.device("cpu"), torch.device("meta")
EAGER: tuple[PresetName, ...] = ("plain", "exact", "small", "float8_weights")


@pytest.mark.parametrize("preset", EAGER)
@pytest.mark.parametrize("name", POLICIES)
def test_taken_weights_answer_as_shared_ones(name: str, preset: PresetName) -> None:
    """Bit for bit; afterwards the policy has none of those that were asked for."""
    policy, other = copies = [POLICIES[name]().eval() for _ in range(2)]
    other.load_state_dict(policy.state_dict())
    found = [
        answers(Engine(encoder_of(each), each, CPU, preset, take=take), range(3))
        for each, take in zip(copies, (taken(CPU, torch.float32), SHARED), strict=True)
    ]
    assert np.array_equal(*found)
    assert any(parameter.is_meta for parameter in policy.parameters())
    assert not any(buffer.is_meta for buffer in policy.buffers())


def test_a_part() -> None:
    part = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    weight = part[0].weight.detach().clone()
    take = taken(CPU, torch.bfloat16)
    own = take.part(part)
    assert torch.equal(own[0].weight, weight.bfloat16())
    assert part[0].weight.is_meta and part[0].weight.shape == weight.shape
    assert torch.equal(own[1].running_mean, part[1].running_mean)
    with pytest.raises(AssertionError, match="have been taken already"):
        take.part(part)


class Held(TorchDispatchMode):
    """The most bytes that tensors made meanwhile took at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.peak, self._live = 0, dict[int, tuple[StorageWeakRef, int]]()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        given = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        for tensor in tree_leaves(result):
            storage = tensor.untyped_storage() if isinstance(tensor, Tensor) else None
            if storage is not None and storage._cdata not in given:
                self._live[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
                self._weigh()
        return result

    def _weigh(self) -> None:
        self._live = {key: held for key, held in self._live.items() if not held[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._live.values()))


def test_fast_wam_at_full_size() -> None:
    """Where files lie on another device: at no moment more than 1.15 times the weights in bfloat16, 12 GB."""
    networks = Networks.build(FastWAMConfig(), SIZES["5B"].layers, META, torch.bfloat16)
    stored = sum(x.nbytes for part in (networks.dit, networks.action) for x in part.parameters())
    with Held() as held:
        FusedSampler(networks, 10, take=Take(part=copy.deepcopy, layer=itself, network=copy.deepcopy))
    assert 11e9 < stored < 13e9
    assert 0.8 * stored < held.peak < 1.15 * stored, (stored, held.peak)


def itself(layer: nn.Module) -> nn.Module:
    return layer
