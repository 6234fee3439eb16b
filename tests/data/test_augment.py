"""Augmented training images: drawn per sample, alike in a clip, the same in any worker, and nowhere but in training."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from wamkit_client.types import BadInput

from tests.tiny_dataset import RUN, write
from wamkit.cli import main
from wamkit.config import build_encoder, load_run
from wamkit.data.augment import Augment
from wamkit.data.loader import batches
from wamkit.data.samples import Fresh, read_all
from wamkit.stages.run import NO_FILE, best_device, encode, open_clips, train, training_samples
from wamkit.types import UNCHANGED, Augmentation

STRONG = Augmentation(crop=0.5, brightness=0.3, contrast=0.3, saturation=0.3, hue=0.1)
CPU = torch.device("cpu")
AUGMENTED = replace(RUN, data=replace(RUN.data, augmentation=STRONG))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("augment") / "dataset", [9, 9])


def views(seed: int = 0) -> dict[str, torch.Tensor]:
    """Two cameras that see one thing, which does not move, in sizes of their own."""
    generator = torch.Generator().manual_seed(seed)
    frame = torch.randint(256, (1, 1, 24, 36, 3), dtype=torch.uint8, generator=generator)
    return {"front": frame.expand(1, 4, 24, 36, 3), "wrist": frame.expand(1, 4, 24, 36, 3)}


def augmented(augmentation: Augmentation, seed: int) -> dict[str, torch.Tensor]:
    return Augment(augmentation)(views(), torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "augmentation", [STRONG, Augmentation(crop=0.5), Augmentation(hue=0.2)], ids=["all", "crop", "colour"]
)
def test_all_frames_of_a_clip_change_alike_and_each_camera_by_itself(augmentation: Augmentation) -> None:
    changed = augmented(augmentation, 3)
    for name, frames in changed.items():
        assert frames.shape == views()[name].shape and frames.dtype == torch.uint8
        assert (frames == frames[:, :1]).all(), "a clip stays a clip"
        assert not torch.equal(frames, views()[name])
    assert not torch.equal(changed["front"], changed["wrist"])
    again, other = augmented(augmentation, 3), augmented(augmentation, 4)
    assert all(torch.equal(changed[name], again[name]) for name in changed)
    assert not torch.equal(changed["front"], other["front"])


def test_without_augmentation_nothing_is_touched_or_drawn() -> None:
    generator = torch.Generator().manual_seed(5)
    before, seen = generator.get_state(), views()
    assert Augment(UNCHANGED)(seen, generator) is seen
    assert torch.equal(generator.get_state(), before)


def test_a_crop_is_a_part_of_the_image_in_its_shape() -> None:
    ramp = torch.arange(32).repeat(32, 1)[None, None, :, :, None].expand(1, 1, 32, 32, 3) * 8
    seen = Augment(Augmentation(crop=0.25))({"eye": ramp.byte()}, torch.Generator().manual_seed(1))["eye"]
    columns = seen[0, 0, 0, :, 0].float()
    assert columns.diff().min() >= 0, "left stays left"
    assert columns[0] >= 0 and columns[-1] <= 248 and columns[-1] - columns[0] < 248


def test_a_sample_is_augmented_by_its_place_whatever_the_workers(dataset: Path) -> None:
    encoder = build_encoder(AUGMENTED)
    samples = training_samples(AUGMENTED, open_clips(AUGMENTED, [dataset]), encoder, NO_FILE)

    def first(workers: int, start: int = 0) -> list[torch.Tensor]:
        stream = batches(samples, lambda names: torch.zeros(len(names)).long(), 4, 0, start, workers=workers)
        with closing(stream):
            return [next(stream).inputs["present"] for _ in range(3)]

    alone, apart = first(0), first(2)
    assert all(torch.equal(a, b) for a, b in zip(alone, apart, strict=True))
    assert torch.equal(first(0, start=2)[0], alone[2]), "a resumed run sees what the uninterrupted one does"


def test_the_next_epoch_sees_another_image_and_measurements_see_none(dataset: Path) -> None:
    [clips], encoder = open_clips(AUGMENTED, [dataset]), build_encoder(AUGMENTED)
    samples = Fresh(clips, encoder, STRONG)
    one, two = (samples.finish(samples.reader([0], [seed])).inputs["present"] for seed in (1, 2))
    assert not torch.equal(one, two)
    plain = read_all(Fresh(clips, encoder), [0]).inputs["present"]
    [plainly] = open_clips(RUN, [dataset])
    assert torch.equal(plain, read_all(Fresh(plainly, encoder), [0]).inputs["present"])


def test_training_augments_and_says_so(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    losses = {}
    for name, run in (("augmented", AUGMENTED), ("plain", RUN)):
        train(run, [dataset], NO_FILE, tmp_path / name, best_device())
        losses[name] = json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[0])["loss"]
        assert ("tiny augments its images: they are encoded anew" in capsys.readouterr().out) == (
            name == "augmented"
        )
        assert load_run(tmp_path / name).data.augmentation == run.data.augmentation
    assert losses["augmented"] != losses["plain"]


def test_with_a_cache_it_is_off_and_the_trainer_says_so(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encode(AUGMENTED, [dataset], tmp_path / "cache", CPU)
    train(AUGMENTED, [dataset], tmp_path / "cache", tmp_path / "run", best_device())
    assert "data.augmentation is off: latents of a cache are of plain images" in capsys.readouterr().out
    assert load_run(tmp_path / "run").data.augmentation == UNCHANGED, "the run says what was done"
    train(AUGMENTED, [dataset], tmp_path / "cache", tmp_path / "run", best_device())


def test_it_is_given_on_the_command_line_also_for_several_datasets(dataset: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other", [9])
    recipe = tmp_path / "tiny_recipe.py"
    recipe.write_text(
        "from dataclasses import replace\nfrom tests.tiny_dataset import RUN\n\n\n"
        'def recipe():\n    return replace(RUN, recipe="augmented_tiny", suite="")\n'
    )
    words = ["train", str(recipe), "--dataset", str(dataset), "--dataset", str(other), "--weights", "1", "3"]
    values = ["--data.augmentation.crop", "0.9", "--data.augmentation.hue", "0.05"]
    assert main([*words, *values, "--out", str(tmp_path / "run"), "--eval.replan-steps", "4"]) == 0
    assert load_run(tmp_path / "run").data.augmentation == Augmentation(crop=0.9, hue=0.05)


@pytest.mark.parametrize(
    ("values", "wrong"),
    [
        ({"crop": 0.0}, r"data\.augmentation\.crop: expected a number above 0, at most 1, got 0"),
        ({"crop": 1.5}, r"data\.augmentation\.crop: expected a number above 0, at most 1"),
        ({"hue": 1.0}, r"data\.augmentation\.hue: expected a number from 0 to below 1"),
        ({"brightness": -0.1}, r"data\.augmentation\.brightness: expected a number from 0 to below 1"),
    ],
)
def test_impossible_values_are_refused(values: dict[str, float], wrong: str) -> None:
    with pytest.raises(BadInput, match=wrong):
        Augmentation(**values)
