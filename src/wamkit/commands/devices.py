"""`--device cpu|cuda|cuda:1`: where a command computes, and what it starts."""

from __future__ import annotations

import os
import re
from typing import Annotated

from tyro.conf import arg
from wamkit_client.types import BadInput

Device = Annotated[
    str, arg(metavar="cpu|cuda|cuda:N", help="Where to compute; by default the GPU where there is one.")
]
VISIBLE = "CUDA_VISIBLE_DEVICES"


def use_device(device: str) -> None:
    """Let this process and those it starts see this device alone; "": all. To be called before a GPU is used.

    Raises BadInput for one that is not there.
    """
    if not device:
        return
    found = re.fullmatch(r"cpu|cuda(?::(\d+))?", device)
    if not found:
        raise BadInput(f"--device {device}: expected cpu, cuda or cuda:N (N from 0)")
    import torch

    if device == "cpu":
        os.environ[VISIBLE] = ""
        return
    count, number = torch.cuda.device_count(), int(found[1] or 0)
    if number >= count:
        there = ", ".join(f"cuda:{place}" for place in range(count))
        has = (
            f"this machine has {there}"
            if count
            else f"PyTorch {torch.__version__} sees no GPU on this machine"
        )
        raise BadInput(
            f"--device {device}: {has}; give {'one of these' if count else 'cpu, or omit the flag'}"
        )
    seen = os.environ[VISIBLE].split(",") if VISIBLE in os.environ else [*map(str, range(count))]
    os.environ[VISIBLE] = seen[number]
