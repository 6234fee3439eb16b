"""Light-WAM: a video model looks once at the present frame, and a small expert reads the chunk off three depths.

Training adds a second task, denoising the future latents (co-training); acting never touches the future.
arXiv 2606.08242 section 3; every formula in the code's own terms: spec sections 1-2.
The full-size model (frozen Wan2.1-1.3B, LoRA, pooled video) and the small preset (everything trained, block codec)
are this class with other configs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from wamkit_client.types import BadInput

from wamkit.bounds import AT_LEAST_1, NOT_NEGATIVE, POSITIVE, check
from wamkit.data.normalize import Normalizer
from wamkit.draws import Draws
from wamkit.flow import FlowTimes, Predicts, Shift, TimePrecision, integrate, noise_like
from wamkit.foresight import Foreseer, Foresight
from wamkit.nn.attention import FIRST_FRAME_CAUSAL
from wamkit.nn.lora import add_lora, merge_lora
from wamkit.nn.losses import action_loss_per_sample, latent_is_pad, prefix_weights, video_loss
from wamkit.policies.base import FORESIGHT, EncoderFacts, PolicyConfig, PolicyModule, expect_passes
from wamkit.policies.fused_foresight import fused_foreseer
from wamkit.policies.light_wam.folded_expert import FoldedExpert
from wamkit.policies.light_wam.fused import NEEDS, FusedActor, answer, fused_look
from wamkit.policies.light_wam.objectives import OBJECTIVES
from wamkit.policies.light_wam.state_fusion import (
    StateFusionActionExpert,
    StateFusionConfig,
    States,
    proprio_states,
)
from wamkit.policies.wan_encoder import (
    WanEncoder,
    context,
    encoder_facts,
    example_inputs,
    foresight,
    pooled,
    proprio_encoder,
    random_encoder,
)
from wamkit.taking import SHARED, Take
from wamkit.tree import Tree
from wamkit.types import Actor, Batch, DataSpec, PartTable, Preprocessing, Query
from wamkit.wan.block import open_gates
from wamkit.wan.checkpoint import load_wan
from wamkit.wan.dit import PRESENT, SIZES, Adapters, Frames, WanDiT, WanSize, adapter_bounds, future
from wamkit.wan.encoders import (
    CodecConfig,
    TextConfig,
    UMT5Config,
    WanVAEConfig,
    build_codec,
    check_channels,
    check_text_width,
)

LORA_LAYERS = (
    *(f"{attention}.{layer}" for attention in ("self_attn", "cross_attn") for layer in "qkvo"),
    "ffn.0",
    "ffn.2",
)


@dataclass(frozen=True)
class LoRATuning:
    """The video model is frozen but for its head; low-rank additions on ten projections of every block.

    base: the released video model, a file or folder (wan/checkpoint.py). rank: of an addition. alpha: an addition is
    scaled by alpha / rank.
    """

    base: str = "weights/Wan2.1-T2V-1.3B"
    rank: int = 64
    alpha: float = 128.0
    kind: Literal["lora"] = "lora"

    def __post_init__(self) -> None:
        check("policy.tuning", self, {"rank": AT_LEAST_1, "alpha": POSITIVE})


@dataclass(frozen=True)
class FullTuning:
    """The whole video model is trained, from random weights (small presets).

    open_gates: whether its blocks begin with open gates (wan/block.py).
    """

    open_gates: bool = False
    kind: Literal["full"] = "full"


@dataclass(frozen=True)
class StepWeights:
    """Weights of a chunk's actions in the loss.

    prefix: how many first ones weigh `weight`. weight: of these. tail: of the later ones.
    """

    prefix: int
    weight: float = 1.0
    tail: float = 0.0

    def __post_init__(self) -> None:
        bounds = {"prefix": AT_LEAST_1, "weight": POSITIVE, "tail": NOT_NEGATIVE}
        check("policy.step_weights", self, bounds)


@dataclass(frozen=True)
class LightWAMConfig(PolicyConfig):
    """Defaults are the published full-size model.

    objective: "cotrain" (two passes: full-resolution present, pooled clip), "cotrain_one_pass" (the same function
    where video_pool is 1, one pass), "action_only" (no video co-training).
    adapters.layers are also the taps the expert reads. video_pool: average pooling of the supervised latents.
    video_weight, action_weight: of the losses. video_shift: of the video's flow times.
    video_predicts: what the video model says of a noised future (wamkit.flow.PREDICTIONS).
    time_precision: how they are rounded in training (wamkit.flow.TIMES).
    """

    codec: CodecConfig = field(default_factory=WanVAEConfig)
    text: TextConfig = field(default_factory=UMT5Config)
    size: WanSize = SIZES["1.3B"]
    tuning: LoRATuning | FullTuning = field(default_factory=LoRATuning)
    adapters: Adapters = Adapters(layers=(8, 16, 24), dim=256, gamma=1.0)
    expert: StateFusionConfig = field(default_factory=StateFusionConfig)
    video_pool: int = 2
    objective: Literal["cotrain", "cotrain_one_pass", "action_only"] = "cotrain"
    video_weight: float = 1.0
    action_weight: float = 1.0
    step_weights: StepWeights = StepWeights(prefix=8)
    video_shift: Shift = Shift()
    video_predicts: Predicts = "velocity"
    time_precision: TimePrecision = "float32"
    kind: Literal["light_wam"] = "light_wam"
    exported: ClassVar[tuple[str, ...]] = ("merged_lora", "folded_expert", "still_codec", "device_images")
    about_losses: ClassVar[str] = (
        "action: squared error of the regressed chunk; video: flow matching of the future latents"
    )

    @property
    def video_times(self) -> FlowTimes:
        """Flow times of training."""
        return self.video_shift.times(self.time_precision, self.video_predicts)

    @property
    def sampled_times(self) -> FlowTimes:
        """Flow times of sampling, which are not rounded."""
        return self.video_shift.times("float32", self.video_predicts)

    @property
    def identity(self) -> dict[str, str]:
        """What tells policies of this kind apart in results."""
        return {"objective": self.objective}

    def encoder(self, data: DataSpec, preprocessing: Preprocessing = "training") -> WanEncoder:
        """The frozen half. Raises BadInput naming a missing file."""
        return WanEncoder.load(self.codec, self.text, data, self.video_pool, preprocessing)

    def random_encoder(self, data: DataSpec, precision: torch.dtype) -> WanEncoder:
        """An encoder of the same sizes that needs no files, for measurements of speed."""
        return random_encoder(precision, self.codec, self.text, self.size.text_dim, data, self.video_pool)

    def encoder_modules(self) -> dict[str, nn.Module]:
        """Its networks without their released weights, by row of the parameter table."""
        return {"video codec": build_codec(self.codec)}

    def encoder_facts(
        self, data: DataSpec, instructions: Sequence[str], device: torch.device
    ) -> EncoderFacts:
        """What can be shown of its encoder on this machine."""
        return encoder_facts(
            self.codec,
            self.text,
            instructions,
            device,
            base=self.tuning.base if isinstance(self.tuning, LoRATuning) else "",
        )

    def example_inputs(self, data: DataSpec, batch: int) -> Tree:
        """Zeros in the shapes of a training batch's inputs."""
        return example_inputs(self.codec, self.text, self.size.text_dim, data, self.video_pool, batch)

    def build(self, data: DataSpec, normalizer: Normalizer) -> LightWAM:
        """The policy with random weights; without any under `torch.device("meta")`."""
        return LightWAM(self, data, normalizer)

    def validate_together(self) -> None:
        """BadInput where values do not go together. Older runs may hold such values, so reading one does not ask."""
        check_channels(self.codec, self.size.channels)
        check_text_width(self.text, self.size.text_dim)

    def __post_init__(self) -> None:
        check("policy", self, BOUNDS)
        check("policy.adapters", self.adapters, adapter_bounds(self.size.layers))
        if self.objective == "cotrain_one_pass" and self.video_pool != 1:
            raise BadInput(
                f'policy.video_pool: objective "cotrain_one_pass" needs 1, got {self.video_pool}; use "cotrain"'
            )
        if self.size.width % self.expert.heads:
            raise BadInput(
                f"policy.expert.heads: {self.expert.heads} do not divide the video model's width {self.size.width}"
            )


