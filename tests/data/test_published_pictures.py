"""The pictures of the published evaluations, held against Pillow itself, and how far they are from training's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from wamkit_client.types import Observation

from tests.policies.tiny_fast_wam import tiny_config, tiny_policy
from tests.policies.tiny_policy import SPEC, encoder_of
from wamkit.config import Normalization, Run
from wamkit.data.canvas import tile
from wamkit.infer.engine import Engine
from wamkit.recipes import recipe
from wamkit.types import DataSpec

LIBERO, ROBOTWIN = (recipe(name).data for name in ("libero_fast_wam", "robotwin_fast_wam"))
CAMERAS = [(256, 256), (480, 640), (240, 320)]
# largest and mean difference from training's canvas that is allowed, in levels of 255 (measured: docs/numerics.md)
LEVELS = {
    ("libero", 256, 256): (1.1, 0.3),
    ("robotwin", 240, 320): (1.1, 0.3),
    ("robotwin", 480, 640): (40, 1.0),
}


def scene(height: int, width: int, seed: int) -> np.ndarray:
    """A picture with edges, gradients and grain, uint8."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width] / max(height, width)
    waves = np.stack([np.sin(f * (rows + columns * k)) for f, k in ((9, 1), (31, -1), (70, 0.3))], axis=-1)
    picture = 120 + 60 * waves + 8 * rng.normal(size=(height, width, 3))
    for _ in range(30):
        y, x = rng.integers(0, height), rng.integers(0, width)
        picture[y : y + height // 9, x : x + width // 9] = rng.integers(0, 256, 3)
    return picture.clip(0, 255).astype(np.uint8)


def views(spec: DataSpec, height: int, width: int) -> dict[str, np.ndarray]:
    return {view: scene(height, width, i) for i, view in enumerate(spec.views)}


def as_libero_does(pictures: dict[str, np.ndarray]) -> np.ndarray:
    """Each view covers 224x224, its middle is kept, the two stand side by side."""
    parts = []
    for picture in map(Image.fromarray, pictures.values()):
        scale = max(224 / picture.width, 224 / picture.height)
        size = round(picture.width * scale), round(picture.height * scale)
        x, y = (size[0] - 224) // 2, (size[1] - 224) // 2
        parts.append(np.asarray(picture.resize(size, Image.BILINEAR).crop((x, y, x + 224, y + 224))))
    return np.concatenate(parts, axis=1)


def as_robotwin_does(pictures: dict[str, np.ndarray]) -> np.ndarray:
    """The head camera in one step to 256x320, the wrists to 128x160 below it."""
    sizes = [(320, 256), (160, 128), (160, 128)]
    head, left, right = (
        np.asarray(Image.fromarray(picture).resize(size, Image.BILINEAR))
        for picture, size in zip(pictures.values(), sizes, strict=True)
    )
    return np.concatenate([head, np.concatenate([left, right], axis=1)], axis=0)


LOOPS = {"libero": (LIBERO, as_libero_does), "robotwin": (ROBOTWIN, as_robotwin_does)}


def canvases(spec: DataSpec, pictures: dict[str, np.ndarray]) -> list[torch.Tensor]:
    """[3 H W] of each preprocessing."""
    given = {view: torch.from_numpy(picture)[None, None] for view, picture in pictures.items()}
    return [tile(given, spec, way)[0, :, 0] for way in ("published", "training")]


@pytest.mark.parametrize("camera", CAMERAS)
@pytest.mark.parametrize("loop", LOOPS)
def test_the_published_canvas_is_pillows_byte_for_byte(loop, camera):
    spec, as_it_does = LOOPS[loop]
    pictures = views(spec, *camera)
    expected = torch.from_numpy(as_it_does(pictures)).permute(2, 0, 1)
    published, trained = canvases(spec, pictures)
    assert torch.equal(published, expected.float() * (2.0 / 255.0) - 1.0)
    assert not torch.equal(published, trained)
    if (loop, *camera) in LEVELS:
        levels = 127.5 * (published - trained).abs()
        largest, mean = LEVELS[loop, *camera]
        assert 0.5 < float(levels.max()) <= largest and float(levels.mean()) <= mean


def test_training_pictures_are_what_they_were():
    """Without being asked, the canvas is training's."""
    given = {view: torch.from_numpy(p)[None, None] for view, p in views(LIBERO, 256, 256).items()}
    assert torch.equal(tile(given, LIBERO), tile(given, LIBERO, "training"))


def test_the_engine_looks_as_it_is_told():
    """Fails when the option stops before the codec, or reaches it unasked."""
    policy = tiny_policy(tiny_config()).eval()
    pictures = {view: scene(48, 64, i) for i, view in enumerate(SPEC.views)}
    seen = Observation(pictures, np.zeros(3, np.float32), "do it", "robot", noise_seed=1)
    encoders = {way: policy.config.encoder(SPEC, way) for way in ("training", "published")}
    engines = {way: Engine(encoder, policy, torch.device("cpu")) for way, encoder in encoders.items()}
    for way, engine in engines.items():
        given = {view: torch.from_numpy(picture)[None, None] for view, picture in pictures.items()}
        present = encoders[way].codec.encode(tile(given, SPEC, way))
        assert torch.equal(engine.query(engine.clip([seen])).inputs["present"], present)
    chunks = [engine.act([seen])[0].actions for engine in engines.values()]
    assert not np.array_equal(*chunks)
    default = Engine(encoder_of(policy), policy, torch.device("cpu")).act([seen])[0].actions
    assert np.array_equal(default, chunks[0])


def test_published_fast_wams_are_evaluated_as_published_and_ours_as_trained():
    for name in ("libero_fast_wam", "robotwin_fast_wam"):
        run, ours = recipe(name), recipe(f"{name}_ours")
        assert (run.eval.preprocessing, run.policy.noise) == ("published", "published")
        assert (ours.eval.preprocessing, ours.policy.noise) == ("training", "per_query")
        run = Run(run.recipe, run.suite, tiny_config(), SPEC, replace(run.actions), Normalization())
        assert (run.eval.preprocessing, run.eval.precision, run.policy.noise) == (
            "training",
            "stored",
            "per_query",
        )
