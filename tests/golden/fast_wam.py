"""Fast-WAM and its variants against vectors of the official modules. Every dimension comes from the files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from tests.golden.compare import FORWARD, GRADIENT, LOSS, Golden, Row
from tests.policies.plain_fast_wam import predictions, sample_by_looking
from wamkit import flow
from wamkit.data.normalize import Normalizer, Stats
from wamkit.flow import Noised, unsteered
from wamkit.nn.attention import visibility_matrix
from wamkit.policies.fast_wam.action_dit import ActionDiT
from wamkit.policies.fast_wam.action_init import RULES, start_from_video
from wamkit.policies.fast_wam.convert import ENVELOPE
from wamkit.policies.fast_wam.fused import FusedSampler
from wamkit.policies.fast_wam.losses import LOSSES
from wamkit.policies.fast_wam.noising import clean
from wamkit.policies.fast_wam.policy import FastWAM, FastWAMConfig, FromScratch
from wamkit.policies.fast_wam.sampling import SAMPLERS, Noise, look, sample
from wamkit.types import Batch, DataSpec
from wamkit.wan.dit import WanSize
from wamkit.wan.encoders import BlockCodecConfig, HashedTextConfig

OUTPUT, INIT = 1e-5, 2e-5
VARIANTS = {"fastwam": "fast", "joint": "joint", "idm": "idm", "nocotrain": "no_video"}
UNPADDED, GRADIENTS = "_without_pad_masks", "grad_l2_"
MODES = {"min/max": "min_max", "z-score": "z_score"}
ROBOT = "golden"
TIMES = flow.Shift(train=5.0, sample=5.0).times("float32")  # of every schedule in the files


def golden_policy(golden: Golden, variant: str) -> FastWAM:
    """The policy of the file's config and weights; its normaliser changes nothing (the vectors are in unit range)."""
    about = golden.about["config"]
    config = FastWAMConfig(
        codec=BlockCodecConfig(),
        text=HashedTextConfig(width=about["text"], length=about["L"]),
        size=WanSize(
            width=about["hidden"],
            ffn=about["ffn"],
            heads=about["heads"],
            head_dim=about["head_dim"],
            layers=about["layers"],
            channels=about["cin"],
            text_dim=about["text"],
            time_dim=about["freq"],
            eps=about["eps"],
        ),
        action_width=about["a_hidden"],
        action_ffn=about["a_ffn"],
        start=FromScratch(),
        variant=variant,
    )
    data = DataSpec(
        views=("image",),
        canvas="single",
        view_height=64,
        view_width=64,
        hz=1.0,
        frame_times=tuple(float(time) for time in range(about["video_frames"])),
        chunk_seconds=float(about["H"]),
        proprio_dim=about["pdim"],
        action_dim=about["adim"],
    )
    fields = {"action": data.action_dim, "proprio": data.proprio_dim}
    stats = {name: Stats.of(np.array([[-1.0] * dim, [1.0] * dim])) for name, dim in fields.items()}
    policy = FastWAM(config, data, Normalizer.fit({ROBOT: stats}, dict.fromkeys(fields, "min_max")))
    policy.load_state_dict(ENVELOPE.ours(_official(golden), "golden"))
    return policy


def _official(golden: Golden) -> dict[str, dict[str, Tensor]]:
    return {part: golden.section(f"weights.{part}.") for part in ("mot", "proprio_encoder")}


def fast_wam_rows(golden: Golden) -> list[Row]:
    """Compare every group of the file."""
    policies = {name: golden_policy(golden, name) for name in VARIANTS.values()}
    batch, noised = _batch(golden), _noised(golden)
    predicted = {name: _predict(policy, batch, noised) for name, policy in policies.items()}
    _training(golden, predicted)
    _losses(golden, policies, batch, noised)
    _gradients(golden, policies, batch, noised)
    with torch.no_grad():
        _cache(golden, policies["fast"])
        _sampling(golden, policies)
        _checks(golden, policies, predicted)
    _initialisation(golden, policies["fast"])
    _schedule(golden)
    _normaliser(golden)
    return golden.rows


def _batch(golden: Golden) -> Batch:
    given = golden.section("in.")
    size = len(given["action"])
    return Batch(
        inputs={
            "present": given["latents"][:, :, :1],
            "future": given["latents"][:, :, 1:],
            "context": given["context"],
            "proprio": given["proprio"],
            "frame_is_pad": given["image_is_pad"].bool(),
        },
        actions=given["action"],
        valid=~given["action_is_pad"].bool()[..., None].expand_as(given["action"]),
        embodiment=_robots(size),
        hz=torch.ones(size),
        ids=(ROBOT,) * size,
    )


