"""What is promised of a GPU, beside what gpu_suite.sh measured: `python -m benchmarks.targets OUT`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from wamkit_client.types import BadInput

from wamkit.bench.limits import gpu
from wamkit.bench.process import GIB
from wamkit.bench.results import table

TWIN, OURS = "official work", "ours"
Result = Mapping[str, Any]
"""A file of `wamkit bench`."""


@dataclass(frozen=True)
class Target:
    """folder: of the suite's measurement. value: of what it left. most: whether less is better. aim: past the bound."""

    what: str
    folder: str
    value: Callable[[Result], float]
    bound: float
    most: bool
    unit: str = ""
    aim: str = ""

    def row(self, out: Path) -> list[str]:
        """Of a table: what, measured, target, aim, met."""
        bound = f"{'at most' if self.most else 'at least'} {self.bound:g}{self.unit}"
        try:
            (path,) = (out / self.folder).glob("*.json")
            value = self.value(json.loads(path.read_text()))
        except (
            ValueError,
            LookupError,
            BadInput,
        ):  # no file, a measurement without this, or no peaks of the device
            return [self.what, "not measured", bound, self.aim, ""]
        met = value <= self.bound if self.most else value >= self.bound
        return [self.what, f"{value:.3g}{self.unit}", bound, self.aim, "yes" if met else "no"]


def seconds(result: Result, batch: int = 1) -> float:
    """Median of a query of so many observations in the preset that was asked for."""
    return median(of_batch(result, batch)["seconds"][result["asked"]["preset"]]["wall"])


def of_batch(result: Result, size: int) -> Any:
    """Its measurements."""
    return {batch["size"]: batch for batch in result["found"]["batches"]}[size]


def milliseconds(result: Result) -> float:
    """Of a query of one observation."""
    return 1e3 * seconds(result)


def over_twin(result: Result) -> float:
    """How many times as fast as the twin."""
    return float(of_batch(result, 1)["ratios"][TWIN]["value"])


def over_busy(result: Result) -> float:
    """The time in which the GPU is busy with the twin, over ours."""
    kernels = result["found"]["kernels"][TWIN]
    if not kernels:
        raise LookupError("it was not measured on a GPU")
    return float(sum(kernel["seconds"] for kernel in kernels)) / seconds(result)


def queries_per_second(result: Result) -> float:
    """In batches of 16."""
    return 16 / seconds(result, 16)


def memory(result: Result) -> float:
    """GiB of a GPU at most while a new process is asked."""
    return float(new_process(result)["second query"]) / GIB


def all_memory(result: Result) -> float:
    """GB of a GPU at most in a new process, loading too."""
    return float(max(new_process(result).values())) / 1e9


def new_process(result: Result) -> Mapping[str, int]:
    """Bytes of a GPU at most, by step of a new process."""
    if not result["cold"]:
        raise LookupError("it was measured without --cold")
    found: Mapping[str, int] = result["cold"]["gpu"]
    return found


def step_seconds(result: Result, way: str = OURS) -> float:
    """Median of a training step."""
    return median(result["found"][0]["seconds"][way]["wall"])


def over_training_twin(result: Result) -> float:
    """How many times as fast as the twin."""
    return step_seconds(result, TWIN) / step_seconds(result)


def mfu(result: Result) -> float:
    """Percent of the peak in bf16."""
    flops = result["found"][0]["work"][OURS]["flops"]
    return float(100 * flops / step_seconds(result) / gpu(result["facts"]["device"]).bf16)


def steps_per_second(result: Result) -> float:
    """Training steps."""
    return 1 / step_seconds(result)


TARGETS = (
    Target("Light-WAM, RoboTwin query", "light_wam", milliseconds, 6.0, True, " ms", "3.6 ms"),
    Target("the same in float8", "light_wam_float8", milliseconds, 3.6, True, " ms", "2.0 ms"),
    Target("times as fast as the eager twin", "light_wam", over_twin, 5.0, False, "", "8"),
    Target("the twin's GPU-busy time over ours", "light_wam", over_busy, 2.3, False, "", "4"),
    Target("memory while asked", "light_wam", memory, 3.2, True, " GiB", "3.0 GiB"),
    Target("queries per second in batches of 16", "light_wam", queries_per_second, 280.0, False, "", "370"),
    Target("Fast-WAM, LIBERO query, ten steps", "fast_wam", milliseconds, 20.0, True, " ms", "14, 12.2 ms"),
    Target("its memory, loading too", "fast_wam", all_memory, 24.0, True, " GB"),
    Target("LaWAM, LIBERO query", "lawam", milliseconds, 40.0, True, " ms", "25 ms"),
    Target(
        "Light-WAM, training step of 16: times as fast as the twin",
        "train",
        over_training_twin,
        1.7,
        False,
        "",
        "2.2",
    ),
    Target("its MFU", "train", mfu, 45.0, False, " %"),
    Target(
        "training steps of 64 per second, LIBERO", "train_libero", steps_per_second, 1.5, False, "", "2.0"
    ),
)


def page(out: Path) -> str:
    """As Markdown."""
    return table(("", "measured", "target", "aim", "met"), [target.row(out) for target in TARGETS])


if __name__ == "__main__":
    print(page(Path(sys.argv[1])))
