"""Training steps of one batch on 1, 2 and 4 gloo processes of this machine, in turns, one thread each.

    python -m benchmarks.ranks metaworld3 --out benchmarks/results

Seconds of the processes, not of the clock, so that other processes of the machine count little; waiting for another
rank counts as far as it takes the processor.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from wamkit.bench.scaling import cost, step_of
from wamkit.config import build_policy
from wamkit.io.provenance import machine, revision, versions
from wamkit.recipes import recipe
from wamkit.stages.plan import example_batch, stand_in_normalizer
from wamkit.train.loop import forward_of, initial_state, optimize
from wamkit.train.parallel import SINGLE, Kind, Parallel, parallel
from wamkit.train.ranks import group

WAYS: tuple[tuple[Kind, int], ...] = (("ddp", 1), ("ddp", 2), ("ddp", 4), ("fsdp", 2), ("fsdp", 4))
WARM = 2


def steps(own: Parallel, name: str, count: int) -> tuple[float, float, list[float]]:
    """Seconds of the processor and of the clock for each step after the first ones, and the losses."""
    run = recipe(name)
    config = replace(run.train, accumulation=1)
    state = initial_state(build_policy(run, stand_in_normalizer(run)), config, own)
    forward = own.forward(state.module, forward_of(state.module, config))
    generator = torch.Generator().manual_seed(0)
    whole = example_batch(replace(run, train=config)).map(
        lambda x: torch.rand(x.shape, generator=generator).to(x.dtype) if x.is_floating_point() else x,
        ("",) * config.batch_size,
    )
    batch = whole.rows(own.ranks.share.rows(config.batch_size, 1))
    losses = []
    for step in range(WARM + count):
        if step == WARM:
            began, clock = time.process_time(), time.perf_counter()
        losses.append(own.ranks.mean(optimize(forward, batch, step, state, config, own)["loss"]).item())
    return (time.process_time() - began) / count, (time.perf_counter() - clock) / count, losses


def rank_of(sender: Any, port: int, kind: Kind, rank: int, ranks: int, name: str, count: int) -> None:
    """A process."""
    torch.set_num_threads(1)
    if ranks == 1:
        return sender.send(steps(SINGLE, name, count))
    store = distributed.TCPStore("127.0.0.1", port)
    with group(store, rank, ranks, "gloo", 1) as own:
        sender.send(steps(parallel(kind, own), name, count))


def on_ranks(kind: Kind, ranks: int, name: str, count: int) -> list[tuple[float, float, list[float]]]:
    """What every rank found."""
    context = multiprocessing.get_context("spawn")
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    pipes = [context.Pipe(duplex=False) for _ in range(ranks)]
    processes = [
        context.Process(target=rank_of, args=(sender, store.port, kind, rank, ranks, name, count))
        for rank, (_, sender) in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    found = [receiver.recv() for receiver, _ in pipes]
    for process in processes:
        process.join()
    return found


def measure(name: str, count: int, rounds: int) -> dict[str, Any]:
    """Of each way: processor seconds of all ranks for a step, beside one process and the bytes of the model."""
    taken: dict[tuple[Kind, int], list[float]] = {way: [] for way in WAYS}
    clock: dict[tuple[Kind, int], list[float]] = {way: [] for way in WAYS}
    losses: dict[tuple[Kind, int], list[float]] = {}
    for _ in range(rounds):
        for kind, ranks in WAYS:
            found = on_ranks(kind, ranks, name, count)
            taken[kind, ranks].append(sum(seconds for seconds, _, _ in found))
            clock[kind, ranks].append(max(seconds for _, seconds, _ in found))
            losses[kind, ranks] = found[0][2]
    step, alone = step_of(recipe(name)), losses["ddp", 1]
    rows = [
        {
            "parallel": kind,
            "ranks": ranks,
            "sent_bytes_per_rank": cost(kind, step, ranks).sent,
            "cpu_seconds_per_step": min(taken[kind, ranks]),
            "ratio_to_one": min(taken[kind, ranks]) / min(taken["ddp", 1]),
            "clock_seconds_per_step": min(clock[kind, ranks]),
            "largest_difference_of_losses": max(
                abs(own - other) / abs(other) for own, other in zip(losses[kind, ranks], alone, strict=True)
            ),
        }
        for kind, ranks in WAYS
    ]
    facts = {"recipe": name, "batch": step.samples, "steps": count, "rounds": rounds}
    return facts | {"rows": rows, "revision": revision(), "versions": versions(), "machine": machine()}


def main() -> None:
    """Print and, with --out, write `ranks_RECIPE.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path())
    args = parser.parse_args()
    found = json.dumps(measure(args.recipe, args.steps, args.rounds), indent=1)
    print(found)
    if args.out != Path():
        (args.out / f"ranks_{args.recipe}.json").write_text(found + "\n")


if __name__ == "__main__":
    main()
