"""The two masked regression losses of world action models. Light-WAM spec 2.2, 2.3 and 3.5."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wamkit.flow import loss_weight


def latent_is_pad(frame_is_pad: Bool[Tensor, "b t"], group: int) -> Bool[Tensor, "b f"]:
    """Future latent frames that are padding: all `group` source frames they were encoded from are.

    group: frames per latent, the codec's `temporal`. Frame 0 has its own latent and no loss, so f = (t - 1) / group.
    """
    return frame_is_pad[:, 1:].unflatten(1, (-1, group)).all(dim=2)


def video_loss_per_sample(
    predicted: Float[Tensor, "b c f h w"], velocity: Float[Tensor, "b c f h w"], is_pad: Bool[Tensor, "b f"]
) -> Float[Tensor, " b"]:
    """Mean squared error over channels and pixels, then over the frames that are not padding."""
    error = (predicted.float() - velocity.float()).square().mean(dim=(1, 3, 4))  # b f
    valid = (~is_pad).float()
    return (error * valid).sum(1) / valid.sum(1).clamp(min=1)


def video_loss(
    predicted: Float[Tensor, "b c f h w"],
    velocity: Float[Tensor, "b c f h w"],
    t: Float[Tensor, " b"],
    is_pad: Bool[Tensor, "b f"],
    shift: float,
) -> Float[Tensor, ""]:
    """Flow-matching loss of the future latents, weighted by time, averaged over the batch.

    shift: of the training times.
    """
    return (loss_weight(t, shift) * video_loss_per_sample(predicted, velocity, is_pad)).mean()


def action_loss_per_sample(
    predicted: Float[Tensor, "b k a"],
    target: Float[Tensor, "b k a"],
    is_pad: Bool[Tensor, "b k"],
    step_weights: Float[Tensor, " k"],
) -> Float[Tensor, " b"]:
    """Mean squared error over action dimensions, weighted mean over the steps that are not padding."""
    error = (predicted.float() - target.float()).square().mean(dim=2)  # b k
    weight = step_weights * (~is_pad).float()
    return (error * weight).sum(1) / weight.sum(1).clamp(min=1e-6)


def prefix_weights(horizon: int, prefix: int, weight: float, tail: float) -> Float[Tensor, " {horizon}"]:
    """Weight per action step: `weight` for the first `prefix` steps, `tail` after."""
    return torch.where(torch.arange(horizon) < prefix, weight, tail)
