"""wamkit: train, measure and run World Action Models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wamkit.infer.engine import Engine
    from wamkit.types import Policy

__version__ = "0.1.0"


def load_policy(directory: str | Path, device: str = "cpu") -> Engine[Policy]:
    """A run directory as something that acts: `load_policy("runs/x").act([observation])[0].actions`.

    directory: may be of the hub, hf://OWNER/NAME.

    Raises wamkit_client.types.BadInput naming a missing or damaged file.
    """
    import torch

    from wamkit.config import load_engine
    from wamkit.io.hub import local

    return load_engine(local(directory), torch.device(device))
