"""The Engine: an encoder and a trained policy behind the client's `Policy` interface. Observations in, chunks out.

An observation is a clip of length one: it goes through the same encoder that training used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from types import MappingProxyType
from typing import Generic, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from wamkit_client.types import ActionChunk, BadInput, Observation
from wamkit_client.types import Policy as ClientPolicy

from wamkit.infer.graphs import CudaGraphs, Recorder, ReplayedActor, ReplayedEncoder, bucket, expect_staged
from wamkit.infer.presets import PRESETS, Preset, PresetName
from wamkit.infer.quantise import expect_multiplies, quantising
from wamkit.infer.sealing import seal, weightless
from wamkit.infer.threads import fastest, threads
from wamkit.nn.packed import packing
from wamkit.spans import Span
from wamkit.taking import SHARED, Take
from wamkit.tree import Tree
from wamkit.types import ActingEncoder, Actor, Clip, DataSpec, Encoder, Policy, Query, encode

P = TypeVar("P", bound=Policy)


def unknown(robot: str) -> tuple[int, ...]:
    """Nothing is said of what its actions mean."""
    return ()


class Engine(ClientPolicy, Generic[P]):
    """`policy` and its `encoder` on `device`. The weights do not change any more: moving the policy, or loading others
    into it, raises BadInput from now on.

    preset: of infer/presets.py; weights have its precision already. robots: by name, those that differ
    from `policy.data` in rate, names of cameras, dimensions or length of a chunk (config.Source).
    take: how it comes by its weights (taking.py): those of a policy that stays whole, or taken from it.
    displacements: dimensions of a robot's actions that are relative to where it is, which its chunks tell.
    passes: of the policy, those that are done.
    continues: whether the policy looks at what is left of a previous chunk (PolicyConfig.continues).
    threads: of the processor, that answer; as many as are fastest for the policy's size (infer/threads.py).
    """

    def __init__(
        self,
        encoder: Encoder,
        policy: P,
        device: torch.device,
        preset: PresetName = "exact",
        robots: Mapping[str, DataSpec] = MappingProxyType({}),
        take: Take = SHARED,
        displacements: Callable[[str], tuple[int, ...]] = unknown,
        continues: bool = False,
    ) -> None:
        self.policy, self.device, self.robots, self._displacements = policy, device, robots, displacements
        self._continues, self._chunk = continues, (policy.data.horizon, policy.data.action_dim)
        way = PRESETS[preset]
        self.passes = way.chosen(policy.passes)
        self.encoder: ActingEncoder = encoder
        self._acting_encoder = encoder.acting(way.chosen(encoder.passes), way.precision)
        with packing() if way.packed else nullcontext():
            self._answer = _actor(policy, way, self.passes, device, take)
        self._size: Callable[[int], int] = int  # of a batch: that of what is asked
        if way.compiled:
            from wamkit.infer.compiled import compiled  # torch's compiler takes a second to import

            self._answer, self._size = compiled(self._answer, device), bucket
        if way.graphs and device.type == "cuda":
            self._replay(CudaGraphs(device))
        seal(policy)
        available = torch.get_num_threads()
        self.threads = fastest(policy, available) if device.type == "cpu" else available

    @torch.inference_mode()
    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        """One chunk [horizon, action_dim] per observation, one batched forward pass for all of them.

        Observations of different robots, or of which different numbers of actions will be used, are asked about one by
        one. What is left of a previous chunk, and the delay, may differ.
        """
        if len({(o.embodiment, o.steps) for o in observations}) > 1:
            return [self.act([observation])[0] for observation in observations]
        with threads(self.threads):
            return self._act(observations)

    def _replay(self, record: Recorder) -> None:
        """From now on work of the device is recorded and replayed."""
        self._acting_encoder = ReplayedEncoder(self._acting_encoder, record)
        self._answer = ReplayedActor(expect_staged(self._answer), record)
        self._size = bucket

    def _act(self, asked: Sequence[Observation]) -> list[ActionChunk]:
        observations = [*asked, *[asked[-1]] * (self._size(len(asked)) - len(asked))]
        robot = self.spec(observations[0].embodiment)
        generators = [torch.Generator().manual_seed(o.noise_seed) for o in observations]
        with Span("images"):
            clip = self.clip(observations)
        query = self._query(self._acting_encoder, clip, generators)
        query = replace(query, previous=self._previous(observations), steps=observations[0].steps)
        actions = self._answer(query)[:, : robot.horizon, : robot.action_dim]
        with Span("copy"):
            chunks = actions[: len(asked)].float().cpu().numpy()
        moves = self._displacements(observations[0].embodiment)
        return [ActionChunk(chunk, displacements=moves) for chunk in chunks]

    def _previous(self, observations: Sequence[Observation]) -> Tree:
        """As of Query."""
        if not any(len(o.previous) for o in observations):
            return {}
        actions = np.zeros((len(observations), *self._chunk), np.float32)
        for row, o in zip(actions, observations, strict=True):
            row[: len(o.previous), : o.previous.shape[1]] = o.previous
        numbers = {
            "left": np.array([len(o.previous) for o in observations]),
            "delay": np.array([min(o.delay, len(o.previous)) for o in observations]),
        }
        return {
            name: torch.from_numpy(x).to(self.device) for name, x in {"actions": actions, **numbers}.items()
        }

    def spec(self, robot: str) -> DataSpec:
        """What a robot's observations and chunks look like."""
        return self.robots.get(robot, self.policy.data)

    def reset(self) -> None:
        """No-op: no answer depends on earlier queries."""

    def release(self) -> None:
        """Let go of the weights that acting does not use: what passes have copied, and what only training and reports
        need. Afterwards `policy` knows its data and its robots, and computes nothing; `encoder` sees single frames."""
        self.policy, self.encoder = weightless(self.policy), self._acting_encoder

    def query(self, clip: Clip, generators: Sequence[torch.Generator] = ()) -> Query:
        """A clip, also of several frames, as the policy is asked about it. BadInput for an unknown robot."""
        return self._query(self.encoder, clip, generators)

    def _query(self, encoder: ActingEncoder, clip: Clip, generators: Sequence[torch.Generator]) -> Query:
        spec = self.policy.data
        proprio = clip.proprio[:, : spec.proprio_dim].to(self.device)
        proprio = F.pad(proprio, (0, spec.proprio_dim - proprio.shape[1]))
        inputs = encode(encoder, replace(clip, proprio=proprio))
        return Query(
            inputs=inputs,
            embodiment=self.policy.embodiment(clip.embodiments).to(self.device),
            hz=torch.tensor([self.spec(robot).hz for robot in clip.embodiments]).float().to(self.device),
            instructions=clip.instructions,
            generators=generators,
        )

    def clip(self, observations: Sequence[Observation]) -> Clip:
        """Observations of one robot as a clip of one frame; its cameras get the policy's names.

        Raises BadInput on a missing camera, an image without pixels, a wrong shape, and numbers that are not finite.
        """
        spec = self.spec(observations[0].embodiment)
        for observation in observations:
            self._check(observation, spec)
        cameras = zip(self.policy.data.views, spec.views, strict=True)
        return Clip(
            views={view: _stack([o.images[own] for o in observations])[:, None] for view, own in cameras},
            proprio=_stack([o.proprio[: spec.proprio_dim] for o in observations]).float(),
            instructions=tuple(o.instruction for o in observations),
            embodiments=tuple(o.embodiment for o in observations),
        )

    def _check(self, observation: Observation, spec: DataSpec) -> None:
        for view in spec.views:
            if view not in observation.images:
                raise BadInput(
                    f"camera {view!r} is missing from the observation; the policy was trained with "
                    f"{', '.join(spec.views)}, got {', '.join(observation.images) or 'none'}"
                )
            image = observation.images[view]
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
                raise BadInput(
                    f"camera {view!r}: expected uint8 RGB [h, w, 3] with at least one pixel, "
                    f"got {image.dtype} {image.shape}"
                )
        if len(observation.previous):
            _check_previous(observation.previous, (spec.horizon, spec.action_dim), self._continues)
        if spec.proprio_dim:
            _check_proprio(observation.proprio, spec.proprio_dim)


