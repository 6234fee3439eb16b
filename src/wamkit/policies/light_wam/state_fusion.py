"""StateFusionActionExpert: learned queries pool three depths of the video model; an MLP writes the chunk.

One forward pass, no noise, no iterations. Light-WAM paper section 3.4, code details in spec 1.8. LayerNorms here
have eps 1e-5, GELUs are tanh. It knows states [b, s, d] and nothing about where they come from. On request it also
reads the robot's proprio, which the published one knows only through the tokens of the video model.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from wamkit_client.types import BadInput

from wamkit.bounds import AT_LEAST_0, AT_LEAST_1, DECAY, EVEN, NOT_NEGATIVE, check
from wamkit.data.normalize import Normalizer
from wamkit.draws import Draws
from wamkit.nn.sinusoid import Sinusoid
from wamkit.types import Batch, Query

States = tuple[Tensor, ...]
"""What the expert takes: adapted states of the taps [b s d] each; of one that reads the proprio, last, [b p+1]."""


@dataclass(frozen=True)
class StateFusionConfig:
    """Structure of the action expert; the published one by default.

    queries, heads: learned queries to each tapped block, and heads of their attention. level_dim: width of what is read
    from a block. trunk_dim, trunk_blocks: width and number of the blocks behind. step_dim: width of the code of an
    action's place in the chunk.
    query_std: of the queries' initial values. At the published 0.02 all queries look everywhere alike for the first
    thousands of steps; short trainings begin with queries that differ.
    reads_proprio: whether the trunk is given the proprio itself; no released expert is. proprio_hidden: share of
    training samples whose proprio it is not given, so that it does not forget to look at the images.
    """

    queries: int = 16
    heads: int = 8
    level_dim: int = 4608
    trunk_dim: int = 6144
    trunk_blocks: int = 1
    step_dim: int = 256
    query_std: float = 0.02
    reads_proprio: bool = False
    proprio_hidden: float = 0.0

    def __post_init__(self) -> None:
        check("policy.expert", self, BOUNDS)
        if self.proprio_hidden and not self.reads_proprio:
            raise BadInput(
                f"policy.expert.proprio_hidden: expected 0.0 of an expert that does not read the proprio, got "
                f"{self.proprio_hidden}; set policy.expert.reads_proprio to true"
            )


BOUNDS = {
    **dict.fromkeys(("queries", "heads", "level_dim", "trunk_dim"), AT_LEAST_1),
    "trunk_blocks": AT_LEAST_0,
    "step_dim": EVEN,
    "query_std": NOT_NEGATIVE,
    "proprio_hidden": DECAY,
}


def proprio_states(config: StateFusionConfig, normalizer: Normalizer, given: Query | Batch) -> States:
    """What an expert takes beside the taps: nothing, or [b p+1], the proprio in unit range and a one."""
    if not config.reads_proprio:
        return ()
    unit = normalizer.to_unit("proprio", given.inputs["proprio"], given.embodiment)
    return (F.pad(unit, (0, 1), value=1.0),)


class LearnedQueryPooler(nn.Module):
    """Constant queries attend to one level's tokens; a learned softmax merges what they found."""

    def __init__(self, width: int, queries: int, heads: int, query_std: float) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, width) * query_std)
        self.merge_logits = nn.Parameter(torch.zeros(queries))
        self.token_norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.output_norm = nn.LayerNorm(width)

    def forward(self, states: Float[Tensor, "b s d"]) -> Float[Tensor, "b d"]:
        x = self.token_norm(states)
        queries = self.queries.expand(len(x), -1, -1)
        pooled, _ = self.attention(queries, x, x, need_weights=False)  # b queries d
        return self.output_norm(self.merge_logits.softmax(0) @ pooled)

    def attention_map(self, states: Float[Tensor, "b s d"]) -> Float[Tensor, "b s"]:
        """Where the merged queries look: attention averaged over heads and weighted as merged; sums to 1."""
        x = self.token_norm(states)
        _, weights = self.attention(self.queries.expand(len(x), -1, -1), x, x)  # b queries s
        return self.merge_logits.softmax(0) @ weights


