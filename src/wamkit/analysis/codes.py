"""What latent actions are made of, and what they do to an image: which dimensions are used, and whether the change
that one of them makes depends on the image at all (LaWAM spec 6.5)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from wamkit.analysis.similarity import cosine
from wamkit.foresight import WorldModel

USED = 0.01
"""Variance of a dimension's mean from which on it is used (active units; Burda et al., arXiv 1509.00519)."""


@dataclass(frozen=True)
class CodeStatistics:
    """Of n latent actions: mean and variance of each dimension; how many are used; effective: how many equally strong
    directions would have this covariance, (sum of eigenvalues)^2 / sum of their squares."""

    count: int
    mean: list[float]
    variance: list[float]
    used: int
    effective: float


def statistics(codes: Float[Tensor, "n e"]) -> CodeStatistics:
    """Of at least two latent actions."""
    centred = (codes - codes.mean(0)).double()
    variance = centred.square().mean(0)
    eigenvalues = torch.linalg.eigvalsh(centred.T @ centred / len(codes)).clamp(min=0)
    spread = eigenvalues.square().sum()
    return CodeStatistics(
        count=len(codes),
        mean=codes.mean(0).tolist(),
        variance=variance.tolist(),
        used=int((variance > USED).sum()),
        effective=float(eigenvalues.sum().square() / spread) if spread else 0.0,
    )


@dataclass(frozen=True)
class Effect:
    """How the change that latent actions make is spread: variances of its size per patch, and their shares.

    images: of one patch over images, the latent action fixed. codes: of one patch over latent actions, the image fixed.
    patches: over patches, of what a latent action changes on the mean image. same_place: the share of `patches` in
    patches + images: 1 where a latent action changes the same patches in every image.
    """

    images: float
    codes: float
    patches: float
    same_place: float


def changes(
    world: WorldModel, images: Float[Tensor, "n s d"], codes: Float[Tensor, "m e"]
) -> Float[Tensor, "m n s"]:
    """Size of the change that each latent action makes in each patch of each image: 1 - cosine."""
    return torch.stack(
        [1 - cosine(world.step(images, code.expand(len(images), -1)), images) for code in codes]
    )


def effect(change: Float[Tensor, "m n s"]) -> Effect:
    """Of at least two latent actions on two images."""
    over_images = change.var(dim=1, unbiased=False).mean()
    over_patches = change.mean(dim=1).var(dim=-1, unbiased=False).mean()
    total = over_images + over_patches
    return Effect(
        images=float(over_images),
        codes=float(change.var(dim=0, unbiased=False).mean()),
        patches=float(over_patches),
        same_place=float(over_patches / total) if total else 1.0,
    )
