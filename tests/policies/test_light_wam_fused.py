"""Light-WAM acts sooner by its passes: the same chunks, by less work, of weights of its own."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from wamkit_client.types import BadInput

from tests.policies.tiny_policy import SPEC, query_of, shaken, tiny_config, tiny_normalizer, tiny_policy
from wamkit.data.normalize import Normalizer, Stats
from wamkit.nn.adapter import Adapter
from wamkit.nn.attention import FIRST_FRAME_CAUSAL
from wamkit.nn.lora import add_lora
from wamkit.nn.rope import LineRotary
from wamkit.policies.light_wam.fused import NEEDS, FusedActor
from wamkit.policies.light_wam.policy import LORA_LAYERS, FullTuning, LightWAM, LightWAMConfig, LoRATuning
from wamkit.policies.light_wam.state_fusion import StateFusionConfig
from wamkit.types import Query
from wamkit.wan.block import Block, Stream, TransformerSize
from wamkit.wan.dit import SIZES, Adapters
from wamkit.wan.folded_time import fold_adapter, fold_time

PASSES = tuple(NEEDS)
LADDER = [PASSES[: count + 1] for count in range(len(PASSES))]
TUNINGS = [FullTuning(), LoRATuning(rank=3, alpha=6.0)]


def fused(policy: LightWAM) -> FusedActor:
    actor = policy.actor(PASSES)
    assert isinstance(actor, FusedActor)
    return actor


def error(actor: Callable[[Query], Tensor], query: Query, exact: Tensor) -> float:
    """Root mean square, of the exact chunk's."""
    return ((actor(query) - exact).square().mean() / exact.square().mean()).sqrt().item()


@pytest.mark.parametrize("passes", LADDER, ids="+".join)
@pytest.mark.parametrize("tuning", TUNINGS, ids=lambda tuning: tuning.kind)
@pytest.mark.parametrize("batch", [1, 3])
def test_chunks_are_those_of_the_plain_policy(tuning, passes: tuple[str, ...], batch: int) -> None:
    policy = tiny_policy(tiny_config(tuning))
    query = query_of(policy, batch)
    plain, actor = policy.act(query), policy.actor(passes)
    for asked in (query, query, replace(query, instructions=())):  # new, kept, unknown
        assert (actor(asked) - plain).abs().max() <= 1e-5 * plain.abs().max()


@pytest.mark.parametrize("missing", PASSES)
def test_a_pass_is_left_out_or_refused(missing: str) -> None:
    policy = tiny_policy(tiny_config(TUNINGS[1]))
    passes = tuple(name for name in PASSES if name != missing)
    if any(missing in needs for needs in NEEDS.values()):
        with pytest.raises(BadInput, match=f"builds on {missing}"):
            policy.actor(passes)
    else:
        query = query_of(policy)
        assert error(policy.actor(passes), query, policy.act(query)) < 1e-5


def test_an_unknown_pass_is_refused() -> None:
    with pytest.raises(BadInput, match="'faster' is none of merged_lora, "):
        tiny_policy(tiny_config()).actor(("faster",))


@pytest.mark.parametrize("tuning", TUNINGS, ids=lambda tuning: tuning.kind)
def test_bfloat16_is_as_close_as_without_passes(tuning) -> None:
    policy = tiny_policy(tiny_config(tuning)).bfloat16()
    query = query_of(policy, 32)
    exact = tiny_policy(tiny_config(tuning))
    exact.load_state_dict(policy.state_dict())
    chunk = exact.act(query)
    assert error(policy.actor(PASSES), query, chunk) <= 1.5 * error(policy.act, query, chunk)


def test_other_numbers_and_no_proprio() -> None:
    config = tiny_config(TUNINGS[1])
    config = replace(
        config,
        adapters=replace(config.adapters, layers=(1, 2), gamma=0.7),
        size=replace(config.size, eps=0.3),
    )
    policy = tiny_policy(config)
    query = query_of(policy)
    assert error(policy.actor(PASSES), query, policy.act(query)) < 1e-5


def test_without_proprio() -> None:
    known = tiny_normalizer()
    stats = {"robot": known.stats["robot"] | {"proprio": Stats.of(np.zeros((2, 0)))}}
    normalizer = Normalizer.fit(stats, known.modes)
    policy = shaken(LightWAM(tiny_config(TUNINGS[1]), replace(SPEC, proprio_dim=0), normalizer))
    for dtype, bound in ((torch.float32, 1e-5), (torch.bfloat16, 0.05)):
        policy = policy.to(dtype)
        query = query_of(policy)
        query = replace(query, inputs=query.inputs | {"proprio": query.inputs["proprio"][:, :0]})
        assert error(policy.actor(PASSES), query, policy.act(query)) < bound


