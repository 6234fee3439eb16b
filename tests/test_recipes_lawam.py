"""LaWAM's full-size recipes have the numbers of the specification (1.8, 1.9, 2.8, 2.9), and its parameters (0)."""

from __future__ import annotations

import pytest
from wamkit_client.envs.robotwin.conventions import CAMERAS, layout_of
from wamkit_client.suites import suite

from wamkit import robotwin
from wamkit.cli import main
from wamkit.config import check_together, diff, from_json, to_json
from wamkit.policies.lawam.begin import FromRun, FromStage1
from wamkit.recipes import PUBLISHED, recipe
from wamkit.recipes.ours import REASONS
from wamkit.stages.plan import meta_policy, parts
from wamkit.train.optim import optimizer_groups

# steps, samples of a step, parts, peak rate, warm-up, shape of the schedule
TRAINED = {
    "lawam_world": (100_000, 1024, 1, 3e-4, 10_000, "constant"),
    "lawam_world_base": (100_000, 64, 1, 1e-4, 2000, "constant"),
    "lawam_pretrain": (200_000, 1024, 1, 1e-4, 2000, "cosine"),
    "libero_lawam": (25_000, 256, 1, 1e-4, 1500, "cosine"),
    "robotwin_lawam": (100_000, 1024, 2, 1e-4, 2000, "cosine"),
}
# views, rate, steps of the frames, actions of a chunk and dimensions of one, executed; rates of expert, world, prior
POLICIES = {
    "lawam_pretrain": (2, 20, (0, 23), 24, 7, 24, (1e-4, 3e-5, 3e-5)),
    "libero_lawam": (2, 20, (0, 7), 8, 7, 8, (1e-4, 1e-4, 1e-4)),
    "robotwin_lawam": (3, 30, (0, 35), 36, 16, 36, (1e-4, 3e-4, 1e-4)),
}
STAGE1 = {
    "inverse-dynamics encoder": 309_432_352,
    "bottleneck": 2_176,
    "latent world model": 228_286_720,
    "state head": 101_713_344,
}
DINO = 85_660_416


def test_every_recipe_is_held_against_the_specification():
    assert TRAINED.keys() == {name for name in PUBLISHED if "lawam" in name}


@pytest.mark.parametrize("name", TRAINED)
def test_how_they_are_trained(name):
    train, world = recipe(name).train, "world" in name
    assert (
        *(train.steps, train.batch_size, train.accumulation),
        *(train.learning_rate, train.warmup_steps, train.schedule),
    ) == TRAINED[name]
    assert (train.betas, train.eps, train.weight_decay, train.decayed, train.seed) == (
        ((0.9, 0.999), 1e-8, 1e-2, "matrices", 42) if world else ((0.9, 0.95), 1e-8, 1e-8, "all", 2026)
    )
    assert (train.clip_norm, train.precision, train.warmup_start, train.average_decay) == (1.0, "bf16", 0, 0)
    if not world:
        assert train.rates.rate(train.steps) == pytest.approx(5e-7)
    check_together(recipe("metaworld3"), recipe(name))
    assert from_json(to_json(recipe(name)), name) == recipe(name)


@pytest.mark.parametrize("name", POLICIES)
def test_what_stage_two_sees_and_does(name):
    run = recipe(name)
    data, policy = run.data, run.policy
    rates = (policy.learning_rates.expert, policy.learning_rates.world, policy.learning_rates.prior)
    assert (
        *(len(data.views), data.hz, data.frame_offsets, data.horizon, data.action_dim, run.eval.replan_steps),
        tuple(pytest.approx(run.train.learning_rate * rate) for rate in rates),
    ) == POLICIES[name]
    assert (data.canvas, data.view_height, data.view_width, data.past_end) == (
        "separate",
        256,
        256,
        "supervised",
    )
    assert (data.proprio_dim, policy.repeats, policy.sample_steps, policy.clip_actions) == (0, 2, 10, True)
    assert (policy.subgoal_weight, policy.distill_weight, policy.stop_subgoal_grad) == (0.1, 0.1, True)
    assert (policy.prior_precision, run.eval.precision) == ("bfloat16", "bf16")
    assert isinstance(policy.begin, FromStage1 if name == "lawam_pretrain" else FromRun)


