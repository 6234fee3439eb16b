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

from wamkit.bench.counting import Operations, Work
from wamkit.bench.limits import Hardware
from wamkit.bench.results import table
from wamkit.bench.subject import META, fill
from wamkit.bench.timing import Job, Seconds, in_turns, ratio, repeated
from wamkit.bench.twins import losses_of
from wamkit.config import Run
from wamkit.draws import Draws
from wamkit.stages.cost import Learning, training
from wamkit.stages.plan import activations, meta_batch, meta_policy, stand_in_normalizer
from wamkit.train.loop import initial_state, optimize
from wamkit.types import Batch, Trainable

TWIN, OURS = "official work", "ours"
LARGEST = 1e-4
"""Relative difference of losses in float32."""


@dataclass(frozen=True)
class Step:
    """size: samples. seconds: by way. work: of our step without its optimizer, counted. kept: bytes that autograd keeps
    of the forward pass, counted. memory: bytes at most on a GPU, 0 on a processor."""

    size: int
    seconds: Mapping[str, Seconds]
    work: Work
    kept: int
    memory: int


def measure(
    run: Run, device: torch.device, sizes: Sequence[int], rounds: int, reference: bool = False
) -> list[Step]:
    """Random weights and random samples, in the run's precision. reference: in turns with the twin, after a check that
    both have the same losses; BadInput where there is no twin, or they differ."""
    steps = []
    for size in sizes:
        own = replace(run, train=replace(run.train, batch_size=size, accumulation=1))
        with META:
            network = own.policy.build(own.data, stand_in_normalizer(own))
        fill(cast(nn.Module, network), device, torch.float32)
        batch = random_batch(own, device)
        jobs = {TWIN: twin_step(own, network, batch)} if reference else {}
        jobs[OURS] = repeated(training(Learning(network, own.train, batch)))
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        seconds = in_turns(jobs, rounds, device, f"batch {size}")
        memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
        steps.append(Step(size, seconds, counted(own), kept(own), memory))
    return steps


def twin_step(run: Run, network: Trainable, batch: Batch) -> Job:
    """The official step, on a copy of the network. BadInput where its losses are others."""
    losses, policy = losses_of(run), cast(Any, copy.deepcopy(network))
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
        optimize(cast(nn.Module, partial(losses, policy)), batch, 0, state, run.train)

    return step


def random_batch(run: Run, device: torch.device) -> Batch:
    """In the run's shapes, all of it valid."""
    generator = torch.Generator(device).manual_seed(0)

    def drawn(x: Tensor) -> Tensor:
        if x.is_floating_point():
            return torch.randn(x.shape, device=device, dtype=x.dtype, generator=generator)
        return torch.zeros(x.shape, device=device, dtype=x.dtype)

    batch = meta_batch(run)
    made = batch.map(drawn, tuple(f"{i}" for i in range(len(batch.ids))))
    return replace(made, valid=torch.ones_like(made.valid), hz=torch.full_like(made.hz, run.data.hz))


def counted(run: Run) -> Work:
    """Of the losses and their gradients, on shapes."""
    policy, batch = meta_policy(run), meta_batch(run)
    with Operations() as operations:
        losses = cast(nn.Module, policy)(batch, draws(batch))
        sum(losses.values()).backward()
    return operations.work()


def draws(batch: Batch) -> Draws:
    """Of a first step."""
    return Draws.of_step(0, 0, torch.device("cpu"), 0, len(batch.ids), len(batch.ids))


def kept(run: Run) -> int:
    """Bytes that autograd keeps, on shapes."""
    policy: Trainable = meta_policy(run)
    return activations(cast(nn.Module, policy), meta_batch(run))


def page_table(run: Run, steps: Sequence[Step], hardware: Hardware) -> str:
    """As Markdown."""
    precision = torch.bfloat16 if run.train.precision == "bf16" else torch.float32
    peak = {torch.bfloat16: hardware.bf16, torch.float32: hardware.fp32}[precision]
    rows, ratios = [], []
    for step in steps:
        seconds = step.seconds[OURS].summary["median"]
        if TWIN in step.seconds:
            slow, fast = step.seconds[TWIN], step.seconds[OURS]
            ratios.append(
                f"Batch {step.size}: {ratio(slow.wall, fast.wall)} times as fast as the {TWIN} on the wall, "
                f"{ratio(slow.cpu, fast.cpu)} in processor time."
            )
        rows.append(
            [
                str(step.size),
                f"{1e3 * seconds:.1f}",
                f"{1 / seconds:.3g}",
                f"{step.size / seconds:.3g}",
                f"{step.work.flops / step.size / 1e9:,.2f}",
                f"{step.work.operations:,}",
                f"{100 * step.work.flops / seconds / peak:.1f} %",
                f"{step.kept / 2**30:.2f}",
                f"{step.memory / 2**30:.2f}" if step.memory else "not measured",
            ]
        )
    head = (
        "batch",
        "ms",
        "steps/s",
        "samples/s",
        "GF per sample",
        "operations",
        "of the peak",
        "kept GiB",
        "GPU GiB",
    )
    return "\n\n".join([table(head, rows), *ratios])
