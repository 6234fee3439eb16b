"""The released LaWAM checkpoints <-> both stages, strictly both ways (LaWAM spec 3).

A policy's file holds the world model, its teacher and state head, and a copy of DINOv3 too: it becomes a run of the
policy and one of stage 1. The token embedding was not trained and the copy is the public model's: both are read from
their own folders. Position codes, masks and frequencies are in no file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor
from wamkit_client.types import BadInput

from wamkit.io.renaming import Renaming, under
from wamkit.io.tensors import Envelope, read_tensors, read_torch_blanked, write_tensors, write_torch
from wamkit.policies.lawam.features import BlockFeaturesConfig, DINOv3Config, canonical
from wamkit.policies.lawam.released_sizes import policy_config, untold_policy, untold_world, world_config
from wamkit.policies.lawam.released_statistics import read_statistics, unit_statistics
from wamkit.policies.lawam.world import LaWAMWorldConfig
from wamkit.policies.released import Copy, Earlier, Frozen, Released

LEROBOT = "model."
"""Before all names in LeRobot's files."""

ROBOT_LINEAR = (("W", "weight"), ("b", "bias"))
# LaWM, in both stages
DECODER = under(
    ("lam.decoder.", "world."),
    ("project_input.{w}", "input.{w}"),
    ("action_in_proj.{w}", "code.{w}"),
    ("dec_layers.{i}.attn.{rest}", "blocks.{i}.attention.{rest}"),
    ("dec_layers.{i}.ffn.0.{w}", "blocks.{i}.ffn.0.{w}"),
    ("dec_layers.{i}.ffn.3.{w}", "blocks.{i}.ffn.2.{w}"),
    ("dec_layers.{i}.adaLN_modulation.1.{w}", "blocks.{i}.modulation.{w}"),
    ("project_output.{w}", "output.{w}"),
    ("last_ln.{w}", "norm.{w}"),
)
# stage 1 <-> LaWAMWorld, and the copy of what its encoder reads
WORLD_NAMES = Renaming(
    *DECODER,
    *under(
        ("lam.encoder.", "inverse."),
        ("project_in.{w}", "input.{w}"),
        ("QFormer.queries", "queries"),
        ("QFormer.q_cross_attn.attn.{rest}", "look.attention.{rest}"),
        ("QFormer.q_cross_attn.ff.{rest}", "look.ffn.{rest}"),
        ("QFormer.q_cross_attn.norm1.{w}", "look.context_norm.{w}"),
        ("QFormer.q_cross_attn.norm2.{w}", "look.norm.{w}"),
        ("QFormer.layers.{i}.{rest}", "layers.{i}.{rest}"),
        ("out_proj.{w}", "output.{w}"),
    ),
    *under(
        ("lam.vq.", "bottleneck."),
        ("pre_norm.{w}", "norm.{w}"),
        ("mu.{w}", "mu.{w}"),
        ("logvar.{w}", "logvar.{w}"),
    ),
    *under(
        ("lam.state_decoder.", "state_head."),
        ("z_encoder.{w}", "code.{w}"),
        *under(("state_encoder.layer1.", "state.0."), *ROBOT_LINEAR),
        *under(("state_encoder.layer2.", "state.1."), *ROBOT_LINEAR),
        *under(("state_decoder.layer1.", "change.0."), *ROBOT_LINEAR),
        *under(("state_decoder.layer2.", "change.1."), *ROBOT_LINEAR),
    ),
    *under(
        ("lam.vision_encoder.model.", "features."),
        ("layer.{i}.{rest}", "layer.{i}.{rest}"),
        ("model.layer.{i}.{rest}", "layer.{i}.{rest}"),  # of other versions of transformers
        ("{rest}", "{rest}"),
    ),
)

