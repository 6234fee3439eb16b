"""WanDiT: the Wan video diffusion transformer (Wan2.1/2.2), one implementation for every size.

What it adds to the published network, all outside the block: taps (states after chosen blocks are returned),
adapters after chosen blocks, a clean first frame (flow time per frame, evaluated once per distinct time), and
visibility by groups instead of masks. Parameter names are the original Wan names. Spec: Light-WAM 1.4.
It knows nothing about text encoders, codecs, actions or losses.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from wamkit.nn.adapter import Adapter
from wamkit.nn.attention import Visibility, attend
from wamkit.nn.rope import grid_table, rotate
from wamkit.nn.sinusoid import sinusoid

PATCH = 2  # latent pixels per token along rows and columns; 1 along frames
EMBEDDED_TIME_SCALE = 1000.0  # the network was trained on times 0..1000


@dataclass(frozen=True)
class WanSize:
    """Everything that fixes the network's shape.

    channels: latent channels in and out. text_dim: width of context rows. time_dim: width of the time sinusoid.
    """

    width: int
    ffn: int
    heads: int
    head_dim: int
    layers: int
    channels: int
    text_dim: int
    time_dim: int = 256
    eps: float = 1e-6


SIZES = {
    "1.3B": WanSize(width=1536, ffn=8960, heads=12, head_dim=128, layers=30, channels=16, text_dim=4096),
    "5B": WanSize(width=3072, ffn=14336, heads=24, head_dim=128, layers=30, channels=48, text_dim=4096),
    "tiny": WanSize(
        width=128, ffn=512, heads=4, head_dim=32, layers=6, channels=27, text_dim=64, time_dim=64
    ),
}


@dataclass(frozen=True)
class Adapters:
    """Residual adapters after blocks `layers` (0-based: the OUTPUT of blocks[i] is adapted)."""

    layers: tuple[int, ...]
    dim: int
    gamma: float = 1.0


@dataclass(frozen=True)
class Stream:
    """A latent clip on its way through the blocks.

    tokens [b s d]; grid (frames, rows, columns); per frame: time [. t d] and modulation [. t 6 d] (leading
    dimension 1 or b); context [b l d]; rope [s e/2 2].
    """

    tokens: Tensor
    grid: tuple[int, int, int]
    time: Tensor
    modulation: Tensor
    context: Tensor
    context_mask: Tensor | None
    rope: Tensor

    @property
    def sizes(self) -> dict[str, int]:
        """Tokens of each visibility group."""
        frames, rows, columns = self.grid
        return {"present": rows * columns, "future": (frames - 1) * rows * columns}


@dataclass(frozen=True)
class Output:
    """velocity [b c t h w]; taps: adapted states [b s d] after the blocks asked for, in that order."""

    velocity: Tensor
    taps: tuple[Tensor, ...]


class RMSNorm(nn.Module):
    """Root-mean-square norm over the full width, in float32, cast back before the weight (Wan)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Float[Tensor, "b s d"]) -> Float[Tensor, "b s d"]:
        return F.rms_norm(x.float(), x.shape[-1:], eps=self.eps).to(x.dtype) * self.weight


