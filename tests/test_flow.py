"""Flow matching against what it must satisfy, not against itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from wamkit import flow
from wamkit.draws import Draws
from wamkit.flow import Beta, FlowTimes, Shift, Shifted

WAM = Shift(train=5.0, sample=5.0).times("float32")  # Light-WAM and Fast-WAM
LAWAM = FlowTimes(Beta(), data_at=1)
CPU = torch.device("cpu")
MANY = 400_000


def many(times: FlowTimes) -> torch.Tensor:
    return times.draw(Draws.of_step(0, 0, CPU, 0, MANY, MANY), CPU)


def test_shift_keeps_the_ends_and_leans_to_noise():
    u = torch.linspace(0, 1, 11)
    t = flow.shift(u, 5.0)
    assert t[0] == 0 and t[-1] == 1
    assert (t[1:-1] > u[1:-1]).all()


def test_the_loss_weight_averages_to_one_over_training_times():
    t = many(WAM)
    assert abs(float(t.mean()) - 0.747) < 2e-3  # spec 2.1
    assert abs(float(WAM.weight(t).mean()) - 1) < 5e-3
    assert abs(float(WAM.weight(torch.tensor(0.5))) - 2.076) < 1e-3
    assert WAM.weight(torch.tensor([0.0, 1.0])).abs().max() < 1e-6


def test_lawam_draws_times_as_published():
    """LaWAM spec 2.7: tau = 0.999 (1 - Beta(1.5, 1)), 0 = noise, unweighted."""
    t = many(LAWAM)
    published = 0.999 * (1 - torch.distributions.Beta(1.5, 1.0).sample((MANY,)))
    assert float(t.min()) >= 0 and float(t.max()) <= 0.999 + 1e-6
    assert float(t.mean()) == pytest.approx(0.999 * 0.4, abs=2e-3)  # Beta(a, 1) has mean a / (a + 1)
    quantiles = torch.linspace(0.05, 0.95, 19)
    assert torch.allclose(t.quantile(quantiles), published.quantile(quantiles), atol=4e-3)
    assert LAWAM.weight(t).eq(1).all()


@pytest.mark.parametrize(("times", "data_at"), [(WAM, 0), (LAWAM, 1)])
def test_interpolation_ends_at_data_and_noise(times, data_at):
    x, noise = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    at_data = times.noised(x, noise, torch.full((2,), float(data_at)))
    at_noise = times.noised(x, noise, torch.full((2,), float(1 - data_at)))
    assert torch.equal(at_data.x, x) and torch.equal(at_noise.x, noise)
    assert torch.equal(at_data.target, noise - x if data_at == 0 else x - noise)


def test_lawam_interpolates_as_published():
    """LaWAM spec 2.7: x_tau = (1 - tau) noise + tau x, to the bit."""
    x, noise, tau = torch.randn(3, 4), torch.randn(3, 4), torch.rand(3)
    noised = LAWAM.noised(x, noise, tau)
    assert torch.equal(noised.x, (1 - tau[:, None]) * noise + tau[:, None] * x)
    assert torch.equal(noised.t, tau)


@pytest.mark.parametrize("times", [WAM, LAWAM, FlowTimes(Shifted(1.0), sample_shift=3.0, data_at=1)])
def test_integrating_the_true_velocity_arrives_at_the_data(times):
    x, noise = torch.randn(2, 5), torch.randn(2, 5)
    velocity = times.noised(x, noise, torch.zeros(2)).target
    arrived = flow.integrate(noise, lambda _x, _t: velocity, times.grid(7))
    assert torch.allclose(arrived, x, atol=1e-6)


@pytest.mark.parametrize("times", [WAM, LAWAM])
def test_clean_data_and_velocity_determine_each_other(times):
    x, noise, t = torch.randn(3, 5), torch.randn(3, 5), torch.tensor([0.05, 0.4, 0.9])
    said = {predicts: replace(times, predicts=predicts) for predicts in flow.PREDICTIONS}
    noised = {predicts: own.noised(x, noise, t) for predicts, own in said.items()}
    assert torch.equal(noised["clean"].target, x)
    assert torch.equal(noised["clean"].x, noised["velocity"].x)
    found = [said[predicts].velocity(own.target, own.x, own.t) for predicts, own in noised.items()]
    assert torch.allclose(*found, atol=1e-5)


def test_errors_of_clean_data_count_as_those_of_the_velocity_they_stand_for():
    clean = replace(WAM, predicts="clean")
    x, noise, t = torch.randn(3, 5), torch.randn(3, 5), torch.tensor([0.3, 0.6, 1.0])
    noised, error = clean.noised(x, noise, t), torch.randn(3, 5)
    velocity = clean.velocity(noised.target + error, noised.x, t) - WAM.noised(x, noise, t).target
    weighted = clean.weight(t)[:, None] * error.square()
    assert torch.allclose(weighted, velocity.square(), rtol=1e-4)
    assert torch.equal(clean.weight(torch.tensor([0.0, 0.1])), clean.weight(torch.tensor([0.3, 0.3])))


def test_euler_times_are_the_published_ten():
    published = [1000, 978.26, 952.38, 921.05, 882.35, 833.33, 769.23, 681.82, 555.56, 357.14, 0]
    assert torch.allclose(1000 * WAM.grid(10).times, torch.tensor(published), atol=5e-3)
    lawam = LAWAM.grid(10)
    assert (1000 * lawam.times).int().tolist() == list(range(0, 1001, 100))  # its time buckets
    assert torch.allclose(lawam.strides, torch.tensor(0.1), atol=2e-7)


def test_the_other_direction_mirrors_the_sampler():
    there, back = (FlowTimes(Shifted(1.0), sample_shift=3.0, data_at=end).grid(6) for end in (0, 1))
    assert torch.allclose(there.times, 1 - back.times, atol=2e-7)
    assert torch.allclose(there.strides, -back.strides, atol=2e-7)
