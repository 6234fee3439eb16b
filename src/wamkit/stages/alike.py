"""What all ranks of a training must have in common, and what says that they have it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from wamkit_client.types import BadInput

from wamkit.config import RUN_FILE, Run, to_json
from wamkit.data.normalize import Normalizer
from wamkit.io.differences import flatten
from wamkit.io.provenance import revision, versions
from wamkit.train.checkpoint import latest
from wamkit.types import Trainable


def facts_of_rank(
    run: Run,
    fingerprints: Sequence[Mapping[str, str]],
    normalizer: Normalizer,
    policy: Trainable,
    run_dir: Path,
    device: torch.device,
) -> dict[str, str]:
    """By name. fingerprints: of the latents of each source. Weights are told by a sum over their bits."""
    newest = latest(run_dir)
    facts = {"device": device.type, "revision": revision()}
    facts |= {f"version of {name}": number for name, number in versions().items()}
    facts |= {name: json.dumps(value) for name, value in flatten(json.loads(to_json(run))).items()}
    for number, source in enumerate(fingerprints):
        facts |= {f"{name} of source {number}": value for name, value in source.items()}
    facts["normalizer"] = hashlib.sha256(normalizer.to_json().encode()).hexdigest()
    facts["newest checkpoint"] = "none" if newest is None else newest.name
    weights = cast(nn.Module, policy).state_dict()
    return facts | {f"bits of {name}": str(bits(tensor)) for name, tensor in weights.items()}


def bits(tensor: Tensor) -> int:
    """A number that is another one where any number of the tensor is, all but certainly."""
    raw = tensor.detach().contiguous().flatten().view(torch.uint8)
    whole = raw[: raw.numel() // 4 * 4].view(torch.int32).sum(dtype=torch.int64)
    return int(whole + raw[raw.numel() // 4 * 4 :].sum(dtype=torch.int64))


def expect_shared(run_dir: Path) -> None:
    """BadInput where this machine does not see what the first rank has written."""
    if not (run_dir / RUN_FILE).is_file():
        raise BadInput(
            f"{run_dir}: this machine does not see the {RUN_FILE} that rank 0 wrote; name a folder that all machines "
            "share with --out"
        )
