"""The predicted subgoal beside the truth, and what latent actions do: numbers and images of a world made by hand."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pytest
import torch
from wamkit_client.envs.base import Task

from tests.analysis.toy_world import ToyWorld
from tests.policies.tiny_policy import SPEC
from tests.report.slider import LENGTH, record
from wamkit.analysis.maps import Components
from wamkit.report.feature_maps import COLOURS, Feature, heat, maps, painted
from wamkit.report.future import moments
from wamkit.report.latent_action import explained, latent_action, transfer
from wamkit.report.recordings import Recording, read_recording
from wamkit.report.run_page import NOWHERE
from wamkit.report.subgoal import foresee, horizon, subgoal
from wamkit.report.watched import Watched
from wamkit.types import Clip, DataSpec

ABOUT = "These are recordings."
WORLD = ToyWorld(grid=(4, 4), seconds=0.4)


class Foreseeing:
    """An engine whose policy says that everything becomes redder, by the same in every image."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.policy = SimpleNamespace(data=SPEC, see=self.see)

    def spec(self, robot: str) -> DataSpec:
        return SPEC

    def query(self, clip: Clip) -> SimpleNamespace:
        return SimpleNamespace(inputs={"features": WORLD.features(clip.views["front"][:, 0])})

    @staticmethod
    def see(inputs: dict[str, torch.Tensor]) -> SimpleNamespace:
        code = torch.tensor([[0.1, 0.0, 0.0]]).expand(len(inputs["features"]), -1)
        return SimpleNamespace(code=code, subgoal=WORLD.step(inputs["features"], code))


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    path = tmp_path / record(tmp_path, Task("slide", "slide it"), 3)["recording"]
    return read_recording(path, "slide", 3, "slide it", "robot")


def test_what_is_foreseen(recording):
    found = moments(recording, 4)
    assert horizon(Foreseeing(), WORLD, [recording]) == 4 and len(found) > 4 and LENGTH == 24
    sight = foresee(Foreseeing(), WORLD, found)
    frames = torch.from_numpy(recording.views["front"])
    steps = [moment.step for moment in found]
    now, later = WORLD.features(frames[steps]), WORLD.features(frames[[step + 4 for step in steps]])
    assert torch.equal(sight.now, now) and torch.equal(sight.later, later)
    assert torch.allclose(sight.taught, (later - now).mean(1))
    assert torch.allclose(sight.predicted[..., 0], now[..., 0] + 0.1)
    alike = sight.similarities()
    assert list(alike) == ["predicted", "oracle", "nothing moves"]
    assert all((own["moving"] <= own["all"] + 1e-6).all() for own in (alike["nothing moves"],))


def test_sections(recording):
    body = subgoal(Foreseeing(), WORLD, Watched([recording], ABOUT)).body
    rows = re.findall(r'<tr><th scope="row">(.*?)</th>', body)
    assert rows == ["predicted", "oracle", "nothing moves"]
    assert body.count("<img") == 4 * 3 - 2 and "anchor: patch" in body and "4 steps" in body
    body = latent_action(Foreseeing(), WORLD, Watched([recording], ABOUT)).body
    assert "same patches in every image" in body and body.count("<img") == 1
    assert "nats told by each dimension" in body
    assert "0.0 %" not in body and "None" not in body


def test_a_recording_shorter_than_the_horizon_says_so(recording):
    long = ToyWorld(grid=(4, 4), seconds=9.0)
    section = subgoal(Foreseeing(), long, Watched([recording], ABOUT))
    assert "fewer than the horizon of 90" in section.body
    assert "Fewer than two queries" in latent_action(Foreseeing(), long, Watched([recording], ABOUT)).body
    assert "No episode was recorded" in latent_action(Foreseeing(), long, NOWHERE).body
    assert "No episode was recorded" in subgoal(Foreseeing(), WORLD, NOWHERE).body


def test_explained_variance():
    truth = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 2.0], [-1.0, -2.0]])
    assert explained(truth, truth) == 1 and explained(torch.zeros_like(truth), truth) == 0
    assert explained(truth, torch.ones(4, 2)) == 0 and explained(-truth, truth) == -3


def test_a_heat_map_is_the_image_where_colours_end():
    image = np.full((4, 4, 3), 100, np.uint8)
    alike = torch.tensor([[1.0, 1.0], [0.0, 0.4]])
    found = heat(image, alike)
    ends = [np.array(mpl.colormaps[COLOURS](place)[:3]) for place in (0.0, 1.0)]
    assert np.allclose(found[0, 0], 50 + 127.5 * ends[1], atol=1) and np.allclose(
        found[3, 0], 50 + 127.5 * ends[0], atol=1
    )
    assert painted(torch.ones(2, 2, 3), (4, 6)).shape == (4, 6, 3)


def test_maps_have_an_image_for_each_way_to_know_the_features():
    features = torch.randn(16, 3, generator=torch.Generator().manual_seed(0))
    image = np.zeros((32, 32, 3), np.uint8)
    shown = [
        Feature("now", features, image, "cosine 1", recorded=True),
        Feature("later", features.flip(0), image, "", recorded=False),
    ]
    drawn = maps("slide", "seed 3", features[2], Components.fit(features), shown, (4, 4))
    assert drawn.names == ["now", "later"] and drawn.notes == ["cosine 1", ""]
    assert len(drawn.photos) == 1  # what was predicted has no image
    assert {image.shape for image in (*drawn.photos, *drawn.alike, *drawn.components)} == {(192, 192, 3)}
    assert not np.array_equal(drawn.alike[0], drawn.alike[1])


def test_transfer_is_a_table_of_images_and_latent_actions():
    change = torch.stack(
        [torch.zeros(2, 16), torch.ones(2, 16)]
    )  # the second latent action changes everything
    photos = [np.zeros((16, 16, 3), np.uint8)] * 2
    found = transfer(["a", "b"], photos, change, (4, 4))
    assert found.sizes == [[0.0, 1.0], [0.0, 1.0]] and found.top == 1
    assert found.images[0][0][0, 0, 2] > found.images[0][1][0, 0, 2]  # blue, then red
