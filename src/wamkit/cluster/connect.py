"""The way to a Ray cluster: its address, what may be wrong with it, and the check of its nodes."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wamkit_client.types import BadInput

from wamkit.cluster.alike import Needs
from wamkit.io.progress import say, warn

AUTO = "auto"
CLIENT = "ray://"
START = "start one with `ray start --head`, and give --ray auto there (docs/scale.md)"
TLS = "RAY_USE_TLS"
SERVER_FAILED = "Ray client server failed"
"""What ray:// says where the cluster could not start a process for this driver, which happens by chance."""
TRIES = 3
REACH_SECONDS = 5.0
ANSWER_SECONDS = 120.0


@contextmanager
def connected(address: str, paths: Sequence[Path] = (), told: bool = False) -> Iterator[Needs]:
    """Connect to the cluster; yields what was checked of its nodes.

    address: "auto", "host:port" or "ray://host:port". paths: files and folders that every node must have. told: print
    what workers print.
    Raises BadInput where the package is missing, where no Ray of this version is, and for a node that is not like this
    machine.
    """
    try:
        import ray
    except ImportError:
        raise BadInput("--ray: needs the package ray: pip install 'wamkit[ray]'") from None

    if address != AUTO:
        _expect_reachable(address)
    try:
        _join(address, told)
        needs = Needs.here(paths)
        nodes = [node for node in ray.nodes() if node["Alive"]]
        _expect_alike(nodes, needs)
        there = ray.cluster_resources()
        amounts = ", ".join(f"{there.get(name, 0):g} {name}s" for name in ("CPU", "GPU"))
        say(f"ray {ray.__version__}: {len(nodes)} nodes, {amounts}")
        yield needs
    finally:
        ray.shutdown()  # also of what failed half way, or nothing could connect again


def _join(address: str, told: bool) -> None:
    import ray

    former = signal.getsignal(signal.SIGTERM)  # ray.init sets its own
    try:
        for later in reversed(range(TRIES)):
            try:
                ray.init(address=address, log_to_driver=told, logging_level=logging.ERROR)
                return
            except ConnectionError as error:
                if SERVER_FAILED not in str(error):
                    raise BadInput(
                        f"--ray {address}: no Ray cluster there ({first_line(error)}); {START}"
                    ) from None
                if later == 0:
                    raise BadInput(f"--ray {address}: refused this driver ({_last_line(error)})") from None
            except RuntimeError as error:
                raise _refusal(address, error) from None
            warn(f"ray at {address} could not start a server for this driver; trying again")
            ray.shutdown()
    finally:
        signal.signal(signal.SIGTERM, former)


def _expect_reachable(address: str) -> None:
    """BadInput where nothing listens, or something that does not speak Ray's protocol: Ray would try for minutes."""
    import grpc

    place = address.removeprefix(CLIENT)
    host, _, port = place.rpartition(":")
    if not host or not port.isdecimal():
        raise BadInput(f"--ray {address}: expected auto, HOST:PORT or ray://HOST:PORT")
    try:
        socket.create_connection((host, int(port)), REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise BadInput(f"--ray {address}: nothing answers there ({error}); {START}") from None
    if TLS in os.environ:
        return  # whose certificates Ray knows
    with grpc.insecure_channel(place, [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            grpc.channel_ready_future(channel).result(REACH_SECONDS)
        except grpc.FutureTimeoutError:
            raise BadInput(f"--ray {address}: what listens there is no Ray cluster; {START}") from None


def _refusal(address: str, error: RuntimeError) -> BadInput:
    """Of another version, or no Ray at all."""
    lines = " ".join(str(error).split())
    if "ersion mismatch" in lines:
        return BadInput(
            f"--ray {address}: {lines}; install the same versions of Ray and Python on this machine and every node"
        )
    return BadInput(f"--ray {address}: what listens there is no Ray cluster ({lines[:300]}); {START}")


def _expect_alike(nodes: Sequence[dict[str, Any]], needs: Needs) -> None:
    """BadInput for a node that has other software, lacks a path or does not answer."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    check = ray.remote(num_cpus=0, max_retries=0)(_checked)
    asked = {}
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        asked[check.options(scheduling_strategy=there).remote(needs, name_of(node))] = name_of(node)
    ready, late = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_SECONDS)
    for answer in late:
        warn(f"node {asked[answer]} gave no answer for {ANSWER_SECONDS:g} s, and may do no work")
    for answer in ready:
        try:
            refused = ray.get(answer)
        except ray.exceptions.RayError as error:
            warn(f"node {asked[answer]} cannot be used: {first_line(error)}")
            continue
        if refused:
            raise BadInput(refused)


def _checked(needs: Needs, node: str) -> str:
    try:
        needs.expect(node)
    except BadInput as error:
        return str(error)
    return ""


def name_of(node: dict[str, Any]) -> str:
    """What messages call a node: its machine, and its first letters among those of Ray."""
    return f"{node['NodeManagerHostname']} ({node['NodeID'][:8]})"


def this_node() -> str:
    """As `name_of`, of the node that this worker is on."""
    import ray

    return f"{socket.gethostname()} ({ray.get_runtime_context().get_node_id()[:8]})"


def first_line(error: BaseException) -> str:
    """Of its message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _last_line(error: ConnectionError) -> str:
    """What was raised, of a message that is a traceback."""
    return str(error).strip().splitlines()[-1]
