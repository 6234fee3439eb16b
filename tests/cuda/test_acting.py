"""Acting on a CUDA device: as on the processor, in bfloat16, by every preset, without waiting for the host."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.infer.test_properties import answers
from tests.policies import tiny_fast_wam as fast
from tests.policies import tiny_policy as light
from tests.policies.tiny_lawam import tiny_lawam
from tests.policies.tiny_policy import clip, encoder_of, seeded
from tests.test_precision import observed, saved
from wamkit.config import load_engine_as, load_run
from wamkit.infer.engine import Engine
from wamkit.infer.presets import PresetName
from wamkit.infer.quantise import EIGHT_BITS_FROM
from wamkit.policies.fast_wam.fused import FusedSampler
from wamkit.policies.fast_wam.sampling import Noise
from wamkit.policies.fast_wam.variants import VARIANTS
from wamkit.policies.light_wam.policy import LoRATuning
from wamkit.types import Actor, Query

POLICIES = {
    "light_wam": lambda: light.tiny_policy(light.tiny_config(LoRATuning(rank=3, alpha=6.0))),
    **{
        f"fast_wam, {name}": (lambda name=name: fast.tiny_policy(fast.tiny_config(variant=name)))
        for name in VARIANTS
    },
}
GRAPHED = {**POLICIES, "lawam": tiny_lawam}
HALF, EXACT = torch.bfloat16, torch.float32


def asked(name: str, dtype: torch.dtype, device: torch.device) -> tuple[dict[str, Actor], Query]:
    """A policy's ways of acting, and a query for three robots."""
    policy = POLICIES[name]().to(device, dtype).eval()
    engine = Engine(encoder_of(policy).to(device), policy, device, preset="plain")
    presets = {"plain": policy.actor(()), "exact": policy.actor(policy.passes)}
    return presets, engine.query(clip(3, frames=1), seeded(range(3)))


def chunk(act: Actor, query: Query) -> torch.Tensor:
    with torch.inference_mode():
        return act(replace(query, generators=seeded(range(3)))).float().cpu()


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize(("dtype", "bound"), [(EXACT, 1e-4), (HALF, 0.05)], ids=["fp32", "bf16"])
def test_every_preset_acts_as_the_plain_policy(
    name: str, dtype: torch.dtype, bound: float, cuda: torch.device
) -> None:
    """bound: of the largest action."""
    presets, query = asked(name, dtype, cuda)
    plain = chunk(presets["plain"], query)
    assert plain.isfinite().all()
    for preset, act in presets.items():
        assert (chunk(act, query) - plain).abs().max() <= bound * plain.abs().max(), preset


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize(("dtype", "bound"), [(EXACT, 1e-4), (HALF, 0.05)], ids=["fp32", "bf16"])
def test_chunks_are_those_of_the_processor_in_float32(
    name: str, dtype: torch.dtype, bound: float, cuda: torch.device
) -> None:
    there, here = asked(name, dtype, cuda), asked(name, EXACT, torch.device("cpu"))
    expected = chunk(here[0]["plain"], here[1])
    assert (chunk(there[0]["plain"], there[1]) - expected).abs().max() <= bound * expected.abs().max()


@pytest.mark.parametrize("kind", ["fast_wam", "light_wam"])
@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-4), ("bf16", 0.05)])
def test_a_run_directory_acts(
    kind: str, precision: str, bound: float, cuda: torch.device, tmp_path: Path
) -> None:
    folder = saved(tmp_path / "run", kind, EXACT)
    run = load_run(folder)
    run = replace(run, eval=replace(run.eval, precision=precision))
    on_cuda = load_engine_as(run, folder, cuda)
    assert all(x.is_cuda for x in (*on_cuda.policy.parameters(), *on_cuda.policy.buffers()))
    exact = load_engine_as(
        replace(run, eval=replace(run.eval, precision="fp32")), folder, torch.device("cpu")
    )
    found, expected = (
        np.stack([chunk.actions for chunk in engine.act(observed())]) for engine in (on_cuda, exact)
    )
    assert np.abs(found - expected).max() <= bound * np.abs(expected).max()


