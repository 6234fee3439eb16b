"""How soon a device could do counted work: each product at the peak of its arithmetic or of its memory, whichever takes
longer, and everything else in no time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from wamkit_client.types import BadInput

from wamkit.bench.counting import Work
from wamkit.io.provenance import machine


@dataclass(frozen=True)
class Hardware:
    """name: of the device, as a driver says it or as `--limit` names it. bf16, fp32: FLOP per second of dense products
    (fp32: in TensorFloat-32, where there is that). bandwidth: bytes per second of its memory."""

    name: str
    bf16: float
    fp32: float
    bandwidth: float

    def seconds(self, work: Work, precision: torch.dtype) -> float:
        """The least time of that work."""
        peak = self.bf16 if precision == torch.bfloat16 else self.fp32
        return sum(max(flops / peak, size / self.bandwidth) for flops, size in work.products)


# Data sheets, dense. A name is what it is found by, in that of a device; the first row that fits is taken.
GPUS = (
    Hardware("RTX 4090", 165.2e12, 82.6e12, 1.008e12),
    Hardware("RTX 3090", 71e12, 35.6e12, 0.936e12),
    Hardware("RTX 5090", 209.5e12, 104.8e12, 1.792e12),
    Hardware("A10", 125e12, 62.5e12, 0.6e12),
    Hardware("A100", 312e12, 156e12, 2.039e12),
    Hardware("L4", 121e12, 60e12, 0.3e12),
    Hardware("L40S", 362e12, 183e12, 0.864e12),
    Hardware("H100", 989e12, 494e12, 3.35e12),
    Hardware("H200", 989e12, 494e12, 4.8e12),
    Hardware("B200", 2250e12, 1125e12, 8e12),
)


def gpu(name: str) -> Hardware:
    """The row of that name, or in whose device's name it stands. BadInput for an unknown one."""
    words = name.replace("-", " ").split()
    for row in sorted(GPUS, key=lambda row: -len(row.name)):
        if all(word in words for word in row.name.split()):
            return row
    raise BadInput(f"--limit {name}: no peaks are known of it; name one of {', '.join(r.name for r in GPUS)}")


def hardware_of(device: torch.device) -> Hardware:
    """A GPU's row of the table, or what this processor reaches in a large product and a large copy."""
    if device.type == "cuda":
        return gpu(torch.cuda.get_device_name(device))
    bf16, fp32 = (_products_per_second(kind) for kind in (torch.bfloat16, torch.float32))
    threads = torch.get_num_threads()
    return Hardware(f"{machine()['cpu']}, {threads} threads (measured)", bf16, fp32, _bytes_per_second())


SIDE, TRIALS = 1536, 7


def _products_per_second(precision: torch.dtype) -> float:
    a, b = (torch.randn(SIDE, SIDE).to(precision) for _ in range(2))
    return 2 * SIDE**3 / median(_seconds(lambda: a @ b) for _ in range(TRIALS))


def _bytes_per_second() -> float:
    """Of reading: a sum over far more than what caches hold."""
    large = torch.ones(2**26)
    return large.nbytes / median(_seconds(large.sum) for _ in range(TRIALS))


def _seconds(do: Callable[[], object]) -> float:
    begin = time.perf_counter()
    do()
    return time.perf_counter() - begin
