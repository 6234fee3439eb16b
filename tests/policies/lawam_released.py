"""Released LaWAM files with every published tensor: their shapes at full size, and files of small numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import DINOv3ViTConfig

from tests.policies.tiny_qwen import qwen_config
from wamkit.config import Run
from wamkit.data.actions import ActionSpace
from wamkit.policies.lawam.action_expert import ExpertSize
from wamkit.policies.lawam.features import DINOv3Config, DINOv3Size
from wamkit.policies.lawam.latent_action import LatentSize
from wamkit.policies.lawam.policy import LaWAMConfig
from wamkit.policies.lawam.prior import FromQwen, PriorSize
from wamkit.policies.lawam.prompt import QwenPromptConfig
from wamkit.policies.lawam.world import LaWAMWorldConfig
from wamkit.types import DataSpec

Shape = tuple[int, ...]
Tensors = dict[str, Tensor]

KEYS = json.loads((Path(__file__).parents[1] / "golden/lawam_keys.json").read_text())
COPY = "policy_backend.lam.vision_encoder.model."
EMBEDDING = "policy_backend.vlm.model.language_model.embed_tokens.weight"
ROBOT = "panda"

# Published numbers that stand in shapes -> small ones; in the vision-language model, then in everything else.
VLM = {151936: 320, 2304: 36} | {n: n // 16 for n in (128, 1024, 2048, 3072, 4096, 6144)}
OTHERS = {n: n // 16 for n in (768, 1024, 2048, 3072, 4096, 6144)}
DINO = DINOv3Size(width=48, ffn=192)
SIZES = {
    "features": DINOv3Config("dino", DINO),
    "latent": LatentSize(width=64, heads=16, ffn=256),
}
CONFIG = LaWAMConfig(
    **SIZES,
    prompt=QwenPromptConfig("qwen", vocabulary=320),
    prior=PriorSize(
        width=128, head_dim=8, ffn=384, vocabulary=320, vision_width=64, vision_ffn=256, position_side=6
    ),
    start=FromQwen("qwen"),
    expert=ExpertSize(width=64, heads=16, ffn=256),
    robots=((ROBOT, 25),),
)
DATA = DataSpec(
    views=("image", "wrist_image"),
    canvas="separate",
    view_height=256,
    view_width=256,
    hz=20.0,
    frame_times=(0.0, 0.35),
    chunk_seconds=0.4,
    proprio_dim=0,
    action_dim=7,
    past_end="supervised",
)
WORLD_DATA = replace(DATA, proprio_dim=8, frame_proprio=True)


def published() -> dict[str, Shape]:
    """Every tensor of a policy's file, at the published size."""
    shapes = {}
    for group, names in KEYS["groups"].items():
        for name, (shape, *numbers) in names.items():
            own = name.partition("#")[0]
            full = KEYS["prefix"] + (own if group == own else f"{group}.{own}")
            shapes |= {full.replace("{i}", str(i)): tuple(shape) for i in _numbers(*numbers)}
    return shapes


def _numbers(text: str = "0..0") -> range:
    """ "0..14 step 2" """
    first, last, step = re.fullmatch(r"(\d+)\.\.(\d+)(?: step (\d+))?", text).groups(default="1")
    return range(int(first), int(last) + 1, int(step))


def checkpoint(seed: int = 0) -> Tensors:
    """A policy's file with all published names, small."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn([_small(name).get(n, n) for n in shape], generator=generator).to(dtype(name))
        for name, shape in published().items()
    }


def _small(name: str) -> Mapping[int, int]:
    return VLM if name.startswith("policy_backend.vlm.") else OTHERS


def dtype(name: str) -> torch.dtype:
    """Of a tensor in the file."""
    return torch.bfloat16 if name.startswith("policy_backend.vlm.") else torch.float32


def runs() -> tuple[Run, Run]:
    """Of the policy and of its stage 1, as recipes of such sizes would have them."""
    names, kinds = (
        ("x", "y", "z", "u", "v", "w", "gripper"),
        ("delta",) * 3 + ("rotation",) * 3 + ("gripper",),
    )
    policy = Run("tiny_lawam", "", CONFIG, DATA, ActionSpace(names, kinds))
    world = LaWAMWorldConfig(**SIZES, robots=CONFIG.robots)
    return policy, replace(policy, recipe="tiny_lawam_world", policy=world, data=WORLD_DATA)


def local_folders(folder: Path, tensors: Tensors, inside: str = "", size: DINOv3Size = DINO) -> None:
    """What a lab has beside the file: DINOv3 and Qwen3-VL in transformers' layout. inside: before names of layers."""
    dino = {name.removeprefix(COPY): x for name, x in tensors.items() if name.startswith(COPY)}
    named = {inside * name.startswith("layer.") + name: x for name, x in dino.items()}
    config = DINOv3ViTConfig(
        hidden_size=size.width,
        num_hidden_layers=size.blocks,
        num_attention_heads=size.heads,
        intermediate_size=size.ffn,
        patch_size=size.patch,
        num_register_tokens=size.registers,
    )
    for name, about, weights in (
        ("dino", config, named),
        (
            "qwen",
            qwen_config(CONFIG.prior),
            {EMBEDDING.removeprefix("policy_backend.vlm."): tensors[EMBEDDING]},
        ),
    ):
        (folder / name).mkdir(exist_ok=True)
        about.save_pretrained(folder / name)
        save_file(weights, folder / name / "model.safetensors")


def lerobot(tensors: Tensors) -> Tensors:
    """The same policy as LeRobot names it."""
    return {f"model.{name}": x for name, x in tensors.items()}


def lightning(tensors: Tensors, **more: Any) -> dict[str, Any]:
    """The policy's world model as Lightning saves one."""
    start = "policy_backend."
    state = {n.removeprefix(start): x for n, x in tensors.items() if n.startswith(f"{start}lam.")}
    return {"state_dict": state, **more}


def statistics(dims: int = 7, tag: str = "franka") -> dict[str, Any]:
    """The JSON that was released with a policy."""
    lists = {"min": -1.5, "max": 2.5, "mean": 0.25, "std": 0.5}
    action = {name: [value + i / 8 for i in range(dims)] for name, value in lists.items()}
    return {tag: {"action": action, "num_trajectories": 1693, "num_transitions": 273_465}}


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Equal names, values and dtypes."""
    return a.keys() == b.keys() and all(x.dtype == b[n].dtype and torch.equal(x, b[n]) for n, x in a.items())
