"""What is asked decides what is answered, and nothing else does: not what is asked with it, in which order, in how
large a batch, or was asked before. By every way of acting of every policy."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from wamkit_client.types import WHOLE, BadInput, Observation

from tests.policies import tiny_fast_wam, tiny_lawam, tiny_policy
from wamkit.infer.engine import Engine
from wamkit.infer.presets import PresetName
from wamkit.policies.lawam import encoder
from wamkit.policies.light_wam.policy import LoRATuning

CPU = torch.device("cpu")
READING = replace(tiny_policy.tiny_config().expert, reads_proprio=True)
POLICIES: dict[str, Callable[[], Any]] = {
    "light_wam": lambda: tiny_policy.tiny_policy(tiny_policy.tiny_config(LoRATuning(rank=3, alpha=6.0))),
    "light_wam, reading proprio": lambda: tiny_policy.tiny_policy(tiny_policy.tiny_config(expert=READING)),
    **{
        f"fast_wam, {name}": lambda name=name: tiny_fast_wam.tiny_policy(
            tiny_fast_wam.tiny_config(variant=name)
        )
        for name in ("fast", "joint", "idm")
    },
    "lawam": tiny_lawam.tiny_lawam,
}
CONTINUES = ("fast_wam, fast", "fast_wam, joint", "lawam")
PRESETS: tuple[PresetName, ...] = ("plain", "exact", "small")


def engine_of(name: str, preset: PresetName) -> Engine[Any]:
    """In float32, whatever the preset's own precision is, so that rounding is small."""
    policy = POLICIES[name]()
    encoder, continues = tiny_policy.encoder_of(policy), policy.config.continues
    return Engine(encoder, policy.eval(), CPU, preset, continues=continues)


def observed(
    seed: int, proprio: int = 3, size: tuple[int, int] = (32, 32), steps: int = WHOLE
) -> Observation:
    """Something else for every seed."""
    rng = np.random.default_rng(seed)
    images = {view: rng.integers(0, 256, (*size, 3), dtype=np.uint8) for view in ("front", "wrist")}
    state = rng.normal(size=proprio).astype(np.float32)
    return Observation(images, state, f"do thing {seed}", "robot", noise_seed=seed, steps=steps)


def answers(
    engine: Engine[Any], seeds: Sequence[int], size: tuple[int, int] = (32, 32), steps: int = WHOLE
) -> np.ndarray:
    """[b k a]: one call about all of them."""
    proprio = engine.policy.data.proprio_dim
    chunks = engine.act([observed(seed, proprio, size, steps) for seed in seeds])
    return np.stack([chunk.actions for chunk in chunks])


def continuing(engine: Engine[Any], seed: int, left: int, delay: int) -> Observation:
    """With `left` actions of a previous chunk; for policies that continue one."""
    data = engine.policy.data
    previous = np.random.default_rng(100 + seed).normal(size=(left, data.action_dim)).astype(np.float32)
    return replace(observed(seed, data.proprio_dim), previous=previous, delay=delay)


