"""What was expected is held against what is seen, at the right moment, without any effect on the chunks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from wamkit_client.types import BadInput, Observation

from tests.infer.test_properties import observed
from tests.policies import tiny_fast_wam, tiny_lawam, tiny_policy
from wamkit.infer import warning
from wamkit.infer.engine import Engine
from wamkit.infer.warning import Compared, Expectation, Usual, Watched, Watcher, replayed
from wamkit.policies.light_wam.policy import LoRATuning

PRESENT_SKIP = replace(tiny_policy.tiny_config().size, present_skip=True)
POLICIES: dict[str, Callable[[], Any]] = {
    "light_wam": lambda: tiny_policy.tiny_policy(tiny_policy.tiny_config()),
    "light_wam, pooled": lambda: tiny_policy.tiny_policy(tiny_policy.tiny_config(video_pool=2)),
    "light_wam, imagining": lambda: tiny_policy.tiny_policy(
        tiny_policy.tiny_config(LoRATuning(rank=3, alpha=6.0), video_predicts="clean", size=PRESENT_SKIP)
    ),
    **{
        f"fast_wam, {name}": lambda name=name: tiny_fast_wam.tiny_policy(
            tiny_fast_wam.tiny_config(variant=name)
        )
        for name in ("fast", "joint", "idm")
    },
    "lawam": tiny_lawam.tiny_lawam,
}
FRAMES = {"lawam": 1}
PATCHES = {"light_wam, pooled": 8, "lawam": 4}


def engine_of(name: str) -> Engine[Any]:
    policy = POLICIES[name]()
    return Engine(tiny_policy.encoder_of(policy), policy.eval(), torch.device("cpu"))


def queries(engine: Engine[Any], *where: tuple[str, int]) -> list[Observation]:
    """Of episodes at steps."""
    proprio = engine.policy.data.proprio_dim
    return [
        replace(observed(seed, proprio), episode=episode, step=step)
        for seed, (episode, step) in enumerate(where)
    ]


def expectation(step: int, offsets: Sequence[int] = (4, 8), seen: float = 0.0) -> Expectation:
    """One patch of one number, which is expected to be the step and the frame: 10 * step + frame."""
    later = torch.tensor([[[10.0 * step + frame]] for frame in range(len(offsets))])
    return Expectation(step, torch.tensor([[seen]]), tuple(step + float(at) for at in offsets), later)


def found(*steps: int, ahead: float = 0.0) -> list[list[float]]:
    """What each query of an episode is compared with."""
    replays = replayed([expectation(step) for step in steps], slack=2.0, ahead=ahead)
    return [[float(one.expected) for one in own] for own in replays]


def test_a_query_is_compared_with_what_was_expected_for_its_moment() -> None:
    assert found(0, 4, 8) == [[], [0], [40]], "of the queries that looked there the latest"
    assert found(0, 5) == [[], [0]], "the nearest frame"
    assert found(0, 1) == [[], []], "none is near"
    assert found(0, 7) == [[], [1]]
    assert found(0, 10) == [[], [1]] and found(0, 11) == [[], []]
    assert found(0, 6, 10) == [[], [0], [60]]
    assert found(0, 3, 8) == [[], [0], [1]], "an older query that looked exactly there"


def test_what_was_expected_too_late_does_not_count() -> None:
    assert found(0, 4, 8, 12, ahead=8.0) == [[], [], [1], [41]]
    assert found(0, 4, 8, ahead=4.0) == found(0, 4, 8)
    assert found(0, 5, 7, ahead=5.0) == [[], [], [1]]


def test_nothing_is_expected_so_far_ahead() -> None:
    engine = engine_of("light_wam")
    furthest = engine.policy.data.frame_times[-1]
    seen = queries(engine, *(("a", step) for step in range(0, 40, 2)))
    every, last = (Watcher(engine, ahead).compare(seen) for ahead in (0.0, furthest))
    frames = len(engine.policy.data.frame_times) - 2
    assert (
        {one.frame for own in last for one in own} == {frames} != {one.frame for own in every for one in own}
    )
    for ahead in (-0.1, furthest + 0.1):
        with pytest.raises(BadInput, match=f"expected from 0 to {furthest:g}"):
            Watcher(engine, ahead)


def test_a_query_that_is_asked_again_is_not_compared_with_itself() -> None:
    assert found(0, 4, 4) == [[], [0], [0]]
    assert found(0, 4, 8, 4) == [[], [0], [40], [0]]


def test_an_episode_that_begins_again_is_another_one() -> None:
    assert found(0, 4, 0, 4) == [[], [0], [], [0]]
    assert found(4, 8, 0, 4) == [[], [40], [], [0]]


def test_the_score_is_the_error_in_multiples_of_the_usual_one() -> None:
    expected, seen = torch.zeros(2, 3), torch.tensor([[1.0, 1.0, 1.0], [2.0, 0.0, 2.0]])
    compared = Compared(1, expected, seen, expected)
    usual = Usual([[9.0, 9.0], [0.5, 4.0]], threshold=1.0)
    assert compared.score(usual) == pytest.approx((1 / 0.5 + (8 / 3) / 4) / 2)


@pytest.mark.parametrize("name", POLICIES)
def test_chunks_are_those_of_the_engine(name: str) -> None:
    engine = engine_of(name)
    frames, patches = FRAMES.get(name, 4), PATCHES.get(name, 32)
    usual = Usual([[1.0] * patches] * frames, threshold=0.0)
    watched = Watched(Watcher(engine), {"robot": usual})
    unknown = replace(queries(engine, ("", 0))[0], noise_seed=9)
    asked = [*queries(engine, ("a", 0), ("b", 0), ("a", 5), ("b", 5)), unknown]
    chunks = watched.act(asked)
    for chunk, plain in zip(chunks, engine.act(asked), strict=True):
        np.testing.assert_array_equal(chunk.actions, plain.actions)
    said = [chunk.info.get("warning") for chunk in chunks]
    assert [said[0], said[1], said[4]] == [None] * 3, "nothing was expected"
    for one in said[2:4]:
        assert one["step"] == 5 and one["score"] > 0 and one["threshold"] == 0 and one["alarm"] is True
    assert type(said[2]["score"]) is float and said[2]["score"] != said[3]["score"]
    alone = Watched(Watcher(engine), {"robot": usual})
    again = [alone.act([one])[0].info.get("warning", {"score": 0.0})["score"] for one in asked]
    np.testing.assert_allclose(again[2:4], [one["score"] for one in said[2:4]], rtol=1e-4)


@pytest.mark.parametrize("name", POLICIES)
def test_passes_expect_the_same(name: str) -> None:
    engine = engine_of(name)
    seen = queries(engine, ("a", 0), ("b", 0))
    query = engine.query(engine.clip(seen))
    kinds = [(), engine.passes, [one for one in engine.passes if one != "kept_text"]]
    plain, *others = (
        engine.policy.foreseer(passes)(replace(query, generators=tiny_policy.seeded((1, 2))), engine.encoder)
        for passes in kinds
    )
    for found in others:
        torch.testing.assert_close(found.now, plain.now, rtol=0, atol=1e-5)
        torch.testing.assert_close(found.later, plain.later, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", ["light_wam", "fast_wam, fast", "lawam"])
def test_the_present_is_the_same_in_every_moment(name: str) -> None:
    """What is seen and what is expected lie in one space: of a still scene a perfect prediction has no error."""
    engine = engine_of(name)
    (first, again) = queries(engine, ("a", 0), ("a", 5))
    again = replace(first, step=5)
    one, other = Watcher(engine).expectations([first, again])
    np.testing.assert_allclose(one.seen, other.seen, atol=1e-5)
    assert one.later.shape[1:] == one.seen.shape and one.later.isfinite().all()


def test_few_episodes_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warning, "EPISODES", 2)
    engine = engine_of("light_wam")
    watcher = Watcher(engine)
    watcher.compare(queries(engine, ("a", 0), ("b", 0), ("c", 0)))
    compared = watcher.compare(queries(engine, ("b", 4), ("c", 4), ("a", 4)))
    assert [len(own) for own in compared] == [1, 1, 0]
    for step in range(0, 400, 4):
        watcher.compare(queries(engine, ("b", step)))
    (memory,) = (memory for name, memory in watcher._episodes.items() if name == "b")
    assert len(memory.kept) <= 5, "no more than one window of expectations"


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        (
            lambda: tiny_policy.tiny_policy(tiny_policy.tiny_config(objective="action_only")),
            "was trained without video and expects nothing",
        ),
        (
            lambda: tiny_fast_wam.tiny_policy(tiny_fast_wam.tiny_config(variant="no_video")),
            "was trained without video",
        ),
    ],
)
def test_a_policy_without_a_world_model_cannot_be_watched(policy: Callable[[], Any], why: str) -> None:
    made = policy()
    engine = Engine(tiny_policy.encoder_of(made), made.eval(), torch.device("cpu"))
    with pytest.raises(BadInput, match=why):
        Watcher(engine).compare(queries(engine, ("a", 0)))


def test_a_robot_that_was_not_calibrated_for() -> None:
    engine = engine_of("light_wam")
    with pytest.raises(BadInput, match="calibrated for arm and not for robot 'robot'"):
        Watched(Watcher(engine), {"arm": Usual([[1.0]], 1.0)}).act(queries(engine, ("a", 0)))
