"""How the action model starts: the resize rule, the published one with its oversights, and the corrected one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from wamkit_client.types import BadInput

from tests.policies.tiny_fast_wam import tiny_config, tiny_policy
from wamkit.policies.fast_wam.action_init import OWN, RULES, corrected, published, resize, start_from_video
from wamkit.policies.fast_wam.policy import FromVideoModel

lengths = st.integers(min_value=2, max_value=40)
ends = st.floats(min_value=-10, max_value=10)
MATRIX = "blocks.0.ffn.0.weight"
RULE = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


def shape(*sizes):
    return torch.Size(sizes)


@given(source=lengths, target=lengths, seed=st.integers(0, 99))
def test_target_i_reads_source_position_i_of_the_stretched_axis(source, target, seed):
    """Fails when the ends are not aligned (half-pixel centres) or interpolation is not linear."""
    x = torch.randn(source, generator=torch.Generator().manual_seed(seed))
    positions = np.arange(target) * (source - 1) / (target - 1)
    expected = np.interp(positions, np.arange(source), x.numpy())
    ours = resize(x, shape(target))
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    assert ours[0] == x[0] and torch.isclose(ours[-1], x[-1], atol=1e-6)


@given(rows=lengths, columns=lengths, to_rows=lengths, to_columns=lengths)
def test_axes_are_resized_one_by_one(rows, columns, to_rows, to_columns):
    """Fails when axes are mixed up: of an outer product, each factor is resized by itself."""
    generator = torch.Generator().manual_seed(rows * columns)
    one, two = (torch.randn(size, generator=generator) for size in (rows, columns))
    whole = resize(torch.outer(one, two), shape(to_rows, to_columns))
    apart = torch.outer(resize(one, shape(to_rows)), resize(two, shape(to_columns)))
    torch.testing.assert_close(whole, apart, rtol=1e-4, atol=1e-4)


@RULE
@given(rows=lengths, columns=lengths)
def test_a_tensor_of_the_right_shape_is_taken_as_it_is(rule, rows, columns):
    """Fails when the scale is applied although nothing was resized."""
    x = torch.randn(rows, columns)
    assert torch.equal(rule(MATRIX, x, x.shape), x)
    assert torch.equal(rule("blocks.0.norm3.weight", x[0], x[0].shape), x[0])


@RULE
@given(columns=lengths, to_columns=lengths, to_rows=lengths, value=ends)
def test_fewer_inputs_have_larger_weights(rule, columns, to_columns, to_rows, value):
    """A row keeps its norm. Fails without the scale, or when the output axis counts too."""
    x = torch.full((5, columns), value)
    resized = rule(MATRIX, x, shape(to_rows, to_columns))
    torch.testing.assert_close(resized.norm(dim=1), x.norm(dim=1)[0].expand(to_rows), rtol=1e-4, atol=1e-4)


@RULE
@given(source=lengths, target=lengths, value=ends)
def test_a_vector_is_not_scaled(rule, source, target, value):
    """Fails when biases and norms are treated as matrices."""
    x = torch.full((source,), value)
    torch.testing.assert_close(rule("blocks.0.norm3.weight", x, shape(target)), torch.full((target,), value))


def test_modulation_is_scaled_as_published_and_left_when_corrected():
    """Fails when the two rules are one, or exchanged."""
    x = torch.ones(1, 6, 32)
    name, small = "blocks.0.modulation", shape(1, 6, 8)
    torch.testing.assert_close(published(name, x, small), torch.full(small, 2.0))
    torch.testing.assert_close(corrected(name, x, small), torch.ones(small))


@pytest.mark.parametrize(
    ("name", "inputs"), [("time_projection.1.weight", (16,)), ("time_projection.1.bias", ())]
)
def test_the_corrected_rule_keeps_the_six_rows_apart(name, inputs):
    """Six ramps stay six ramps. Fails when they are resized as one axis, as the published rule does."""

    def ramps(length):
        ramp = torch.linspace(0, 1, length).repeat(6)
        return ramp.reshape(-1, *[1] * len(inputs)).expand(-1, *inputs)

    small = ramps(8)
    torch.testing.assert_close(corrected(name, ramps(32), small.shape), small)
    assert float((published(name, ramps(32), small.shape) - small).abs().max()) > 0.05


@RULE
def test_everything_but_in_and_out_comes_from_the_video_model(rule):
    """Fails when a tensor is left at its random value, or `action_encoder` and `head` are overwritten."""
    policy = tiny_policy(tiny_config())
    before = {name: x.clone() for name, x in policy.action.named_parameters()}
    start_from_video(policy.action, policy.dit, rule)
    video = dict(policy.dit.named_parameters())
    for name, x in policy.action.named_parameters():
        if name.startswith(OWN):
            assert torch.equal(x, before[name]), name
        else:
            assert torch.equal(x, rule(name, video[name], x.shape)), name
    # heads are as wide in both networks: what stands on the attention width is not resized at all
    for name in ("blocks.0.self_attn.norm_k.weight", "blocks.2.cross_attn.q.bias"):
        assert torch.equal(policy.action.get_parameter(name), video[name])


def test_training_starts_from_a_video_model_on_disk(tmp_path):
    """Fails when the action model is shrunk from weights that are not those of the file."""
    released = tiny_policy(tiny_config()).dit
    save_file(
        {name: x.detach() + 1 for name, x in released.named_parameters()}, tmp_path / "base.safetensors"
    )
    policy = tiny_policy(tiny_config(start=FromVideoModel(base=str(tmp_path), action="corrected")))
    policy.initialize()
    for name, x in policy.dit.named_parameters():
        assert torch.equal(x, released.get_parameter(name) + 1)
    name = "blocks.1.modulation"
    x = policy.action.get_parameter(name)
    assert torch.equal(x, corrected(name, released.get_parameter(name) + 1, x.shape))


def test_a_video_model_that_is_missing_or_of_another_size(tmp_path):
    missing = tiny_policy(tiny_config(start=FromVideoModel(base=str(tmp_path / "no"))))
    with pytest.raises(BadInput, match=f"{tmp_path / 'no'}: no Wan transformer"):
        missing.initialize()
    released = {name: x.detach()[:1] for name, x in missing.dit.named_parameters()}
    save_file(released, tmp_path / "other.safetensors")
    other = tiny_policy(tiny_config(start=FromVideoModel(base=str(tmp_path / "other.safetensors"))))
    with pytest.raises(BadInput, match="of another shape"):
        other.initialize()