# what stage 2 adds <-> LaWAM's pool and expert
EXPERT = (
    *under(
        ("vlm_to_lam.", "pool."),
        ("query", "query"),
        ("norm_qs.0.{w}", "query_norm.{w}"),
        ("norm_kvs.0.{w}", "hidden_norm.{w}"),
        ("cross_attns.0.{rest}", "attention.{rest}"),
        ("ffns.0.0.{w}", "ffn.0.{w}"),
        ("ffns.0.1.{w}", "ffn.1.{w}"),
        ("ffns.0.4.{w}", "ffn.3.{w}"),
        ("final_norm.{w}", "norm.{w}"),
    ),
    *under(
        ("flow.", "expert."),
        ("cfg_embeddings", "null_subgoal"),
        ("enc_vlm.net.{rest}", "hidden.{rest}"),
        *under(("action_encoder.W1.", "encoder.first."), *ROBOT_LINEAR),
        *under(("action_encoder.W2.", "encoder.second."), *ROBOT_LINEAR),
        *under(("action_decoder.layer1.", "decoder.first."), *ROBOT_LINEAR),
        *under(("action_decoder.layer2.", "decoder.second."), *ROBOT_LINEAR),
        ("DiT.timestep_encoder.timestep_embedder.linear_1.{w}", "time.0.{w}"),
        ("DiT.timestep_encoder.timestep_embedder.linear_2.{w}", "time.2.{w}"),
        ("DiT.proj_out_1.{w}", "trunk.last_modulation.{w}"),
        ("DiT.proj_out_2.{w}", "trunk.last.{w}"),
        *under(
            ("DiT.transformer_blocks.{i}.", "trunk.layers.{i}."),
            ("norm1.linear.{w}", "modulation.{w}"),
            ("attn1.to_q.{w}", "q.{w}"),
            ("attn1.to_k.{w}", "k.{w}"),
            ("attn1.to_v.{w}", "v.{w}"),
            ("attn1.to_out.0.{w}", "out.{w}"),
            ("ff.net.0.proj.{w}", "up.{w}"),
            ("ff.net.2.{w}", "down.{w}"),
        ),
    ),
)
EXPERT_NAMES = Renaming(*EXPERT)
POLICY_NAMES = Renaming(
    *under(
        ("policy_backend.", ""),
        ("vlm.model.visual.{rest}", "prior.visual.{rest}"),
        ("vlm.model.language_model.{rest}", "prior.text.{rest}"),
        ("act_query", "prior.latent_queries"),
        ("flow_action_query", "prior.action_queries"),
        *EXPERT,
        *DECODER,
    )
)
OTHERS = {
    frozenset({"mot", "proprio_encoder"}): "it is a Fast-WAM checkpoint: `wamkit convert fast-wam`",
    frozenset({"mot", "proprio_encoder", "state_fusion_action_expert"}): (
        "it is a Light-WAM checkpoint: `wamkit convert light-wam`"
    ),
}
WORLD_ENVELOPE = Envelope(
    model="LaWAM world model",
    sections=("lam",),
    names=WORLD_NAMES,
    others={
        **OTHERS,
        frozenset({"policy_backend", "lam"}): (
            "it is a policy with its world model: `wamkit convert lawam` makes the runs of both"
        ),
    },
    facts=("step",),
    groups=("lam.vision_encoder.model", "lam.encoder", "lam.decoder", "lam.state_decoder", "lam.vq"),
)
POLICY_ENVELOPE = Envelope(
    model="LaWAM",
    sections=("policy_backend",),
    names=POLICY_NAMES,
    others={
        **OTHERS,
        frozenset({"lam"}): "it is a world model without a policy: `wamkit convert lawam-world`",
    },
    facts=("step",),
    earlier=("lam",),
    groups=tuple(
        f"policy_backend.{group}"
        for group in ("vlm_to_lam", "vlm", "flow_action_query", "flow", "act_query", "lam.decoder")
    ),
)


