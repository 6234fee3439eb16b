"""What Fast-WAM is trained for: what both networks predict of noised groups, against what they should (spec 2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wamkit.flow import Noised
from wamkit.nn.losses import action_loss_per_sample, latent_is_pad, video_loss
from wamkit.types import Batch
from wamkit.wan.block import Stream

if TYPE_CHECKING:
    from wamkit.policies.fast_wam.policy import FastWAM


@dataclass(frozen=True)
class States:
    """Final tokens of both networks, and the video stream they came from (for its head)."""

    video: Tensor
    action: Tensor
    stream: Stream


def _video_loss(policy: FastWAM, states: States, noised: Mapping[str, Noised], batch: Batch) -> Tensor:
    future = noised["future"]
    predicted = policy.dit.head(states.video, states.stream)[:, :, 1 : 1 + future.x.shape[2]]
    is_pad = latent_is_pad(batch.inputs["frame_is_pad"], future.x.shape[2])
    weight = policy.config.video_times.weight(future.t)
    return video_loss(predicted, future.target, weight, is_pad)


def _action_loss(policy: FastWAM, states: States, noised: Mapping[str, Noised], batch: Batch) -> Tensor:
    action = noised["action"]
    predicted = policy.action.head(states.action)
    every = torch.ones(action.x.shape[1], device=action.x.device)
    error = action_loss_per_sample(predicted, action.target, batch.valid, every)
    return (policy.config.action_times.weight(action.t) * error).mean()


LOSSES: Mapping[str, Callable[[FastWAM, States, Mapping[str, Noised], Batch], Tensor]] = {
    "video": _video_loss,
    "action": _action_loss,
}