@pytest.mark.parametrize("name", GRAPHED)
def test_graphs_answer_as_what_they_recorded(name: str, cuda: torch.device) -> None:
    """From images to chunks, in float32; other images, instructions, noise and batches than when it was recorded."""
    policies = [GRAPHED[name]().to(cuda).eval() for _ in range(2)]
    plain, fast = (
        Engine(encoder_of(policy).to(cuda), policy, cuda, preset)
        for policy, preset in zip(policies, ("exact", "fast"), strict=True)
    )
    for seeds in ([1], [2], [3, 4, 5], [6, 7, 8, 9], [1]):
        found, expected = answers(fast, seeds), answers(plain, seeds)
        assert np.abs(found - expected).max() <= 1e-3 * np.abs(expected).max()


@pytest.mark.parametrize("name", GRAPHED)
def test_memory_is_flat_while_replaying(name: str, cuda: torch.device) -> None:
    policy = GRAPHED[name]().to(cuda, HALF).eval()
    engine = Engine(encoder_of(policy).to(cuda), policy, cuda, "fast")
    engine.release()
    answers(engine, [1])
    before = torch.cuda.memory_allocated(cuda)
    for _ in range(50):
        answers(engine, [1])
    assert torch.cuda.memory_allocated(cuda) <= before


@pytest.mark.parametrize(("preset", "bound"), [("small", 0.05), ("float8", 0.2)])
@pytest.mark.parametrize("name", GRAPHED)
def test_eight_bits_act_nearly_alike(name: str, preset: PresetName, bound: float, cuda: torch.device) -> None:
    if preset == "float8" and torch.cuda.get_device_capability(cuda) < EIGHT_BITS_FROM:
        pytest.skip("needs a device that multiplies float8")
    policies = [GRAPHED[name]().to(cuda, HALF).eval() for _ in range(2)]
    plain, small = (
        Engine(encoder_of(policy).to(cuda), policy, cuda, which)
        for policy, which in zip(policies, ("plain", preset), strict=True)
    )
    expected = answers(plain, range(4))
    assert np.abs(answers(small, range(4)) - expected).max() <= bound * np.abs(expected).max()


@pytest.mark.parametrize("name", [name for name in POLICIES if "no_video" not in name])
def test_passes_expect_the_same(name: str, cuda: torch.device) -> None:
    policy = POLICIES[name]().to(cuda).eval()
    engine = Engine(encoder_of(policy).to(cuda), policy, cuda)
    query = engine.query(clip(2, frames=1))
    found, expected = (
        policy.foreseer(passes)(replace(query, generators=seeded(range(2))), engine.encoder)
        for passes in (policy.passes, ())
    )
    torch.testing.assert_close(found.now, expected.now, rtol=0, atol=1e-4)
    torch.testing.assert_close(found.later, expected.later, rtol=1e-3, atol=1e-3)


@contextmanager
def without_waiting() -> Iterator[None]:
    """An error where the host waits for the device, as it does to copy something to or from it."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("preset", ["plain", "exact"])
def test_light_wam_never_waits(preset: str, cuda: torch.device) -> None:
    presets, query = asked("light_wam", HALF, cuda)
    with torch.inference_mode():
        presets[preset](query)  # instructions that are new are read on the host
        with without_waiting():
            presets[preset](query)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_fused_sampler_never_waits(name: str, cuda: torch.device) -> None:
    policy = POLICIES[f"fast_wam, {name}"]().to(cuda, HALF)
    sampler = FusedSampler(policy, 3)
    frames = 0 if policy.acting.imagines == "nothing" else 1
    present, video = (torch.randn(2, 27, count, 4, 8, device=cuda) for count in (1, frames))
    context, action = torch.randn(2, 5, 16, device=cuda), torch.randn(2, 6, 2, device=cuda)
    with without_waiting():
        sampler.sample(present, context, Noise(action, video))
