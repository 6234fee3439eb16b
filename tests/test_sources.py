"""Runs of several robots: other rates, cameras, image sizes, dimensions and chunks, in one policy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from wamkit_client.types import BadInput, Observation

from tests import tiny_dataset
from tests.policies.tiny_policy import SPEC
from wamkit.config import Run, Source, from_json, load_engine, load_normalizer, to_json
from wamkit.data.actions import ActionSpace
from wamkit.data.samples import read_all
from wamkit.io.tensors import read_tensors
from wamkit.stages.run import encode, fingerprint, open_clips, train, training_samples
from wamkit.train.metrics import read_rows
from wamkit.types import Query

CPU = torch.device("cpu")
NO_CACHE = Path()
HAND = replace(
    SPEC,
    views=("top", "palm"),
    hz=5.0,
    frame_times=(0.0, 0.2, 0.4, 0.6, 0.8),
    chunk_seconds=0.8,
    proprio_dim=1,
    action_dim=4,
)
SOURCES = (
    Source("arms", SPEC, ActionSpace(("x", "grip"), ("delta", "gripper")), robot="arm"),
    Source("hands", HAND, ActionSpace(("a", "b", "c", "d"), ("absolute",) * 4), weight=2.0, robot="hand"),
)
RUN = replace(
    tiny_dataset.RUN,
    data=replace(SPEC, action_dim=4),
    actions=SOURCES[1].actions,
    sources=SOURCES,
    train=replace(tiny_dataset.RUN.train, log_every=1, save_every=1, keep_last=5),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Datasets `arm` and `hand`, a `cache` of both, and `run`, trained on it; do not change them."""
    made = tmp_path_factory.mktemp("sources")
    tiny_dataset.write(made / "arm", (21, 17), robot="arm")
    tiny_dataset.write(made / "hand", (15, 8), robot="hand", spec=HAND, size=48, seed=1)
    encode(RUN, datasets(made), made / "cache", CPU)
    train(RUN, datasets(made), made / "cache", made / "run", CPU)
    return made


def datasets(folder: Path) -> list[Path]:
    return [folder / "arm", folder / "hand"]


def losses(run_dir: Path) -> list[tuple[float, ...]]:
    return [(row["loss"], row["loss/action"], row["loss/video"]) for row in read_rows(run_dir)]


def test_every_robot_has_latents_and_statistics_of_its_own(folder: Path) -> None:
    assert {path.name for path in (folder / "cache").iterdir()} == {"arms", "hands"}
    normalizer = load_normalizer(folder / "run")
    assert normalizer.embodiments == ("arm", "hand")
    dims = {
        name: {field: len(stats.min) for field, stats in fields.items()}
        for name, fields in normalizer.stats.items()
    }
    assert dims == {"arm": {"action": 2, "proprio": 3}, "hand": {"action": 4, "proprio": 1}}
    assert from_json(to_json(RUN), "run.json") == RUN


def test_training_reads_what_the_datasets_hold(folder: Path) -> None:
    clips = open_clips(RUN, datasets(folder))
    encoder = RUN.policy.encoder(RUN.data)
    mixture = training_samples(RUN, clips, encoder, folder / "cache")
    assert len(mixture) == 38 + 23
    arm, hand = mixture.order.quotas
    assert (arm, hand) == (28, 33)  # 38 against 2 x 23
    found = mixture.finish(mixture.reader([0, 38, 38 + 15], [0, 0, 0]))
    assert found.embodiments == ("arm", "hand", "hand") and found.hz.tolist() == [10.0, 5.0, 5.0]
    assert found.ids[1:] == ("0:0", "1:0")
    assert found.actions.shape == (3, 6, 4) and found.inputs["proprio"].shape == (3, 3)
    assert found.valid[0, :, :2].all() and not found.valid[0, :, 2:].any()
    assert found.valid[1, :4].all() and not found.valid[1, 4:].any()
    own = clips[1].sample(15)
    assert torch.equal(found.actions[2, :4], own.actions[0])
    assert torch.equal(found.inputs["proprio"][2], torch.tensor([own.clip.proprio.item(), 0.0, 0.0]))


