"""What is wrong with a cluster is said in one sentence: no Ray there, another version, a node unlike the others."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from wamkit_client.types import BadInput

from tests.cluster.nodes import SMALL
from tests.test_bad_input import record
from tests.until import until
from wamkit.cli import main
from wamkit.cluster import alike, connect
from wamkit.cluster.connect import connected


def refused(address: str, *paths: Path) -> str:
    with pytest.raises(BadInput) as told, connected(address, paths):
        pass
    return str(told.value)


@pytest.mark.parametrize("address", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_nothing_listens(address: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = address.format(free.getsockname()[1])
        said = refused(address)
    assert said.startswith(f"--ray {address}: nothing answers there") and "ray start --head" in said


@pytest.mark.parametrize("address", ["here", "localhost", "localhost:", ":6379", "ray://:port"])
def test_no_address(address: str) -> None:
    assert refused(address) == f"--ray {address}: expected auto, HOST:PORT or ray://HOST:PORT"


def test_the_package_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    words = [
        "collect",
        "metaworld3_smoke",
        "--episodes",
        "1",
        "--out",
        str(tmp_path / "data"),
        "--ray",
        "auto",
    ]
    assert main(words) == 2
    assert capsys.readouterr().err == "error: --ray: needs the package ray: pip install 'wamkit[ray]'\n"
    assert not (tmp_path / "data").exists()


def test_flags_that_do_not_go_together(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "run", "--ray", "auto", "--device", "cpu"]) == 2
    assert "omit --device or --ray" in capsys.readouterr().err
    assert main(["eval", "--ray", "auto", "--server", "ws://here:1", "--out", "out"]) == 2
    assert "omit --robotwin and --ray" in capsys.readouterr().err


def test_something_else_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "REACH_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        assert refused(address).startswith(f"--ray {address}: what listens there is no Ray cluster")


def failing_server(times: int) -> Callable[..., None]:
    """ray.init, of a cluster that fails to start a server for the first drivers."""
    left = [None] * times

    def init(**_: object) -> None:
        if left:
            left.pop()
            raise ConnectionError(
                "Initialization failure from server:\nTraceback\nStarting Ray client server failed."
            )

    return init


def test_a_server_that_did_not_start_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray, "init", failing_server(times=2))
    connect._join("ray://there:1", told=False)
    monkeypatch.setattr(ray, "init", failing_server(times=3))
    with pytest.raises(BadInput) as told:
        connect._join("ray://there:1", told=False)
    assert str(told.value) == "--ray ray://there:1: refused this driver (Starting Ray client server failed.)"


@pytest.mark.scale
def test_another_version(nodes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray, "__version__", "2.1.0")
    said = refused(nodes.address)
    assert "Version mismatch" in said and "Ray: 2.1.0" in said and "install the same versions" in said


@pytest.mark.scale
def test_other_software_on_a_node(nodes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = alike.software()
    monkeypatch.setattr(alike, "software", lambda: ours | {"torch": "1.0", alike.SOURCES: "0123456789ab"})
    said = refused(nodes.address)
    assert said.startswith(f"node {socket.gethostname()} (") and f"its torch is {ours['torch']}" in said
    assert "that of this command 1.0" in said


@pytest.fixture
def blind(nodes: Any, tmp_path: Path) -> Iterator[Path]:
    """A folder that a third node does not see."""
    folder = tmp_path / "shared"
    folder.mkdir()
    start = [str(Path(sys.executable).parent / "ray"), "start", "--address", nodes.address, "--num-cpus", "1"]
    start += ["--object-store-memory", str(SMALL["object_store_memory"]), "--block"]
    hide = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(folder)]
    if subprocess.run([*hide, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs a mount namespace")
    before = len(nodes.global_state.node_table())
    process = subprocess.Popen([*hide, *start], stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        until(lambda: len(nodes.global_state.node_table()) > before)
        yield folder
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        until(lambda: sum(node["Alive"] for node in nodes.global_state.node_table()) == 3)


@pytest.mark.scale
def test_a_node_without_the_dataset(
    nodes: Any, blind: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is named with the path, and nothing is encoded."""
    data, cache = record(blind / "data"), tmp_path / "cache"
    words = ["encode", "metaworld3", "--dataset", str(data), "--cache", str(cache), "--ray", nodes.address]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: node {socket.gethostname()} (") and said.count("\n") == 1
    assert f"{data} is not there; give a folder that all nodes share" in said
    assert [path.name for path in cache.iterdir()] == ["fingerprint.json"]