def read_sections(path: Path) -> Any:
    """The content of a file of any layout (tensors memory-mapped), in the sections that the Envelopes expect.

    Layouts: the policy's torch file, LeRobot's safetensors or its folder, and Lightning's torch file of the world
    model, of which nothing but tensors and the step is read; the others do not contain the step: then 0.
    A policy's has a section "lam" too, which is what the file of its world model would hold.
    Something else is returned as it is. Raises BadInput where a file is broken.
    """
    safe = path.is_dir() or path.suffix == ".safetensors"
    payload: Any = read_tensors(path) if safe else read_torch_blanked(path)
    step: Any = 0
    if isinstance(payload, dict) and "state_dict" in payload:
        payload, step = payload["state_dict"], payload.get("global_step", 0)
        if not _is_flat(payload) or type(step) is not int:
            raise BadInput(
                f"{path}: expected tensors by name in state_dict, and a number in global_step; got something else that "
                "cannot be read without the code that wrote it"
            )
    return {**_sections(payload), "step": step} if _is_flat(payload) else payload


def _is_flat(payload: Any) -> bool:
    return isinstance(payload, dict) and all(isinstance(tensor, Tensor) for tensor in payload.values())


def _sections(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """By the first part of their names; those of a policy's world model are a section of their own."""
    sections: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        section, _, rest = name.removeprefix(LEROBOT).partition(".")
        if section == "policy_backend" and rest.startswith("lam."):
            sections.setdefault("lam", {})[rest.removeprefix("lam.")] = tensor
        if section != "policy_backend" or not rest.startswith("lam.") or rest.startswith("lam.decoder."):
            sections.setdefault(section, {})[rest] = tensor
    return sections


def save_policy(path: Path, official: Mapping[str, Any]) -> None:
    """The file of a policy, as the released code reads it, or named *.safetensors as LeRobot does."""
    tensors = {f"lam.{name}": tensor for name, tensor in official["lam"].items()} | official["policy_backend"]
    named = {f"policy_backend.{name}": tensor for name, tensor in tensors.items()}
    if path.suffix == ".safetensors":
        write_tensors(path, {f"{LEROBOT}{name}": tensor for name, tensor in named.items()})
    else:
        write_torch(path, named)


def save_world(path: Path, official: Mapping[str, Any]) -> None:
    """The file of a world model, with the entries of Lightning's that matter to a reader of weights."""
    step = {"global_step": official["step"]} if official["step"] else {}  # 0: it was not known
    tensors = {f"lam.{name}": tensor for name, tensor in official["lam"].items()}
    write_torch(path, {"state_dict": tensors} | step)


def copied_features(config: LaWAMWorldConfig) -> dict[str, Tensor]:
    """DINOv3's tensors of the local folder, as a released file has a copy of them; block features have none."""
    match config.features:
        case DINOv3Config() as dino:
            return {f"features.{canonical(name)}": x for name, x in dino.load().model.state_dict().items()}
        case BlockFeaturesConfig():
            return {}


WORLD_FORMAT = Released(
    WORLD_ENVELOPE,
    lambda path: WORLD_ENVELOPE.checked(read_sections(path), str(path)),
    world_config,
    dims={},
    save=save_world,
    statistics=unit_statistics,
    copy=Copy("DINOv3", "policy.features.path", copied_features),
    untold=untold_world,
)
FORMAT = Released(
    POLICY_ENVELOPE,
    lambda path: POLICY_ENVELOPE.checked(read_sections(path), str(path)),
    policy_config,
    dims={},
    save=save_policy,
    statistics=read_statistics,
    frozen=Frozen("token embedding", "policy.start.path", like="prior.text.norm.weight"),
    earlier=(
        Earlier(
            kind="lawam_world",
            before=lambda policy, world: replace(
                world, features=policy.features, latent=policy.latent, robots=policy.robots
            ),
            after=lambda policy, world, directory: replace(
                policy, features=world.features, latent=world.latent, world=str(directory)
            ),
            directory=lambda policy: Path(policy.world),
        ),
    ),
    untold=untold_policy,
)
