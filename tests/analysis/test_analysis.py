"""Rollouts, latent actions and maps of a world that can be computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from wamkit_client.types import BadInput

from tests.analysis.toy_world import ToyWorld, trajectory
from wamkit.analysis.codes import changes, effect, statistics
from wamkit.analysis.maps import Components, alike_to, anchor_index
from wamkit.analysis.rollout import CURVES, codes_of, roll_out
from wamkit.analysis.similarity import averaged, cosine, interval, moving

STILL = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]


def drifting(steps: int, by: int) -> list[list[tuple[int, int, int]]]:
    """Blue is added to every patch alike."""
    return [[(r // 2, g // 2, b // 2 + by * t) for r, g, b in STILL] for t in range(steps + 1)]


def test_cosines_on_all_and_on_moving_patches():
    still = torch.tensor([0.9, 0.1, 0.8, 0.7, 0.5, 0.6, 0.95, 0.2, 0.99, 1.0])
    assert moving(still).nonzero().flatten().tolist() == [1, 7]
    alike = torch.arange(10.0)
    assert {name: float(value) for name, value in averaged(alike, still).items()} == {
        "all": 4.5,
        "moving": 4.0,
    }
    a = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    assert torch.allclose(cosine(a, torch.tensor([[4.0, 3.0], [0.0, 2.0]])), torch.tensor([0.96, 0.0]))


def test_intervals_hold_the_mean_and_repeat():
    values = np.random.default_rng(1).normal(0.5, 0.1, 200).tolist()
    found = interval(values, seed=3)
    assert found == interval(values, seed=3) and found.low < found.mean < found.high
    assert found.high - found.low == pytest.approx(4 * 0.1 / 200**0.5, rel=0.2)
    assert interval([0.25], seed=0) == type(found)(0.25, 0.25, 0.25)


def test_a_rollout_of_an_exact_world_stays_true():
    videos = [trajectory(drifting(3, 20)), trajectory(drifting(2, 40))]
    world = ToyWorld()
    codes = [codes_of(world, video) for video in videos]
    assert [code.shape for code in codes] == [(3, 3), (2, 3)]
    rolled = roll_out(world, videos.__getitem__, codes, lambda count: None)
    assert rolled.remaining() == [2, 2, 1] and set(rolled.values["all"]) == set(CURVES)
    exact = [*rolled.values["all"]["inferred"], *rolled.values["moving"]["one step"]]
    assert all(value == pytest.approx(1, abs=1e-6) for step in exact for value in step)
    # With no latent action nothing moves, which is the baseline of a still world; with another's, it moves too fast.
    assert np.allclose(rolled.values["all"]["zero"][0], rolled.values["all"]["still"][0])
    assert rolled.values["all"]["still"][2][0] < rolled.values["all"]["shuffled"][0][0] < 1
    assert rolled.values["moving"]["still"][1][0] < rolled.values["all"]["still"][1][0]
    curves = rolled.curves(least=2, seed=0)
    assert {len(curve) for own in curves.values() for curve in own.values()} == {2}
    assert curves["all"]["drift"][1].mean == pytest.approx(np.mean(rolled.values["all"]["drift"][1]))


def test_a_world_that_errs_drifts():
    video = trajectory(drifting(4, 20))
    world = ToyWorld(gain=0.5)
    rolled = roll_out(world, lambda i: video, [codes_of(world, video)] * 2, lambda count: None)
    inferred = [step[0] for step in rolled.values["all"]["inferred"]]
    assert inferred == sorted(inferred, reverse=True) and inferred[0] < 1
    assert all(a[0] >= b for a, b in zip(rolled.values["all"]["one step"], inferred, strict=True))


def test_statistics_of_latent_actions():
    codes = torch.zeros(400, 4)
    codes[:, 0] = torch.tensor([2.0, -2.0]).repeat(200)
    codes[:, 1] = torch.tensor([2.0, 2.0, -2.0, -2.0]).repeat(100) + 1
    codes[:, 2] = 0.05 * codes[:, 0]
    found = statistics(codes)
    assert (found.count, found.used) == (400, 3)
    assert found.variance == pytest.approx([4, 4, 0.01, 0]) and found.mean == pytest.approx([0, 1, 0, 0])
    assert found.effective == pytest.approx(2, abs=0.01)
    assert statistics(torch.ones(5, 3)).effective == 0


def test_where_a_latent_action_acts():
    """A change that is the same patch in every image, and one that is another patch in each."""
    fixed = torch.zeros(2, 3, 4)
    fixed[:, :, 0] = 1
    same = effect(fixed)
    assert (same.images, same.codes, same.same_place) == (0, 0, 1) and same.patches == pytest.approx(3 / 16)
    turning = torch.zeros(2, 4, 4)
    turning[:, range(4), range(4)] = 1
    other = effect(turning)
    assert (other.patches, other.same_place, other.codes) == (0, 0, 0) and other.images == pytest.approx(
        3 / 16
    )
    images = ToyWorld().features(trajectory(drifting(2, 30)))
    found = changes(ToyWorld(), images, torch.tensor([[0.0, 0, 0], [0, 0, 0.5]]))
    assert found.shape == (2, 3, 4) and float(found[0].abs().max()) < 1e-6 and float(found[1].max()) > 0.1


def test_maps():
    features = torch.eye(4)[None].repeat(2, 1, 1)
    assert anchor_index((1, 0), (2, 2)) == 2
    assert alike_to(features[0, 2], 3 * features).tolist() == [[0, 0, 1, 0]] * 2
    for anchor in ((2, 0), (0, -1)):
        with pytest.raises(BadInput, match="grid is 2 rows of 2 patches"):
            anchor_index(anchor, (2, 2))


def test_principal_components():
    generator = torch.Generator().manual_seed(0)
    strong = torch.randn(500, 3, generator=generator) * torch.tensor([9.0, 5.0, 2.0])
    turn = torch.linalg.qr(torch.randn(6, 6, generator=generator))[0]
    features = strong @ turn[:3] + 0.01 * torch.randn(500, 6, generator=generator) + 1
    found = Components.fit(features)
    assert torch.allclose(found.axes.T @ found.axes, torch.eye(3), atol=1e-5)
    assert found.deviation.tolist() == pytest.approx([9, 5, 2], rel=0.1)
    assert abs(float(found.axes[:, 0] @ turn[0])) > 0.99
    colours = found.colours(features)
    assert colours.shape == (500, 3) and 0 < float(colours.min()) < 0.1 and 0.9 < float(colours.max()) < 1
    assert torch.allclose(found.colours(found.mean[None]), torch.full((1, 3), 0.5))
