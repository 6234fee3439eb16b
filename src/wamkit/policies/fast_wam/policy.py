"""Fast-WAM: a video model and a smaller action model share attention; the chunk is sampled by flow matching.

The present frame looks at nothing else, so acting encodes it once and reuses its keys and values in every step.
Variants (policies/fast_wam/variants.py) differ in what the actions may look at and what is imagined before acting.
arXiv 2603.16666; every formula in the code's own terms: spec sections 1-3. The full-size model (Wan2.2-TI2V-5B, all
weights trained) and the small preset (block codec, from scratch) are this class with other configs.
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

from wamkit.bounds import AT_LEAST_1, FRACTION, NOT_NEGATIVE, check
from wamkit.data.normalize import Normalizer
from wamkit.draws import Draws
from wamkit.flow import FlowTimes, Noised, Predicts, Shift, Steering, TimePrecision, noise_like
from wamkit.foresight import Foreseer, Foresight
from wamkit.nn.attention import only
from wamkit.nn.wavefront import in_turns, walking
from wamkit.policies.base import FORESIGHT, EncoderFacts, PolicyConfig, PolicyModule, expect_passes
from wamkit.policies.continuing import Continuing, RealTimeChunking
from wamkit.policies.fast_wam.acting import ByNetwork, Drawing, SampledActor
from wamkit.policies.fast_wam.action_dit import ActionDiT
from wamkit.policies.fast_wam.action_init import RULES, start_from_video
from wamkit.policies.fast_wam.fused import NEEDS, FusedSampler, SeenBy
from wamkit.policies.fast_wam.losses import LOSSES, States
from wamkit.policies.fast_wam.mixture import empty_cache, run_together
from wamkit.policies.fast_wam.noising import NOISE
from wamkit.policies.fast_wam.pieces import FusedActor
from wamkit.policies.fast_wam.sampling import Noise, NoiseProtocol, Sample, frames, imagine, sample
from wamkit.policies.fast_wam.variants import Variant, acting, variant
from wamkit.policies.fused_context import Context, EveryRow, KeptRows
from wamkit.policies.fused_foresight import fused_foreseer
from wamkit.policies.wan_encoder import (
    WanEncoder,
    context,
    encoder_facts,
    example_inputs,
    foresight,
    proprio_encoder,
    random_encoder,
)
from wamkit.taking import SHARED, Take
from wamkit.tree import Tree
from wamkit.types import Actor, Batch, DataSpec, PartTable, Preprocessing, Query
from wamkit.wan.block import TransformerSize, open_gates
from wamkit.wan.checkpoint import load_wan
from wamkit.wan.dit import NO_ADAPTERS, SIZES, WanDiT, WanSize
from wamkit.wan.encoders import (
    CodecConfig,
    TextConfig,
    UMT5Config,
    WanVAEConfig,
    build_codec,
    check_channels,
    check_text_width,
    temporal,
)


@dataclass(frozen=True)
class FromVideoModel:
    """Training starts from a released video model.

    base: a file or folder (wan/checkpoint.py). action: the rule that shrinks it to the action model
    (policies/fast_wam/action_init.py).
    """

    base: str = "weights/Wan2.2-TI2V-5B"
    action: Literal["published", "corrected"] = "published"
    kind: Literal["video_model"] = "video_model"


@dataclass(frozen=True)
class FromScratch:
    """Training starts from random weights (small presets), with open gates.

    Wan's gates start near zero, as suits a model that is to be trained for long; with one added to them (a residual
    block without modulation) the small presets reach the same action loss in half the steps (docs/log.md).
    """

    kind: Literal["scratch"] = "scratch"


@dataclass(frozen=True)
class FastWAMConfig(PolicyConfig):
    """Defaults are the published full-size model.

    action_width, action_ffn: of the action model; depth, heads and head channels are the video model's.
    variant: a row of policies/fast_wam/variants.py; mode: which of its ways of acting, "" for its first or only one.
    video_weight, action_weight: of the losses. sample_steps: Euler steps when acting.
    video_shift, action_shift, time_precision: of flow times, training and sampling. video_predicts, action_predicts:
    what either network says of what is noised (wamkit.flow.PREDICTIONS). noise: where sampling begins, as
    `Observation.noise_seed` says, or the same for every query as in the published evaluations (sampling.py).
    chunking: how a chunk continues the previous one.
    given_noise: probability that a training sample of IDM is conditioned on a noised future, so that it forgives
    imagined ones; idm_share: that a sample of Optional-IDM is one of IDM.
    """

    codec: CodecConfig = field(
        default_factory=lambda: WanVAEConfig(path="weights/Wan2.2-TI2V-5B", size="2.2")
    )
    text: TextConfig = field(default_factory=lambda: UMT5Config(path="weights/Wan2.2-TI2V-5B"))
    size: WanSize = SIZES["5B"]
    action_width: int = 1024
    action_ffn: int = 4096
    start: FromVideoModel | FromScratch = field(default_factory=FromVideoModel)
    variant: str = "fast"
    mode: str = ""
    video_weight: float = 1.0
    action_weight: float = 1.0
    sample_steps: int = 10
    video_shift: Shift = Shift()
    action_shift: Shift = Shift()
    video_predicts: Predicts = "velocity"
    action_predicts: Predicts = "velocity"
    time_precision: TimePrecision = "float32"
    noise: NoiseProtocol = "per_query"
    chunking: RealTimeChunking = RealTimeChunking()
    given_noise: float = 0.5
    idm_share: float = 0.5
    kind: Literal["fast_wam"] = "fast_wam"
    exported: ClassVar[tuple[str, ...]] = ("fused_blocks", "still_codec", "device_images")
    about_losses: ClassVar[str] = (
        "action and video: flow matching, the squared error of a predicted velocity (never zero)"
    )

    def __post_init__(self) -> None:
        acting(self.variant, self.mode)
        check("policy", self, BOUNDS)

    def validate(self, trained: object) -> None:
        """BadInput where weights that were trained as `trained` cannot act as this variant."""
        asked = acting(self.variant, self.mode)
        blind = isinstance(trained, FastWAMConfig) and not variant(trained.variant).trains_video
        if blind and asked.imagines != "nothing":
            raise BadInput(
                f"policy.variant: {asked.title} imagines the future, and this policy was trained without video; "
                f"ask for a variant that imagines nothing, or train {self.variant}"
            )

    @property
    def identity(self) -> dict[str, str]:
        """What tells policies of this kind apart in results."""
        modes = {"mode": self.mode} if variant(self.variant).modes else {}
        return {"variant": self.variant, **modes, "sample_steps": str(self.sample_steps)}

    continues: ClassVar[bool] = True
    inference_overrides: ClassVar[tuple[str, ...]] = (
        "variant",
        "mode",
        "sample_steps",
        "noise",
        "chunking",
        "video_shift.sample",
        "action_shift.sample",
    )

    def encoder(self, data: DataSpec, preprocessing: Preprocessing = "training") -> WanEncoder:
        """The frozen half; the future is supervised at full resolution. Raises BadInput naming a missing file."""
        return WanEncoder.load(self.codec, self.text, data, 1, preprocessing)

    def random_encoder(self, data: DataSpec, precision: torch.dtype) -> WanEncoder:
        """An encoder of the same sizes that needs no files, for measurements of speed."""
        return random_encoder(precision, self.codec, self.text, self.size.text_dim, data, pool=1)

    def encoder_modules(self) -> dict[str, nn.Module]:
        """Its networks without their released weights, by row of the parameter table."""
        return {"video codec": build_codec(self.codec)}

    def encoder_facts(
        self, data: DataSpec, instructions: Sequence[str], device: torch.device
    ) -> EncoderFacts:
        """What can be shown of its encoder on this machine."""
        return encoder_facts(self.codec, self.text, instructions, device)

    def example_inputs(self, data: DataSpec, batch: int) -> Tree:
        """Zeros in the shapes of a training batch's inputs."""
        return example_inputs(self.codec, self.text, self.size.text_dim, data, 1, batch)

    def build(self, data: DataSpec, normalizer: Normalizer) -> FastWAM:
        """The policy with random weights; without any under `torch.device("meta")`."""
        return FastWAM(self, data, normalizer)

    def validate_together(self) -> None:
        """BadInput where values do not go together. Older runs may hold such values, so reading one does not ask."""
        check_channels(self.codec, self.size.channels)
        check_text_width(self.text, self.size.text_dim)

    @property
    def video_times(self) -> FlowTimes:
        """Flow times of the video model."""
        return self.video_shift.times(self.time_precision, self.video_predicts)

    @property
    def action_times(self) -> FlowTimes:
        """Flow times of the action model."""
        return self.action_shift.times(self.time_precision, self.action_predicts)

    @property
    def action_size(self) -> TransformerSize:
        """The action model's shape."""
        video = self.size
        return TransformerSize(
            width=self.action_width,
            ffn=self.action_ffn,
            heads=video.heads,
            head_dim=video.head_dim,
            layers=video.layers,
            text_dim=video.text_dim,
            time_dim=video.time_dim,
            eps=video.eps,
        )


