"""A Ray cluster of several nodes on this machine, each with its own processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.ports import lasting_port

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"

SMALL: dict[str, Any] = {"object_store_memory": 80 * 2**20, "include_dashboard": False}


def door(cluster: Any) -> str:
    """The address for machines outside."""
    host = cluster.address.partition(":")[0]
    return f"ray://{host}:{cluster.head_node._ray_params.ray_client_server_port}"


@contextmanager
def cluster(*nodes: dict[str, float]) -> Iterator[Any]:
    """A head that does no work, and a node for each of `nodes`, which are their resources: {"num_cpus": 1}."""
    from ray.cluster_utils import Cluster

    clients = {"ray_client_server_port": lasting_port()}
    found = Cluster(initialize_head=True, head_node_args={**SMALL, **clients, "num_cpus": 0})
    try:
        for node in nodes:
            found.add_node(wait=False, **SMALL, **node)
        found.wait_for_nodes()
        yield found
    finally:
        found.shutdown()
