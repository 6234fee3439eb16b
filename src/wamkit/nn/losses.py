"""The two masked regression losses of world action models. Light-WAM spec 2.2, 2.3 and 3.5."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def latent_is_pad(frame_is_pad: Bool[Tensor, "b t"], latents: int) -> Bool[Tensor, "b {latents}"]:
    """Future latent frames that are padding: all source frames they were encoded from are.

    latents: how many future latents the clip has; each stands for (t - 1) / latents frames, frame 0 has its own.
    """
    return frame_is_pad[:, 1:].unflatten(1, (latents, -1)).all(dim=2)


def video_loss_per_sample(
    predicted: Float[Tensor, "b c f h w"], target: Float[Tensor, "b c f h w"], is_pad: Bool[Tensor, "b f"]
) -> Float[Tensor, " b"]:
    """Mean squared error over channels and pixels, then over the frames that are not padding."""
    error = (predicted.float() - target.float()).square().mean(dim=(1, 3, 4))  # b f
    valid = (~is_pad).float()
    return (error * valid).sum(1) / valid.sum(1).clamp(min=1)


def video_loss(
    predicted: Float[Tensor, "b c f h w"],
    target: Float[Tensor, "b c f h w"],
    weight: Float[Tensor, " b"],
    is_pad: Bool[Tensor, "b f"],
) -> Float[Tensor, ""]:
    """Flow-matching loss of the future latents, averaged over the batch. weight: of each sample, by its flow time."""
    return (weight * video_loss_per_sample(predicted, target, is_pad)).mean()


def action_loss_per_sample(
    predicted: Float[Tensor, "b k a"],
    target: Float[Tensor, "b k a"],
    valid: Bool[Tensor, "b k a"],
    step_weights: Float[Tensor, " k"],
) -> Float[Tensor, " b"]:
    """Mean squared error over the valid dimensions of a step, weighted mean over the steps that have any."""
    dims = valid.sum(dim=2)  # b k
    error = ((predicted.float() - target.float()).square() * valid).sum(dim=2) / dims.clamp(min=1)  # b k
    weight = step_weights * (dims > 0).float()
    return (error * weight).sum(1) / weight.sum(1).clamp(min=1e-6)


def prefix_weights(
    horizon: int, prefix: int, weight: float, tail: float, device: torch.device | None = None
) -> Float[Tensor, " {horizon}"]:
    """Weight per action step: `weight` for the first `prefix` steps, `tail` after. device: None, torch's default."""
    return torch.where(torch.arange(horizon, device=device) < prefix, weight, tail)
