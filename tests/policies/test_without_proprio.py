"""A policy that is not told the robot's own state: proprio_dim 0."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from wamkit_client.types import Observation

from tests.policies import tiny_fast_wam as fast
from tests.policies import tiny_policy as light
from tests.policies.tiny_policy import SPEC, batch_of, shaken, tiny_normalizer
from wamkit import load_policy
from wamkit.config import Run, save_normalizer, save_run
from wamkit.data.actions import ActionSpace
from wamkit.data.normalize import Normalizer, Stats
from wamkit.io.weights import save_weights
from wamkit.stages.plan import meta_batch, meta_policy
from wamkit.train.checkpoint import trained_tensors
from wamkit.train.loop import TrainConfig, initial_state, optimize

CONFIG = TrainConfig(steps=1, batch_size=3, warmup_steps=0, learning_rate=1e-2)
every_policy = pytest.mark.parametrize("tiny", [light, fast])


def run_of(tiny) -> Run:
    data = replace(SPEC, proprio_dim=0)
    return Run("tiny", "metaworld3", tiny.tiny_config(), data, ActionSpace(("x", "y"), ("absolute",) * 2))


def policy_of(run: Run):
    known = tiny_normalizer()
    stats = {"robot": known.stats["robot"] | {"proprio": Stats.of(np.zeros((2, 0)))}}
    torch.manual_seed(0)
    return shaken(run.policy.build(run.data, Normalizer.fit(stats, known.modes)))


def seen(proprio: np.ndarray) -> Observation:
    images = {view: np.full((32, 32, 3), 90, np.uint8) for view in SPEC.views}
    return Observation(images, proprio, "lift", "robot", noise_seed=1)


@every_policy
def test_it_learns_from_pictures_and_words_alone(tiny):
    policy = policy_of(run_of(tiny))
    assert not any(name.startswith("proprio_encoder.") for name in policy.state_dict())
    batch = batch_of(policy)
    batch = replace(batch, inputs=batch.inputs | {"proprio": torch.zeros(3, 0)})
    assert torch.equal(policy.context(batch.inputs, batch.embodiment), batch.inputs["context"])
    before = {name: p.detach().clone() for name, p in policy.named_parameters()}
    state = initial_state(policy, CONFIG)
    scalars = optimize(state.module, batch, 0, state, CONFIG)
    assert all(value.isfinite() for value in scalars.values())
    assert not all(torch.equal(p, before[name]) for name, p in policy.named_parameters())


@every_policy
def test_its_run_directory_acts_whatever_state_an_observation_has(tiny, tmp_path):
    run = run_of(tiny)
    policy = policy_of(run)
    save_run(run, tmp_path)
    save_normalizer(policy.normalizer, tmp_path)
    save_weights(tmp_path, trained_tensors(policy))
    engine = load_policy(tmp_path)
    one, other = (chunk.actions for chunk in engine.act([seen(np.zeros(0)), seen(np.ones(3))]))
    assert one.shape == (SPEC.horizon, SPEC.action_dim) and np.isfinite(one).all()
    np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-5)


@every_policy
def test_it_is_planned(tiny):
    run = run_of(tiny)
    assert meta_batch(run).inputs["proprio"].shape == (run.train.part_size, 0)
    assert meta_policy(run).embodiment(["plan"]).tolist() == [0]