def _robots(rows: int) -> Tensor:
    """The normaliser's only row, for every row of a batch."""
    return torch.zeros(rows, dtype=torch.int64)


def _noised(golden: Golden) -> dict[str, Noised]:
    """The groups of all variants at the file's times and noise."""
    given = golden.section("in.")
    present, future = given["latents"][:, :, :1], given["latents"][:, :, 1:]
    condition = torch.where(given["cond_noise_mask"].bool(), given["t_cond"], 0.0)
    return {
        "present": clean(present),
        "future": _at(future, given["noise_video"][:, :, 1:], given["t_video"]),
        "given": _at(future, given["noise_cond"][:, :, 1:], condition),
        "action": _at(given["action"], given["noise_action"], given["t_action"]),
    }


def _at(x: Tensor, noise: Tensor, timestep: Tensor) -> Noised:
    return TIMES.noised(x, noise, timestep / 1000)


def _predict(policy: FastWAM, batch: Batch, noised: Mapping[str, Noised]) -> dict[str, Tensor]:
    states = policy.look(noised, policy.context(batch.inputs, batch.embodiment))
    return {name: x.detach() for name, x in predictions(policy, states, noised).items()}


def _training(golden: Golden, predicted: Mapping[str, Mapping[str, Tensor]]) -> None:
    for name, expected in golden.tensors.items():
        if found := re.fullmatch(r"(\w+)\.train\.pred_(video|action)", name):
            official, what = found.groups()
            ours = predicted[VARIANTS[official]]
            value = {"video": torch.cat([ours["present"], ours["future"]], dim=2), "action": ours["action"]}
            golden.record(f"{official}.train.{what}", value[what], expected, OUTPUT)


def _losses_of(policy: FastWAM, batch: Batch, noised: Mapping[str, Noised]) -> dict[str, Tensor]:
    states = policy.look(noised, policy.context(batch.inputs, batch.embodiment))
    return {name: LOSSES[name](policy, states, noised, batch) for name in policy.loss_weights}


def _losses(
    golden: Golden, policies: Mapping[str, FastWAM], batch: Batch, noised: Mapping[str, Noised]
) -> None:
    unpadded = replace(
        batch,
        inputs=batch.inputs | {"frame_is_pad": torch.zeros_like(batch.inputs["frame_is_pad"])},
        valid=torch.ones_like(batch.valid),
    )
    for case, expected in golden.about["losses"].items():
        name = case.removesuffix(UNPADDED)
        losses = _losses_of(policies[VARIANTS[name]], batch if name == case else unpadded, noised)
        ours = {f"loss_{key}": loss.item() for key, loss in losses.items()}
        for key, value in ({"loss_video": 0.0} | ours | {"total": sum(ours.values())}).items():
            golden.record("losses", value, expected[key], LOSS)


def _gradients(
    golden: Golden, policies: Mapping[str, FastWAM], batch: Batch, noised: Mapping[str, Noised]
) -> None:
    """Of the total loss; a parameter that it does not reach has gradient 0."""
    official = _official(golden)
    ours = {id(tensor): name for name, tensor in ENVELOPE.ours(official, "golden").items()}
    names = {key: ours[id(x)] for key, x in official["mot"].items()}
    names |= {f"proprio_encoder.{key}": ours[id(x)] for key, x in official["proprio_encoder"].items()}
    for group in [key for key in golden.about if key.startswith(GRADIENTS)]:
        policy = policies[VARIANTS[group.removeprefix(GRADIENTS)]]
        sum(_losses_of(policy, batch, noised).values()).backward()
        parameters = dict(policy.named_parameters())
        for key, norm in golden.about[group].items():
            grad = parameters[names[key]].grad
            golden.record(group, 0.0 if grad is None else grad.norm(), norm, GRADIENT)


def _acting(golden: Golden, policy: FastWAM) -> tuple[Tensor, Tensor, Noise]:
    """(present, context, noise) of the file's sampling runs."""
    given = golden.section("infer.")
    first = given["first_frame_latents"]
    inputs = {"context": given["context"], "proprio": given["proprio"]}
    context = policy.context(inputs, _robots(len(first)))
    return first, context, Noise(given["noise_action"], given["noise_video"][:, :, 1:])


def _cache(golden: Golden, policy: FastWAM) -> None:
    present, context, _ = _acting(golden, policy)
    cache = look(policy, present, context).cache
    probes = {"k_first": cache[0]["present"].k, "v_last": cache[-1]["present"].v}
    for name, heads in probes.items():
        ours = heads.transpose(1, 2).flatten(2)
        golden.record("fastwam.infer.cache", ours, golden.tensors[f"fastwam.infer.cache_{name}"], OUTPUT)


