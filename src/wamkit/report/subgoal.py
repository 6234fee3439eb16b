"""The predicted visual subgoal against the truth: how much of the future's features a policy foresees.

At queries of recorded episodes the policy predicts the features that its horizon will show. Cosine with the features of
what was recorded there is given beside two references: the present features, which is the subgoal of a world that
stands still, and the world model's prediction from the latent action of the recorded frames (the oracle). It does
not know how a policy predicts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from wamkit.analysis.maps import Components
from wamkit.analysis.similarity import Mean, averaged, cosine, interval
from wamkit.foresight import WorldModel
from wamkit.infer.engine import Engine
from wamkit.report.feature_maps import HIGH, LOW, Feature, Maps, maps, scale
from wamkit.report.future import Moment, moments, shown_moment
from wamkit.report.page import Section
from wamkit.report.watched import Episode, Watched, image_at, join
from wamkit.tree import Tree
from wamkit.types import Policy

BATCH = 8


class Sight(Protocol):
    """What a policy foresees."""

    @property
    def code(self) -> Float[Tensor, "b e"]:
        """The latent action."""

    @property
    def subgoal(self) -> Float[Tensor, "b s d"]:
        """The predicted features of the horizon."""


class ForeseeingPolicy(Policy, Protocol):
    """What this section asks of a policy."""

    def see(self, inputs: Tree) -> Sight:
        """Of an encoded observation."""


@dataclass(frozen=True)
class Foresight:
    """n moments. now, later: features of the recorded images. predicted: by the policy, from `code`. oracle: by the
    world model, from `taught`, the latent action between the recorded images, of which each dimension tells `nats`."""

    now: Float[Tensor, "n s d"]
    later: Float[Tensor, "n s d"]
    predicted: Float[Tensor, "n s d"]
    oracle: Float[Tensor, "n s d"]
    code: Float[Tensor, "n e"]
    taught: Float[Tensor, "n e"]
    nats: Float[Tensor, "n e"]

    def similarities(self) -> dict[str, dict[str, Float[Tensor, " n"]]]:
        """Cosine with `later` of every guess, on all and on moving patches."""
        still = cosine(self.now, self.later)
        guesses = {"predicted": self.predicted, "oracle": self.oracle, "nothing moves": self.now}
        return {name: averaged(cosine(guess, self.later), still) for name, guess in guesses.items()}


@torch.no_grad()
def foresee(engine: Engine[ForeseeingPolicy], world: WorldModel, found: Sequence[Moment]) -> Foresight:
    """Ask policy and world model about every moment; at least one."""
    steps = horizon(engine, world, [moment.episode for moment in found])
    parts = [_foresee(engine, world, found[i : i + BATCH], steps) for i in range(0, len(found), BATCH)]
    return Foresight(*(torch.cat(own).float().cpu() for own in zip(*parts, strict=True)))


def horizon(engine: Engine[ForeseeingPolicy], world: WorldModel, episodes: Sequence[Episode]) -> int:
    """Control steps that the world model predicts ahead. episodes: of one robot, at least one."""
    return round(world.seconds * engine.spec(episodes[0].robot).hz)


def _foresee(
    engine: Engine[ForeseeingPolicy], world: WorldModel, found: Sequence[Moment], steps: int
) -> tuple[Tensor, ...]:
    views = engine.policy.data.views
    sight = engine.policy.see(engine.query(join([m.episode.clip(m.step, (0,), views) for m in found])).inputs)
    pairs = join([m.episode.clip(m.step, (0, steps), views) for m in found]).views[world.view]
    now, later = world.features(pairs[:, 0]), world.features(pairs[:, 1])
    taught = world.infer(now, later)
    oracle = world.step(now, taught)
    return now, later, sight.subgoal, oracle, sight.code, taught, world.information(now, later)


@dataclass(frozen=True)
class Subgoal:
    """about: the episodes. steps, seconds: of the horizon. similarities: means over all moments, by guess and patches.
    low, high, colours: of the maps' scale. short: of episodes that are shorter than the horizon, a sentence each."""

    about: str
    steps: int
    seconds: float
    view: str
    moments: int
    similarities: Mapping[str, Mapping[str, Mean]]
    maps: list[Maps]
    short: list[str]
    colours: list[str]
    low: float = LOW
    high: float = HIGH


def subgoal(engine: Engine[ForeseeingPolicy], world: WorldModel, watched: Watched, seed: int = 0) -> Section:
    """A table over all moments, and maps of one moment of each episode. seed: of the intervals."""
    if not watched.episodes:
        return Section("subgoal", "Subgoal", "paragraphs", [watched.about])
    steps = horizon(engine, world, watched.episodes)
    found = [moments(episode, steps) for episode in watched.episodes]
    short = [
        f"{episode.title}, {episode.detail}: the episode has {episode.steps} steps, fewer than the horizon of "
        f"{steps}; it is not shown."
        for episode, own in zip(watched.episodes, found, strict=True)
        if not own
    ]
    everything = [moment for own in found for moment in own]
    if not everything:
        return Section("subgoal", "Subgoal", "paragraphs", short)
    foresight = foresee(engine, world, everything)
    alike = foresight.similarities()
    shown = Subgoal(
        about=watched.about,
        steps=steps,
        seconds=world.seconds,
        view=world.view,
        moments=len(everything),
        similarities={
            name: {patches: interval(values.tolist(), seed) for patches, values in own.items()}
            for name, own in alike.items()
        },
        maps=_maps(foresight, alike, everything, [shown_moment(own) for own in found if own], world, steps),
        short=short,
        colours=scale(),
    )
    return Section("subgoal", "Subgoal", "subgoal", shown)


def _maps(
    foresight: Foresight,
    alike: Mapping[str, Mapping[str, Tensor]],
    everything: Sequence[Moment],
    shown: Sequence[Moment],
    world: WorldModel,
    steps: int,
) -> list[Maps]:
    components = Components.fit(torch.cat([foresight.now, foresight.later]).flatten(0, 1))
    drawn = []
    for moment in shown:
        n = everything.index(moment)
        now, later = (image_at(moment.episode, moment.step + ahead, world.view) for ahead in (0, steps))
        anchor = int(cosine(foresight.now[n], foresight.later[n]).argmin())
        notes = {name: f"cosine {float(own['all'][n]):.3f}" for name, own in alike.items()}
        row, column = divmod(anchor, world.grid[1])
        drawn.append(
            maps(
                moment.episode.title,
                f"{moment.episode.detail}, from step {moment.step}; anchor: patch {row},{column} of the present, "
                "which changes most",
                foresight.now[n, anchor],
                components,
                [
                    Feature("now", foresight.now[n], now, notes["nothing moves"], True),
                    Feature("at the horizon", foresight.later[n], later, "the truth", True),
                    Feature("predicted", foresight.predicted[n], later, notes["predicted"], False),
                    Feature("oracle", foresight.oracle[n], later, notes["oracle"], False),
                ],
                world.grid,
            )
        )
    return drawn
