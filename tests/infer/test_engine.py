"""What an Engine refuses of an observation: the asker's fault, said as such before the policy is asked."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from wamkit_client.types import BadInput, Observation

from tests.policies import tiny_fast_wam as fast
from tests.policies import tiny_policy as light
from tests.policies.tiny_policy import SPEC, encoder_of, tiny_config, tiny_policy
from wamkit.config import from_json, to_json
from wamkit.infer.engine import Engine
from wamkit.policies.light_wam.policy import LightWAM
from wamkit.recipes.metaworld import metaworld3
from wamkit.types import Query


@pytest.fixture(scope="module")
def engine() -> Engine[LightWAM]:
    policy = tiny_policy(tiny_config()).eval()
    return Engine(encoder_of(policy), policy, torch.device("cpu"))


def test_chunks_tell_which_numbers_are_displacements() -> None:
    policy = tiny_policy(tiny_config()).eval()
    run = metaworld3()
    cpu = torch.device("cpu")
    engine = Engine(encoder_of(policy), policy, cpu, displacements=run.displacements)
    assert engine.act([seen()])[0].displacements == (0, 1, 2)
    assert Engine(encoder_of(policy), policy, cpu).act([seen()])[0].displacements == ()


def seen() -> Observation:
    images = {view: np.full((24, 40, 3), 90, np.uint8) for view in SPEC.views}
    return Observation(images, np.array([0.1, 0.2, 0.3], np.float32), "lift", "robot", 1)


@pytest.mark.parametrize(
    ("proprio", "said"),
    [
        (np.array([0, np.nan, 0], np.float32), r"proprio\[1\] is nan, expected finite numbers"),
        (np.array([0, 0, -np.inf]), r"proprio\[2\] is -inf, expected finite"),
        (
            np.array([1e300, np.nan, 0]),
            r"proprio\[0\] is 1e\+300, expected finite numbers of float32's range",
        ),
        (np.zeros(4, np.float32), r"expected \[3\] numbers, got float32 \(4,\)"),
        (np.array(["0", "1", "2"]), r"expected \[3\] numbers, got <U1"),
        (np.zeros(3, np.complex64), r"expected \[3\] numbers, got complex64"),
    ],
)
def test_a_state_that_is_no_state(engine: Engine[LightWAM], proprio: np.ndarray, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        engine.act([seen(), replace(seen(), proprio=proprio)])


@pytest.mark.parametrize("shape", [(0, 0, 3), (0, 40, 3), (24, 0, 3), (24, 40), (24, 40, 4)])
def test_a_picture_that_is_no_picture(engine: Engine[LightWAM], shape: tuple[int, ...]) -> None:
    images = {**seen().images, "wrist": np.zeros(shape, np.uint8)}
    with pytest.raises(
        BadInput, match=r"camera 'wrist': expected uint8 RGB \[h, w, 3\] with at least one pixel"
    ):
        engine.act([replace(seen(), images=images)])


def test_what_is_accepted(engine: Engine[LightWAM]) -> None:
    """Any kind of number, also far from the training data; a picture of one pixel."""
    images = {view: np.zeros((1, 1, 3), np.uint8) for view in SPEC.views}
    for proprio in (np.array([1, 2, 3]), np.array([3e38, -1, 0]), np.zeros(3, np.float16)):
        (chunk,) = engine.act([replace(seen(), images=images, proprio=proprio)])
        assert np.isfinite(chunk.actions).all()


@pytest.mark.parametrize("tiny", [light, fast])
def test_every_preset_gives_the_chunks_of_the_plain_one(tiny) -> None:
    policy = tiny.tiny_policy(tiny.tiny_config()).eval()
    encoder, cpu = encoder_of(policy), torch.device("cpu")
    chunks = {
        preset: Engine(encoder, policy, cpu, preset).act([seen(), replace(seen(), noise_seed=2)])
        for preset in ("plain", "exact")
    }
    for preset, found in chunks.items():
        for chunk, plain in zip(found, chunks["plain"], strict=True):
            bound = 1e-5 * np.abs(plain.actions).max()
            np.testing.assert_allclose(chunk.actions, plain.actions, rtol=0, atol=bound, err_msg=preset)


class Asked(LightWAM):
    """Keeps the queries it is asked."""

    queries: list[Query]

    def act(self, query: Query) -> Tensor:
        self.queries.append(query)
        return super().act(query)


def test_a_delay_is_nothing_to_a_policy_that_continues_nothing() -> None:
    """Observations with other delays are asked about together; of a previous chunk it must not be told."""
    policy = tiny_policy(tiny_config()).eval()
    policy.__class__, policy.queries = Asked, []
    engine = Engine(encoder_of(policy), policy, torch.device("cpu"), preset="plain")
    late = replace(seen(), delay=2)
    now, then = engine.act([seen(), late])
    np.testing.assert_allclose(now.actions, then.actions, rtol=0, atol=1e-5)
    (both,) = policy.queries
    assert len(both.hz) == 2 and both.previous == {}
    with pytest.raises(
        BadInput, match="cannot continue the previous one; use it with the executor sync, async or"
    ):
        engine.act([replace(late, previous=np.zeros((1, 2), np.float32))])


def test_a_run_of_an_older_version_acts_exactly() -> None:
    """Its `preset` "fast" was what `engine` "exact" is now; "fast" has another meaning."""
    run = metaworld3()
    old = json.loads(to_json(run))
    for before, now in (("fast", "exact"), ("plain", "plain")):
        old["eval"] = {name: value for name, value in old["eval"].items() if name != "engine"} | {
            "preset": before
        }
        assert from_json(json.dumps(old), "run.json").eval == replace(run.eval, engine=now)