def test_an_answer_does_not_depend_on_neighbours_or_earlier_queries() -> None:
    policy = tiny_policy(tiny_config())
    actor, query = policy.actor(PASSES), query_of(policy, 3)
    together = actor(query)
    for row in (2, 0, 1, 2):
        alone = Query(
            {name: x[row : row + 1] for name, x in query.inputs.items()},
            query.embodiment[:1],
            query.hz[:1],
            (),
            instructions=query.instructions[row : row + 1],
        )
        assert (actor(alone) - together[row]).abs().max() <= 1e-6 * together.abs().max()
    wider = replace(query, inputs=query.inputs | {"present": query.inputs["present"].repeat(1, 1, 1, 1, 2)})
    assert error(actor, wider, policy.act(wider)) < 1e-5
    assert torch.equal(actor(query), together)


def test_only_the_steps_that_are_used_are_computed() -> None:
    policy = tiny_policy(tiny_config())
    query = query_of(policy)
    assert torch.allclose(policy.actor(PASSES)(replace(query, steps=2)), policy.act(query)[:, :2], atol=1e-5)


def test_what_was_copied_or_is_not_needed_goes_with_the_policy() -> None:
    policy = tiny_policy(tiny_config(TUNINGS[1]))
    actor, query = fused(policy), query_of(policy)
    before = actor(query)
    gone = [
        policy.dit.head.head.weight,
        policy.dit.blocks[2].ffn[0].weight,
        policy.dit.time_embedding[0].weight,
        policy.proprio_encoder.weight,
        *(p for block in policy.dit.blocks for name, p in block.named_parameters() if "norm_" not in name),
    ]
    gone = [weakref.ref(tensor) for tensor in gone]
    shared = weakref.ref(policy.dit.text_embedding[0].weight)
    del policy
    gc.collect()
    assert shared() is not None
    kept = [tensor() for tensor in gone if tensor() is not None]
    assert len(kept) == 2  # biases of cross-attention's outputs, which do not change
    assert torch.equal(actor(query), before)


def test_at_full_width_float32_is_equal_and_bfloat16_as_close_as_without_passes() -> None:
    """One block on RoboTwin's 480 tokens and 128 text rows, of which 100 are padding; behind it a small expert."""
    config = LightWAMConfig(
        size=replace(SIZES["1.3B"], layers=1),
        adapters=Adapters(layers=(0,), dim=256),
        expert=StateFusionConfig(level_dim=64, trunk_dim=64),
    )
    torch.manual_seed(0)
    policy = LightWAM(config, SPEC, tiny_normalizer()).requires_grad_(False)
    for parameter in policy.parameters():
        if parameter.ndim > 1 and not parameter.any():  # additions that are nothing before training
            torch.nn.init.normal_(parameter, std=0.02)
    context = torch.randn(1, 128, 4096)
    context[:, 28:] = 0
    inputs = {"present": torch.randn(1, 16, 1, 48, 40), "context": context, "proprio": torch.randn(1, 3)}
    query = Query(inputs, torch.zeros(1, dtype=torch.int64), torch.ones(1), ())
    policy = policy.bfloat16().float()  # both precisions have the same weights
    exact = policy.act(query)
    assert error(policy.actor(PASSES[:3]), query, exact) < 1e-5
    assert error(policy.actor(PASSES), query, exact) < 1e-5
    rounded = policy.bfloat16()
    assert error(rounded.actor(PASSES), query, exact) <= 1.5 * error(rounded.act, query, exact)


# folding


SIZE = TransformerSize(width=32, ffn=48, heads=2, head_dim=20, layers=1, text_dim=16)


def test_a_folded_block_does_the_same() -> None:
    torch.manual_seed(0)
    block = torch.nn.ModuleList([shaken(Block(SIZE))])
    add_lora(block, tuple(f"0.{name}" for name in LORA_LAYERS), 3, 6.0)
    before = {name: x.clone() for name, x in block.state_dict().items()}
    modulation = torch.randn(1, 6, SIZE.width)
    made = fold_time(shaken(block)[0], modulation)
    x, context = torch.randn(2, 5, SIZE.width), torch.randn(2, 7, SIZE.width)
    assert before.keys() == block.state_dict().keys()
    assert not any("lora" in name for name in made.state_dict())
    chunks = [run(block[0], x, context, modulation), run(made, x, context, torch.zeros_like(modulation))]
    torch.testing.assert_close(*chunks, rtol=0, atol=1e-5)


def run(block: Block, x: Tensor, context: Tensor, modulation: Tensor) -> Tensor:
    """The block on tokens of one frame."""
    rope = LineRotary(SIZE.head_dim)(x.shape[1])
    stream = Stream(x, (1,), {"present": x.shape[1]}, x[:1, :1], modulation[:, None], context, None, rope)
    with torch.no_grad():
        return block(x, stream, FIRST_FRAME_CAUSAL)


def test_a_folded_adapter_does_the_same() -> None:
    torch.manual_seed(0)
    adapter, x = shaken(Adapter(32, 8, 0.3)), torch.randn(2, 5, 32)
    with torch.no_grad():
        torch.testing.assert_close(fold_adapter(adapter)(x), adapter(x), rtol=0, atol=1e-6)
