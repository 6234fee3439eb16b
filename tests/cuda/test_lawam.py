"""LaWAM on a CUDA device: both stages learn in bfloat16, every preset acts as the plain policy on the processor."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.policies import tiny_lawam as tiny
from wamkit.draws import Draws
from wamkit.train.loop import TrainConfig, initial_state, optimize
from wamkit.tree import tree_map
from wamkit.types import Actor, Query

BF16 = TrainConfig(steps=12, batch_size=4, warmup_steps=1, learning_rate=3e-3, precision="bf16")
HALF, EXACT = torch.bfloat16, torch.float32


def asked(device: torch.device) -> Query:
    query = tiny.query(3)
    return replace(
        query,
        inputs=tree_map(lambda x: x.to(device), query.inputs),
        embodiment=query.embodiment.to(device),
        hz=query.hz.to(device),
    )


def chunk(act: Actor, device: torch.device) -> torch.Tensor:
    with torch.inference_mode():
        return act(asked(device)).float().cpu()


def test_a_few_steps_in_bfloat16(cuda: torch.device) -> None:
    state = initial_state(tiny.tiny_lawam().to(cuda), BF16)
    batch = tiny.batch(4).to(cuda)
    found = [optimize(state.module, batch, step, state, BF16)["loss"] for step in range(BF16.steps)]
    again = optimize(state.module, batch, 0, state, BF16)["loss"]  # with the noise of the first step
    assert torch.stack(found).isfinite().all() and again < 0.9 * found[0]
    assert all(x.is_cuda for x in state.module.parameters())


def test_losses_are_those_of_the_processor(cuda: torch.device) -> None:
    def losses(device: torch.device) -> dict[str, torch.Tensor]:
        policy, batch = tiny.tiny_lawam().to(device), tiny.batch(4).to(device)
        # drawn on the processor, so that both get the same noise
        found = policy(batch, Draws.of_step(0, 0, torch.device("cpu"), 0, 4, 4))
        return {name: loss.detach().cpu() for name, loss in found.items()}

    here, there = losses(torch.device("cpu")), losses(cuda)
    for name, expected in here.items():
        assert float(there[name]) == pytest.approx(float(expected), rel=1e-4), name


@pytest.mark.parametrize(("dtype", "bound"), [(EXACT, 1e-4), (HALF, 0.05)], ids=["fp32", "bf16"])
@pytest.mark.parametrize("passes", [(), ("fused_expert",)], ids=["plain", "exact"])
def test_every_way_acts_as_the_plain_policy(
    passes: tuple[str, ...], dtype: torch.dtype, bound: float, cuda: torch.device
) -> None:
    """bound: of the largest action."""
    expected = chunk(tiny.tiny_lawam().eval().act, torch.device("cpu"))
    policy = tiny.tiny_lawam().to(cuda, dtype).eval()
    found = chunk(policy.actor(passes), cuda)
    assert (found - expected).abs().max() <= bound * expected.abs().max()
