"""The published recipes have the numbers of the specification, and ours differ from them where they say so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from wamkit_client.suites import suite as suite_of

from wamkit.config import diff, load_run
from wamkit.data.canvas import canvas_size
from wamkit.flow import Shift
from wamkit.recipes import OURS, PUBLISHED, recipe
from wamkit.stages.plan import memory, meta_batch, meta_policy
from wamkit.stages.tables import deviation_tables

# Light-WAM spec 3 and 4, Fast-WAM spec 4 and 5: steps, samples of a step, parts, peak rate, warm-up; canvas, proprio,
# action, normalisation; executed actions. All chunks have 32 actions.
LIBERO, ROBOTWIN = ((224, 448), 8, 7, "min_max", 10), ((384, 320), 14, 14, "z_score", 24)
NUMBERS = {
    "libero_spatial": (150_000, 64, 1, 2e-4, 1000, *LIBERO),
    "libero_object": (150_000, 64, 1, 1e-4, 1000, *LIBERO),
    "libero_goal": (150_000, 64, 1, 2e-4, 1000, *LIBERO),
    "libero_10": (150_000, 64, 1, 1e-4, 1000, *LIBERO),
    "libero_fast_wam": (20_000, 128, 1, 1e-4, 1000, *LIBERO),
    "libero_fast_wam_optional_idm": (20_000, 128, 1, 1e-4, 1000, *LIBERO),
    "robotwin": (500_000, 128, 2, 1e-4, 1000, *ROBOTWIN),
    "robotwin_fast_wam": (30_000, 1024, 1, 1e-4, 1500, *ROBOTWIN),
    "real_robot": (150_000, 64, 1, 1e-4, 1000, *ROBOTWIN),
}
# The same of LaWAM's: test_recipes_lawam.py.
LAWAM = {name for name in PUBLISHED if "lawam" in name}
# Of Light-WAM: how many actions of the chunk are trained.
PREFIX = {name: 8 if name.startswith("libero") else 24 for name in NUMBERS if "fast_wam" not in name}
FIXED_UP = {"recipe", "normalization.statistics", "train.clip_norm", "train.decayed"}


def test_every_published_recipe_is_held_against_the_specification():
    assert {*NUMBERS, *LAWAM} == PUBLISHED.keys() == set(OURS.values())


@pytest.mark.parametrize("name", NUMBERS)
def test_published_numbers(name):
    run = recipe(name)
    train, data = run.train, run.data
    assert (
        *(train.steps, train.batch_size, train.accumulation, train.learning_rate, train.warmup_steps),
        *(canvas_size(data), data.proprio_dim, data.action_dim),
        *(run.normalization.action, run.eval.replan_steps),
    ) == NUMBERS[name]
    assert run.normalization.proprio == run.normalization.action
    assert run.normalization.statistics == "published_windows"
    assert (train.betas, train.eps, train.weight_decay, train.decayed) == ((0.9, 0.95), 1e-8, 1e-2, "all")
    assert (train.final_fraction, train.clip_norm, train.average_decay) == (0.01, "none", 0.0)
    assert train.warmup_start * train.warmup_steps == pytest.approx(1)
    assert (train.precision, train.seed) == ("bf16", 42)
    assert data.frame_offsets == tuple(range(0, 33, 4)) and data.horizon == 32
    assert len(run.actions.names) == data.action_dim
    several = {
        "libero_fast_wam": "libero",
        "libero_fast_wam_optional_idm": "libero",
        "real_robot": "real_robot",
    }
    assert run.suite == several.get(name, "robotwin_clean" if name.startswith("robotwin") else name)


@pytest.mark.parametrize("name", PREFIX)
def test_published_light_wam(name):
    policy = recipe(name).policy
    weights = policy.step_weights
    assert (weights.prefix, weights.weight, weights.tail) == (PREFIX[name], 1.0, 0.0)
    assert (policy.video_weight, policy.action_weight, policy.video_pool) == (1.0, 1.0, 2)
    assert (policy.tuning.rank, policy.tuning.alpha, policy.adapters.layers) == (64, 128.0, (8, 16, 24))
    assert policy.time_precision == "bfloat16"


@pytest.mark.parametrize("name", ["libero_fast_wam", "robotwin_fast_wam", "libero_fast_wam_optional_idm"])
def test_published_fast_wam(name):
    policy, optional = recipe(name).policy, name.endswith("optional_idm")
    assert (policy.sample_steps, policy.time_precision) == (10, "bfloat16")
    assert (policy.variant, policy.mode) == ("optional_idm" if optional else "fast", "")
    assert policy.video_shift == Shift(train=5.0, sample=1.0 if optional else 5.0)
    assert policy.action_shift == (Shift(1.0, 1.0) if optional else Shift(5.0, 5.0))
    assert (policy.idm_share, policy.given_noise) == (0.5, 0.0 if optional else 0.5)


@pytest.mark.parametrize("name", NUMBERS)
def test_ours_differs_where_it_says(name):
    changes = {change.split(": ")[0]: change.split(" -> ")[1] for change in diff(*pair(name))}
    expected = FIXED_UP | {"policy.time_precision"}
    acting = {"policy.noise", "eval.preprocessing"}
    expected |= {"policy.start.action"} | acting if "fast_wam" in name else set()
    expected |= {"policy.step_weights.prefix"} if PREFIX.get(name) == 8 else set()
    assert changes.keys() == expected
    assert (changes["train.clip_norm"], changes["train.decayed"]) == ("1.0", "matrices")
    if name in PREFIX:
        assert pair(name)[1].policy.step_weights.prefix == recipe(name).eval.replan_steps


def pair(name):
    return recipe(name), recipe(f"{name}_ours")


@pytest.mark.parametrize("name", ["libero_spatial", "libero_spatial_ours"])
def test_the_plan_shows_what_ours_changes(name):
    table, reasons = deviation_tables(name)
    columns = [list(column.cells) for column in table.columns]
    rows = list(zip(*columns, strict=True))
    assert [column.header for column in table.columns] == ["value", "published", "ours"]
    assert rows == [
        ("normalization.statistics", "published_windows", "frames"),
        ("policy.step_weights.prefix", "8", "10"),
        ("policy.time_precision", "bfloat16", "float32"),
        ("train.clip_norm", "none", "1.0"),
        ("train.decayed", "all", "matrices"),
    ]
    why = dict(zip(*(column.cells for column in reasons.columns), strict=True))
    assert list(why) == [row[0] for row in rows]
    assert why["policy.step_weights.prefix"] == "every executed action is a trained one"
    assert deviation_tables("metaworld3") == []


def test_the_plan_counts_one_part_of_a_batch():
    run = recipe("metaworld3")
    halved = replace(run, train=replace(run.train, accumulation=2))
    assert len(meta_batch(halved).ids) == run.train.batch_size // 2
    whole, half = (memory(one, meta_policy(one)) for one in (run, halved))
    assert half.activations == pytest.approx(whole.activations / 2, rel=0.02)
    assert (half.weights, half.optimizer) == (whole.weights, whole.optimizer)


@pytest.mark.parametrize("suite", ["libero_spatial", "libero_object", "libero_goal", "libero_10"])
def test_small_libero_sees_and_acts_in_whole_steps(suite):
    run = recipe(f"{suite}_small")
    assert (run.suite, canvas_size(run.data), run.data.horizon) == (suite, (96, 192), 16)
    assert run.data.frame_offsets == (0, 4, 8, 12, 16)
    assert run.policy.step_weights.prefix == run.data.horizon
    assert (run.data.views, run.data.hz) == (recipe(suite).data.views, recipe(suite).data.hz)
    assert run.actions == recipe(suite).actions
    joint = recipe("libero_small")
    assert (joint.suite, joint.data, joint.policy) == ("libero", run.data, run.policy)


@pytest.mark.parametrize("tasks", ["mt10", "mt50"])
def test_policies_with_a_view_from_above_see_what_their_suites_show(tasks):
    run = recipe(f"metaworld_{tasks}_topview")
    shown, usual = suite_of(run.suite), suite_of(f"metaworld_{tasks}")
    longest = max(len(task.instruction.split()) for task in shown.tasks)
    assert longest < run.policy.text.length
    assert (shown.tasks, shown.max_steps) == (usual.tasks, usual.max_steps)
    assert run.data.views == shown.env.views and canvas_size(run.data) == (64, 192)
    run.policy.validate_together()
    inputs = run.policy.example_inputs(run.data, 2)
    assert inputs["present"].shape == (2, 192, 1, 8, 24) and inputs["future"].shape == (2, 192, 1, 8, 24)


def test_the_run_that_comes_with_the_repository_is_still_read():
    run = load_run(Path(__file__).parents[1] / "pretrained" / "metaworld3")
    assert (run.train.clip_norm, run.train.accumulation, run.policy.time_precision) == (1.0, 1, "float32")