def same(found: np.ndarray, expected: np.ndarray) -> None:
    """To float32's rounding in products of another shape."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", POLICIES)
def test_neither_neighbours_nor_order_nor_batch(name: str, preset: PresetName) -> None:
    engine = engine_of(name, preset)
    alone = np.concatenate([answers(engine, [seed]) for seed in range(5)])
    assert np.abs(alone[0] - alone[1]).max() > 1e-2 * np.abs(alone).max()
    same(answers(engine, [0, 1]), alone[:2])
    same(answers(engine, [3, 1, 0]), alone[[3, 1, 0]])
    same(answers(engine, [0, 1, 2, 3, 4]), alone)
    same(answers(engine, [2, 2, 2]), alone[[2, 2, 2]])


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", POLICIES)
def test_nothing_that_was_asked_before(name: str, preset: PresetName) -> None:
    """More instructions than any cache keeps, and images of another size."""
    fresh = answers(engine_of(name, preset), [7])
    wide = answers(engine_of(name, preset), [7], (48, 40))
    engine = engine_of(name, preset)
    answers(engine, [7])
    for first in range(100, 400, 50):
        answers(engine, range(first, first + 50))
    same(answers(engine, [7], (48, 40)), wide)
    same(answers(engine, [7]), fresh)


@pytest.mark.parametrize("preset", ["plain", "exact"])
@pytest.mark.parametrize("name", CONTINUES)
def test_robots_with_more_and_less_left_over_are_answered_together(name: str, preset: PresetName) -> None:
    """Each as if alone; whoever has nothing left over as if nobody had. More delay than is left means all of it."""
    engine = engine_of(name, preset)
    asked = [continuing(engine, seed, left, delay) for seed, left, delay in ((1, 0, 3), (2, 5, 2), (3, 2, 9))]
    alone = [engine.act([one])[0].actions for one in asked]
    for order in ((0, 1, 2), (2, 0)):
        found = engine.act([asked[row] for row in order])
        same(np.stack([chunk.actions for chunk in found]), np.stack([alone[row] for row in order]))
    free = answers(engine, [1, 2, 3])
    same(alone[0], free[0])
    assert np.abs(alone[1] - free[1]).max() > 1e-2 * np.abs(free).max()
    same(engine.act([replace(asked[2], delay=2)])[0].actions, alone[2])
    assert np.abs(engine.act([replace(asked[1], delay=3)])[0].actions - alone[1]).max() > 1e-4


@pytest.mark.parametrize(
    ("previous", "said"),
    [
        (np.zeros((1, 1), np.float32), r"previous: expected at most \d+ rows of \d actions, got \[1, 1\]"),
        (np.zeros((99, 2), np.float32), r"previous: expected at most \d+ rows of 2 actions, got \[99, 2\]"),
        (np.full((1, 2), np.inf), "previous: it has NaN or infinity"),
        (np.full((1, 2), 1e300), "previous: it has NaN or infinity"),
    ],
)
def test_a_previous_chunk_that_cannot_be_continued(previous: np.ndarray, said: str) -> None:
    engine = engine_of("fast_wam, fast", "exact")
    with pytest.raises(BadInput, match=said):
        engine.act([replace(observed(1), previous=previous)])


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", POLICIES)
def test_each_part_of_an_observation_counts(name: str, preset: PresetName) -> None:
    """Changed one by one, after the unchanged one was answered: as an engine that never saw that one answers."""
    engine = engine_of(name, preset)
    first = observed(7, engine.policy.data.proprio_dim)
    (before,) = engine.act([first])
    parts = {
        "instruction": "something else",
        "images": {view: 255 - image for view, image in first.images.items()},
        **({"proprio": first.proprio + 1} if len(first.proprio) else {}),
        **({"noise_seed": 8} if not name.startswith("light_wam") else {}),
    }
    for part, value in parts.items():
        asked = replace(first, **{part: value})
        (found,), (expected,) = engine.act([asked]), engine_of(name, preset).act([asked])
        same(found.actions, expected.actions)
        assert np.abs(found.actions - before.actions).max() > 1e-4 * np.abs(before.actions).max(), part


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_that_acts_neither_moves_nor_learns(name: str, preset: PresetName) -> None:
    engine = engine_of(name, preset)
    weights = engine.policy.state_dict()
    before = answers(engine, [1])
    with pytest.raises(
        BadInput, match=r"acts already.*it cannot be moved or cast; load the run directory again"
    ):
        engine.policy.to(torch.float64)
    with pytest.raises(BadInput, match="no other weights can be loaded into it"):
        engine.policy.load_state_dict(weights)
    assert np.array_equal(answers(engine, [1]), before)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", POLICIES)
def test_what_acting_does_not_use_may_go(name: str, preset: PresetName) -> None:
    engine = engine_of(name, preset)
    before = answers(engine, [1, 2])
    weights = [weakref.ref(parameter) for parameter in engine.policy.parameters()]
    engine.release()
    assert all(parameter.is_meta for parameter in engine.policy.parameters())
    gc.collect()
    left = sum(weight() is not None for weight in weights)
    assert left == len(weights) if preset == "plain" else left < len(weights)
    assert np.array_equal(answers(engine, [1, 2]), before)
    with pytest.raises(BadInput, match="another"):
        engine.act([replace(observed(1, engine.policy.data.proprio_dim), embodiment="another")])


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", POLICIES)
def test_the_steps_that_are_executed_are_those_of_the_whole_chunk(name: str, preset: PresetName) -> None:
    engine = engine_of(name, preset)
    whole, few = answers(engine, [1, 2]), answers(engine, [1, 2], steps=2)
    assert 2 <= few.shape[1] <= whole.shape[1] == engine.policy.data.horizon
    same(few[:, :2], whole[:, :2])


class Waiting(TorchDispatchMode):
    """Collects operations at which a device would be waited for: numbers read on the host."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "_local_scalar_dense" in str(operation) or "nonzero" in str(operation):
            self.found.append(str(operation))
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", POLICIES)
def test_no_number_is_read_on_the_host(name: str, preset: PresetName) -> None:
    engine = engine_of(name, preset)
    answers(engine, [1, 2])
    with Waiting() as waited:
        answers(engine, [1, 2])
    assert not waited.found


def held() -> int:
    """Bytes of all tensors that are alive."""
    gc.collect()
    return sum(x.nbytes for x in gc.get_objects() if issubclass(type(x), Tensor))


@pytest.mark.parametrize("name", ["light_wam", "fast_wam, fast", "lawam"])
def test_memory_is_flat(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new instruction with every query, more than are kept."""
    monkeypatch.setattr(encoder, "KEPT_PROMPTS", 256)
    engine = engine_of(name, "exact")
    for seed in range(0, 300, 20):
        answers(engine, range(seed, seed + 20))
    before = held()
    for seed in range(300, 600, 20):
        answers(engine, range(seed, seed + 20))
    assert held() <= before