def _actor(
    policy: Policy, preset: Preset, passes: tuple[str, ...], device: torch.device, take: Take
) -> Actor:
    if preset.weights != "stored":
        expect_multiplies(device, preset.weights)
        take = quantising(take, preset.weights)
    return policy.actor(passes, take)


def _check_previous(previous: np.ndarray, chunk: tuple[int, int], continues: bool) -> None:
    if not continues:
        raise BadInput(
            "previous: this policy makes a chunk from what the robot sees alone and cannot continue the previous one; "
            "use it with the executor sync, async or ensemble, and send no left-over actions"
        )
    if previous.shape[1:] != chunk[1:] or len(previous) > chunk[0]:
        raise BadInput(
            f"previous: expected at most {chunk[0]} rows of {chunk[1]} actions, got {list(previous.shape)}"
        )
    with np.errstate(over="ignore"):
        finite = np.isfinite(previous.astype(np.float32)).all()
    if not finite:
        raise BadInput("previous: it has NaN or infinity; expected actions in physical units")


def _check_proprio(proprio: np.ndarray, dim: int) -> None:
    if proprio.shape != (dim,) or proprio.dtype.kind not in "fiu":
        raise BadInput(f"proprio: expected [{dim}] numbers, got {proprio.dtype} {proprio.shape}")
    with np.errstate(over="ignore"):
        broken = ~np.isfinite(proprio.astype(np.float32))
    if broken.any():
        index = int(broken.argmax())
        raise BadInput(
            f"proprio[{index}] is {proprio[index]:g}, expected finite numbers of float32's range; the robot or "
            "simulator that sent the observation is to be mended, not the policy"
        )


def _stack(arrays: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))
