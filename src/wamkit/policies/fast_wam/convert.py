"""The released Fast-WAM checkpoint <-> this policy, strictly both ways; LeRobot's `fastwam` read (spec 5).

The file is one torch dict {mot, proprio_encoder, step, torch_dtype}: video and action model, without VAE, text encoder
or statistics. LeRobot's is flat safetensors, whose names are brought to the released ones first. What no tensor shows
(channels of a head, variant) comes from a recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor
from wamkit_client.types import BadInput

from wamkit.nn.renaming import Renaming
from wamkit.nn.weights import Envelope, expect_structure, load_strict, read_tensors
from wamkit.policies.fast_wam.policy import FastWAM, FastWAMConfig
from wamkit.wan.checkpoint import size_of

NOT_IN_FILE = (r"codec\..*",)
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


@dataclass(frozen=True)
class Structure:
    """What a released file says about its policy: config (codec, text and recipe values as given) and dimensions."""

    config: FastWAMConfig
    proprio_dim: int
    action_dim: int


def read_official(path: str | Path) -> dict[str, Any]:
    """The checkpoint dict of a released file (tensors memory-mapped); of LeRobot's safetensors, or its folder, the
    same dict with step 0, which it does not tell. Raises BadInput where it is something else.
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


def load_official(policy: FastWAM, path: str | Path) -> int:
    """Fill `policy` with a released checkpoint and return its training step; the codec stays as it is.

    Raises BadInput where the file is missing, broken or of another structure, saying which part differs.
    """
    official = read_official(path)
    found = structure(official, policy.config, str(path))
    expected = Structure(policy.config, policy.data.proprio_dim, policy.data.action_dim)
    expect_structure(asdict(expected), asdict(found), str(path))
    load_strict(policy, from_official(official, str(path)), source=str(path), fresh=NOT_IN_FILE)
    return int(official["step"])


def from_official(official: Mapping[str, Any], source: str = "checkpoint") -> dict[str, Tensor]:
    """The checkpoint's tensors under our names, not copied. Raises BadInput for a name of neither."""
    return ENVELOPE.ours(official, source)


def to_official(policy: FastWAM, step: int) -> dict[str, Any]:
    """The checkpoint dict of a policy, as the released code reads it; tensors are not copied or cast."""
    tensors = {name: x for name, x in policy.state_dict().items() if not name.startswith("codec.")}
    dtype = str(policy.proprio_encoder.weight.dtype)
    return ENVELOPE.official(tensors) | {"step": step, "torch_dtype": dtype}


def structure(official: Mapping[str, Any], recipe: FastWAMConfig, source: str = "checkpoint") -> Structure:
    """Read a policy's structure off the tensors of a checkpoint.

    recipe gives what no tensor shows: channels of a head, variant, sampling steps, codec, text and training values.
    Raises BadInput where tensors lack that every checkpoint has.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in from_official(official, source).items()}
    try:
        config = replace(
            recipe,
            size=size_of(shapes, recipe.size, source),
            action_width=shapes["action.action_encoder.weight"][0],
            action_ffn=shapes["action.blocks.0.ffn.0.weight"][0],
        )
        return Structure(config, shapes["proprio_encoder.weight"][1], shapes["action.head.weight"][0])
    except (KeyError, IndexError) as error:
        raise BadInput(f"{source}: incomplete Fast-WAM checkpoint: it lacks {error}") from error
