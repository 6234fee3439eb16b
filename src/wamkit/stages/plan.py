"""`wamkit train --plan`: what a run will be, before anything is allocated.

The policy is built on torch's meta device (shapes without memory), so the full-size model is counted exactly on a
laptop; the activations kept for backward are counted by running the losses there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wamkit.config import WAM, Run, new_policy
from wamkit.data.canvas import canvas_size
from wamkit.data.normalize import Normalizer, Stats
from wamkit.nn.frozen import store_frozen_linears
from wamkit.types import Batch, Inputs

EMBODIMENT = "plan"


@dataclass(frozen=True)
class Part:
    """One row of the parameter table."""

    name: str
    parameters: int
    trainable: int


@dataclass(frozen=True)
class Memory:
    """Bytes per kind of a training step on one device. activations: kept for backward, nothing recomputed."""

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations


def meta_policy(run: Run) -> WAM:
    """The policy of a run, without memory."""
    fields = {"action": run.data.action_dim, "proprio": run.data.proprio_dim}
    stats = {EMBODIMENT: {name: Stats.of(torch.zeros(2, dim).numpy()) for name, dim in fields.items()}}
    normalizer = Normalizer.fit(stats, {"action": "min_max", "proprio": "min_max"})
    with torch.device("meta"):
        return new_policy(run, normalizer).to("meta")


def parts(policy: WAM) -> list[Part]:
    """Parameters by part, in the order of the specification's table; every parameter is in exactly one part."""
    groups: dict[str, list[nn.Parameter]] = {title: [] for title, _ in policy.parts}
    for name, parameter in policy.named_parameters():
        groups[next(title for title, belongs in policy.parts if belongs(name))].append(parameter)
    return [
        Part(title, sum(p.numel() for p in group), sum(p.numel() for p in group if p.requires_grad))
        for title, group in groups.items()
        if group
    ]


def memory(run: Run, policy: WAM) -> Memory:
    """Weights in fp32, in bf16 runs but for frozen Linears (as training does, which changes `policy`); AdamW holds two
    moments per trained number."""
    if run.train.precision == "bf16":
        store_frozen_linears(policy, torch.bfloat16)
    trained = sum(p.numel() for p in policy.parameters() if p.requires_grad)
    weights = sum(p.numel() * p.element_size() for p in policy.parameters())
    kept = activations(policy, meta_batch(run, policy), run.train.precision)
    return Memory(weights, 4 * trained, 8 * trained, kept)


def activations(policy: WAM, batch: Batch, precision: str) -> int:
    """Bytes that autograd keeps of one batch's forward pass, views counted once; on the meta device without memory."""
    own = {id(p) for p in policy.parameters()}
    kept: dict[int, int] = {}
    alive: list[Tensor] = []  # an id is unique only while its tensor lives

    def pack(tensor: Tensor) -> Tensor:
        base = tensor if tensor._base is None else tensor._base
        if id(base) not in own:
            alive.append(base)
            kept[id(base)] = base.numel() * base.element_size()
        return tensor

    autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), autocast:
        policy.train()
        policy(batch, torch.Generator().manual_seed(0))
    return sum(kept.values())


def meta_batch(run: Run, policy: WAM) -> Batch:
    """What goes through the policy at a time, in the run's shapes, without memory."""
    b, data, size, codec = run.train.part_size, run.data, run.policy.size, policy.codec
    height, width = (pixels // codec.spatial for pixels in canvas_size(data))
    frames = len(data.frame_times)
    latents = (frames - 1) // codec.temporal
    rows = run.policy.text.length
    with torch.device("meta"):
        return Batch(
            inputs=Inputs(
                present=torch.zeros(b, size.channels, 1, height, width),
                future=policy.pool(torch.zeros(b, size.channels, latents, height, width)),
                context=torch.zeros(b, rows, size.text_dim),
                proprio=torch.zeros(b, data.proprio_dim),
            ),
            actions=torch.zeros(b, data.horizon, data.action_dim),
            action_is_pad=torch.zeros(b, data.horizon, dtype=torch.bool),
            frame_is_pad=torch.zeros(b, frames, dtype=torch.bool),
            embodiments=(EMBODIMENT,) * b,
            ids=("",) * b,
        )