def test_each_benchmark_is_in_its_own_words():
    libero, robots = recipe("libero_lawam"), recipe("robotwin_lawam")
    own = suite(libero.suite).acted_by(libero.actions.names)
    assert own.env.gripper == "gripper_closing" and set(own.group_steps.values()) == {250, 300, 320, 550}
    assert libero.normalization.rules(libero.actions) == {6: "binary"}
    assert robotwin.find_suite(robots.suite).env.instructions == "seen"
    assert layout_of(robots.actions.names).control == "ee" and set(robots.data.views) == set(CAMERAS)
    hands = robots.normalization.rules(robots.actions)
    assert [dim for dim, rule in hands.items() if rule == "quaternion"] == [3, 4, 5, 6, 11, 12, 13, 14]
    assert [dim for dim, rule in hands.items() if rule == "inverted_min_max"] == [7, 15]
    assert (libero.policy.robots, robots.policy.robots) == ((("panda", 25),), (("aloha-agilex", 1),))


def test_stage_one_is_the_large_model_and_the_small_one():
    large, base = recipe("lawam_world"), recipe("lawam_world_base")
    assert large.data.frame_offsets == (0, 32) and large.data.frame_proprio
    assert (large.policy.feature_loss, base.policy.feature_loss) == ("smooth_l1", "squared")
    assert (large.policy.beta, large.policy.state_weight, large.policy.state_dim) == (5e-5, 1.0, 14)
    assert large.policy.augmentation.draws
    size = base.policy.latent
    assert (size.width, size.heads, size.ffn, size.inverse_layers, size.world_layers) == (
        768,
        12,
        2304,
        12,
        6,
    )


@pytest.mark.parametrize("name", TRAINED)
def test_ours_differs_where_it_says_and_says_why(name):
    published, own = recipe(name), recipe(f"{name}_ours")
    changes = {change.split(": ")[0] for change in diff(published, own)} - {"recipe"}
    stage1, stage2 = (
        {"data.frame_times"},
        {"train.decayed", "policy.prior_precision", "policy.world", "eval.precision"},
    )
    expected = {"policy.latent.positions"} | (stage1 if "world" in name else stage2)
    assert changes == expected | (
        {"policy.begin.path"} if name in ("libero_lawam", "robotwin_lawam") else set()
    )
    assert changes <= REASONS.keys()
    if "world" in name:
        assert own.data.frame_offsets == (0, 24)


def test_the_plan_of_stage_one():
    run = recipe("lawam_world")
    found = {
        part.name: (part.parameters, part.trainable, part.deployed) for part in parts(run, meta_policy(run))
    }
    assert found == {name: (count, count, 0) for name, count in STAGE1.items()} | {
        "image features": (DINO, 0, 0)
    }
    assert sum(count for count, _, _ in found.values()) == 725_095_008


@pytest.mark.parametrize("name", POLICIES)
def test_the_parts_of_stage_two(name):
    run = recipe(name)
    policy = meta_policy(run)
    found = {part.name: (part.parameters, part.trainable, part.deployed) for part in parts(run, policy)}
    world = STAGE1["latent world model"]
    assert found == {
        "latent-action and action queries": (32_768,) * 3,
        "vision-language prior": (1_523_500_032, 1_523_500_032 - 311_164_928, 1_523_500_032),
        "query aggregation": (145_920,) * 3,
        "latent world model": (world,) * 3,
        "action expert": (306_405_632,) * 3,
        "image features": (DINO, 0, DINO),
    } | {part: (count, 0, 0) for part, count in STAGE1.items() if count != world}
    totals = tuple(map(sum, zip(*found.values(), strict=True)))
    assert totals == (2_555_179_360, 1_747_206_144, 2_144_031_488)
    groups = optimizer_groups(policy, policy.parameter_groups(), 1.0, "all", ())
    assert sum(p.numel() for group in groups for p in group["params"]) == totals[1]


def test_the_plan_is_printed_without_memory(capsys):
    assert main(["train", "libero_lawam", "--plan"]) == 0
    printed = capsys.readouterr().out
    for number in (
        "2,555,179,360",
        "1,747,206,144",
        "2,144,031,488",
        "1,523,500,032",
        "228,286,720",
        "309,432,352",
    ):
        assert number in printed
    assert "overlapped" in printed and "policy.prior_precision" in printed
