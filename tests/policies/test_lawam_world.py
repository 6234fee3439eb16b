"""Stage 1 of LaWAM: its losses, training it for real on a tiny dataset, and what it is for stage 2."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from wamkit_client.types import BadInput

from tests.policies.tiny_lawam_world import CONFIG, PAIR_RUN, PAIRS, tiny_world
from tests.policies.tiny_policy import draws, tiny_normalizer
from tests.tiny_dataset import write
from wamkit.config import Source, build_encoder, from_json, load_normalizer, load_run, to_json
from wamkit.data.loader import batches
from wamkit.data.samples import Fresh
from wamkit.io.weights import WEIGHTS, run_weights
from wamkit.policies.lawam.augment import TwoViews
from wamkit.policies.lawam.features import BlockFeaturesConfig
from wamkit.policies.lawam.latent_action import Code, LatentSize
from wamkit.policies.lawam.losses import squared_error
from wamkit.policies.lawam.stage1 import Stage1
from wamkit.policies.lawam.world import LaWAMWorld
from wamkit.policies.lawam.world_model import LatentWorldModel
from wamkit.stages.plan import meta_batch
from wamkit.stages.run import NO_FILE, encode, open_clips, train
from wamkit.train.metrics import read_rows
from wamkit.train.optim import optimizer_groups
from wamkit.types import Batch

CPU = torch.device("cpu")
AUGMENTED = replace(PAIR_RUN, policy=replace(CONFIG, augmentation=TwoViews()))
DIM = CONFIG.features.dim


def batch_of(world: LaWAMWorld, size: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    states = normal(size, 2, 3)
    features = normal(size, 2, 2, 16, DIM)
    return Batch(
        inputs={
            "features": features,
            "proprio": states[:, 0],
            "frame_proprio": states,
            "frame_is_pad": torch.zeros(size, 2, dtype=torch.bool),
        },
        actions=normal(size, 6, 2),
        valid=torch.ones(size, 6, 2, dtype=torch.bool),
        embodiment=world.embodiment(["robot"] * size),
        hz=torch.full((size,), 10.0),
        ids=("",) * size,
    )


def losses(world: LaWAMWorld, batch: Batch) -> dict[str, float]:
    return {name: loss.item() for name, loss in world(batch, draws(len(batch.ids))).items()}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("pairs") / "dataset", (9, 12), spec=PAIRS, size=40)


@pytest.fixture(scope="module")
def trained(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    encode(PAIR_RUN, [dataset], folder / "cache", CPU)
    train(PAIR_RUN, [dataset], folder / "cache", folder / "run", CPU)
    return folder / "run"


def test_losses_by_name_and_every_weight_learns() -> None:
    world = tiny_world()
    found = world(batch_of(world), draws())
    assert found.keys() == world.loss_weights.keys() == {"features", "kl", "state"}
    assert world.loss_weights == {"features": 1.0, "kl": 5e-5, "state": 1.0}
    sum(found.values()).backward()
    still = [name for name, p in world.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


def test_no_bias_decays() -> None:
    world = tiny_world()
    groups = optimizer_groups(
        world, world.parameter_groups(), 0.1, "matrices", PAIR_RUN.train.undecayed_names
    )
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    decayed = {name for name, p in world.named_parameters() if decay[id(p)]}
    assert {"state_head.state.0.weight", "world.blocks.0.modulation.weight"} < decayed
    undecayed = world.state_dict().keys() - decayed
    assert {"inverse.queries", "state_head.state.0.bias", "world.norm.weight"} < undecayed
    assert all(name.endswith("bias") or "norm" in name or name == "inverse.queries" for name in undecayed)


def test_one_version_is_encoded_and_the_other_predicted() -> None:
    """With one version both are that one."""
    world, batch = tiny_world(), batch_of(tiny_world())
    features = batch.inputs["features"]
    code = world.infer(features[:, 0])
    predicted = world.world(features[:, 1, 0], code.sample(draws().normal(code.mu)))
    expected = torch.nn.functional.smooth_l1_loss(predicted, features[:, 1, 1], beta=0.1)
    assert losses(world, batch)["features"] == pytest.approx(expected.item(), rel=1e-6)
    alone = replace(batch, inputs=batch.inputs | {"features": features[:, :1]})
    twice = replace(batch, inputs=batch.inputs | {"features": features[:, [0, 0]]})
    assert losses(world, alone) == losses(world, twice) != losses(world, batch)


def test_the_squared_error_is_a_row() -> None:
    plain, squared = tiny_world(), tiny_world(replace(CONFIG, feature_loss="squared"))
    batch = batch_of(plain)
    assert losses(squared, batch)["features"] != losses(plain, batch)["features"]


def test_states_of_humans_are_no_target_and_numbers_of_other_robots_neither() -> None:
    """The batch has no valid number left, and every weight of the head has a gradient all the same."""
    human = tiny_world(replace(CONFIG, robots=(("robot", 0),)))
    batch = batch_of(human)
    found = human(batch, draws())
    assert found["state"] == 0
    found["state"].backward()
    assert all(p.grad is not None and not p.grad.any() for p in human.state_head.parameters())
    assert tiny_world().tables.get_buffer("state_valid").tolist() == [[True, True, True, False]]
    assert human.tables.get_buffer("state_valid").tolist() == [[False] * 4]


def test_the_state_loss_counts_what_is_valid() -> None:
    predicted, target = torch.tensor([[1.0, 5.0], [2.0, 7.0]]), torch.zeros(2, 2)
    valid = torch.tensor([[True, False], [True, False]])
    assert squared_error(predicted, target, valid) == pytest.approx((1 + 4) / 2)


def test_without_proprio_there_is_no_state_loss() -> None:
    data = replace(PAIRS, proprio_dim=0, frame_proprio=False)
    world = CONFIG.build(data, tiny_normalizer())
    assert world.loss_weights.keys() == {"features", "kl"}
    assert not list(world.state_head.parameters())
    batch = batch_of(world)
    assert losses(world, replace(batch, inputs={"features": batch.inputs["features"]})).keys() == {
        "features",
        "kl",
    }


def test_robots_have_rows_of_their_own() -> None:
    other = tiny_world(replace(CONFIG, robots=(("robot", 2),)))
    batch = batch_of(other)
    assert losses(other, batch)["state"] != losses(tiny_world(), batch)["state"]
    with pytest.raises(BadInput, match=r"policy.robots: robot 'arm' has no row; expected one of \['robot'\]"):
        other.embodiment(["arm"])
    elsewhere = tiny_world(replace(CONFIG, robots=(("arm", 2),)))  # a plan's robot has no row, and needs none
    with pytest.raises(BadInput, match=r"robot 'robot' has no row; expected one of \['arm'\]"):
        elsewhere.embodiment(["robot"])
    with pytest.raises(BadInput, match="'robot' has row 3, and the tables have rows 1 to 2"):
        tiny_world(replace(CONFIG, robots=(("robot", 3),)))


def test_kl_of_the_standard_normal_is_zero_and_samples_have_its_spread() -> None:
    code = Code(torch.zeros(2, 3), torch.zeros(2, 3))
    assert not code.kl().any()
    wide = Code(torch.ones(1, 1), torch.full((1, 1), 2.0).log() * 2)
    assert wide.sample(torch.full((1, 1), 3.0)).item() == pytest.approx(7.0)
    assert wide.kl().item() == pytest.approx((1 + 4 - 1 - 2 * 0.6931472) / 2)


def wrong(**changes: Any) -> tuple[Any, Any]:
    data = replace(PAIRS, **changes.pop("data", {}))
    return replace(CONFIG, **changes), data


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"frame_times": (0.0, 0.4, 0.8)}}, r"data.frame_times: stage 1 learns from two frames"),
        ({"data": {"frame_proprio": False}}, r"data.frame_proprio: .* expected True; or data.proprio_dim 0"),
        ({"state_dim": 2}, r"policy.state_dim: 2 numbers of state, the data has data.proprio_dim 3"),
        ({"data": {"view_height": 36}}, r"data.view_height, data.view_width: expected multiples"),
        ({"beta": -1.0}, r"policy.beta: expected a finite number, at least 0, got -1"),
        ({"robot_rows": 1}, r"policy.robot_rows: expected at least 2"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: Mapping[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        config, data = wrong(**changes)
        config.build(data, tiny_normalizer())


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ({"width": 20}, r"policy.latent.width: expected a multiple of 8"),
        ({"heads": 3}, r"policy.latent.heads: 3 do not divide the width 1024"),
        ({"code": 0}, r"policy.latent.code: expected at least 1"),
    ],
)
def test_a_structure_that_cannot_be_is_refused(size: Mapping[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        LatentSize(**size)


def test_a_cache_and_encoding_in_the_step_train_the_same(
    dataset: Path, trained: Path, tmp_path: Path
) -> None:
    train(PAIR_RUN, [dataset], NO_FILE, tmp_path / "run", CPU)
    assert same(run_weights(tmp_path / "run"), run_weights(trained))


def test_training_lowers_the_loss(dataset: Path, tmp_path: Path) -> None:
    longer = replace(PAIR_RUN.train, steps=60, learning_rate=3e-3, log_every=10)
    run = replace(PAIR_RUN, train=longer)
    train(run, [dataset], NO_FILE, tmp_path / "run", CPU)
    rows = read_rows(tmp_path / "run")
    assert rows[-1]["loss/features"] < 0.9 * rows[0]["loss/features"]
    assert rows[-1]["loss/state"] < rows[0]["loss/state"]


def test_augmented_training_is_resumed_bit_for_bit(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(AUGMENTED, [dataset], NO_FILE, tmp_path / "whole", CPU)
    assert (
        "run tiny_world augments its images: they are encoded anew in every step" in capsys.readouterr().out
    )
    halves = replace(AUGMENTED, train=replace(AUGMENTED.train, save_every=3))
    train(halves, [dataset], NO_FILE, tmp_path / "halves", CPU)
    newest = max((tmp_path / "halves" / "checkpoints").iterdir())
    for path in (*newest.iterdir(), tmp_path / "halves" / WEIGHTS, tmp_path / "halves" / "weights.json"):
        path.unlink()
    newest.rmdir()
    train(halves, [dataset], NO_FILE, tmp_path / "halves", CPU)
    assert same(run_weights(tmp_path / "whole"), run_weights(tmp_path / "halves"))


def test_workers_augment_as_one_process_does(dataset: Path) -> None:
    samples = Fresh(open_clips(AUGMENTED, [dataset])[0], build_encoder(AUGMENTED))
    found = []
    for workers in (0, 2):
        with closing(batches(samples, tiny_world().embodiment, 3, seed=1, workers=workers)) as stream:
            found.append([batch.inputs["features"] for batch in islice(stream, 2)])
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))
    [first, _], _ = found
    assert first.shape == (3, 2, 2, 16, DIM) and not torch.equal(first[:, 0], first[:, 1])


def test_augmented_images_are_not_cached(dataset: Path, trained: Path, tmp_path: Path) -> None:
    refused = r"run tiny_world augments its images, so latents cannot be computed beforehand; train without"
    with pytest.raises(BadInput, match=refused):
        encode(AUGMENTED, [dataset], tmp_path / "cache", CPU)
    with pytest.raises(BadInput, match=refused):
        train(AUGMENTED, [dataset], trained.parent / "cache", tmp_path / "run", CPU)


def test_robots_of_other_states_and_video_of_humans_train_together(tmp_path: Path) -> None:
    """The arm has three numbers of state, the human none; images, rates and horizons differ too."""
    human = replace(PAIRS, hz=5.0, frame_times=(0.0, 0.2), proprio_dim=0, views=("top", "palm"))
    sources = (
        Source("arms", PAIRS, PAIR_RUN.actions, robot="arm"),
        Source("people", human, PAIR_RUN.actions, weight=2.0, robot="human"),
    )
    datasets = [tmp_path / "arm", tmp_path / "human"]
    write(datasets[0], (9, 12), robot="arm", spec=PAIRS, size=40)
    write(datasets[1], (8, 7), robot="human", spec=replace(human, proprio_dim=1), size=48)
    policy = replace(AUGMENTED.policy, robots=(("human", 0), ("arm", 2)))
    run = replace(AUGMENTED, policy=policy, sources=sources)
    train(run, datasets, NO_FILE, tmp_path / "run", CPU)
    world = run.policy.build(run.data, load_normalizer(tmp_path / "run"))
    assert world.normalizer.embodiments == ("arm", "human")
    assert world.tables.get_buffer("state_valid").tolist() == [[True, True, True, False], [False] * 4]
    learned = run_weights(tmp_path / "run")["state_head.change.1.bias"]  # from 0
    assert learned[2, :3].all() and not learned[:2].any() and not learned[2, 3:].any()


def test_the_batch_of_a_plan_has_the_shapes_of_training() -> None:
    for run in (PAIR_RUN, AUGMENTED):
        batch = meta_batch(run)
        assert batch.inputs["features"].shape[1:3] == (run.policy.augmentation.versions, 2)
        world = run.policy.build(run.data, tiny_normalizer()).to("meta")
        assert world(batch, draws(4)).keys() == world.loss_weights.keys()


def test_a_run_is_read_back() -> None:
    for run in (PAIR_RUN, AUGMENTED):
        assert from_json(to_json(run), "run.json") == run


def test_stage_2_reads_world_model_and_teacher(trained: Path) -> None:
    world = LatentWorldModel(CONFIG.latent, DIM, (4, 4))
    stage1 = Stage1(trained, CONFIG.features, CONFIG.latent, (4, 4))
    stage1.fill({"world": world})
    teacher = stage1.teacher
    assert not any(p.requires_grad for p in teacher.parameters())
    pair = torch.randn(2, 2, 16, DIM)
    whole = CONFIG.build(PAIRS, tiny_normalizer())
    whole.load_state_dict(run_weights(trained))
    code = teacher(pair)
    assert torch.allclose(code, whole.infer(pair).mu, atol=1e-6)
    assert torch.equal(world(pair[:, 0], code), whole.world(pair[:, 0], code))


@pytest.mark.parametrize(
    ("features", "latent", "grid", "message"),
    [
        (BlockFeaturesConfig(13), CONFIG.latent, (4, 4), r"features: expected .*13.* got .*12.*"),
        (
            CONFIG.features,
            replace(CONFIG.latent, code=5),
            (4, 4),
            r"latent sizes: expected .*'code': 5.* got .*4",
        ),
        (CONFIG.features, CONFIG.latent, (2, 4), r"grid of patches: expected \(2, 4\), got \(4, 4\)"),
    ],
)
def test_another_stage_1_is_refused(
    trained: Path, features: BlockFeaturesConfig, latent: LatentSize, grid: tuple[int, int], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        Stage1(trained, features, latent, grid).fill({})


def test_what_is_no_run_of_stage_1_is_refused(trained: Path, tmp_path: Path) -> None:
    stage1, world = Stage1(tmp_path, CONFIG.features, CONFIG.latent, (4, 4)), torch.nn.Identity()
    with pytest.raises(BadInput, match=r"run.json: missing; name a run directory .* of kind lawam_world"):
        stage1.fill({"world": world})
    run = json.loads((trained / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(run | {"policy": {"kind": "light_wam"}}))
    with pytest.raises(BadInput, match=r"run.json: policy.* name a run directory .* of kind lawam_world"):
        stage1.fill({"world": world})
    (tmp_path / "run.json").write_text(json.dumps(run))
    with pytest.raises(BadInput, match=r"weights.safetensors is missing; training writes it at its end"):
        stage1.fill({"world": world})


def test_as_a_world_model_to_look_into(dataset: Path, trained: Path) -> None:
    run = load_run(trained)
    world = run.policy.world_model(trained, run.data, CPU)
    assert (world.view, world.grid, world.seconds) == ("front", (4, 4), 0.4)
    sample = open_clips(run, [dataset])[0].sample(0)
    now, later = (world.features(sample.clip.views["front"][:, t]) for t in (0, 1))
    encoder = build_encoder(run)
    prepared = encoder.prepare(dict(sample.clip.views), torch.Generator())
    assert torch.equal(encoder.frames(prepared)["features"][0, 0], torch.cat([now, later]))
    predicted = world.step(now, world.infer(now, later))
    assert predicted.shape == later.shape and not predicted.requires_grad
    pair = torch.stack([now, later], dim=1)
    code = world.teacher.bottleneck(world.teacher.inverse(pair))
    told = world.information(now, later)
    normal = torch.distributions.Normal(code.mu, (code.logvar / 2).exp())
    prior = torch.distributions.Normal(torch.zeros(4), torch.ones(4))
    torch.testing.assert_close(told, torch.distributions.kl_divergence(normal, prior))


def same(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(x, two[name]) for name, x in one.items())
