"""LaWAM: which loss trains what, what the expert is shown, and chunks that do not depend on their batch."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from wamkit_client.types import BadInput

from tests.policies.tiny_lawam import CONFIG, SPEC, batch, normalizer, query, tiny_lawam
from wamkit.draws import Draws
from wamkit.io.weights import save_weights
from wamkit.policies.lawam.acting import PASSES, SUBGOALS
from wamkit.policies.lawam.begin import FromRun
from wamkit.policies.lawam.policy import LaWAM

CPU = torch.device("cpu")


def draws(rows: int) -> Draws:
    return Draws.of_step(0, 0, CPU, 0, rows, rows)


def trained_by(policy: LaWAM, loss: str) -> set[str]:
    """Parts that get a gradient of a loss."""
    policy.zero_grad()
    policy(batch(4), draws(4))[loss].backward()
    return {
        name.partition(".")[0]
        for name, p in policy.named_parameters()
        if p.grad is not None and bool(p.grad.abs().max() > 0)
    }


def test_each_loss_trains_what_the_specification_says() -> None:
    policy = tiny_lawam()
    assert policy.loss_weights == {"action": 1.0, "subgoal": 0.1, "distill": 0.1}
    assert trained_by(policy, "distill") == {"prior", "pool"}
    assert trained_by(policy, "subgoal") == {"prior", "pool", "world"}
    assert trained_by(policy, "action") == {"prior", "expert"}
    assert trained_by(tiny_lawam(stop_subgoal_grad=False), "action") == {"prior", "pool", "world", "expert"}


def test_direct_gradients_of_actions_can_be_stopped_at_the_latent_queries() -> None:
    grads = []
    for stop in (False, True):
        policy = tiny_lawam(stop_latent_context_grad=stop)
        policy(batch(2), draws(2))["action"].backward()
        grad = policy.prior.latent_queries.grad
        assert (
            grad is not None
        )  # later tokens attend to the latent queries, so that an indirect gradient is left
        grads.append(grad)
    assert grads[1].norm() > 0 and not torch.allclose(*grads)


def test_losses_without_a_weight_are_left_out() -> None:
    assert set(tiny_lawam(distill_weight=0.0)(batch(2), draws(2))) == {"action", "subgoal"}
    assert set(tiny_lawam(subgoal="none")(batch(2), draws(2))) == {"action", "distill"}


@pytest.mark.parametrize("arm", SUBGOALS)
def test_arms_differ_in_the_subgoal_that_the_expert_is_shown(arm: str) -> None:
    policy, given, asked = tiny_lawam(subgoal=arm), batch(3), query(3)
    sight = policy.see(given.inputs)
    shown = SUBGOALS[arm].training(sight, given.inputs, policy.world)
    expected = {
        "predicted": sight.subgoal,
        "none": sight.now,
        "oracle": given.inputs["features"][:, 1],
        "shuffled": policy.world(sight.now, sight.code[[2, 0, 1]]),
    }[arm]
    torch.testing.assert_close(shown, expected)
    assert policy.act(asked).shape == (3, SPEC.horizon, SPEC.action_dim)


def test_chunks_do_not_depend_on_the_batch() -> None:
    policy = tiny_lawam().eval()
    together = policy.act(query(3))
    for row in range(3):
        alone = query(3, first_seed=0)
        one = replace(
            alone,
            inputs={name: x[row : row + 1] for name, x in alone.inputs.items()},
            embodiment=alone.embodiment[:1],
            hz=alone.hz[:1],
            generators=[torch.Generator().manual_seed(row)],
        )
        torch.testing.assert_close(policy.act(one)[0], together[row], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("passes", [*((name,) for name in PASSES), tuple(PASSES)])
@pytest.mark.parametrize("arm", SUBGOALS)
def test_passes_give_the_same_chunks(passes: tuple[str, ...], arm: str) -> None:
    policy = tiny_lawam(subgoal=arm).eval()
    plain, fast = (policy.actor(each)(query(3)) for each in ((), passes))
    assert (fast - plain).abs().max() <= 1e-5 * plain.abs().max()


def test_acting_with_all_passes_lets_go_of_what_it_copied() -> None:
    policy = tiny_lawam().eval()
    answer = policy.actor(policy.passes)
    chunk = answer(query(2))
    layer, block = policy.prior.text.layers[0], policy.prior.visual.blocks[0]
    copied = [weakref.ref(x) for x in (layer.self_attn.q_proj.weight, block.attn.qkv.weight)]
    shared = [weakref.ref(x) for x in (layer.mlp.up_proj.weight, block.mlp.linear_fc1.weight)]
    del policy, layer, block
    gc.collect()
    assert not any(weight() is not None for weight in copied)
    assert all(weight() is not None for weight in shared)
    assert torch.equal(answer(query(2)), chunk)


def test_padded_actions_change_no_loss() -> None:
    policy, given = tiny_lawam(), batch(2)
    slow = replace(given, hz=torch.full((2,), 5.0))  # 3 of 6 actions exist
    valid = given.valid.clone()
    valid[:, 3:] = False
    slow = replace(slow, valid=valid)
    other = replace(slow, actions=torch.where(valid, slow.actions, 7.0))
    torch.testing.assert_close(policy(slow, draws(2))["action"], policy(other, draws(2))["action"])


def test_training_may_start_from_another_run(tmp_path: Path) -> None:
    """All of it, the expert too; a run of another kind is refused."""
    before = tiny_lawam()
    for folder in ("run", "other"):
        (tmp_path / folder).mkdir()
    save_weights(tmp_path / "run", before.state_dict())
    policy = tiny_lawam(begin=FromRun(str(tmp_path / "run")))
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(1)
    policy.initialize()
    assert all(torch.equal(x, policy.get_parameter(name)) for name, x in before.named_parameters())
    save_weights(tmp_path / "other", {"dit.weight": torch.zeros(1)})
    with pytest.raises(BadInput, match=r"other: does not fit LaWAM .* 1 unexpected: dit.weight"):
        tiny_lawam(begin=FromRun(str(tmp_path / "other"))).initialize()


def test_a_prior_without_a_copy_in_float32_trains_and_acts() -> None:
    policy = tiny_lawam(prior_precision="bfloat16")
    stored = {name.split(".")[1]: p.dtype for name, p in policy.prior.named_parameters(prefix="prior")}
    assert stored["text"] == stored["visual"] == torch.bfloat16 and stored["latent_queries"] == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        sum(policy(batch(2), draws(2)).values()).backward()
        assert policy.act(query(2)).isfinite().all()
    grad = policy.prior.text.norm.weight.grad
    assert grad is not None and grad.dtype == torch.bfloat16 and grad.abs().sum() > 0


def test_chunks_can_be_kept_within_what_the_data_had() -> None:
    free, kept = (tiny_lawam(clip_actions=clip).act(query(3)) for clip in (False, True))
    low, high = (
        free.new_tensor(getattr(normalizer().stats["robot"]["action"], side)) for side in ("min", "max")
    )
    torch.testing.assert_close(kept, free.clamp(low, high))
    assert not torch.equal(kept, free)


def test_robots_without_a_row_are_refused() -> None:
    policy = LaWAM(replace(CONFIG, robots=(("arm", 5),)), SPEC, normalizer("arm", "other"))
    assert policy.embodiment(["arm"]).tolist() == [0]
    with pytest.raises(BadInput, match="'other'"):
        policy.embodiment(["other"])


def test_chunks_that_do_not_fit_the_expert_are_refused() -> None:
    for changes, told in (
        ({"chunk_seconds": 0.9}, "at most 8"),
        ({"action_dim": 5}, "at most 4 dimensions"),
    ):
        with pytest.raises(BadInput, match=told):
            LaWAM(CONFIG, replace(SPEC, **changes), normalizer())


def test_a_code_that_the_query_pool_cannot_divide_is_refused() -> None:
    with pytest.raises(BadInput, match=r"policy\.latent\.code: expected a multiple of 8"):
        replace(CONFIG, latent=replace(CONFIG.latent, code=12))
