"""Two networks on two CUDA streams give what they give in turns, time after time and in a graph."""

from __future__ import annotations

import pytest
import torch

from tests.policies.tiny_fast_wam import tiny_config, tiny_policy
from wamkit.nn.wavefront import TwoStreams
from wamkit.policies.fast_wam.fused import FusedSampler
from wamkit.policies.fast_wam.sampling import Noise
from wamkit.policies.fast_wam.variants import VARIANTS


@pytest.mark.parametrize("name", VARIANTS)
def test_two_streams_agree_with_one(name: str, cuda: torch.device) -> None:
    policy = tiny_policy(tiny_config(variant=name)).to(cuda)
    one, two = FusedSampler(policy, 3), FusedSampler(policy, 3, TwoStreams(cuda))
    frames = 0 if policy.acting.imagines == "nothing" else 1
    for _ in range(20):
        present, video = (torch.randn(2, 27, count, 4, 8, device=cuda) for count in (1, frames))
        context, action = torch.randn(2, 5, 16, device=cuda), torch.randn(2, 6, 2, device=cuda)
        noise = Noise(action, video)
        expected, found = (sampler.sample(present, context, noise) for sampler in (one, two))
        assert torch.equal(found.action, expected.action)
        assert torch.equal(found.future, expected.future)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = two.sample(present, context, noise)
    graph.replay()
    assert torch.equal(recorded.action, expected.action)
