"""The encoder of a Wan VAE for one frame, as convolutions of images: all that acting needs of the codec.

Before the first frame of a clip a causal convolution sees zeros, so that only its last temporal tap meets the frame,
and nothing is reduced in time. What is linear is merged: the patches of 2.2 with the first layer, attention's scale and
output projection with its inputs, the last layer with the projection to posterior means and the normalisation of
latents. Products of weights are made in float64 and rounded once. Equal to `WanVAE.encode` in real arithmetic.

Channels lie last in memory (torch.channels_last), which convolutions of images are fastest in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from wamkit.nn.fused_ops import unit_silu


class StillVAE(nn.Module):
    """Frames [b 3 H W] in [-1, 1] -> normalised posterior means [b c h w], in the weights' dtype.

    vae: diffusers' AutoencoderKLWan. mean, inverse_std: of its latents, [c]. Weights are copied, none are shared.
    """

    def __init__(self, vae: Any, mean: Float[Tensor, " c"], inverse_std: Float[Tensor, " c"]) -> None:
        super().__init__()
        encoder, middle = vae.encoder, vae.encoder.mid_block
        rows = _rows()
        self.first = _first(encoder.conv_in, vae.config.patch_size)
        self.layers = nn.Sequential(
            *(rows[type(layer)](layer) for layer in encoder.down_blocks),
            Residual(middle.resnets[0]),
            Attention(middle.attentions[0]),
            Residual(middle.resnets[1]),
        )
        self.norm = NormSiLU(encoder.norm_out)
        self.last = _last(encoder.conv_out, vae.quant_conv, mean, inverse_std)
        self.requires_grad_(False).eval()

    def forward(self, frames: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b c h w"]:
        """See above."""
        x = frames.to(self.first.weight.dtype, memory_format=torch.channels_last)
        return self.last(self.norm(self.layers(self.first(x))))


class NormSiLU(nn.Module):
    """RMS norm over channels with its learned scale, then SiLU."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.scale = _frozen(norm.gamma.flatten().double() * norm.scale, norm.gamma)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """See above."""
        return unit_silu(x.permute(0, 2, 3, 1), self.scale).permute(0, 3, 1, 2)


class Residual(nn.Module):
    """Two convolutions, each behind norm and SiLU, around them a shortcut."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.norm1, self.conv1 = NormSiLU(block.norm1), _still(block.conv1)
        self.norm2, self.conv2 = NormSiLU(block.norm2), _still(block.conv2)
        shortcut = block.conv_shortcut
        self.shortcut = shortcut if isinstance(shortcut, nn.Identity) else _still(shortcut)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """See above."""
        return self.conv2(self.norm2(self.conv1(self.norm1(x)))).add_(self.shortcut(x))


class Attention(nn.Module):
    """One head over all pixels."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        weight, bias = (x.double().flatten(1) for x in (block.to_qkv.weight, block.to_qkv.bias[:, None]))
        (q, k, v), (q0, k0, v0) = weight.chunk(3), bias.chunk(3)
        out = block.proj.weight.double().flatten(1)
        # attention's weights sum to one: what is done to its output may be done to the values
        stacked = torch.cat([q, k, out @ v]) * (block.norm.gamma.double().flatten() * block.norm.scale)
        biases = torch.cat([q0, k0, out @ v0 + block.proj.bias.double()[:, None]])[:, 0]
        self.weight, self.bias = (_frozen(x, block.proj.weight) for x in (stacked, biases))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """See above."""
        tokens = x.permute(0, 2, 3, 1).flatten(1, 2)
        unit = F.normalize(tokens, dim=-1)
        q, k, v = F.linear(unit, self.weight, self.bias)[:, None].chunk(3, dim=-1)
        seen = F.scaled_dot_product_attention(q, k, v)[:, 0]
        return x + seen.transpose(1, 2).view_as(x)


class Halving(nn.Module):
    """Half as many rows and columns: a convolution of stride 2, of which the last row and column see zeros."""

    def __init__(self, resample: Any) -> None:
        super().__init__()
        conv = resample.resample[1]
        self.conv = _conv(conv.weight, conv.bias, conv.weight, stride=2)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        """See above."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Level(nn.Module):
    """A resolution of 2.2: residual blocks, what halves the image behind them, and an averaging shortcut around all."""

    def __init__(self, level: Any) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Residual(block) for block in level.resnets))
        self.halving = Halving(level.downsampler) if level.downsampler is not None else nn.Identity()
        self.shortcut = _average(level.avg_shortcut, level.resnets[0].conv1.weight)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        """See above."""
        return self.halving(self.blocks(x)) + self.shortcut(x)


