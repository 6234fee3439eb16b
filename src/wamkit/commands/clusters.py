"""`--ray ADDRESS`: do the work on a Ray cluster."""

from __future__ import annotations

from typing import Annotated

from tyro.conf import arg
from wamkit_client.types import BadInput

RayAddress = Annotated[
    str,
    arg(
        metavar="auto|HOST:PORT|ray://HOST:PORT",
        help="Do the work on the Ray cluster at this address; auto: the one that this machine belongs to "
        "(docs/scale.md).",
    ),
]


def refuse_device(ray: str, device: str) -> None:
    """BadInput for a device of this machine where a cluster does the work."""
    if ray and device:
        raise BadInput(
            "--device: a cluster computes on the GPUs that it has, else on processors; omit --device or --ray"
        )
