"""LaWAM's action expert: flow matching of a chunk that looks at the prior's tokens, the present and the subgoal
(paper 3.3, spec 2.4, 2.7).

It knows no physical units: chunks are in unit range, padded to the widest robot's dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from wamkit_client.types import BadInput

from wamkit.bounds import AT_LEAST_1, DECAY, EVEN, POSITIVE, Bound, check
from wamkit.draws import Draws
from wamkit.flow import Beta, FlowTimes, Steering, integrate, unsteered
from wamkit.nn.tables import Tables
from wamkit.policies.lawam.alternate_dit import PERIOD, AlternateDiT, Drop, Seen, keep
from wamkit.policies.lawam.losses import squared_error
from wamkit.policies.lawam.physical_time import PhysicalTime, TimeCode
from wamkit.policies.lawam.robot_linear import HUMAN, RobotLinear

TIMES = FlowTimes(drawn=Beta(), data_at=1)
BUCKETS, ROUNDING = 1000, 1e-4


@dataclass(frozen=True)
class ExpertSize:
    """Structure of the expert; the published one by default.

    width, heads, ffn, layers: of the trunk. tokens: the most actions that a chunk may have. action_dim: dimensions of
    the widest robot's action. time_dim: of the code of flow time. dropout: of the trunk's branches, in training.
    table_spread: standard deviation of new weights of the tables of robots. time_unit: see PhysicalTime.
    """

    width: int = 1024
    heads: int = 16
    ffn: int = 4096
    layers: int = 16
    tokens: int = 50
    action_dim: int = 32
    time_dim: int = 256
    dropout: float = 0.2
    table_spread: float = 0.02
    time_unit: float = 1.0

    def __post_init__(self) -> None:
        check("policy.expert", self, BOUNDS)
        if self.width % self.heads:
            raise BadInput(f"policy.expert.heads: {self.heads} do not divide the width {self.width}")


BOUNDS = {
    **dict.fromkeys(("width", "heads", "ffn", "tokens", "action_dim"), AT_LEAST_1),
    "layers": Bound(
        f"a multiple of {PERIOD}, at least {PERIOD}", lambda layers: layers >= PERIOD and layers % PERIOD == 0
    ),
    "time_dim": EVEN,
    "dropout": DECAY,
    **dict.fromkeys(("table_spread", "time_unit"), POSITIVE),
}
TINY = ExpertSize(
    width=128,
    heads=4,
    ffn=512,
    layers=8,
    tokens=32,
    action_dim=4,
    dropout=0.0,
    table_spread=0.1,
    time_unit=0.02,
)
"""Trains on a CPU: the small recipes' expert."""


@dataclass(frozen=True)
class Condition:
    """What chunks are made from, one per row.

    hidden, hidden_valid: the prior's tokens, and which of them exist. now, subgoal: features of the present and of the
    horizon. hz: control rate. valid: which action tokens exist. robot: rows of the tables of robots.
    """

    hidden: Float[Tensor, "b l dv"]
    hidden_valid: Bool[Tensor, "b l"]
    now: Float[Tensor, "b s d"]
    subgoal: Float[Tensor, "b s d"]
    hz: Float[Tensor, " b"]
    valid: Bool[Tensor, "b k"]
    robot: Int[Tensor, " b"]


@dataclass(frozen=True)
class Context:
    """A condition as the trunk sees it: nothing in it depends on the noisy chunk.

    seen: keys and values. due: the code of physical time, 0 at tokens that do not exist.
    """

    seen: tuple[Seen, ...]
    due: Float[Tensor, "b k d"]
    valid: Bool[Tensor, "b k"]
    robot: Int[Tensor, " b"]


class FlowTimeCode(Tables):
    """Flow time -> [cos, sin] of its bucket, of which there are 1000."""

    code: Tensor

    def __init__(self, dim: int) -> None:
        half = dim // 2
        step = torch.arange(half, dtype=torch.float32, device="cpu")
        frequency = torch.exp(-math.log(1e4) * step / max(half - 1, 1))
        angle = torch.arange(BUCKETS, device="cpu")[:, None] * frequency
        super().__init__(code=torch.cat([angle.cos(), angle.sin()], dim=-1))

    def forward(self, t: Float[Tensor, "..."]) -> Float[Tensor, "... dim"]:
        return self.code[bucket(t)]


def bucket(t: Float[Tensor, "..."]) -> Int[Tensor, "..."]:
    """The number of a flow time's bucket: int(1000 t), at most 999."""
    # k / n in float32 may fall just short of it, and of the edge of the bucket that it begins
    return (BUCKETS * t + ROUNDING).long().clamp(0, BUCKETS - 1)


class RobotMLP(nn.Module):
    """Two linear layers with matrices per robot."""

    def __init__(
        self,
        robots: int,
        sizes: tuple[int, int, int],
        activation: Callable[[Tensor], Tensor],
        spread: float,
    ) -> None:
        super().__init__()
        self.first = RobotLinear(robots, *sizes[:2], spread)
        self.second = RobotLinear(robots, *sizes[1:], spread)
        self.activation = activation

    def forward(self, x: Float[Tensor, "b *n i"], robot: Int[Tensor, " b"]) -> Float[Tensor, "b *n o"]:
        return self.second(self.activation(self.first(x, robot)), robot)