def test_targets_past_the_end_and_the_proprio_of_every_frame(folder: Path, tmp_path: Path) -> None:
    """Through the cache and through a mixture; a cache of either kind is refused for the other."""
    changes = {"past_end": "supervised", "frame_proprio": True}
    sources = tuple(replace(source, data=replace(source.data, **changes)) for source in SOURCES)
    run = replace(RUN, data=replace(RUN.data, **changes), sources=sources)
    encode(run, datasets(folder), tmp_path / "cache", CPU)
    clips, encoder = open_clips(run, datasets(folder)), run.policy.encoder(run.data)
    cached = training_samples(run, clips, encoder, tmp_path / "cache")
    fresh = training_samples(run, clips, encoder, NO_CACHE)
    last = 38 + 14  # of the first episode of hands, at whose last step every later action is past the end
    one, two = (read_all(samples, [0, last]) for samples in (cached, fresh))
    states = one.inputs["frame_proprio"]
    assert torch.equal(states, two.inputs["frame_proprio"]) and torch.equal(one.valid, two.valid)
    assert states.shape == (2, 5, 3) and torch.equal(states[:, 0], one.inputs["proprio"])
    assert one.ids == ("0:0", "0:14") and not states[1, :, 1:].any() and (states[1] == states[1, 0]).all()
    assert one.valid[1, :4].all() and not one.valid[1, 4:].any()
    with pytest.raises(BadInput, match=r"was made for something else: window: .*targets past the end"):
        training_samples(run, clips, encoder, folder / "cache")


def test_what_older_latents_depend_on_is_named_as_before(folder: Path) -> None:
    arm, hand = open_clips(RUN, datasets(folder))
    encoder = RUN.policy.encoder(RUN.data)
    assert fingerprint(encoder, arm)["window"] == "frames 0,4,8,12,16; actions 6"
    assert fingerprint(encoder, hand)["window"] == "frames 0,1,2,3,4; actions 4"