class MLP(nn.Module):
    """LN -> Linear -> GELU -> Linear."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, out)
        self.fc2 = nn.Linear(out, out)

    def forward(self, x: Float[Tensor, "b i"]) -> Float[Tensor, "b o"]:
        return self.fc2(F.gelu(self.fc1(self.norm(x)), approximate="tanh"))


class ProprioReader(nn.Module):
    """Linear -> GELU -> Linear, of `proprio_states`."""

    def __init__(self, proprio_dim: int, out: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(proprio_dim + 1, out)
        self.fc2 = nn.Linear(out, out)

    def forward(self, proprio: Float[Tensor, "b i"]) -> Float[Tensor, "b o"]:
        return self.fc2(F.gelu(self.fc1(proprio), approximate="tanh"))


class StateFusionActionExpert(nn.Module):
    """Levels of states -> action chunk in unit range. Every step is one row: a shorter horizon is a prefix.

    BadInput for one that reads the proprio of a robot without any.
    """

    def __init__(
        self, config: StateFusionConfig, width: int, levels: int, action_dim: int, proprio_dim: int = 0
    ) -> None:
        super().__init__()
        if config.reads_proprio and not proprio_dim:
            raise BadInput(
                "policy.expert.reads_proprio: expected false of a run without proprio (data.proprio_dim is 0), got true"
            )
        self.proprio_hidden = config.proprio_hidden
        trunk = config.trunk_dim
        self.sinusoid = Sinusoid(config.step_dim)
        self.poolers = nn.ModuleList(
            [LearnedQueryPooler(width, config.queries, config.heads, config.query_std) for _ in range(levels)]
        )
        self.compressors = nn.ModuleList([MLP(width, config.level_dim) for _ in range(levels)])
        self.fused_norm = nn.LayerNorm(levels * config.level_dim)
        self.fused_proj = nn.Linear(levels * config.level_dim, trunk)
        self.readers = nn.ModuleList([ProprioReader(proprio_dim, trunk)] if config.reads_proprio else [])
        self.trunk = nn.ModuleList([MLP(trunk, trunk) for _ in range(config.trunk_blocks)])
        self.step_proj = nn.Sequential(
            nn.LayerNorm(config.step_dim),
            nn.Linear(config.step_dim, trunk),
            nn.GELU(approximate="tanh"),
            nn.Linear(trunk, trunk),
        )
        self.output_norm = nn.LayerNorm(trunk)
        self.output = nn.Sequential(
            nn.Linear(trunk, trunk), nn.GELU(approximate="tanh"), nn.Linear(trunk, action_dim)
        )

    def forward(self, states: States, horizon: int) -> Float[Tensor, "b k a"]:
        fused = self.fuse(states)
        steps = self.steps(horizon)
        return self.output(self.output_norm(fused[:, None] + steps))

    def fuse(self, states: States) -> Float[Tensor, "b trunk"]:
        """One vector that says what to do."""
        taps, proprio = states[: len(self.poolers)], states[len(self.poolers) :]
        levels = [
            compress(pool(state))
            for pool, compress, state in zip(self.poolers, self.compressors, taps, strict=True)
        ]
        x = self.fused_proj(self.fused_norm(torch.cat(levels, dim=-1)))
        for reader, state in zip(self.readers, proprio, strict=True):
            x = x + reader(state.to(x.dtype))
        for block in self.trunk:
            x = x + block(x)
        return x

    def hide_proprio(self, states: States, draws: Draws) -> States:
        """For training: zeros, the one too, for the proprio of a random `proprio_hidden` of the samples."""
        if not self.proprio_hidden:
            return states
        *taps, proprio = states
        shown = draws.uniform(proprio.device) >= self.proprio_hidden
        return (*taps, proprio * shown[:, None])

    def steps(self, horizon: int) -> Float[Tensor, "k trunk"]:
        """One vector per step index 0..horizon-1."""
        like = self.fused_proj.weight
        code = self.sinusoid(torch.arange(horizon, device=like.device))
        steps: Tensor = self.step_proj(code.to(like.dtype))
        return steps

    def attention_maps(self, states: tuple[Float[Tensor, "b s d"], ...]) -> tuple[Float[Tensor, "b s"], ...]:
        """For reports: where each level's queries look."""
        poolers = cast(Iterable[LearnedQueryPooler], self.poolers)
        return tuple(pool.attention_map(state) for pool, state in zip(poolers, states, strict=True))