T = TypeVar("T")
Velocity = Callable[[Tensor, T], Tensor]
"""Of a noisy chunk at a flow time."""


def guided(
    velocity_of: Callable[[Condition], Velocity[T]],
    null_subgoal: Float[Tensor, "1 s d"],
    condition: Condition,
    scale: float,
) -> Velocity[T]:
    """The velocity, driven away from that without a subgoal: v_null + scale (v - v_null); scale 1 is v itself."""
    velocity = velocity_of(condition)
    if scale == 1:
        return velocity
    blind = velocity_of(replace(condition, subgoal=null_subgoal.expand(len(condition.subgoal), -1, -1)))
    return lambda x, t: torch.lerp(blind(x, t), velocity(x, t), scale)


class ActionExpert(nn.Module):
    """See the module docstring. hidden_dim: width of the prior's tokens. features_dim, patches: of a frame's features.
    robots: rows of the tables of robots.
    """

    def __init__(
        self,
        size: ExpertSize,
        hidden_dim: int,
        features_dim: int,
        patches: int,
        robots: int,
        time_code: TimeCode = "seconds",
    ) -> None:
        super().__init__()
        self.size = size
        width, dim = size.width, size.action_dim
        self.physical_time = PhysicalTime(width, size.tokens, time_code, size.time_unit)
        self.flow_time = FlowTimeCode(size.time_dim)
        self.hidden = nn.Sequential(nn.Linear(hidden_dim, features_dim), nn.LayerNorm(features_dim))
        self.null_subgoal = nn.Parameter(0.02 * torch.randn(1, patches, features_dim))
        self.encoder = RobotMLP(robots, (dim, width, width), F.silu, size.table_spread)
        self.time = nn.Sequential(nn.Linear(size.time_dim, width), nn.SiLU(), nn.Linear(width, width))
        self.trunk = AlternateDiT(width, size.heads, size.ffn, size.layers, features_dim)
        self.decoder = RobotMLP(robots, (width, width, dim), F.relu, size.table_spread)

    def forward(
        self, noisy: Float[Tensor, "b k a"], t: Float[Tensor, " b"], condition: Condition, drop: Drop = keep
    ) -> Float[Tensor, "b k a"]:
        """Velocities of chunks at flow times t."""
        return self.velocity(noisy, t, self.context(condition), drop)

    def context(self, condition: Condition) -> Context:
        """Made once, for any number of noisy chunks."""
        dtype = self.null_subgoal.dtype
        world = torch.cat([condition.now, condition.subgoal], dim=1).to(dtype)
        seen = self.trunk.context(self.hidden(condition.hidden.to(dtype)), condition.hidden_valid, world)
        valid = condition.valid
        due = self.physical_time(condition.hz, valid.shape[1]) * valid[..., None]
        return Context(seen, due.to(dtype), valid, condition.robot)

    def velocity(
        self, noisy: Float[Tensor, "b k a"], t: Float[Tensor, " b"], context: Context, drop: Drop = keep
    ) -> Float[Tensor, "b k a"]:
        """Velocities of chunks at flow times t."""
        return self.velocities(noisy[:, None], t[:, None], context, drop)[:, 0]

    def velocities(
        self, noisy: Float[Tensor, "b r k a"], t: Float[Tensor, "b r"], context: Context, drop: Drop = keep
    ) -> Float[Tensor, "b r k a"]:
        """Velocities of r chunks of each sample at flow times t; all of them share the context."""
        dtype = self.null_subgoal.dtype
        x = self.encoder(noisy.to(dtype), context.robot) * context.valid[:, None, :, None]
        x = self.trunk(x, self.embed_time(t), context.due, context.valid, context.seen, drop)
        return self.decoder(x, context.robot).float()

    def embed_time(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b d"]:
        """Flow times as the trunk takes them."""
        return F.silu(self.time(self.flow_time(t).to(self.null_subgoal.dtype)))

    def velocity_of(self, condition: Condition) -> Velocity[Tensor]:
        """`velocity` under a condition."""
        context = self.context(condition)
        return lambda x, t: self.velocity(x, t, context)

    @torch.no_grad()
    def sample(
        self,
        noise: Float[Tensor, "b k a"],
        condition: Condition,
        steps: int,
        guidance: float = 1.0,
        steer: Steering = unsteered,
    ) -> Float[Tensor, "b k a"]:
        """Chunks in unit range; 0 at tokens that do not exist. guidance: see `guided`."""
        kept = condition.valid[..., None]
        velocity = guided(self.velocity_of, self.null_subgoal, condition, guidance)
        return integrate(noise * kept, lambda x, t: velocity(x, t) * kept, TIMES.grid(steps), steer)

    def dropout(self, draws: Draws) -> Drop:
        """Of a training step."""
        share = self.size.dropout
        if not (self.training and share):
            return keep
        return lambda x: x * (draws.uniform_like(x) >= share) / (1 - share)


def action_loss(
    predicted: Float[Tensor, "b k a"],
    velocity: Float[Tensor, "b k a"],
    valid: Bool[Tensor, "b k a"],
    robot: Int[Tensor, " b"],
) -> Float[Tensor, ""]:
    """Mean squared error over all valid numbers of the batch; human video has no actions."""
    return squared_error(predicted, velocity, valid & (robot != HUMAN)[:, None, None])