class Attention(nn.Module):
    """Projections of self- or cross-attention. q and k are normed over the full width, before heads are split."""

    def __init__(self, size: WanSize) -> None:
        super().__init__()
        inner = size.heads * size.head_dim
        self.heads = size.heads
        self.q = nn.Linear(size.width, inner)
        self.k = nn.Linear(size.width, inner)
        self.v = nn.Linear(size.width, inner)
        self.o = nn.Linear(inner, size.width)
        self.norm_q = RMSNorm(inner, size.eps)
        self.norm_k = RMSNorm(inner, size.eps)

    def split(self, x: Float[Tensor, "b s ne"]) -> Float[Tensor, "b n s e"]:
        """Cut the width into heads."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def join(self, x: Float[Tensor, "b n s e"]) -> Float[Tensor, "b s d"]:
        """Put the heads together and project out."""
        return self.o(x.transpose(1, 2).flatten(2))

    def to_self(self, x: Tensor, stream: Stream, visibility: Visibility) -> Tensor:
        """Attention of the clip's tokens to each other, with rotary positions."""
        q = rotate(self.split(self.norm_q(self.q(x))), stream.rope)
        k = rotate(self.split(self.norm_k(self.k(x))), stream.rope)
        return self.join(attend(q, k, self.split(self.v(x)), visibility, stream.sizes))

    def to_context(self, x: Tensor, stream: Stream) -> Tensor:
        """Attention of the clip's tokens to the context rows."""
        q = self.split(self.norm_q(self.q(x)))
        k = self.split(self.norm_k(self.k(stream.context)))
        v = self.split(self.v(stream.context))
        return self.join(F.scaled_dot_product_attention(q, k, v, attn_mask=stream.context_mask))


class Block(nn.Module):
    """Self-attention and MLP, modulated by time; cross-attention to the context, plain."""

    def __init__(self, size: WanSize) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(size.width, eps=size.eps, elementwise_affine=False)
        self.self_attn = Attention(size)
        self.norm3 = nn.LayerNorm(size.width, eps=size.eps)
        self.cross_attn = Attention(size)
        self.norm2 = nn.LayerNorm(size.width, eps=size.eps, elementwise_affine=False)
        self.ffn = nn.Sequential(
            nn.Linear(size.width, size.ffn), nn.GELU(approximate="tanh"), nn.Linear(size.ffn, size.width)
        )
        self.modulation = nn.Parameter(torch.randn(1, 6, size.width) / size.width**0.5)

    def forward(
        self, x: Float[Tensor, "b s d"], stream: Stream, visibility: Visibility
    ) -> Float[Tensor, "b s d"]:
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.modulation + stream.modulation).unbind(-2)

        u = modulate(self.norm1(x), shift1, scale1)
        x = x + per_frame(self.self_attn.to_self(u, stream, visibility), gate1)

        x = x + self.cross_attn.to_context(self.norm3(x), stream)

        u = modulate(self.norm2(x), shift2, scale2)
        return x + per_frame(self.ffn(u), gate2)


class Head(nn.Module):
    """Tokens -> velocity of one latent patch each; (shift, scale) from the time embedding itself."""

    def __init__(self, size: WanSize) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size.width, eps=size.eps, elementwise_affine=False)
        self.head = nn.Linear(size.width, PATCH * PATCH * size.channels)
        self.modulation = nn.Parameter(torch.randn(1, 2, size.width) / size.width**0.5)

    def forward(self, x: Float[Tensor, "b s d"], stream: Stream) -> Float[Tensor, "b c t h w"]:
        shift, scale = (self.modulation + stream.time[..., None, :]).unbind(-2)
        patches = self.head(modulate(self.norm(x), shift, scale))  # b s (row column channel), channel fastest
        frames, rows, columns = stream.grid
        patches = patches.unflatten(-1, (PATCH, PATCH, -1)).unflatten(1, (frames, rows, columns))
        return patches.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)


