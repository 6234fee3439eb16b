"""What holds for every test: checked shapes, one seed, few threads, rendering without a screen, an end."""

from __future__ import annotations

import gc
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import FrameType

import hypothesis
import jaxtyping

import tests.shapes  # the hook below finds it by name

# Before the first import of wamkit: every annotated function then checks the shapes it is given and returns.
jaxtyping.jaxtyped = tests.shapes.jaxtyped
jaxtyping.install_import_hook("wamkit", "tests.shapes.check")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from wamkit_client.envs.rendering import choose_platform  # noqa: E402

from tests.until import SECONDS  # noqa: E402
from wamkit.commands.devices import VISIBLE  # noqa: E402

choose_platform()  # before whichever test is the first to import mujoco
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # of processes that tests start,
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # which compile the sources once,
sys.dont_write_bytecode = False  # as the tests and the checked sources are
for name in ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR"):  # whoever tests may have a terminal of any kind
    os.environ.pop(name, None)
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")

# Half a minute each and more, the longest first. Begun last, one of them would keep a worker of `make test` busy alone.
LONGEST = (
    *("test_docs.py", "client/test_libero.py", "test_plug_in.py", "bench/test_commands.py"),
    *("test_init.py", "convert/test_libero_hdf5.py", "stages/test_lawam_stages.py", "io/test_interrupt.py"),
    *("stages/test_report.py", "stages/test_compare.py", "infer/test_properties.py", "test_precision.py"),
    *(
        "eval/test_evaluate.py",
        "bench/test_gpu_suite.py",
        "bench/test_training_work.py",
        "bench/test_targets.py",
    ),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    first = {Path(__file__).parent / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: first.get(item.path, len(first)))


def pytest_collection_finish() -> None:
    """What thousands of tests and the packages that they import keep for ever is not searched for garbage again."""
    gc.collect()
    gc.freeze()


def late(number: int, frame: FrameType | None) -> None:
    """Where it waits is in the traceback."""
    pytest.fail(f"not within {SECONDS:g} s")


signal.signal(signal.SIGALRM, late)


def ended() -> Generator[None]:
    """Nothing waits for ever: neither a test nor its fixtures, which are interrupted again while they are left."""
    signal.setitimer(signal.ITIMER_REAL, SECONDS, SECONDS)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None]:
    return (yield from ended())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None]:
    return (yield from ended())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None]:
    return (yield from ended())


@pytest.fixture(autouse=True)
def same_randomness() -> None:
    """Randomness that a library takes from a global generator is the same whatever ran before."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def same_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--device cpu` in a test hides GPUs from that test alone."""
    monkeypatch.setenv(VISIBLE, os.environ.get(VISIBLE, ""))  # so that it is put back
    monkeypatch.delenv(VISIBLE)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a disk of a size ("64k"), to be filled for real."""
    mounted: list[Path] = []

    def mount(size: str) -> Path:
        folder = tmp_path / f"disk-{size}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"needs a tmpfs mount: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
