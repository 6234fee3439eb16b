"""What is measured: a policy with its encoder, from a run directory, or of a recipe's sizes with random weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from wamkit_client.types import Observation

from wamkit.config import PRECISIONS, RUN_FILE, Run, acting, load_engine_as, load_run
from wamkit.infer.engine import Engine
from wamkit.recipes import recipe
from wamkit.stages.plan import robot_of, stand_in_normalizer
from wamkit.types import ActingEncoder, Actor, DataSpec, Encoder, Policy, Query

INSTRUCTION = "pick up the black bowl and place it on the plate"
RING = 64
"""Observations that take turns, so that no answer can be that of the query before."""
META = torch.device("meta")


@dataclass(frozen=True)
class Subject:
    """name: of the run directory or the recipe. robot: whom it acts for. encoder, policy: without passes."""

    name: str
    run: Run
    robot: str
    encoder: Encoder
    policy: Policy
    device: torch.device

    @property
    def precision(self) -> torch.dtype:
        """Of the policy's weights."""
        return next(cast(nn.Module, self.policy).parameters()).dtype

    @property
    def bytes(self) -> int:
        """Of the policy's weights."""
        return sum(weight.nbytes for weight in cast(nn.Module, self.policy).parameters())

    def observations(self, count: int, seed: int = 0) -> list[Observation]:
        """Random images of the size that views are resized to, and random proprio."""
        rng, data = np.random.default_rng(seed), self.run.data
        shape = (data.view_height, data.view_width, 3)
        return [
            Observation(
                images={view: rng.integers(256, size=shape, dtype=np.uint8) for view in data.views},
                proprio=rng.uniform(-1, 1, data.proprio_dim).astype(np.float32),
                instruction=INSTRUCTION,
                embodiment=self.robot,
                noise_seed=i,
            )
            for i in range(count)
        ]

    def engine(self, encoder_passes: Sequence[str] = (), actor: Actor | None = None) -> Answering:
        """It acts with these passes of its encoder and with `actor`, by default the policy's plain one."""
        return Answering(self, self.encoder.acting(encoder_passes), actor or self.policy.actor(()))


class Answering(Engine[Policy]):
    """An engine whose encoder and actor are chosen for it; no preset has them."""

    def __init__(self, subject: Subject, encoder: ActingEncoder, actor: Actor) -> None:
        super().__init__(subject.encoder, subject.policy, subject.device, "plain")
        self.encoder, self._answer = encoder, actor


def is_run_directory(what: str) -> bool:
    """Whether a run directory is meant, and no recipe."""
    return (Path(what) / RUN_FILE).is_file()


def run_of(what: str) -> Run:
    """Of a run directory or a recipe. Raises BadInput for neither."""
    return load_run(Path(what)) if is_run_directory(what) else recipe(what)


def subject_of(what: str, run: Run, device: torch.device) -> Subject:
    """what: the run directory or the recipe, acting as `run` says; see `run_of`."""
    if not is_run_directory(what):
        return random_subject(run, device)
    plain = replace(run, eval=replace(run.eval, engine="plain"))
    return subject_around(what, run, load_engine_as(plain, Path(what), device))


def subject_around(what: str, run: Run, engine: Engine[Policy]) -> Subject:
    """The run directory `what`, which `engine` has loaded."""
    policy: Any = engine.policy
    encoder = cast(Encoder, engine.encoder)
    return Subject(Path(what).name, run, policy.normalizer.embodiments[0], encoder, policy, engine.device)


def random_subject(run: Run, device: torch.device) -> Subject:
    """Random weights, made in the precision they act in (float32 unless the run asks for another) where they lie.

    On the meta device, without memory.
    """
    precision = PRECISIONS.get(run.eval.precision, torch.float32)
    with META:
        policy = acting(run.policy.build(run.data, stand_in_normalizer(run)), run)
    fill(cast(nn.Module, policy).requires_grad_(False), device, precision)
    with device:
        encoder: Any = run.policy.random_encoder(run.data, precision)
    return Subject(run.recipe, run, robot_of(run), encoder.to(device), policy, device)


def fill(module: nn.Module, device: torch.device, precision: torch.dtype) -> None:
    """Random weights in place of those without memory: matrices keep the size of what they are given, norms too."""
    generator = torch.Generator(device if device != META else "cpu").manual_seed(0)
    weights = {
        name: random(name, weight.shape, device, precision, generator)
        for name, weight in module.state_dict().items()
        if weight.is_meta
    }
    module.load_state_dict(weights, strict=False, assign=True)
    module.to(device).eval()


def random(
    name: str, shape: torch.Size, device: torch.device, precision: torch.dtype, generator: torch.Generator
) -> Tensor:
    """Of one weight."""
    weight = torch.empty(shape, device=device, dtype=precision)
    if device == META:
        return weight
    norm = len(shape) == 1 and name.endswith("weight")
    deviation = shape[1:].numel() ** -0.5 if len(shape) > 1 else 0.02
    return weight.normal_(1.0 if norm else 0.0, deviation, generator=generator)


def meta_query(subject: Subject, encoder: ActingEncoder, batch: int) -> Query:
    """What a subject on the meta device is asked; encoded."""
    engine = subject.engine()
    engine.encoder = encoder
    clip = engine.clip(subject.observations(batch))
    clip = replace(clip, views={view: frames.to(META) for view, frames in clip.views.items()})
    return engine.query(clip, [torch.Generator().manual_seed(i) for i in range(batch)])


def asking(subject: Subject, encoder: ActingEncoder, actor: Actor, batch: int) -> Callable[[], Tensor]:
    """A whole query of a subject on the meta device, from views to chunks."""
    return lambda: actor(meta_query(subject, encoder, batch))


def shown(data: DataSpec) -> str:
    """ "3 views of 240x320, 32 actions of 14"."""
    size = f"{data.view_height}x{data.view_width}"
    return f"{len(data.views)} views of {size}, {data.horizon} actions of {data.action_dim} dimensions"
