"""The released Fast-WAM checkpoint <-> this policy, strictly both ways; LeRobot's `fastwam` read (spec 5).

The file is one torch dict {mot, proprio_encoder, step, torch_dtype}: video and action model, without VAE, text encoder
or statistics. LeRobot's file is flat safetensors; its names are mapped to the released ones first. What no tensor
shows (channels of a head, variant) comes from a recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor
from wamkit_client.types import BadInput

from wamkit.io.renaming import Renaming
from wamkit.io.tensors import Envelope, read_tensors
from wamkit.policies.fast_wam.policy import FastWAMConfig
from wamkit.policies.released import Released, Shapes
from wamkit.policies.wan_encoder import expect_alone, expect_channels, expect_released_options
from wamkit.wan.checkpoint import size_of

SECTIONS = ("mot", "proprio_encoder")
LEGACY = 'the legacy form, a video model only: save its "dit" alone and name that file as policy.start.base'

# released (section, then name) <-> ours
NAMES = Renaming(
    ("mot.mixtures.video.{rest}", "dit.{rest}"),
    ("mot.mixtures.action.{rest}", "action.{rest}"),
    ("proprio_encoder.{w}", "proprio_encoder.{w}"),
)
ENVELOPE = Envelope(
    model="Fast-WAM",
    sections=SECTIONS,
    names=NAMES,
    others={
        frozenset({"policy_backend"}): "it is a LaWAM checkpoint: `wamkit convert lawam`",
        frozenset({"dit"}): LEGACY,
        frozenset({"dit", "proprio_encoder"}): LEGACY,
        frozenset(
            {*SECTIONS, "state_fusion_action_expert"}
        ): "it is a Light-WAM checkpoint: `wamkit convert light-wam`",
    },
    optional=("optimizer",),
)
# LeRobot's, today's blocks and then everything else, which has the released names (as all of it once had) -> released
LEROBOT = Renaming(
    ("model.mot.layers.{i}.blocks.video.{rest}", "mot.mixtures.video.blocks.{i}.{rest}"),
    ("model.mot.layers.{i}.blocks.action.{rest}", "mot.mixtures.action.blocks.{i}.{rest}"),
    ("model.{rest}", "{rest}"),
)


def read_official(path: str | Path) -> dict[str, Any]:
    """The checkpoint dict of a released file (tensors memory-mapped), or of LeRobot's safetensors or its folder, which
    does not contain the step: then 0. Raises BadInput where it is something else.
    """
    path = Path(path)
    if path.is_dir() or path.suffix == ".safetensors":
        return from_lerobot(read_tensors(path), str(path))
    return ENVELOPE.read(path)


def from_lerobot(tensors: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    """The released checkpoint dict of a LeRobot `fastwam` policy. Raises BadInput for unknown names."""
    official: dict[str, Any] = {section: {} for section in SECTIONS}
    try:
        for name, tensor in tensors.items():
            section, _, key = LEROBOT.forward(name).partition(".")
            official[section][key] = tensor
        dtype = str(tensors["model.proprio_encoder.weight"].dtype)
    except KeyError as error:
        raise BadInput(
            f"{source}: not a LeRobot fastwam policy: tensor {error} is unknown or missing; name its "
            f"model.safetensors, or a torch file of {', '.join(SECTIONS)}"
        ) from error
    return official | {"step": 0, "torch_dtype": dtype}


def read_structure(shapes: Shapes, recipe: FastWAMConfig) -> FastWAMConfig:
    """The config of a checkpoint with tensors of these shapes.

    recipe gives what no tensor shows: channels of a head, variant, sampling steps, codec, text and training values.
    Raises KeyError and IndexError where tensors are missing.
    """
    return replace(
        recipe,
        size=size_of(shapes, recipe.size),
        action_width=shapes["action.action_encoder.weight"][0],
        action_ffn=shapes["action.blocks.0.ffn.0.weight"][0],
    )


def untold(config: FastWAMConfig) -> str:
    """Files trained with another shift look the same and act badly."""
    shifts = (
        f"{name} {shift.train:g} in training and {shift.sample:g} in sampling"
        for name, shift in (("chunks", config.action_shift), ("video", config.video_shift))
    )
    return f"shift of flow times: {', '.join(shifts)}"


def expect_expressible(config: FastWAMConfig) -> None:
    """BadInput where a network has an option that released code does not know and no released file says."""
    expect_released_options(config)
    expect_alone("policy.action_predicts", config.action_predicts, "velocity")


FORMAT = Released(
    ENVELOPE,
    read_official,
    read_structure,
    dims={"action_dim": ("action.head.weight", 0), "proprio_dim": ("proprio_encoder.weight", 1)},
    fits=expect_channels,
    expressible=expect_expressible,
    untold=untold,
)
