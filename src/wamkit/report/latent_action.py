"""What the latent actions of recorded episodes say: which dimensions are used, whether the policy predicts them, and
what that of one episode does to the image of another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from markupsafe import Markup
from torch import Tensor

from wamkit.analysis.codes import USED, CodeStatistics, Effect, changes, effect, statistics
from wamkit.foresight import WorldModel
from wamkit.infer.engine import Engine
from wamkit.report.feature_maps import enlarged, heat
from wamkit.report.future import moments, shown_moment
from wamkit.report.page import Section
from wamkit.report.plots import BLUE, ORANGE, Curve, curves
from wamkit.report.subgoal import ForeseeingPolicy, foresee, horizon
from wamkit.report.watched import Watched, image_at

FEW = "Fewer than two queries of the episodes were followed by the whole horizon; nothing can be said."
IMAGES = 32
"""Most moments whose latent actions are tried on each other's images."""


@dataclass(frozen=True)
class Transfer:
    """rows: the tasks whose images are changed. columns: the tasks whose latent actions change them. images: uint8, the
    change over the image; sizes: its mean over patches."""

    rows: list[str]
    columns: list[str]
    images: list[list[np.ndarray]]
    sizes: list[list[float]]
    top: float


@dataclass(frozen=True)
class LatentAction:
    """about: the episodes. taught: of the recorded frames; predicted: of the policy. explained: R² of the policy's
    predictions of the latent actions of the recorded frames, over all dimensions. nats: what a latent action tells, in
    all. plots: of each dimension, largest first: its variance, and the nats that it tells."""

    about: str
    taught: CodeStatistics
    predicted: CodeStatistics
    explained: float
    effect: Effect
    nats: float
    plots: list[Markup]
    transfer: Transfer
    used: float = USED
    colours: tuple[str, str] = (BLUE, ORANGE)


def latent_action(engine: Engine[ForeseeingPolicy], world: WorldModel, watched: Watched) -> Section:
    """Statistics over all queries, and one moment of each episode in the light of the others."""
    if not watched.episodes:
        return Section("latent", "Latent action", "paragraphs", [watched.about])
    steps = horizon(engine, world, watched.episodes)
    found = [own for episode in watched.episodes if (own := moments(episode, steps))]
    everything = [moment for own in found for moment in own]
    if len(everything) < 2:
        return Section("latent", "Latent action", "paragraphs", [FEW])
    sight = foresee(engine, world, everything)
    device = engine.device
    some = torch.linspace(0, len(everything) - 1, min(IMAGES, len(everything))).round().long()
    change = changes(world, sight.now[some].to(device), sight.taught[some].to(device)).cpu()
    taught, predicted = statistics(sight.taught), statistics(sight.code)
    chosen = [everything.index(shown_moment(own)) for own in found]
    tried = changes(world, sight.now[chosen].to(device), sight.taught[chosen].to(device)).cpu()
    tasks = [everything[n].episode.title for n in chosen]
    photos = [image_at(everything[n].episode, everything[n].step, world.view) for n in chosen]
    shown = LatentAction(
        about=watched.about,
        taught=taught,
        predicted=predicted,
        explained=explained(sight.code, sight.taught),
        effect=effect(change),
        nats=float(sight.nats.sum(1).mean()),
        plots=[_variances(taught, predicted), _information(sight.nats.mean(0))],
        transfer=transfer(tasks, photos, tried, world.grid),
    )
    return Section("latent", "Latent action", "latent_action", shown)


def explained(predicted: Float[Tensor, "n e"], truth: Float[Tensor, "n e"]) -> float:
    """1 - (squared error) / (variance), summed over dimensions; 0 for a constant guess at the mean."""
    variance = (truth - truth.mean(0)).square().sum()
    return float(1 - (predicted - truth).square().sum() / variance) if variance else 0.0


def transfer(
    tasks: Sequence[str],
    photos: Sequence[np.ndarray],
    change: Float[Tensor, "m n s"],
    grid: tuple[int, int],
) -> Transfer:
    """change: what latent action m does to image n, both one per task."""
    top = max(float(change.max()), 1e-6)
    large = [enlarged(photo) for photo in photos]
    return Transfer(
        rows=list(tasks),
        columns=list(tasks),
        images=[
            [heat(large[n], own[n].unflatten(0, grid), low=0.0, high=top) for own in change]
            for n in range(len(tasks))
        ],
        sizes=[[float(own[n].mean()) for own in change] for n in range(len(tasks))],
        top=top,
    )


def _variances(taught: CodeStatistics, predicted: CodeStatistics) -> Markup:
    ranks = list(range(1, len(taught.variance) + 1))
    drawn = [
        Curve(ranks, sorted(own.variance, reverse=True), colour)
        for own, colour in ((taught, BLUE), (predicted, ORANGE))
    ]
    return curves("variance of each dimension", drawn, "dimension, by size")


def _information(nats: Float[Tensor, " e"]) -> Markup:
    ranks = list(range(1, len(nats) + 1))
    return curves(
        "nats told by each dimension",
        [Curve(ranks, sorted(nats.tolist(), reverse=True), BLUE)],
        "dimension, by size",
    )
