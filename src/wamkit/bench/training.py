"""What a step of training costs: forward, backward and optimizer on a batch at hand, as `wamkit train` does it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from wamkit_client.types import BadInput

from wamkit.bench.limits import Hardware
from wamkit.bench.results import table
from wamkit.bench.subject import META, fill
from wamkit.bench.timing import Job, Seconds, in_turns, ratio, repeated
from wamkit.bench.training_work import TrainingWork, training_work
from wamkit.bench.twins import Losses, losses_of
from wamkit.config import Run
from wamkit.draws import Draws
from wamkit.stages.cost import Learning, training
from wamkit.stages.plan import example_batch, stand_in_normalizer
from wamkit.train.loop import initial_state, optimize
from wamkit.types import Batch, Trainable

TWIN, OURS = "official work", "ours"
LARGEST = 1e-4
"""Relative difference of losses in float32."""


@dataclass(frozen=True)
class Step:
    """size: samples. By way: seconds; work: losses and their gradients, counted; memory: bytes at most on a GPU, 0 on a
    processor."""

    size: int
    seconds: Mapping[str, Seconds]
    work: Mapping[str, TrainingWork]
    memory: Mapping[str, int]


def measure(
    run: Run, device: torch.device, sizes: Sequence[int], rounds: int, reference: bool = False
) -> list[Step]:
    """Random weights and random samples, in the run's precision. reference: in turns with the twin, after a check that
    both have the same losses; BadInput where there is no twin, or they differ."""
    official = {TWIN: losses_of(run)} if reference else {}
    steps = []
    for size in sizes:
        own = replace(run, train=replace(run.train, batch_size=size, accumulation=1))
        work = {name: training_work(own, losses) for name, losses in official.items()}
        work[OURS] = training_work(own)
        with META:
            network = own.policy.build(own.data, stand_in_normalizer(own))
        fill(cast(nn.Module, network), device, torch.float32)
        batch = random_batch(own, device)
        jobs = {name: twin_step(own, network, batch, losses) for name, losses in official.items()}
        jobs[OURS] = repeated(training(Learning(network, own.train, batch)))
        seconds = in_turns(jobs, rounds, device, f"batch {size}")
        steps.append(Step(size, seconds, work, {name: peak(job, device) for name, job in jobs.items()}))
    return steps


def peak(job: Job, device: torch.device) -> int:
    """Bytes of a GPU at most while it does its job once; 0 on a processor."""
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    job(0)
    return torch.cuda.max_memory_allocated(device)


def twin_step(run: Run, network: Trainable, batch: Batch, losses: Losses) -> Job:
    """The official step, on a copy of the network. BadInput where its losses are others."""
    policy = cast(Any, copy.deepcopy(network))
    with torch.no_grad():
        ours, official = cast(nn.Module, network)(batch, draws(batch)), losses(policy, batch, draws(batch))
    for name, loss in ours.items():
        if not torch.allclose(loss, official[name], rtol=LARGEST, atol=0):
            raise BadInput(
                f"--reference: loss {name} is {float(loss):g}, the twin's {float(official[name]):g}; they are to agree "
                f"within {LARGEST:g}, so nothing was timed"
            )
    state = initial_state(policy, run.train)

    def step(number: int) -> None:
        optimize(partial(losses, policy), batch, 0, state, run.train)

    return step


def random_batch(run: Run, device: torch.device) -> Batch:
    """In the run's shapes, all of it valid; images and numbers are random, places in a prompt are an example's."""
    generator = torch.Generator(device).manual_seed(0)

    def drawn(x: Tensor) -> Tensor:
        if x.is_floating_point():
            return torch.randn(x.shape, device=device, dtype=x.dtype, generator=generator)
        if x.dtype == torch.uint8:
            return torch.randint(256, x.shape, device=device, dtype=x.dtype, generator=generator)
        return x.to(device)

    batch = example_batch(run)
    made = batch.map(drawn, tuple(f"{i}" for i in range(len(batch.ids))))
    return replace(made, hz=torch.full_like(made.hz, run.data.hz))


def draws(batch: Batch) -> Draws:
    """Of a first step."""
    return Draws.of_step(0, 0, torch.device("cpu"), 0, len(batch.ids), len(batch.ids))


HEAD = (
    "",
    "batch",
    "ms",
    "steps/s",
    "samples/s",
    "GF per sample",
    "operations",
    "MFU",
    "kept GiB",
    "GPU GiB",
)


def page_table(run: Run, steps: Sequence[Step], hardware: Hardware) -> str:
    """As Markdown. MFU: the FLOP of our step at the peak, over the time that a way takes for it."""
    precision = torch.bfloat16 if run.train.precision == "bf16" else torch.float32
    peak_flops = {torch.bfloat16: hardware.bf16, torch.float32: hardware.fp32}[precision]
    rows, ratios = [], []
    for step in steps:
        if TWIN in step.seconds:
            slow, fast = step.seconds[TWIN], step.seconds[OURS]
            ratios.append(
                f"Batch {step.size}: {ratio(slow.wall, fast.wall)} times as fast as the {TWIN} on the wall, "
                f"{ratio(slow.cpu, fast.cpu)} in processor time."
            )
        for name, taken in step.seconds.items():
            seconds, work, memory = taken.summary["median"], step.work[name], step.memory[name]
            rows.append(
                [
                    name,
                    str(step.size),
                    f"{1e3 * seconds:.1f}",
                    f"{1 / seconds:.3g}",
                    f"{step.size / seconds:.3g}",
                    f"{work.flops / step.size / 1e9:,.2f}",
                    f"{work.operations:,}",
                    f"{100 * step.work[OURS].flops / seconds / peak_flops:.1f} %",
                    f"{work.kept / 2**30:.2f}",
                    f"{memory / 2**30:.2f}" if memory else "not measured",
                ]
            )
    return "\n\n".join([table(HEAD, rows), *ratios])
