"""LoRA of a model <-> a PEFT adapter folder (adapter_config.json, adapter_model.safetensors).

Written folders load in peft (`PeftModel.from_pretrained(plain_model, folder)`), and plain LoRA folders written by
peft load here. Only plain LoRA is read: one rank and alpha, no DoRA, no trained biases or modules.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from wamkit_client.types import BadInput

from wamkit.io.files import replace_text
from wamkit.io.renaming import Renaming
from wamkit.io.tensors import read_tensors, write_tensors
from wamkit.nn.lora import LoRALinear, add_lora

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# PEFT's name <-> LoRALinear's
NAMES = Renaming(
    ("base_model.model.{rest}.lora_A.weight", "{rest}.lora_down.weight"),
    ("base_model.model.{rest}.lora_B.weight", "{rest}.lora_up.weight"),
)
# Settings that change the arithmetic, and the only values a LoRALinear has.
PLAIN: dict[str, Any] = {
    "peft_type": "LORA",
    "bias": "none",
    "fan_in_fan_out": False,
    "lora_bias": False,
    "use_dora": False,
    "use_rslora": False,
    "modules_to_save": None,
    "rank_pattern": {},
    "alpha_pattern": {},
    "layer_replication": None,
    "trainable_token_indices": None,
}


def write_adapter(model: nn.Module, folder: str | Path) -> None:
    """Write the LoRA of `model` as a PEFT adapter; names are relative to `model`.

    Raises BadInput where the model has no LoRA or several ranks or scales.
    """
    layers = lora_layers(model)
    kinds = {(layer.lora_down.out_features, layer.scale) for layer in layers.values()}
    if len(kinds) != 1:
        raise BadInput(f"a PEFT adapter needs one (rank, scale); the model has {sorted(kinds) or 'no LoRA'}")
    rank, scale = kinds.pop()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        NAMES.backward(f"{name}.{part}"): tensor
        for name, layer in layers.items()
        for part, tensor in layer.state_dict().items()
        if part.startswith("lora_")
    }
    write_tensors(folder / WEIGHTS, weights)
    config = PLAIN | {
        "r": rank,
        "lora_alpha": scale * rank,
        "lora_dropout": 0.0,
        "target_modules": sorted(layers),
        "inference_mode": True,
        "base_model_name_or_path": None,
        "task_type": None,
    }
    replace_text(folder / CONFIG, json.dumps(config, indent=2))


def read_adapter(model: nn.Module, folder: str | Path) -> None:
    """Load a PEFT adapter into `model`: the plain layers it names become LoRALinear, existing LoRA is overwritten.

    Raises BadInput, and leaves the model as it was, where the folder is incomplete, uses more than plain LoRA, or
    does not fit the model.
    """
    folder = Path(folder)
    config, weights = _read(folder)
    rank, alpha = config["r"], config["lora_alpha"]
    names = {name.rpartition(".lora_")[0] for name in weights}
    present = lora_layers(model)
    if left := sorted(set(present) - names):
        raise BadInput(f"{folder}: nothing for {len(left)} LoRA layers of the model, first {left[0]!r}")
    for name, layer in present.items():
        if (layer.lora_down.out_features, layer.scale) != (rank, alpha / rank):
            raise BadInput(
                f"{folder}: rank {rank}, scale {alpha / rank}; {name} of the model has rank "
                f"{layer.lora_down.out_features}, scale {layer.scale}; build the model with the adapter's"
            )
    expected = _shapes(model, names, rank)
    given = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if wrong := [name for name in sorted({*expected, *given}) if expected.get(name) != given.get(name)]:
        raise BadInput(
            f"{folder}: does not fit the model: {len(wrong)} tensors differ, first {wrong[0]!r} is "
            f"{given.get(wrong[0], 'absent')} in the file, {expected.get(wrong[0], 'no linear layer')} in the model"
        )
    add_lora(model, tuple(sorted(names - set(present))), rank, alpha)
    model.load_state_dict(weights, strict=False)


def _shapes(model: nn.Module, names: set[str], rank: int) -> dict[str, tuple[int, int]]:
    """The tensors of LoRA of this rank on the named linear layers, with their shapes."""
    shapes = {}
    for name, layer in model.named_modules():
        if name in names and isinstance(layer, nn.Linear):
            shapes[f"{name}.lora_down.weight"] = (rank, layer.in_features)
            shapes[f"{name}.lora_up.weight"] = (layer.out_features, rank)
    return shapes


def lora_layers(model: nn.Module) -> dict[str, LoRALinear]:
    """Every LoRALinear of the model by name."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, LoRALinear)}


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(config, tensors under our names)."""
    if not (folder / CONFIG).is_file():
        raise BadInput(f"{folder}: no {CONFIG}; name the folder that peft or wamkit wrote")
    config = json.loads((folder / CONFIG).read_text())
    other = {
        key: config[key] for key, plain in PLAIN.items() if config.get(key, plain) not in (plain, None, [])
    }
    if other:
        raise BadInput(
            f"{folder}: only plain LoRA can be read; this adapter has {other}; merge it with peft first"
        )
    tensors = read_tensors(folder / WEIGHTS)
    try:
        return config, {NAMES.forward(name): tensor for name, tensor in tensors.items()}
    except KeyError as error:
        raise BadInput(
            f"{folder}: tensor {error} is not LoRA of a linear layer; merge it with peft first"
        ) from error