@pytest.mark.parametrize("workers", [0, 2])
def test_without_a_cache_training_is_the_same(folder: Path, tmp_path: Path, workers: int) -> None:
    run = replace(RUN, train=replace(RUN.train, workers=workers))
    train(run, datasets(folder), NO_CACHE, tmp_path / "run", CPU)
    assert losses(tmp_path / "run") == losses(folder / "run")
    first, second = (read_tensors(path / "run" / "weights.safetensors") for path in (folder, tmp_path))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_interrupted_run_resumes(folder: Path, tmp_path: Path) -> None:
    """From the checkpoint of step 1, with sources read without a cache."""
    shutil.copytree(folder / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step_000002")
    (tmp_path / "run" / "weights.safetensors").unlink()
    train(RUN, datasets(folder), NO_CACHE, tmp_path / "run", CPU)
    assert losses(tmp_path / "run") == losses(folder / "run")


def seen(robot: str, views: Sequence[str], size: int, proprio: int) -> Observation:
    images = {view: np.full((size, size, 3), 90, np.uint8) for view in views}
    return Observation(images, np.full(proprio, 0.1, np.float32), "lift", robot, 1)


def test_every_robot_is_asked_and_answered_as_itself(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = load_engine(folder / "run", CPU)
    queries: list[Query] = []
    answer = engine._answer
    monkeypatch.setattr(engine, "_answer", lambda query: [queries.append(query), answer(query)][1])
    arm, hand = seen("arm", ("front", "wrist"), 32, 3), seen("hand", ("top", "palm"), 48, 1)
    chunks = engine.act([arm, hand, arm])
    assert [chunk.actions.shape for chunk in chunks] == [(6, 2), (4, 4), (6, 2)]
    assert np.array_equal(chunks[0].actions, chunks[2].actions)
    assert [query.hz.tolist() for query in queries] == [[10.0], [5.0], [10.0]]
    assert [query.embodiment.tolist() for query in queries] == [[0], [1], [0]]
    with pytest.raises(BadInput, match=r"camera 'top' is missing.*trained with top, palm, got front, wrist"):
        engine.act([replace(hand, images=arm.images)])
    with pytest.raises(BadInput, match=r"proprio: expected \[1\] numbers, got float32 \(3,\)"):
        engine.act([replace(hand, proprio=arm.proprio)])
    with pytest.raises(BadInput, match=r"unknown embodiment 'leg'; it was fitted on \['arm', 'hand'\]"):
        engine.act([replace(arm, embodiment="leg")])


def test_datasets_that_are_not_those_of_the_sources(folder: Path, tmp_path: Path) -> None:
    arm, hand = datasets(folder)
    with pytest.raises(
        BadInput, match=r"1 datasets for the 2 sources of run tiny; give .* in order: arms, hands"
    ):
        encode(RUN, [arm], tmp_path / "cache", CPU)
    with pytest.raises(
        BadInput, match=r"hand: robot_type is 'hand', source 'arms' is of 'arm'; give .* in order"
    ):
        train(RUN, [hand, arm], folder / "cache", tmp_path / "run", CPU)
    with pytest.raises(BadInput, match=r"nowhere"):
        train(RUN, [arm, tmp_path / "nowhere"], folder / "cache", tmp_path / "run", CPU)
    with pytest.raises(BadInput, match=r"hand: 5 frames per second, the recipe asks for 10 Hz"):
        open_clips(changed(hz=10.0, chunk_seconds=0.4), datasets(folder))
    with pytest.raises(BadInput, match=r"cache/hands: .* was made for something else: window"):
        train(
            changed(frame_times=(0.0, 0.2, 0.4, 0.8, 1.2)),
            [arm, hand],
            folder / "cache",
            tmp_path / "run",
            CPU,
        )
    with pytest.raises(
        BadInput, match=r"statistics is file, which has those of one robot, and there are arm, hand"
    ):
        train(RUN, [arm, hand], folder / "cache", tmp_path / "run", CPU, released=tmp_path / "stats.json")


def changed(**data: object) -> Run:
    return replace(RUN, sources=(SOURCES[0], replace(SOURCES[1], data=replace(HAND, **data))))


def test_a_run_refuses_sources_that_do_not_go_together(folder: Path) -> None:
    with pytest.raises(
        BadInput, match=r"sources.hands: action_dim is 5, the run's data has 4; data must be as wide"
    ):
        changed(action_dim=5)
    with pytest.raises(BadInput, match=r"sources.hands: horizon is 8, the run's data has 6"):
        changed(chunk_seconds=1.6)
    with pytest.raises(BadInput, match=r"sources.hands: action_dim is 4, the run's data has 7"):
        replace(RUN, data=replace(RUN.data, action_dim=7))
    with pytest.raises(BadInput, match=r"sources.hands: 1 views and 5 frames, the run's data has 2 and 5"):
        changed(views=("top",))
    with pytest.raises(BadInput, match=r"sources: two are named 'arms'"):
        replace(RUN, sources=(SOURCES[0], replace(SOURCES[1], name="arms")))
    with pytest.raises(
        BadInput, match=r"sources.hands: its data is not the run's, so it needs the name of its robot"
    ):
        replace(RUN, sources=(SOURCES[0], replace(SOURCES[1], robot="")))
    with pytest.raises(BadInput, match=r"sources.hands.weight: .*, got 0"):
        replace(SOURCES[1], weight=0.0)
    rare = replace(RUN, sources=(SOURCES[0], replace(SOURCES[1], weight=1e-3)))
    with pytest.raises(
        BadInput, match=r"sources.hands: weight 0.001 is too small for any of its samples to be seen"
    ):
        training_samples(rare, open_clips(rare, datasets(folder)), rare.policy.encoder(rare.data), NO_CACHE)


def test_provenance_names_all_robots(folder: Path) -> None:
    about = json.loads((folder / "run" / "provenance.json").read_text())["dataset"]
    assert about["robot"] == "arm, hand" and about["fps"] == [10.0, 5.0] and about["episodes"] == 4
    assert about["folders"] == ["arm", "hand"]
