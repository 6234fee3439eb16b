"""Light-WAM against vectors of the official modules. Every dimension comes from the JSON beside the file."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tests.golden.compare import FORWARD, GRADIENT, LOSS, Golden, Row
from wamkit import flow
from wamkit.data.normalize import Normalizer, Stats
from wamkit.nn.attention import FIRST_FRAME_CAUSAL, visibility_matrix
from wamkit.nn.losses import action_loss_per_sample, latent_is_pad, prefix_weights, video_loss_per_sample
from wamkit.policies.light_wam.convert import ENVELOPE
from wamkit.policies.light_wam.policy import LightWAM, LightWAMConfig, LoRATuning
from wamkit.policies.light_wam.state_fusion import StateFusionConfig
from wamkit.tree import Tree
from wamkit.types import DataSpec
from wamkit.wan.block import Stream
from wamkit.wan.dit import PRESENT, Adapters, WanDiT, WanSize
from wamkit.wan.encoders import BlockCodecConfig, HashedTextConfig

TIMES = flow.Shift(train=5.0, sample=5.0).times("float32")  # of every schedule in the files


def golden_policy(golden: Golden) -> LightWAM:
    """The policy of the file's config, carrying the file's weights."""
    about = golden.about["config"]
    expert = about["sf"]
    config = LightWAMConfig(
        codec=BlockCodecConfig(),
        text=HashedTextConfig(),
        size=WanSize(
            width=about["hidden_dim"],
            ffn=about["ffn_dim"],
            heads=about["num_heads"],
            head_dim=about["attn_head_dim"],
            layers=about["num_layers"],
            channels=about["in_dim"],
            text_dim=about["text_dim"],
            time_dim=about["freq_dim"],
            eps=about["eps"],
        ),
        tuning=LoRATuning(rank=about["lora_rank"], alpha=about["lora_alpha"]),
        adapters=Adapters(
            tuple(about["adapter_layer_indices"]), about["adapter_dim"], about["adapter_scale"]
        ),
        expert=StateFusionConfig(
            queries=expert["token_pooling_num_queries"],
            heads=expert["token_pooling_num_heads"],
            level_dim=expert["per_layer_dim"],
            trunk_dim=expert["trunk_dim"],
            trunk_blocks=expert["num_trunk_blocks"],
            step_dim=expert["step_pos_dim"],
        ),
        video_pool=golden.about["downsample_factor"],
    )
    data = DataSpec(
        views=("image",),
        canvas="single",
        view_height=64,
        view_width=64,
        hz=1.0,
        frame_times=(0.0,),
        chunk_seconds=float(about["horizon"]),
        proprio_dim=about["proprio_dim"],
        action_dim=about["action_dim"],
    )
    fields = {"action": data.action_dim, "proprio": data.proprio_dim}
    stats = {"golden": {name: Stats.of(np.zeros((2, dim))) for name, dim in fields.items()}}
    policy = LightWAM(config, data, Normalizer.fit(stats, {"action": "min_max", "proprio": "min_max"}))
    policy.load_state_dict(ENVELOPE.ours(_official(golden), "golden"))
    return policy


def _official(golden: Golden) -> dict[str, dict[str, Tensor]]:
    parts = ("mot", "state_fusion_action_expert", "proprio_encoder")
    return {part: golden.section(f"params/{part}/") for part in parts}


def light_wam_rows(golden: Golden) -> list[Row]:
    """Compare every group of the file."""
    policy = golden_policy(golden)
    given = golden.section("inputs/")
    proprio = policy.proprio_encoder(given["proprio"][:, 0])
    context = torch.cat([given["context"], proprio], dim=1)
    inputs = {
        "present": given["video_latents"][:, :, :1],
        "future": policy.pool(given["video_latents"][:, :, 1:]),
    }
    with torch.no_grad():
        golden.check("context/with_proprio", context)
        _action_branch(golden, policy, inputs, context)
        _video_branch(golden, policy, inputs, context)
        _expert(golden, policy)
        golden.check(
            "action/pred", policy.expert(policy.look(inputs["present"], context), policy.data.horizon)
        )
        _schedule(golden)
    _losses(golden, policy, inputs)
    return golden.rows


def _rotation(golden: Golden, branch: str, table: Tensor) -> None:
    golden.check(f"rope/{branch}_freqs_real", table[..., 0])
    golden.check(f"rope/{branch}_freqs_imag", table[..., 1])


def _action_branch(golden: Golden, policy: LightWAM, inputs: Tree, context: Tensor) -> None:
    dit, now = policy.dit, torch.zeros(1, 1)
    batch = len(context)
    stream = dit.embed(inputs["present"], now, context, (PRESENT,))
    golden.check("action_branch/tokens_in", stream.tokens)
    golden.check("action_branch/t", stream.time.expand(batch, -1, -1))
    golden.check("action_branch/t_mod_token0", stream.modulation[:, 0].expand(batch, -1, -1))
    golden.check("action_branch/context_emb", stream.context)
    _rotation(golden, "action", stream.rope)
    x = stream.tokens
    for i, (block, adapter) in enumerate(zip(dit.blocks, dit.adapters, strict=True)):
        x = block(x, stream, FIRST_FRAME_CAUSAL)
        golden.check(f"action_branch/block{i}_out", x)
        x = adapter(x)
        if i in policy.config.adapters.layers:
            golden.check(f"action_branch/adapted_{i}", x)
    golden.check("action_branch/final_tokens", x)

    mask = golden.tensors["masked_context/mask"].bool()
    stream = dit.embed(inputs["present"], now, context, (PRESENT,), context_mask=mask)
    golden.check("masked_context/final_tokens", _tokens(dit, stream))


def _tokens(dit: WanDiT, stream: Stream) -> Tensor:
    return dit.run(stream, FIRST_FRAME_CAUSAL, range(dit.size.layers)).tokens


def _video_branch(golden: Golden, policy: LightWAM, inputs: Tree, context: Tensor) -> None:
    given, pooled = golden.section("inputs/"), policy.pool(inputs["present"])
    clip = policy.add_noise(inputs, given["timestep_video"] / 1000, given["noise_lowres"][:, :, 1:])
    golden.check("video_branch/latents_lowres", torch.cat([pooled, inputs["future"]], dim=2))
    golden.check("video_branch/noisy_latents", clip.latents)
    golden.record("video_branch", clip.target, golden.tensors["video_branch/target"][:, :, 1:], FORWARD)
    stream = policy.dit.embed(clip.latents, clip.times, context, clip.groups)
    golden.check("video_branch/tokens_in", stream.tokens)
    golden.check("video_branch/t_mod_clean_token", stream.modulation[:, 0])
    golden.check("video_branch/t_mod_noisy_token", stream.modulation[:, 1])
    _rotation(golden, "video", stream.rope)
    seen = visibility_matrix(FIRST_FRAME_CAUSAL, stream.sizes)
    golden.check("video_branch/self_attn_mask", seen.to(torch.uint8))
    tokens = _tokens(policy.dit, stream)
    golden.check("video_branch/final_tokens", tokens)
    golden.check("video_branch/pred_velocity", policy.dit.head(tokens, stream))


def _expert(golden: Golden, policy: LightWAM) -> None:
    expert, horizon = policy.expert, policy.data.horizon
    levels = range(len(expert.poolers))
    states = tuple(golden.tensors[f"expert/in_{i}"] for i in levels)
    for i, state in enumerate(states):
        pooled = expert.poolers[i](state)
        golden.check(f"expert/pooled_{i}", pooled)
        golden.check(f"expert/compressed_{i}", expert.compressors[i](pooled))
    compressed = torch.cat([golden.tensors[f"expert/compressed_{i}"] for i in levels], dim=-1)
    golden.check("expert/fused", expert.fused_proj(expert.fused_norm(compressed)))
    golden.check("expert/trunk", expert.fuse(states))
    golden.check("expert/step_pos", expert.steps(horizon))
    golden.check("expert/out", expert(states, horizon))
    golden.check("expert/out_horizon5", expert(states, 5))


def _schedule(golden: Golden) -> None:
    golden.check("scheduler/sigma", TIMES.drawn.levels(golden.tensors["scheduler/u"]))
    golden.check("scheduler/weight", TIMES.weight(golden.tensors["scheduler/t"] / 1000))
    grid = TIMES.grid(10)
    golden.check("scheduler/infer10_timesteps", 1000 * grid.times[:-1])
    golden.check("scheduler/infer10_deltas", grid.strides)


def _losses(golden: Golden, policy: LightWAM, inputs: Tree) -> None:
    given = golden.section("inputs/")
    context = torch.cat([given["context"], policy.proprio_encoder(given["proprio"][:, 0])], dim=1)
    t = given["timestep_video"] / 1000
    clip = policy.add_noise(inputs, t, given["noise_lowres"][:, :, 1:])
    predicted = policy.predict(clip, context)
    actions = policy.expert(policy.look(inputs["present"], context), policy.data.horizon)
    horizon = policy.data.horizon
    frames, steps = (golden.tensors[f"pads/{field}_is_pad"].bool() for field in ("image", "action"))
    valid = ~steps[..., None].expand_as(actions)
    pads = {True: (frames, valid), False: (torch.zeros_like(frames), torch.ones_like(valid))}
    golden.check("loss/video_timestep_weight", TIMES.weight(t), LOSS)
    for is_padded, name in ((False, "plain"), (True, "padded")):
        frames, valid = pads[is_padded]
        video = video_loss_per_sample(predicted, clip.target, latent_is_pad(frames, clip.target.shape[2]))
        action = action_loss_per_sample(actions, given["action"], valid, torch.ones(horizon))
        golden.check(f"loss/video_per_sample_{name}", video.detach(), LOSS)
        golden.check(f"loss/action_per_sample_{name}", action.detach(), LOSS)

    for name, case in golden.about["loss_cases"].items():
        frames, valid = pads[name.startswith("padded")]
        weights = prefix_weights(horizon, *(case["temporal_weighting"] or (horizon, 1.0, 0.0)))
        video = TIMES.weight(t) * video_loss_per_sample(
            predicted, clip.target, latent_is_pad(frames, clip.target.shape[2])
        )
        losses = {
            "video": video.mean(),
            "action": action_loss_per_sample(actions, given["action"], valid, weights).mean(),
        }
        total = losses["video"] * (name != "action_only") + losses["action"] * (name != "video_only")
        for key, value in (*losses.items(), ("total", total)):
            golden.record("loss_cases", value.detach(), case[f"loss_{key}"], LOSS)
        _gradients(golden, policy, total, name, case)


def _gradients(golden: Golden, policy: LightWAM, total: Tensor, name: str, case: dict) -> None:
    policy.zero_grad()
    total.backward(retain_graph=True)
    squares = dict.fromkeys(case["grad_norm_groups"], 0.0)
    for key, parameter in policy.named_parameters():
        if parameter.requires_grad and parameter.grad is not None:
            squares[_group(key)] += float(parameter.grad.double().square().sum())
    for group, norm in case["grad_norm_groups"].items():
        golden.record("grad_norm_groups", squares[group] ** 0.5, norm, GRADIENT)
    golden.record("grad_norm_groups", sum(squares.values()) ** 0.5, case["grad_norm_total"], GRADIENT)
    if name == "plain":
        grads = {key: p.grad for key, p in policy.named_parameters() if p.grad is not None}
        ours = _our_names(golden)
        for official, norm in golden.about["grad_norm_per_param_plain"].items():
            golden.record("grad_norm_per_param", float(grads[ours[official]].norm()), norm, GRADIENT)


def _group(key: str) -> str:
    groups = {
        "lora_": "lora",
        "dit.adapters.": "wam_adapters",
        "dit.head.": "head",
        "expert.": "state_fusion_action_expert",
        "proprio_encoder.": "proprio_encoder",
    }
    return next(group for part, group in groups.items() if part in key)


_GRADIENT_PREFIXES = {
    "mot": "",
    "state_fusion_action_expert": "state_fusion_action_expert.",
    "proprio_encoder": "proprio_encoder.",
}


def _our_names(golden: Golden) -> dict[str, str]:
    """Names as the gradient list spells them (`video_expert.` for the checkpoint's `mixtures.video.`) -> ours."""
    official = _official(golden)
    ours = {id(tensor): name for name, tensor in ENVELOPE.ours(official, "golden").items()}
    names = {}
    for part, prefix in _GRADIENT_PREFIXES.items():
        for name, tensor in official[part].items():
            names[prefix + name.replace("mixtures.video.", "video_expert.")] = ours[id(tensor)]
    return names
