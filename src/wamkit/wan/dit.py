"""WanDiT: the Wan video diffusion transformer (Wan2.1/2.2), one implementation for every size.

What it adds to the published network, all outside the block (wan/block.py):
- taps: the states after chosen blocks are returned;
- adapters after chosen blocks;
- groups of frames, each with its own flow time and visibility (a clean first frame, a second copy of the future);
- on request, later frames that begin with what the present shows at the same place.

Parameter names are the original Wan names. Spec: Light-WAM 1.4. It knows nothing about text encoders, codecs, actions
or losses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from wamkit.bounds import AT_LEAST_1, FINITE, Bound
from wamkit.nn.adapter import Adapter
from wamkit.nn.attention import Visibility
from wamkit.nn.layers import Layers
from wamkit.nn.rope import GridRotary
from wamkit.nn.sinusoid import Sinusoid
from wamkit.wan.block import (
    Block,
    Stream,
    TransformerSize,
    embed_times,
    modulate,
    text_mlp,
    time_mlp,
    time_rows,
)

PATCH = 2  # latent pixels per token along rows and columns; 1 along frames


@dataclass(frozen=True, kw_only=True)
class WanSize(TransformerSize):
    """Everything that fixes the network's shape. channels: latent channels in and out.

    present_skip: whether tokens of later frames begin with a learned linear map of the present's at the same place. So
    a small network need not carry what stays as it is through attention (docs/log.md); released ones have none.
    """

    channels: int
    present_skip: bool = False


SIZES = {
    "1.3B": WanSize(width=1536, ffn=8960, heads=12, head_dim=128, layers=30, channels=16, text_dim=4096),
    "5B": WanSize(width=3072, ffn=14336, heads=24, head_dim=128, layers=30, channels=48, text_dim=4096),
    "tiny": WanSize(
        width=128, ffn=512, heads=4, head_dim=32, layers=6, channels=27, text_dim=64, time_dim=64
    ),
}


@dataclass(frozen=True)
class Adapters:
    """Residual adapters in the video model.

    layers: the blocks that are adapted (0-based: the OUTPUT of blocks[i]). dim: width of the bottleneck. gamma:
    factor of what is added.
    """

    layers: tuple[int, ...]
    dim: int
    gamma: float = 1.0


NO_ADAPTERS = Adapters(layers=(), dim=0)


def adapter_bounds(depth: int) -> dict[str, Bound]:
    """Of adapters in a network of `depth` blocks that must have some."""
    layers = Bound(
        f"block numbers from 0 to {depth - 1}, ascending",
        lambda layers: (
            len(layers) > 0 and list(layers) == sorted(set(layers)) and set(layers) <= set(range(depth))
        ),
    )
    return {"layers": layers, "dim": AT_LEAST_1, "gamma": FINITE}


@dataclass(frozen=True)
class Frames:
    """Consecutive latent frames with one flow time and one visibility group. first: position in time of the first.

    Two groups may have the same positions: a copy of the future stands at the same time as the future.
    """

    group: str
    first: int
    count: int

    @property
    def positions(self) -> range:
        """In time, on the rotary axis."""
        return range(self.first, self.first + self.count)


PRESENT = Frames("present", 0, 1)


def future(latents: Float[Tensor, "b c f h w"]) -> Frames:
    """The frames that follow the present."""
    return Frames("future", 1, latents.shape[2])


@dataclass(frozen=True)
class Passed:
    """Tokens [b s d] after blocks; taps: adapted states [b s d] after the requested ones, in that order."""

    tokens: Tensor
    taps: tuple[Tensor, ...]


@dataclass(frozen=True)
class Output:
    """predicted [b c t h w]; taps: adapted states [b s d] after the requested blocks, in that order."""

    predicted: Tensor
    taps: tuple[Tensor, ...]


class PresentSkip(nn.Module):
    """What later tokens take over from the present at the same place; nothing before training."""

    def __init__(self, size: WanSize) -> None:
        super().__init__()
        self.linear = nn.Linear(size.width, size.width)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(
        self, later: Float[Tensor, "b fs d"], present: Float[Tensor, "b s d"]
    ) -> Float[Tensor, "b fs d"]:
        frames = later.unflatten(1, (-1, present.shape[1]))
        return (frames + self.linear(present)[:, None]).flatten(1, 2)


class NoSkip(nn.Module):
    """Later tokens as they are."""

    def forward(
        self, later: Float[Tensor, "b fs d"], present: Float[Tensor, "b s d"]
    ) -> Float[Tensor, "b fs d"]:
        return later


class Head(nn.Module):
    """Tokens -> what is predicted of one latent patch each; (shift, scale) from the time embedding itself."""

    def __init__(self, size: WanSize) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size.width, eps=size.eps, elementwise_affine=False)
        self.head = nn.Linear(size.width, PATCH * PATCH * size.channels)
        self.modulation = nn.Parameter(torch.randn(1, 2, size.width) / size.width**0.5)

    def forward(self, x: Float[Tensor, "b s d"], stream: Stream) -> Float[Tensor, "b c t h w"]:
        # Wan conditions its head on the embedded time itself, its blocks on a projection of it.
        shift, scale = (self.modulation + stream.time[..., None, :]).unbind(-2)
        patches = self.head(modulate(self.norm(x), shift, scale))  # b s (row column channel), channel fastest
        return fold(patches, stream.grid)


def fold(patches: Float[Tensor, "b s o"], grid: tuple[int, ...]) -> Float[Tensor, "b c t h w"]:
    """Tokens of a (frames, rows, columns) grid, each (row, column, channel) of its patch, as latents."""
    patches = patches.unflatten(-1, (PATCH, PATCH, -1)).unflatten(1, grid)  # b t r c row column channel
    return patches.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)


class WanDiT(nn.Module):
    """The network. `forward` predicts, velocity or data; `features` stops at the last tap and needs no head."""

    def __init__(self, size: WanSize, adapters: Adapters) -> None:
        super().__init__()
        self.size = size
        self.rotary = GridRotary(size.head_dim)
        self.sinusoid = Sinusoid(size.time_dim)
        self.patch_embedding = nn.Conv3d(
            size.channels, size.width, (1, PATCH, PATCH), stride=(1, PATCH, PATCH)
        )
        self.skip = PresentSkip(size) if size.present_skip else NoSkip()
        self.text_embedding = text_mlp(size)
        self.time_embedding = time_mlp(size)
        self.time_projection = time_rows(size)
        self.blocks: nn.ModuleList = Layers([Block(size) for _ in range(size.layers)])
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
        times: Float[Tensor, "_ g"],
        context: Float[Tensor, "b l text"],
        groups: tuple[Frames, ...],
        visibility: Visibility,
        taps: tuple[int, ...] = (),
    ) -> Output:
        """What is predicted of a noisy clip, and the states after blocks `taps`.

        groups: what the t frames are, in order. times: flow time in [0, 1] of each group; leading dimension 1 or b.
        """
        stream = self.embed(latents, times, context, groups)
        done = self.run(stream, visibility, range(self.size.layers), taps)
        return Output(self.head(done.tokens, stream), done.taps)

    def features(
        self,
        latents: Float[Tensor, "b c t h w"],
        times: Float[Tensor, "_ g"],
        context: Float[Tensor, "b l text"],
        groups: tuple[Frames, ...],
        visibility: Visibility,
        taps: tuple[int, ...],
    ) -> tuple[Float[Tensor, "b s d"], ...]:
        """Only the taps of `forward`; blocks after the last tap are not run (exact)."""
        stream = self.embed(latents, times, context, groups)
        return self.run(stream, visibility, range(max(taps) + 1), taps).taps

    def embed(
        self,
        latents: Float[Tensor, "b c t h w"],
        times: Float[Tensor, "_ g"],
        context: Float[Tensor, "b l text"],
        groups: tuple[Frames, ...],
        context_mask: Bool[Tensor, "b l"] | None = None,
        present: Float[Tensor, "b s d"] | None = None,
    ) -> Stream:
        """Patches, times and context as the blocks take them. context_mask: True = may attend; None = all may.

        present: `tokens` of the present, where latents are of later frames alone; None: their first frame is it.
        """
        embedded = self.text_embedding(context.to(self.patch_embedding.weight.dtype))
        return self.stream(latents, times, embedded, groups, context_mask, present)

    def stream(
        self,
        latents: Float[Tensor, "b c t h w"],
        times: Float[Tensor, "_ g"],
        embedded: Float[Tensor, "b l d"],
        groups: tuple[Frames, ...],
        context_mask: Bool[Tensor, "b l"] | None = None,
        present: Float[Tensor, "b s d"] | None = None,
    ) -> Stream:
        """`embed` with a context that is embedded already."""
        tokens = self.tokens(latents)
        grid = (latents.shape[2], latents.shape[3] // PATCH, latents.shape[4] // PATCH)
        first = grid[1] * grid[2] if present is None else 0
        now, later = tokens[:, :first], tokens[:, first:]
        later = self.skip(later, now if present is None else present)
        time = embed_times(self.sinusoid, self.time_embedding, times, tokens.dtype)  # . g d
        modulation = self.time_projection(time).unflatten(-1, (6, -1))  # . g 6 d
        return Stream(
            # In the order of the network's sums: else every one of its operations walks across two orders.
            tokens=torch.cat([now, later], dim=1),
            grid=grid,
            sizes={frames.group: frames.count * grid[1] * grid[2] for frames in groups},
            # A row per frame, not per token: a frame's tokens share it, and blocks broadcast it over them.
            time=_per_frame(time, groups),
            modulation=_per_frame(modulation, groups),
            context=embedded,
            context_mask=None if context_mask is None else context_mask[:, None, None, :],
            rope=self.rotary([frames.positions for frames in groups], *grid[1:]),
        )

    def tokens(self, latents: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b s d"]:
        """One for each patch of each frame."""
        # Weights may be bfloat16 where latents and context are float32; times stay float32 up to the sinusoid.
        return self.patch_embedding(latents.to(self.patch_embedding.weight.dtype)).flatten(2).transpose(1, 2)

    def run(
        self, stream: Stream, visibility: Visibility, blocks: range, taps: tuple[int, ...] = ()
    ) -> Passed:
        """These blocks with their adapters."""
        layers, tapped = cast(Layers, self.blocks), dict[int, Tensor]()

        def step(i: int, x: Tensor) -> tuple[Tensor, ...]:
            # A tap is the adapted state, which is also what the next block gets: adapters are trained by both losses.
            x = layers.call(_adapted, layers[i], self.adapters[i], x, stream, visibility)
            if i in taps:
                tapped[i] = x
            return (x,)

        (x,) = layers.run(step, blocks, (stream.tokens,))
        return Passed(x, tuple(tapped[i] for i in taps))


def _adapted(
    block: Block, adapter: nn.Module, x: Float[Tensor, "b s d"], stream: Stream, visibility: Visibility
) -> Float[Tensor, "b s d"]:
    found: Tensor = adapter(block(x, stream, visibility))
    return found


def _per_frame(x: Float[Tensor, "_ g *rest"], groups: tuple[Frames, ...]) -> Float[Tensor, "_ t *rest"]:
    """One row per frame from one row per group."""
    rows = zip(x.unbind(1), groups, strict=True)
    return torch.cat([row[:, None].expand(-1, frames.count, *row.shape[1:]) for row, frames in rows], dim=1)