BOUNDS = {"video_pool": AT_LEAST_1, "video_weight": NOT_NEGATIVE, "action_weight": NOT_NEGATIVE}


@dataclass(frozen=True)
class NoisyClip:
    """Clean present and noised future [b c 1+f h w] at flow time t [b]; what is to be predicted [b c f h w]."""

    latents: Tensor
    target: Tensor
    t: Tensor

    @property
    def times(self) -> Float[Tensor, "b 2"]:
        """Per group: the present is clean (0), the future is at t."""
        return torch.stack([torch.zeros_like(self.t), self.t], dim=1)

    @property
    def groups(self) -> tuple[Frames, ...]:
        """What the frames are."""
        return (PRESENT, future(self.target))


class LightWAM(PolicyModule):
    """See the module docstring. `normalizer` is the policy's own; all public inputs and outputs are physical."""

    def __init__(self, config: LightWAMConfig, data: DataSpec, normalizer: Normalizer) -> None:
        super().__init__(data, normalizer)
        self.config = config
        self.dit = WanDiT(config.size, config.adapters)
        self.expert = StateFusionActionExpert(
            config.expert,
            config.size.width,
            len(config.adapters.layers),
            data.action_dim,
            data.proprio_dim,
        )
        self.proprio_encoder = proprio_encoder(data.proprio_dim, config.size.text_dim)
        if config.tuning.kind == "lora":
            self.dit.requires_grad_(False)
            self.dit.head.requires_grad_(True)
            self.dit.adapters.requires_grad_(True)
            layers = tuple(f"blocks.{i}.{layer}" for i in range(config.size.layers) for layer in LORA_LAYERS)
            add_lora(self.dit, layers, config.tuning.rank, config.tuning.alpha)

    @property
    def unsupported_sections(self) -> tuple[str, ...]:
        """Sections of a run's page that it has nothing for."""
        return FORESIGHT if "video" in self.loss_weights else ("future", *FORESIGHT)

    def separable(self, batch: Batch) -> bool:
        """Losses are means over samples."""
        return True

    @property
    def parts(self) -> PartTable:
        """The rows of its parameter table."""
        return PARTS

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """The losses `forward` returns, and their weights in the total."""
        if self.config.objective == "action_only":
            return {"action": self.config.action_weight}
        return {"video": self.config.video_weight, "action": self.config.action_weight}

    def initialize(self) -> None:
        """What is trained keeps its random weights, its gates opened if asked; the frozen video model is read."""
        match self.config.tuning:
            case FullTuning(open_gates=True):
                open_gates(self.dit.blocks)
        self.load_frozen()

    def load_frozen(self) -> None:
        """Read the video model a LoRA run stands on. Raises BadInput naming a missing file or key."""
        match self.config.tuning:
            case LoRATuning(base=base):
                load_wan(self.dit, Path(base))

    def forward(self, batch: Batch, draws: Draws) -> dict[str, Float[Tensor, ""]]:
        """Unweighted losses by name."""
        return OBJECTIVES[self.config.objective](self, batch, draws)

    @torch.no_grad()
    def act(self, query: Query) -> Float[Tensor, "b k a"]:
        """One chunk per row, physical units, of the steps that are used. Deterministic: the generators are not used."""
        return answer(query, self.states, self.expert, self.normalizer, self.data.horizon)

    @property
    def passes(self) -> tuple[str, ...]:
        """See fused.py and folded_expert.py."""
        return tuple(NEEDS)

    def actor(self, passes: Collection[str], take: Take = SHARED) -> Actor:
        """`act` with these passes; itself without any.

        In float32 chunks agree to about 1e-6 of their size; in bfloat16 weights are folded before they are rounded,
        which moves chunks by as much as bfloat16 itself does. BadInput where a pass misses one that it builds on.
        """
        expect_passes(passes, NEEDS)
        if "fused_blocks" not in passes:
            return take.network(self)._unfused(passes)
        normalizer, own = take.part(self.normalizer), take.network(self.expert)
        expert = FoldedExpert(own, self.data.horizon) if "folded_expert" in passes else own
        return FusedActor(fused_look(self, normalizer, passes, take), expert, normalizer, self.data.horizon)

    def _unfused(self, passes: Collection[str]) -> Actor:
        if not passes:
            return self.act
        normalizer, horizon = self.normalizer, self.data.horizon
        look = (merge_lora(self) if "merged_lora" in passes else self).states
        expert = FoldedExpert(self.expert, horizon) if "folded_expert" in passes else self.expert
        return torch.no_grad()(lambda query: answer(query, look, expert, normalizer, horizon))

    def states(self, query: Query) -> States:
        """What is seen of an observation."""
        taps = self.look(query.inputs["present"], self.context(query.inputs, query.embodiment))
        return (*taps, *proprio_states(self.config.expert, self.normalizer, query))

    def context(self, inputs: Tree, embodiment: Int[Tensor, " b"]) -> Float[Tensor, "b rows text"]:
        """Text rows and, last, the proprio token. All rows stay visible, padding too."""
        return context(inputs, embodiment, self.normalizer, self.proprio_encoder)

    def pool(self, latents: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b c f hp wp"]:
        """Latents at the resolution of the video loss."""
        return pooled(latents, self.config.video_pool)

    def look(
        self, present: Float[Tensor, "b c 1 h w"], context: Float[Tensor, "b l text"]
    ) -> tuple[Float[Tensor, "b s d"], ...]:
        """The action pass: clean present at full resolution, time 0; the adapted states at the taps."""
        now = torch.zeros(1, 1, device=present.device)
        taps = self.config.adapters.layers
        return self.dit.features(present, now, context, (PRESENT,), FIRST_FRAME_CAUSAL, taps)

    def add_noise(self, inputs: Tree, t: Float[Tensor, " b"], noise: Float[Tensor, "b c f h w"]) -> NoisyClip:
        """The clip of the video pass: pooled clean present, noised future."""
        future = self.config.video_times.noised(inputs["future"], noise, t)
        latents = torch.cat([self.pool(inputs["present"]), future.x], dim=2)
        return NoisyClip(latents, future.target, future.t)

    def draw_noise(self, inputs: Tree, draws: Draws) -> NoisyClip:
        """`add_noise` at a random time per sample."""
        future = inputs["future"]
        t = self.config.video_times.draw(draws, future.device)
        return self.add_noise(inputs, t, draws.normal(future))

    def predict(self, clip: NoisyClip, context: Float[Tensor, "b l text"]) -> Float[Tensor, "b c f h w"]:
        """What the video model says of the future frames."""
        out = self.dit(clip.latents, clip.times, context, clip.groups, FIRST_FRAME_CAUSAL)
        return out.predicted[:, :, 1:]

    def video_loss(
        self, predicted: Float[Tensor, "b c f h w"], clip: NoisyClip, batch: Batch
    ) -> Float[Tensor, ""]:
        """Masked squared error of what is predicted of the future, weighted by time."""
        is_pad = latent_is_pad(batch.inputs["frame_is_pad"], batch.inputs["future"].shape[2])
        return video_loss(predicted, clip.target, self.config.video_times.weight(clip.t), is_pad)

    def action_loss(
        self, taps: tuple[Float[Tensor, "b s d"], ...], batch: Batch, draws: Draws
    ) -> Float[Tensor, ""]:
        """Weighted masked squared error of the chunk in unit range."""
        target = self.normalizer.to_unit("action", batch.actions, batch.embodiment)
        horizon, steps = self.data.horizon, self.config.step_weights
        states = (*taps, *proprio_states(self.config.expert, self.normalizer, batch))
        predicted = self.expert(self.expert.hide_proprio(states, draws), horizon)
        weights = prefix_weights(horizon, steps.prefix, steps.weight, steps.tail, target.device)
        return action_loss_per_sample(predicted, target, batch.valid, weights).mean()

    # for reports

    @torch.no_grad()
    def imagine(
        self, query: Query, frames: int, steps: int, generator: torch.Generator
    ) -> Float[Tensor, "b c f h w"]:
        """Sample `frames` future latents in the space of the video loss; with the present before them.

        Decoded images are video_pool times smaller than the canvas.
        """
        present = self.pool(query.inputs["present"])
        return self._imagined(query, noise_like(present.expand(-1, -1, frames, -1, -1), generator), steps)

    @torch.no_grad()
    def foresee(self, query: Query, encoder: WanEncoder) -> Foresight:
        """The mean of what it can imagine: one Euler step from noise alone."""
        present = self.pool(query.inputs["present"])
        return foresight(present, query, encoder, lambda noise: self._imagined(query, noise, steps=1))

    def foreseer(self, passes: Collection[str]) -> Foreseer:
        """`foresee`, by fused blocks where these passes have them. BadInput for a policy trained without video."""
        if "video" not in self.loss_weights:
            raise BadInput(
                f"objective {self.config.objective}: was trained without video and expects nothing"
            )
        if "fused_blocks" in passes:
            return fused_foreseer(self, self.config.sampled_times, passes)
        return self.foresee

    def _imagined(
        self, query: Query, noise: Float[Tensor, "b c f h w"], steps: int
    ) -> Float[Tensor, "b c _ h w"]:
        context, times = self.context(query.inputs, query.embodiment), self.config.sampled_times
        present = self.pool(query.inputs["present"])

        def velocity(future: Tensor, t: Tensor) -> Tensor:
            clip = NoisyClip(torch.cat([present, future], dim=2), future, t)
            return times.velocity(self.predict(clip, context), future, t)

        return torch.cat([present, integrate(noise, velocity, times.grid(steps))], dim=2)

    @torch.no_grad()
    def attention_maps(self, query: Query) -> dict[int, Float[Tensor, "b rows columns"]]:
        """Where the learned queries of each tapped block look, on the token grid; each map sums to 1."""
        present = query.inputs["present"]
        maps = self.expert.attention_maps(self.look(present, self.context(query.inputs, query.embodiment)))
        rows = present.shape[3] // 2
        return {
            layer: tokens.unflatten(1, (rows, -1))
            for layer, tokens in zip(self.config.adapters.layers, maps, strict=True)
        }


# Rows of the parameter table (spec 1.1).
PARTS: PartTable = (
    ("video head", lambda name: name.startswith("dit.head.")),
    ("LoRA", lambda name: ".lora_" in name),
    ("adapters", lambda name: name.startswith("dit.adapters.")),
    ("video DiT", lambda name: name.startswith("dit.")),
    ("action expert", lambda name: name.startswith("expert.")),
    ("proprio encoder", lambda name: name.startswith("proprio_encoder.")),
)
