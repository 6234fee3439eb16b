"""Inputs of the operations of nn/fused_ops.py: what they write to is made anew for every run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from wamkit.nn.rope import LineRotary

Run = Callable[
    [Any], tuple[Tensor, ...]
]  # functions by name, as attributes -> everything that they wrote or returned

WIDTHS = ((2, 20), (3, 32), (24, 128))  # heads, channels of a head; only the second fills no power of two


def runs(
    heads: int, head: int, dtype: torch.dtype, device: torch.device, tokens: int = 5
) -> Mapping[str, Run]:
    """One call of every operation, on the same random numbers each time."""
    width, generator = heads * head, torch.Generator().manual_seed(0)

    def random(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    x, y, qkv, pair = (random(2, tokens, width * times) for times in (1, 1, 3, 2))
    rows, norm = random(3, width), random(3, width, dtype=torch.float32)
    norm[2] = 1
    turn = torch.view_as_complex(LineRotary(head)(tokens)).to(device)
    rotary = torch.stack([turn, turn, torch.ones_like(turn)], dim=1)[:, :, None]
    floor = torch.tensor(0.5, device=device)
    weight, bias = random(7, width), random(7)

    def add_norm(ops: Any) -> tuple[Tensor, ...]:
        mine = x.clone()
        return mine, ops.add_norm_(mine, y, *rows, 1e-6)

    def place_heads(ops: Any) -> tuple[Tensor, ...]:
        buffer = torch.zeros(2, 3, tokens + 4, heads, head, dtype=dtype, device=device)
        ops.place_heads_(buffer[:, :, 3 : 3 + tokens], qkv.clone(), norm, floor, rotary)
        return (buffer,)

    def normalize(ops: Any) -> tuple[Tensor, ...]:
        gaps = pair.clone().unflatten(-1, (2, -1))
        ops.normalize_(gaps[:, :, 0], floor)
        return (gaps,)

    def linear_gelu(ops: Any) -> tuple[Tensor, ...]:
        return (ops.linear_gelu(x, weight, bias),)

    image = torch.cat([x, torch.zeros_like(x), y])[:, :, None]  # zeros have no direction

    def unit_silu(ops: Any) -> tuple[Tensor, ...]:
        return (ops.unit_silu(image, rows[0]),)

    return {f.__name__: f for f in (add_norm, place_heads, normalize, linear_gelu, unit_silu)}