BOUNDS = {
    **dict.fromkeys(("action_width", "action_ffn", "sample_steps"), AT_LEAST_1),
    **dict.fromkeys(("video_weight", "action_weight"), NOT_NEGATIVE),
    **dict.fromkeys(("given_noise", "idm_share"), FRACTION),
}


class FastWAM(PolicyModule):
    """See the module docstring. `normalizer` is the policy's own; all public inputs and outputs are physical."""

    def __init__(self, config: FastWAMConfig, data: DataSpec, normalizer: Normalizer) -> None:
        super().__init__(data, normalizer)
        self.config = config
        self.dit = WanDiT(config.size, NO_ADAPTERS)
        self.action = ActionDiT(config.action_size, data.action_dim)
        self.proprio_encoder = proprio_encoder(data.proprio_dim, config.size.text_dim)

    @property
    def variant(self) -> Variant:
        """Its row of the table, which it is trained as."""
        return variant(self.config.variant)

    @property
    def acting(self) -> Variant:
        """The row it acts as."""
        return acting(self.config.variant, self.config.mode)

    def times(self, network: Literal["video", "action"]) -> FlowTimes:
        """Flow times of a network."""
        return {"video": self.config.video_times, "action": self.config.action_times}[network]

    @property
    def unsupported_sections(self) -> tuple[str, ...]:
        """Sections of a run's page that it has nothing for."""
        lacking = ("attention", *FORESIGHT)
        return lacking if self.variant.trains_video else ("future", *lacking)

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
        weights = {"video": self.config.video_weight, "action": self.config.action_weight}
        return weights if self.variant.trains_video else {"action": self.config.action_weight}

    def initialize(self) -> None:
        """Where training starts. Raises BadInput naming a missing file or key of the video model."""
        match self.config.start:
            case FromVideoModel(base=base, action=rule):
                load_wan(self.dit, Path(base))
                start_from_video(self.action, self.dit, RULES[rule])
            case FromScratch():
                open_gates(self.dit.blocks)
                open_gates(self.action.blocks)

    def forward(self, batch: Batch, draws: Draws) -> dict[str, Float[Tensor, ""]]:
        """Unweighted losses by name."""
        noised = self.add_noise(batch, draws)
        context = self.context(batch.inputs, batch.embodiment)
        if not self.variant.sometimes:
            return self.losses(noised, context, batch)
        whole = [number < self.config.idm_share for number in draws.decisions()]
        always = {group: x for group, x in noised.items() if group not in self.variant.sometimes}
        total = dict.fromkeys(self.loss_weights, torch.zeros((), device=context.device))
        for groups, is_whole in ((noised, True), (always, False)):
            chosen = [row for row, own in enumerate(whole) if own == is_whole]
            if chosen:
                rows = torch.tensor(chosen).to(context.device, non_blocking=True)
                some = {group: x.rows(rows) for group, x in groups.items()}
                found = self.losses(some, context[rows], batch.rows(chosen))
                share = len(chosen) / len(whole)
                total = {name: total[name] + share * loss for name, loss in found.items()}
        return total

    def losses(
        self, noised: Mapping[str, Noised], context: Float[Tensor, "b l text"], batch: Batch
    ) -> dict[str, Float[Tensor, ""]]:
        """Of samples that have the same groups."""
        states = self.look(noised, context)
        return {name: LOSSES[name](self, states, noised, batch) for name in self.loss_weights}

    def act(self, query: Query) -> Float[Tensor, "b k a"]:
        """One sampled chunk per row, physical units; each row draws its noise from its own generator."""

        def sampler(present: Tensor, context: Tensor, noise: Noise, steer: Steering) -> Sample:
            return sample(self, present, context, noise, self.config.sample_steps, steer)

        rows: EveryRow[Tensor] = EveryRow(lambda text: text, self.proprio_encoder, self.normalizer)
        return SampledActor(
            sampler, rows, self.draw_noise, self.normalizer, self.continuing(self.normalizer)
        )(query)

    @property
    def passes(self) -> tuple[str, ...]:
        """See fused.py."""
        return tuple(NEEDS)

    def actor(self, passes: Collection[str], take: Take = SHARED) -> Actor:
        """`act` with these passes; itself without any. Raises BadInput where a pass misses one that it builds on."""
        expect_passes(passes, NEEDS)
        if "fused_blocks" not in passes:
            return take.network(self).act
        normalizer, proprio = take.part(self.normalizer), take.part(self.proprio_encoder)
        device = normalizer.dimensions("action").device
        together = walking(device) if "two_streams" in passes else in_turns
        sampler = FusedSampler(self, self.config.sample_steps, together, take)
        rows: Context[SeenBy] = EveryRow(sampler.look, proprio, normalizer)
        if "kept_text" in passes:
            kept = {name: KeptRows(see, proprio, normalizer) for name, see in sampler.contexts.items()}
            rows = ByNetwork(kept)
        continuing = self.continuing(normalizer)
        return FusedActor(sampler.answer, rows, self.draw_noise, normalizer, continuing, sampler)

    def context(self, inputs: Tree, embodiment: Int[Tensor, " b"]) -> Float[Tensor, "b rows text"]:
        """Text rows and, last, the proprio token. All rows stay visible, padding too."""
        return context(inputs, embodiment, self.normalizer, self.proprio_encoder)

    def add_noise(self, batch: Batch, draws: Draws) -> dict[str, Noised]:
        """Every group of the variant's sequence; the actions' noise is drawn first, so that variants share it."""
        inputs = batch.inputs
        known = {
            "action": self.normalizer.to_unit("action", batch.actions, batch.embodiment),
            "future": inputs["future"],
            "given": inputs["future"],
            "present": inputs["present"],
        }
        groups = self.variant.groups
        return {group: NOISE[group](x, draws, self.config) for group, x in known.items() if group in groups}

    def look(self, noised: Mapping[str, Noised], context: Float[Tensor, "b l text"]) -> States:
        """One pass of both networks over the groups of the variant's sequence that `noised` has."""
        sees = only(self.variant.sees, noised)
        names = [group for group, _ in sees if group != "action"]
        video = self.dit.embed(
            torch.cat([noised[name].x for name in names], dim=2),
            torch.stack([noised[name].t for name in names], dim=1),
            context,
            tuple(frames(name, noised[name].x) for name in names),
        )
        action = self.action.embed(noised["action"].x, noised["action"].t, context)
        parts = [(self.dit.blocks, video), (self.action.blocks, action)]
        tokens = run_together(parts, sees, empty_cache(self.dit.blocks))
        return States(video=tokens[0], action=tokens[1], stream=video)

    @property
    def draw_noise(self) -> Drawing:
        """Draws where sampling begins."""
        latents = (len(self.data.frame_times) - 1) // temporal(self.config.codec)
        imagined = 0 if self.acting.imagines == "nothing" else latents
        return Drawing(self.config.noise, imagined, (self.data.horizon, self.data.action_dim))

    def continuing(self, normalizer: Normalizer) -> Continuing:
        """How it does. normalizer: its own, or that of an actor."""
        times = self.times("action")
        return Continuing.of(self.config.chunking, normalizer, times.grid(self.config.sample_steps))

    # for reports

    def pool(self, latents: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b c f h w"]:
        """As they are, which is the resolution of the video loss."""
        return latents

    @torch.no_grad()
    def imagine(
        self, query: Query, frames: int, steps: int, generator: torch.Generator
    ) -> Float[Tensor, "b c f h w"]:
        """Sample `frames` future latents; with the present before them.

        Raises BadInput for a policy trained without video.
        """
        present = query.inputs["present"]
        return self._imagined(query, noise_like(present.expand(-1, -1, frames, -1, -1), generator), steps)

    @torch.no_grad()
    def foresee(self, query: Query, encoder: WanEncoder) -> Foresight:
        """The mean of what it can imagine: one Euler step from noise alone. BadInput as of `imagine`."""
        present = query.inputs["present"]
        return foresight(present, query, encoder, lambda noise: self._imagined(query, noise, steps=1))

    def foreseer(self, passes: Collection[str]) -> Foreseer:
        """`foresee`, by fused blocks where these passes have them. BadInput as of `imagine`."""
        self._expect_video()
        if "fused_blocks" in passes:
            return fused_foreseer(self, self.config.video_times, passes)
        return self.foresee

    def _imagined(
        self, query: Query, noise: Float[Tensor, "b c f h w"], steps: int
    ) -> Float[Tensor, "b c _ h w"]:
        self._expect_video()
        context, present = self.context(query.inputs, query.embodiment), query.inputs["present"]
        return torch.cat([present, imagine(self, present, context, noise, steps)], dim=2)

    def _expect_video(self) -> None:
        if not self.variant.trains_video:
            raise BadInput(f"{self.variant.title}: was trained without video and cannot imagine any")


# Rows of the parameter table (spec 1.1).
PARTS: PartTable = (
    ("video DiT", lambda name: name.startswith("dit.")),
    ("action DiT", lambda name: name.startswith("action.")),
    ("proprio encoder", lambda name: name.startswith("proprio_encoder.")),
)
