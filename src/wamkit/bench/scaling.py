"""What a training step costs on N ranks: memory, bytes sent, and the time that both and the counted work allow.

A model, not a measurement: what is counted is exact, and the speeds that it is divided by stand in Machine. The batch
of the run is shared, so that more ranks have fewer samples each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, log2
from typing import cast

from torch import nn

from wamkit.bench.training_work import training_work
from wamkit.config import Run
from wamkit.stages.plan import Memory, memory, meta_policy
from wamkit.train.optim import trained_parameters
from wamkit.train.parallel import Kind

BUCKET = 25 * 2**20
"""Bytes of gradients that are sent together (DistributedDataParallel's default)."""


@dataclass(frozen=True)
class Machine:
    """ranks: GPUs of a machine. flops: of one, per second, that training reaches. inside, between: bytes a second that
    a rank sends to others of its machine, and of other machines. latency: seconds for one hop."""

    ranks: int
    flops: float
    inside: float
    between: float
    latency: float


# Eight H100: 40 % of 989 TFLOP/s in bf16, 80 % of NVLink's 450 GB/s and of one 400 Gbit/s port per GPU.
H100 = Machine(ranks=8, flops=0.4 * 989e12, inside=0.8 * 450e9, between=0.8 * 50e9, latency=5e-6)


@dataclass(frozen=True)
class Step:
    """What is counted of one. flops: of a sample. samples: of the whole batch. trained: bytes that learn."""

    flops: float
    samples: int
    trained: int


@dataclass(frozen=True)
class Cost:
    """Of a rank in a step. sent: bytes. compute, network: seconds. efficiency: share of the speed that N ranks would
    have if nothing were sent."""

    ranks: int
    sent: int
    compute: float
    network: float

    @property
    def seconds(self) -> float:
        """Gradients are sent while the backward pass, two thirds of the work, goes on."""
        return self.compute + max(self.network - self.compute * 2 / 3, 0.0)

    @property
    def efficiency(self) -> float:
        """See above."""
        return self.compute / self.seconds


def ring(ranks: int) -> float:
    """How often what is gathered, or summed and divided, is sent by each of so many ranks."""
    return (ranks - 1) / ranks


def _replicated(step: Step, ranks: int, machine: Machine) -> tuple[float, float]:
    """Gradients are summed: divided among all, then gathered."""
    return _across(2 * ring(ranks) * step.trained, ranks, machine)


def _sharded(step: Step, ranks: int, machine: Machine) -> tuple[float, float]:
    """Weights are gathered for the forward and for the backward pass, gradients are summed and divided."""
    return _across(3 * ring(ranks) * step.trained, ranks, machine)


def _hybrid(step: Step, ranks: int, machine: Machine) -> tuple[float, float]:
    """As sharded inside a machine; the machines sum what each of its ranks has."""
    inside = min(ranks, machine.ranks)
    machines = ceil(ranks / inside)
    return 3 * ring(inside) * step.trained, 2 * ring(machines) * step.trained / inside


def _across(sent: float, ranks: int, machine: Machine) -> tuple[float, float]:
    """As many rings as a machine has ranks go through all of them, each with its part, and leave by another port."""
    leaves = sent / machine.ranks if ranks > machine.ranks else 0.0
    return sent - leaves, leaves


SENT: Mapping[Kind, Callable[[Step, int, Machine], tuple[float, float]]] = {
    "ddp": _replicated,
    "fsdp": _sharded,
    "hybrid": _hybrid,
}
"""Bytes that a rank sends inside its machine and to other machines."""


def cost(kind: Kind, step: Step, ranks: int, machine: Machine = H100) -> Cost:
    """Of a step on so many ranks."""
    inside, between = SENT[kind](step, ranks, machine)
    hops = 2 * ceil(log2(ranks)) * ceil(step.trained / BUCKET) if ranks > 1 else 0
    network = inside / machine.inside + between / machine.between + hops * machine.latency
    compute = step.flops * step.samples / ranks / machine.flops
    return Cost(ranks, round(inside + between), compute, network)


def step_of(run: Run) -> Step:
    """Counted, of one sample's forward and backward pass."""
    one = replace(run, train=replace(run.train, batch_size=1, accumulation=1))
    module = cast(nn.Module, meta_policy(run))
    trained = sum(parameter.nbytes for parameter in trained_parameters(module).values())
    return Step(training_work(one).flops, run.train.batch_size, trained)


def memory_of_rank(run: Run, ranks: int, machine: Machine = H100) -> Memory:
    """Of one of so many ranks, with its share of a part of the batch and of what is divided."""
    share = max(run.train.part_size // ranks, 1)
    own = replace(run, train=replace(run.train, batch_size=share, accumulation=1))
    whole = memory(own, meta_policy(run))
    parts = {"ddp": 1, "fsdp": ranks, "hybrid": min(ranks, machine.ranks)}[run.train.parallel]
    # Gathered weights are whole while a step lasts; the share of each rank comes on top of them.
    learns = whole.gradients
    return Memory(
        whole.weights + (learns // parts if parts > 1 else 0),
        whole.gradients // parts,
        whole.optimizer // parts,
        whole.average // parts,
        whole.activations,
    )


def counts(most: int) -> Sequence[int]:
    """1, 2, 4, ... and `most`."""
    return sorted({2**power for power in range(most.bit_length()) if 2**power <= most} | {most})


def samples_of(run: Run, ranks: int) -> int:
    """That a rank has at a time; 0 where they cannot be shared equally."""
    return run.train.part_size // ranks if run.train.part_size % ranks == 0 else 0
