"""The fast sampler gives the plain sampler's chunks, and hands the device a fifth of the official operations."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from wamkit_client.types import BadInput

from tests.policies.full_width import Networks, libero
from tests.policies.tiny_fast_wam import tiny_config, tiny_policy
from tests.policies.tiny_policy import encoder_of, query_of, seeded
from wamkit.bench.counting import Operations
from wamkit.bench.reference import fast_wam as official_sampler
from wamkit.bench.shapes import RememberedShapes
from wamkit.infer.engine import Engine
from wamkit.nn.rope import GridRotary, LineRotary
from wamkit.nn.wavefront import Walk, in_turns, walked
from wamkit.policies.fast_wam.fused import NEEDS, FusedSampler
from wamkit.policies.fast_wam.policy import FastWAM, FastWAMConfig
from wamkit.policies.fast_wam.sampling import Noise, Sample, sample
from wamkit.policies.fast_wam.variants import VARIANTS
from wamkit.wan.dit import SIZES
from wamkit.wan.fused import lay_out

COUNTED_OFFICIALLY = 22_430  # of the ten action steps (spec 6.3)


def query(policy: FastWAM, batch: int) -> tuple[Tensor, Tensor, Noise]:
    """Present frame, context, noise."""
    asked = query_of(policy, batch, seeded(range(batch)))
    present, context = asked.inputs["present"], policy.context(asked.inputs, asked.embodiment)
    return present, context.detach(), policy.draw_noise(present, asked.generators)


def assert_same(fast: Sample, plain: Sample) -> None:
    for name in ("action", "future"):
        mine, twin = getattr(fast, name), getattr(plain, name)
        assert mine.shape == twin.shape
        if twin.numel():
            assert (mine - twin).abs().max() <= 1e-5 * twin.abs().max(), name


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize(("batch", "steps"), [(1, 1), (1, 10), (2, 3), (5, 10)])
def test_chunks_and_futures_are_those_of_the_plain_sampler(name: str, batch: int, steps: int) -> None:
    policy = tiny_policy(tiny_config(variant=name))
    present, context, noise = query(policy, batch)
    with torch.no_grad():
        plain = sample(policy, present, context, noise, steps)
    assert_same(FusedSampler(policy, steps).sample(present, context, noise), plain)


def test_the_small_number_in_every_norm_is_the_same() -> None:
    config = tiny_config(variant="joint")
    policy = tiny_policy(replace(config, size=replace(config.size, eps=0.3)))
    present, context, noise = query(policy, 2)
    with torch.no_grad():
        plain = sample(policy, present, context, noise, 3)
    assert_same(FusedSampler(policy, 3).sample(present, context, noise), plain)


@pytest.mark.parametrize("name", VARIANTS)
def test_one_sampler_answers_queries_of_any_size(name: str) -> None:
    policy = tiny_policy(tiny_config(variant=name))
    sampler = FusedSampler(policy, 3)
    present, context, noise = query(policy, 4)
    together = sampler.sample(present, context, noise)
    for rows in (slice(0, 1), slice(1, 4), slice(3, 4)):
        alone = sampler.sample(present[rows], context[rows], Noise(noise.action[rows], noise.video[rows]))
        assert_same(alone, Sample(together.action[rows], together.future[rows]))
    wider = present.repeat(1, 1, 1, 1, 2)  # another grid
    noise = replace(noise, video=noise.video.repeat(1, 1, 1, 1, 2))
    with torch.no_grad():
        assert_same(sampler.sample(wider, context, noise), sample(policy, wider, context, noise, 3))


@pytest.mark.parametrize("name", VARIANTS)
def test_an_engine_acts_with_it(name: str) -> None:
    policy = tiny_policy(tiny_config(variant=name)).eval()
    plain = policy.act(query_of(policy, 3, seeded(range(3))))
    engine = Engine(encoder_of(policy), policy, torch.device("cpu"))
    acting = engine._answer(query_of(policy, 3, seeded(range(3))))
    assert torch.allclose(acting, plain, rtol=0, atol=1e-5 * plain.abs().max().item())


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("passes", [tuple(NEEDS)[:count] for count in range(len(NEEDS) + 1)])
def test_every_pass_acts_as_the_plain_policy(name: str, passes: tuple[str, ...]) -> None:
    policy = tiny_policy(tiny_config(variant=name)).eval()
    answer = policy.actor(passes)
    for told in (("push", "pull"), ("push", "pull"), ()):
        asked = replace(query_of(policy, 2, seeded(range(2))), instructions=told)
        plain = policy.act(query_of(policy, 2, seeded(range(2))))
        assert torch.allclose(answer(asked), plain, rtol=0, atol=1e-5 * plain.abs().max().item())


def test_a_pass_without_what_it_builds_on_is_refused() -> None:
    with pytest.raises(BadInput, match="two_streams builds on fused_blocks"):
        tiny_policy(tiny_config()).actor(("two_streams",))


def test_the_policy_is_left_as_it_was(tmp_path: Path) -> None:
    """Its parameters are the same tensors in the same memory, and can be saved."""
    policy = tiny_policy(tiny_config(variant="idm"))
    before = {name: (tensor.data_ptr(), tensor.clone()) for name, tensor in policy.state_dict().items()}
    present, context, noise = query(policy, 2)
    sampler = FusedSampler(policy, 3)
    sampler.sample(present, context, noise)
    after = policy.state_dict()
    assert after.keys() == before.keys()
    assert all(after[name].data_ptr() == where for name, (where, _) in before.items())
    save_file(after, tmp_path / "weights.safetensors")
    saved = load_file(tmp_path / "weights.safetensors")
    assert all(torch.equal(saved[name], tensor) for name, (_, tensor) in before.items())


STACKED = ("self_attn.q", "self_attn.k", "self_attn.v", "cross_attn.k", "cross_attn.v")


def test_what_was_copied_is_freed_with_the_policy_and_all_else_is_shared() -> None:
    policy = tiny_policy(tiny_config(variant="idm"))
    present, context, noise = query(policy, 2)
    sampler = FusedSampler(policy, 3)
    before = sampler.sample(present, context, noise)
    blocks = [*policy.dit.blocks, *policy.action.blocks]
    copied = [weakref.ref(block.get_submodule(name).weight) for block in blocks for name in STACKED]
    shared = [weakref.ref(block.ffn[0].weight) for block in blocks]
    del policy, blocks
    gc.collect()
    assert not any(weight() is not None for weight in copied)
    assert all(weight() is not None for weight in shared)
    assert_same(sampler.sample(present, context, noise), before)


def test_at_full_size_a_third_of_the_weights_is_copied() -> None:
    """As its docstring says, in bytes of bfloat16."""
    networks = Networks.build(FastWAMConfig(), DEPTH, torch.device("meta"), torch.bfloat16)
    sampler = FusedSampler(networks, 10)
    parts = (sampler.video, sampler.action)
    made = [layer for net in parts for layer in (net.context.kv, *(block.qkv for block in net.blocks))]
    copied = sum(layer.weight.nbytes + layer.bias.nbytes for layer in made)
    whole = sum(p.nbytes for network in (networks.dit, networks.action) for p in network.parameters())
    assert (round(copied / 1e9, 1), round(whole / 1e9)) == (3.8, 12)


def test_made_again_after_training_it_knows_the_new_weights() -> None:
    policy = tiny_policy(tiny_config())
    present, context, noise = query(policy, 2)
    old = FusedSampler(policy, 3).sample(present, context, noise)
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)
    action = policy.action.head(policy.action.action_encoder(noise.action))
    (action.square().mean() + sum(p.square().mean() for p in policy.action.blocks.parameters())).backward()
    optimizer.step()
    with torch.no_grad():
        plain = sample(policy, present, context, noise, 3)
    assert (plain.action - old.action).abs().max() > 1e-3
    assert_same(FusedSampler(policy, 3).sample(present, context, noise), plain)


@pytest.mark.parametrize("name", VARIANTS)
def test_networks_that_take_turns_give_what_they_give_one_after_the_other(name: str) -> None:
    def one_after_the_other(ahead: Walk[Any], behind: Walk[Any], layers: int) -> tuple[Any, Any]:
        return walked(ahead), walked(behind)

    policy = tiny_policy(tiny_config(variant=name))
    asked = query(policy, 2)
    mine, other = (FusedSampler(policy, 3, way).sample(*asked) for way in (in_turns, one_after_the_other))
    assert torch.equal(mine.action, other.action)
    assert torch.equal(mine.future, other.future)


def test_bfloat16_stays_close() -> None:
    policy = tiny_policy(tiny_config(variant="joint"))
    present, context, noise = query(policy, 2)
    exact = FusedSampler(policy, 10).sample(present, context, noise)
    rounded = FusedSampler(policy.bfloat16(), 10).sample(present, context, noise)
    assert rounded.action.dtype == rounded.future.dtype == torch.float32
    assert (rounded.action - exact.action).abs().max() < 0.05 * exact.action.abs().max()
    assert (rounded.future - exact.future).abs().max() < 0.05 * exact.future.abs().max()


# where groups lie


@pytest.mark.parametrize(
    ("name", "frames", "expected"),
    [
        ("fast", 0, {"present": (0, 6), "future": (6, 6), "action": (6, 10)}),
        ("no_video", 0, {"present": (0, 6), "action": (6, 10)}),
        ("joint", 2, {"present": (0, 6), "future": (6, 18), "action": (18, 22)}),
        ("idm", 2, {"present": (0, 6), "future": (6, 18), "given": (6, 18), "action": (18, 22)}),
    ],
)
def test_what_a_group_sees_is_all_up_to_its_own_end(
    name: str, frames: int, expected: Mapping[str, tuple[int, int]]
) -> None:
    found = lay_out(VARIANTS[name].sees, frames, 2, 3, 4, GridRotary(20), LineRotary(20))
    assert {group: (slot.start, slot.end) for group, slot in found.items()} == expected


def test_a_visibility_that_is_no_slice_is_refused() -> None:
    sees = (
        ("present", ("present",)),
        ("future", ("present", "future")),
        ("action", ("future", "action")),
    )
    with pytest.raises(AssertionError, match="do not lie side by side"):
        lay_out(sees, 2, 2, 3, 4, GridRotary(20), LineRotary(20))


# operations; how many there are depends on depth, dtype and kind of device, not on width: most are of a narrow network

DEPTH = SIZES["5B"].layers
NARROW = replace(SIZES["5B"], width=48, ffn=32, heads=2, head_dim=20, text_dim=16, time_dim=16)


def narrow(device: str) -> Networks:
    config = FastWAMConfig(size=NARROW, action_width=24, action_ffn=32)
    return Networks.build(config, DEPTH, torch.device(device), torch.bfloat16)


@dataclass(frozen=True)
class Counted:
    """Operations of a whole query and of its action steps."""

    query: Operations
    steps: Operations


@cache
def official() -> Counted:
    """Ten steps; counted on the processor, which is handed the same and sooner done than "meta"."""
    networks, steps = narrow("cpu"), 10
    present, context, noise = libero(networks, batch=1)
    cache = official_sampler.prefill(networks.dit, present, context)
    with Operations() as query:
        official_sampler.sample(networks, present, context, noise, steps)
    with Operations() as chunk:
        official_sampler.act(networks.action, cache, context, noise.action, networks.times("action"), steps)
    return Counted(query, chunk)


def ours(networks: Networks, name: str, steps: int) -> Counted:
    """On the meta device, as on CUDA."""
    networks = replace(networks, acting=VARIANTS[name])
    sampler, asked = FusedSampler(networks, steps), libero(networks, batch=1)
    with RememberedShapes():
        # positions are laid out at the first query of a shape
        kept = sampler.begin(asked[0], sampler.look(asked[1]), asked[2])
        with Operations() as query:
            sampler.sample(*asked)
        with torch.inference_mode(), Operations() as chunk:
            for step in range(steps):
                walked(sampler.act(asked[2].action, step, kept))
    return Counted(query, chunk)


def test_the_twin_does_the_official_work() -> None:
    assert official().steps.total() == pytest.approx(COUNTED_OFFICIALLY, rel=0.02)
    policy = tiny_policy(tiny_config())
    present, context, noise = query(policy, 2)
    with torch.no_grad():
        plain = sample(policy, present, context, noise, 10)
    assert_same(official_sampler.sample(policy, present, context, noise, 10), plain)


def test_a_fifth_of_the_official_operations() -> None:
    mine = ours(narrow("meta"), "fast", 10)
    assert 5 * mine.steps.total() <= COUNTED_OFFICIALLY
    assert 5 * mine.query.total() <= official().query.total()
    assert mine.steps.total() == 10 * (13 * DEPTH + 6)


def test_full_size_has_the_same_operations() -> None:
    meta = Networks.build(FastWAMConfig(), DEPTH, torch.device("meta"), torch.bfloat16)
    assert ours(meta, "fast", 1).query.counts == ours(narrow("meta"), "fast", 1).query.counts


@pytest.mark.parametrize(
    ("name", "steps", "encoded"), [("fast", 2, 1), ("no_video", 2, 1), ("joint", 4, 1), ("idm", 4, 2)]
)
def test_nothing_is_masked_joined_or_computed_in_vain(name: str, steps: int, encoded: int) -> None:
    query = ours(narrow("meta"), name, 2).query
    counts = query.counts
    assert not {"boolean mask", "cat.default"} & counts.keys()
    finished = steps * DEPTH + encoded * (DEPTH - 1)  # of clean frames the last block's output is not needed
    # of the text, clean frames, steps of the chunk, and of the future
    beside = 17 + 6 * encoded + 6 * 2 + 9 * (steps - 2)
    assert query.total() <= 13 * finished + beside
    assert counts["attention"] == 2 * finished
    assert counts["linear_gelu.default"] == finished
    assert counts["gelu.default"] == 2  # once for the context of each network
