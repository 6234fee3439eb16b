"""The named protocols: the tables are complete, consistent with the simulator, and survive JSON."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from wamkit_client.envs.base import InitialState
from wamkit_client.envs.metaworld.tasks import METAWORLD_TASKS, metaworld_task
from wamkit_client.suites import (
    EVALUATION_SEED,
    SUITES,
    suite,
    suite_from_json,
)
from wamkit_client.types import BadInput


def test_mt50_is_what_the_simulator_has() -> None:
    from metaworld.env_dict import MT10_V3, MT50_V3
    from metaworld.policies import ENV_POLICY_MAP

    assert {task.name for task in METAWORLD_TASKS} == set(MT50_V3) == set(ENV_POLICY_MAP)
    assert tuple(task.name for task in suite("metaworld_mt10").tasks) == tuple(MT10_V3)


def test_groups_are_those_of_published_scores() -> None:
    groups = Counter(task.group for task in METAWORLD_TASKS)
    assert groups == {"easy": 28, "medium": 11, "hard": 6, "very_hard": 5}
    for group, size in groups.items():
        assert len(suite(f"metaworld_{group}").tasks) == size


def test_every_task_can_be_told_and_compared() -> None:
    assert all(task.instruction and 20 < task.expert_steps < 200 for task in METAWORLD_TASKS)
    demo = suite("metaworld3")
    assert len({task.instruction for task in demo.tasks}) == 3
    assert all(demo.max_steps >= 2 * task.expert_steps for task in demo.tasks)


def test_evaluation_seeds_are_far_from_collection_seeds() -> None:
    for known in SUITES.values():
        first = known.env.first_demonstration_seed
        if known.env.simulator == "metaworld":
            assert known.first_seed == EVALUATION_SEED > first + 100_000
        else:  # the published initial states, below every drawn scene
            assert known.first_seed + known.episodes <= 50 < first


def test_a_single_task_is_a_suite() -> None:
    alone = suite("metaworld:reach")
    assert [task.name for task in alone.tasks] == ["reach-v3"] and alone.name == "metaworld:reach"


@pytest.mark.parametrize("name", ["metaworld4", "metaworld:", "metaworld:flying-v3", "libero:x"])
def test_unknown_names_are_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(BadInput, match=r"metaworld3|reach-v3"):
        suite(name)


def test_unknown_tasks_are_refused_with_the_known_ones() -> None:
    with pytest.raises(BadInput, match=r"no task 'press'.*drawer-open-v3"):
        metaworld_task("press")
    with pytest.raises(BadInput, match=r"suite metaworld3 has no task 'reach-v3'.*drawer-open-v3"):
        suite("metaworld3").task("reach-v3")


@pytest.mark.parametrize("name", SUITES)
def test_protocols_survive_json(name: str) -> None:
    assert suite_from_json(json.loads(json.dumps(suite(name).to_json()))) == suite(name)


def test_protocols_of_another_version_are_refused() -> None:
    data = suite("metaworld3").to_json()
    with pytest.raises(BadInput, match="another version"):
        suite_from_json({**data, "speed": 3})
    with pytest.raises(BadInput, match="unknown simulator 'mars'"):
        suite_from_json({**data, "env": {"simulator": "mars"}})


def test_initial_states_compare_by_what_they_are() -> None:
    state = InitialState("reach-v3", 3, (0.1, -0.0, 0.25))
    assert InitialState.from_json(json.loads(json.dumps(state.to_json()))) == state
    assert state.key() == InitialState("reach-v3", 99, (0.1 + 1e-9, 0.0, 0.25)).key()
    assert state.key() != InitialState("push-v3", 3, state.vector).key()
    assert state.key() != InitialState("reach-v3", 3, (0.1, 0.0, 0.2501)).key()