def _rows() -> Mapping[type, Callable[[Any], nn.Module]]:
    """What stands here for each of the module's layers."""
    from diffusers.models.autoencoders import autoencoder_kl_wan as wan

    return {wan.WanResidualBlock: Residual, wan.WanResample: Halving, wan.WanResidualDownBlock: Level}


def _still(conv: Any) -> nn.Conv2d:
    """A causal convolution where there is no earlier frame."""
    return _conv(conv.weight[:, :, -1], conv.bias, conv.weight, padding=conv.kernel_size[1] // 2)


def _first(conv: Any, patch: int) -> nn.Conv2d:
    """The first layer, which takes squares of `patch` pixels as channels, on the pixels themselves."""
    # its channels are (colour, column, row) of a square
    taps = conv.weight[:, :, -1].unflatten(1, (-1, patch, patch)).permute(0, 1, 4, 3, 5, 2)
    return _conv(taps.flatten(4, 5).flatten(2, 3), conv.bias, conv.weight, stride=patch, padding=patch)


def _last(conv: Any, projection: Any, mean: Tensor, inverse_std: Tensor) -> nn.Conv2d:
    """The last layer, the posterior means among the projections behind it, and their normalisation."""
    mean, scale = (x.to(conv.weight.device, torch.float64) for x in (mean, inverse_std))
    means = projection.weight[: len(scale), :, 0, 0, 0].double() * scale[:, None]
    taps = torch.einsum("zo,ocyx->zcyx", means, conv.weight[:, :, -1].double())
    offset = (projection.bias[: len(scale)].double() - mean) * scale
    return _conv(taps, means @ conv.bias.double() + offset, conv.weight, padding=1)


def _average(shortcut: Any, like: Tensor) -> nn.Module:
    """The averaging shortcut of one frame: an output channel is the mean of one input channel over a square, or zero
    where it averages earlier frames. Read off what the module makes of each pixel of a square."""
    channels, side = shortcut.in_channels, shortcut.factor_s
    outputs = shortcut.out_channels // channels  # per input channel
    if side == outputs == 1:
        return nn.Identity()
    units = torch.eye(side * side, device="cpu", dtype=torch.float64).view(-1, 1, 1, side, side)
    answers = shortcut(F.pad(units, (0, 0, 0, 0, 0, 0, 0, channels - 1)))[:, :outputs, 0, 0, 0]
    taps = answers.T.reshape(outputs, 1, side, side).repeat(channels, 1, 1, 1)
    return _conv(taps, taps.new_zeros(len(taps)), like, stride=side, groups=channels)


def _conv(
    taps: Float[Tensor, "d c y x"],
    bias: Float[Tensor, " d"],
    like: Tensor,
    *,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
) -> nn.Conv2d:
    """A frozen convolution with these weights, on the device and in the precision of `like`."""
    rows, columns = taps.shape[2:]
    outputs, inputs = len(taps), groups * taps.shape[1]
    conv = nn.Conv2d(inputs, outputs, (rows, columns), stride, padding, groups=groups, device="meta")
    conv.weight = _frozen(taps.contiguous(memory_format=torch.channels_last), like)
    conv.bias = _frozen(bias, like)
    return conv


def _frozen(x: Tensor, like: Tensor) -> nn.Parameter:
    """A copy."""
    return nn.Parameter(x.detach().to(like.device, like.dtype, copy=True), requires_grad=False)