class WanDiT(nn.Module):
    """The network. `forward` predicts velocity; `features` stops at the last tap and needs no head."""

    def __init__(self, size: WanSize, adapters: Adapters) -> None:
        super().__init__()
        self.size = size
        self.patch_embedding = nn.Conv3d(
            size.channels, size.width, (1, PATCH, PATCH), stride=(1, PATCH, PATCH)
        )
        self.text_embedding = nn.Sequential(
            nn.Linear(size.text_dim, size.width),
            nn.GELU(approximate="tanh"),
            nn.Linear(size.width, size.width),
        )
        self.time_embedding = nn.Sequential(
            nn.Linear(size.time_dim, size.width), nn.SiLU(), nn.Linear(size.width, size.width)
        )
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(size.width, 6 * size.width))
        self.blocks = nn.ModuleList([Block(size) for _ in range(size.layers)])
        self.head = Head(size)
        self.adapters = nn.ModuleList(
            [
                Adapter(size.width, adapters.dim, adapters.gamma) if i in adapters.layers else nn.Identity()
                for i in range(size.layers)
            ]
        )

    def forward(
        self,
        latents: Float[Tensor, "b c t h w"],
        times: Float[Tensor, "_ r"],
        context: Float[Tensor, "b l text"],
        visibility: Visibility,
        taps: tuple[int, ...] = (),
    ) -> Output:
        """Velocity of a noisy clip, and the states after blocks `taps`.

        times: flow time per frame in [0, 1]; row r is frame r, the last row stands for all later frames, so
        [b, 1] is one time for the clip and [b, 2] a first frame at its own time. Leading dimension 1 or b.
        """
        stream = self.embed(latents, times, context)
        tokens, states = self.run(stream, visibility, taps, self.size.layers)
        return Output(self.head(tokens, stream), states)

    def features(
        self,
        latents: Float[Tensor, "b c t h w"],
        times: Float[Tensor, "_ r"],
        context: Float[Tensor, "b l text"],
        visibility: Visibility,
        taps: tuple[int, ...],
    ) -> tuple[Float[Tensor, "b s d"], ...]:
        """Only the taps of `forward`; blocks after the last tap are not run (exact)."""
        return self.run(self.embed(latents, times, context), visibility, taps, max(taps) + 1)[1]

    def embed(
        self,
        latents: Float[Tensor, "b c t h w"],
        times: Float[Tensor, "_ r"],
        context: Float[Tensor, "b l text"],
        context_mask: Bool[Tensor, "b l"] | None = None,
    ) -> Stream:
        """Patches, times and context as the blocks take them. context_mask: True = may attend; None = all may."""
        tokens = self.patch_embedding(latents)  # b d t h/2 w/2
        grid = (tokens.shape[2], tokens.shape[3], tokens.shape[4])
        dtype = tokens.dtype
        row = torch.arange(grid[0], device=latents.device).clamp(
            max=times.shape[1] - 1
        )  # frame -> row of times
        time = self.time_embedding(sinusoid(times * EMBEDDED_TIME_SCALE, self.size.time_dim).to(dtype))
        modulation = self.time_projection(time).unflatten(-1, (6, -1))
        return Stream(
            tokens=tokens.flatten(2).transpose(1, 2),
            grid=grid,
            time=time[:, row],
            modulation=modulation[:, row],
            context=self.text_embedding(context.to(dtype)),
            context_mask=None if context_mask is None else context_mask[:, None, None, :],
            rope=grid_table(grid, self.size.head_dim, latents.device),
        )

    def run(
        self, stream: Stream, visibility: Visibility, taps: tuple[int, ...], stop: int
    ) -> tuple[Float[Tensor, "b s d"], tuple[Tensor, ...]]:
        """Blocks 0..stop-1 with their adapters; the final tokens and the adapted states after blocks `taps`."""
        x, states = stream.tokens, {}
        for i in range(stop):
            x = self.adapters[i](self.blocks[i](x, stream, visibility))
            states[i] = x
        return x, tuple(states[i] for i in taps)


def per_frame(x: Float[Tensor, "b s d"], row: Float[Tensor, "_ t d"]) -> Float[Tensor, "b s d"]:
    """Multiply the tokens of each frame by that frame's row."""
    return (x.unflatten(1, (row.shape[1], -1)) * row[:, :, None]).flatten(1, 2)


def modulate(
    x: Float[Tensor, "b s d"], shift: Float[Tensor, "_ t d"], scale: Float[Tensor, "_ t d"]
) -> Float[Tensor, "b s d"]:
    """x (1 + scale) + shift, frame by frame."""
    x = x.unflatten(1, (shift.shape[1], -1))  # b t h*w d
    return (x * (1 + scale[:, :, None]) + shift[:, :, None]).flatten(1, 2)