def _sampling(golden: Golden, policies: Mapping[str, FastWAM]) -> None:
    present, context, noise = _acting(golden, policies["fast"])
    for name, expected in golden.tensors.items():
        if found := re.fullmatch(r"(\w+)\.infer\.(action|video_latents)_(\d+)steps", name):
            official, what, steps = found.groups()
            policy = policies[VARIANTS[official]]
            plain = sample(policy, present, context, noise, int(steps))
            fused = FusedSampler(policy, int(steps)).sample(present, context, noise)
            for group, ours in ((f"{official}.infer.{what}", plain), ("fused", fused)):
                clip = torch.cat([present, ours.future], dim=2)
                value = {"action": ours.action[0], "video_latents": clip}
                golden.record(group, value[what], expected, OUTPUT)


def _checks(
    golden: Golden, policies: Mapping[str, FastWAM], predicted: Mapping[str, Mapping[str, Tensor]]
) -> None:
    """What the file says of the official modules, asked of ours: two ways to the same numbers."""
    fast, joint, idm = (policies[name] for name in ("fast", "joint", "idm"))
    present, context, noise = _acting(golden, fast)
    steps = golden.about["config"]["n_other"]
    rollout = sample(joint, present, context, noise, steps)
    plain = sample_by_looking(joint, present, context, noise, steps)
    known = look(fast, present, context)
    chunks = {
        way: SAMPLERS[way](fast, known, noise, steps, unsteered).action for way in ("nothing", "alongside")
    }
    with_video, without = (predicted[name]["action"] for name in ("fast", "no_video"))
    pairs = {
        "nocotrain_pred_action_equals_fastwam": (without, with_video),
        "first_frame_only_pred_action_vs_full": (without, with_video),
        "joint_infer_action_vs_infer_joint": (rollout.action, plain.action),
        "joint_vs_idm_video_latents": (rollout.future, sample(idm, present, context, noise, steps).future),
        "fastwam_joint_rollout_vs_cached_action": (chunks["alongside"], chunks["nothing"]),
    }
    seen = visibility_matrix(fast.variant.sees, {"present": 2, "action": 3})
    mask = {
        "video_rows_see_action": seen[:2, 2:].any(),
        "action_rows_all_true": seen[2:].all(),
        "first_frame_block_all_true": seen[:2, :2].all(),
    }
    for name, expected in golden.about["checks"].items():
        if name == "cached_inference_mask":
            for what, answer in expected.items():
                golden.record("checks", mask[what], answer, OUTPUT)
        else:
            golden.record("checks", *pairs[name], OUTPUT)


def _initialisation(golden: Golden, policy: FastWAM) -> None:
    action = ActionDiT(policy.config.action_size, policy.data.action_dim)
    start_from_video(action, policy.dit, RULES["published"])
    ours = action.state_dict()
    for name, expected in golden.section("init.action.").items():
        golden.record("init.action", ours[name], expected, INIT)


def _schedule(golden: Golden) -> None:
    about, given = golden.about["schedule"], golden.section("in.")
    for name in [key for key in about if key.startswith("timesteps_")]:
        steps = int(name.removeprefix("timesteps_"))
        grid = TIMES.grid(steps)
        golden.record("schedule", 1000 * grid.times[:-1], torch.tensor(about[name]), FORWARD)
        golden.record("schedule", grid.strides, torch.tensor(about[f"deltas_{steps}"]), FORWARD)
    golden.record("schedule", flow.BUMP_MINIMUM, about["y_min"], FORWARD)
    golden.record("schedule", flow.bump_mean(5.0), about["norm_const"], FORWARD)
    weights = {float(t): weight for t, weight in about["train_weight"].items()}
    ours = TIMES.weight(torch.tensor(list(weights)) / 1000)
    golden.record("loss_weight", ours, torch.tensor(list(weights.values())), LOSS)
    for name, used in about["loss_weights_used"].items():
        golden.record("loss_weight", TIMES.weight(given[f"t_{name}"] / 1000), torch.tensor(used), LOSS)


def _normaliser(golden: Golden) -> None:
    about = golden.about["normaliser"]
    known = {name: np.array(about["stats"][name]) for name in ("min", "max", "mean", "std")}
    unknown = dict.fromkeys(("q01", "q10", "q50", "q90", "q99"), known["mean"])
    stats, x = Stats(**known, **unknown, count=1), torch.tensor(about["input"])
    for official, mode in MODES.items():
        normalizer, expected = Normalizer.fit({ROBOT: {"action": stats}}, {"action": mode}), about[official]
        unit = normalizer.to_unit("action", x, _robots(len(x)))
        back = normalizer.to_physical("action", unit, _robots(len(x)))
        for name, ours in (("forward", unit), ("backward_of_forward", back)):
            golden.record(f"normaliser.{official}", ours, torch.tensor(expected[name]), FORWARD)
