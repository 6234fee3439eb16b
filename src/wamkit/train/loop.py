"""The training loop: batches in, losses down, a run directory out. Plain torch, one process or several (parallel.py).

A step is a function of (weights, optimizer state, seed, step number) and nothing else, so a resumed run
repeats the uninterrupted one bit for bit. Does not know the policy (`policy(batch, draws)` returns losses
by name) nor whether batches come from a cache.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from wamkit_client.types import BadInput

from wamkit.bounds import AT_LEAST_0, AT_LEAST_1, DECAY, FRACTION, NOT_NEGATIVE, POSITIVE, Bound, check, each
from wamkit.data.loader import batches
from wamkit.data.samples import Samples
from wamkit.draws import Draws
from wamkit.io.files import NO_SPACE, disk_full, only_writer
from wamkit.io.interrupt import stop_request, stopped
from wamkit.io.progress import bar, warn
from wamkit.io.weights import WEIGHTS
from wamkit.nn.frozen import store_frozen_linears
from wamkit.nn.layers import recompute
from wamkit.train import checkpoint
from wamkit.train.beside import Beside, nothing
from wamkit.train.checkpoint import Progress, State
from wamkit.train.compiled import compiled
from wamkit.train.halves import Learn, at_once, side_by_side
from wamkit.train.heap import keep_freed_memory
from wamkit.train.held_out import FILE as HELD_OUT
from wamkit.train.held_out import NOTHING, HeldOut
from wamkit.train.held_out import sentence as held_out_sentence
from wamkit.train.metrics import FILE, Metrics, Stopwatch, Window, sentence
from wamkit.train.optim import (
    MovingAverage,
    Schedule,
    Shape,
    clip_gradients,
    optimizer_groups,
    trained_parameters,
)
from wamkit.train.parallel import SINGLE, Kind, Parallel
from wamkit.train.ranks import Ranks, expect_divisible
from wamkit.train.rows import Row, Rows, Table, rows_until
from wamkit.train.sharded import restore
from wamkit.train.trackers import Nowhere, OpenTracker, TensorBoard
from wamkit.types import Batch, Trainable


@dataclass(frozen=True)
class TrainConfig:
    """How to train. The defaults are Light-WAM's published LIBERO recipe, with clipping and decay put right.

    steps, batch_size: optimizer steps and samples in each.
    accumulation: equal parts that a batch goes through the policy in, for memory; gradients and losses are averaged.
    seed: of the data order and of the noise; two runs with one seed see the same batches.
    learning_rate: the peak; linear warm-up from `warmup_start` of it, then `schedule` down to `final_fraction` of it.
    warmup_steps: of the warm-up, which ends at the peak. warmup_start: of the peak, where it begins.
    schedule: of the rate after the warm-up. final_fraction: of the peak, where the schedule ends.
    betas, eps, weight_decay: of AdamW.
    decayed: what weight decay acts on: "matrices" (neither norms and biases nor parameters whose name ends in
        one of `undecayed_names`) or "all". undecayed_names: how names of such parameters end.
    clip_norm: gradients of a larger total norm are scaled down to it; "none": they are not.
    average_decay: of the exponential moving average that becomes `weights.safetensors`; 0: the last weights.
    precision: "fp32", or "bf16": autocast; weights, optimizer and losses stay float32.
    parallel: how several processes share the work, where torchrun starts them (parallel.py).
    ranks: how many of these `--plan` is for; training asks torchrun.
    compile: torch.compile the layers, each kind once (train/compiled.py; worth its minutes on a GPU).
    checkpoint_blocks: video model blocks that keep only what enters them, so many together, and are computed again
        in the backward pass: less memory, a third more work, the same numbers; 0: none.
    log_every, save_every: steps from one row of the log, or one checkpoint, to the next. keep_last: checkpoints kept.
    held_out_every: steps between measurements on held-out episodes, where there are any; 0: they are not measured.
    evaluate_every: steps between closed-loop evaluations on the run's suite, which go on beside training; 0: none.
    evaluate_episodes: of such an evaluation, per task.
    prefetch: batches read ahead; 0: each is read when it is due.
    workers: processes that read and prepare samples; 0: a thread of this one does.
    """

    steps: int = 150_000
    batch_size: int = 64
    accumulation: int = 1
    seed: int = 42
    learning_rate: float = 1e-4
    warmup_steps: int = 1000
    schedule: Shape = "cosine"
    warmup_start: float = 1e-3
    final_fraction: float = 0.01
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 1e-2
    decayed: Literal["matrices", "all"] = "matrices"
    undecayed_names: tuple[str, ...] = ("queries", "modulation")
    clip_norm: float | Literal["none"] = 1.0
    average_decay: float = 0.0
    precision: Literal["fp32", "bf16"] = "fp32"
    parallel: Kind = "ddp"
    ranks: int = 1
    compile: bool = False
    checkpoint_blocks: int = 0
    log_every: int = 20
    save_every: int = 500
    keep_last: int = 2
    held_out_every: int = 250
    evaluate_every: int = 0
    evaluate_episodes: int = 10
    prefetch: int = 2
    workers: int = 0

    def __post_init__(self) -> None:
        check("train", self, BOUNDS)
        if self.batch_size % self.accumulation:
            raise BadInput(
                f"train.accumulation: {self.batch_size} samples do not fall into {self.accumulation} equal parts; "
                "choose a divisor of train.batch_size"
            )

    @property
    def part_size(self) -> int:
        """Samples that go through the policy at a time."""
        return self.batch_size // self.accumulation

    @property
    def rates(self) -> Schedule:
        """The learning rate of every step."""
        return Schedule(
            self.learning_rate,
            self.warmup_steps,
            self.steps,
            self.warmup_start,
            self.final_fraction,
            self.schedule,
        )


BOUNDS = {
    **dict.fromkeys(
        (
            "steps",
            "batch_size",
            "accumulation",
            "ranks",
            "log_every",
            "save_every",
            "keep_last",
            "evaluate_episodes",
        ),
        AT_LEAST_1,
    ),
    **dict.fromkeys(
        (
            "seed",
            "warmup_steps",
            "checkpoint_blocks",
            "prefetch",
            "workers",
            "held_out_every",
            "evaluate_every",
        ),
        AT_LEAST_0,
    ),
    **dict.fromkeys(("learning_rate", "eps"), POSITIVE),
    **dict.fromkeys(("warmup_start", "final_fraction"), FRACTION),
    "betas": each(DECAY),
    "average_decay": DECAY,
    "weight_decay": NOT_NEGATIVE,
    "clip_norm": Bound(
        f'{POSITIVE.says}, or "none" to clip nothing', lambda norm: norm == "none" or POSITIVE.holds(norm)
    ),
}

FIRST_BATCH_SECONDS = 900.0
KEPT = "the newest checkpoint is kept"

# A run may be resumed with other values of these; all else would make it another run.
FREE_TO_CHANGE = (
    *("log_every", "save_every", "keep_last", "held_out_every", "evaluate_every", "evaluate_episodes"),
    *("prefetch", "workers", "checkpoint_blocks", "parallel", "ranks"),
)


def train(
    policy: Trainable,
    samples: Samples,
    config: TrainConfig,
    run_dir: Path,
    device: torch.device,
    held_out: Callable[[], HeldOut] = lambda: NOTHING,
    tracker: OpenTracker = TensorBoard,
    beside: Beside = nothing,
    parallel: Parallel = SINGLE,
) -> None:
    """Train `policy` (an nn.Module, moved to `device` and changed in place) and write `run_dir`.

    held_out: reads what is measured every config.held_out_every steps and at the end; training does not depend on it.
    beside: work in processes of its own that is told of every step; it has ended when this returns.
    parallel: what this process does of the work; all ranks give the same.
    Goes on from the newest checkpoint in `run_dir`; a finished run returns at once. Afterwards `weights.safetensors`
    holds the moving average, `policy` the last weights.
    Raises BadInput on a damaged run directory, one of another config, a loss that is not finite (with step and samples;
    checkpoints stay good), a full disk; KeyboardInterrupt after Ctrl-C, SIGTERM or SIGUSR1 (pre-emption), once a
    checkpoint is saved (a second signal does not wait).
    """
    ranks, state = parallel.ranks, initial_state(_placed(policy, device), config, parallel)
    forward = parallel.forward(state.module, forward_of(state.module, config))
    with _training_in(run_dir, state, ranks):
        begin = _begin(run_dir, state, config, samples, parallel)
        first = begin.progress.step
        if first == config.steps:
            with beside():
                return parallel.write_weights(run_dir, state)
        unseen, saving = held_out(), parallel.saving(run_dir, state, config.keep_last)
        window, watch, note, told = Window(begin.progress.window, ranks), Stopwatch(), "", ""
        with (
            closing(_stream(policy, samples, config, first, device, ranks)) as stream,
            beside() as after_step,
            _metrics(run_dir, begin, tracker, ranks) as metrics,
            stop_request(KEPT, (signal.SIGUSR1,)) as stop,
            bar("train", config.steps, "steps", first, {"steps": 1, "samples": config.batch_size}) as advance,
        ):
            for done in range(first + 1, config.steps + 1):
                batch = watch.next(stream)
                scalars = optimize(forward, batch, done - 1, state, config, parallel)
                last = done == config.steps
                window.add(done, batch.ids, scalars)
                if done % config.log_every == 0 or last:
                    rate = state.optimizer.param_groups[0]["lr"]
                    metrics.add(row := {"step": done} | window.close() | {"lr": rate} | watch.lap())
                    note = sentence(row)
                if unseen.due(done, config.steps, config.held_out_every):
                    with watch.stopped(), state.average.in_place():
                        row = unseen.measure(policy, done, device, config.precision)
                    metrics.add_held_out(row)
                    told = f"; {held_out_sentence(row)}"
                advance(1, note + told)
                stopping = ranks.stops(stop.is_set()) and not last
                if done % config.save_every == 0 or last or stopping:
                    # Metrics go to disk before the checkpoint that counts their rows. After a kill in between, the file
                    # has rows past the newest checkpoint; resuming drops these and writes them again.
                    window.settle()
                    metrics.sync()
                    now = replace(begin.progress, step=done, window=window.values)
                    saving.save(metrics.counted(now))
                after_step(done, state)
                if stopping:
                    saving.settle()
                    raise stopped(
                        f"stopped after step {done} of {config.steps}; a checkpoint is saved in {run_dir}"
                    )
            saving.settle()
        parallel.write_weights(run_dir, state)


def _placed(policy: Trainable, device: torch.device) -> Trainable:
    """On the device, whose freed memory is kept where it is a processor's."""
    if device.type == "cpu":
        keep_freed_memory()
    moved: Trainable = cast(Any, policy).to(device)
    return moved


def _metrics(run_dir: Path, begin: Begin, tracker: OpenTracker, ranks: Ranks) -> Metrics:
    shown = tracker(run_dir, begin.progress.step) if ranks.writes else Nowhere()
    return Metrics(run_dir, begin.training, begin.held_out, shown, Table if ranks.writes else Rows)


def _stream(
    policy: Trainable, samples: Samples, config: TrainConfig, step: int, device: torch.device, ranks: Ranks
) -> Generator[Batch, None, None]:
    reading = batches(
        samples,
        policy.embodiment,
        config.batch_size,
        config.seed,
        step,
        device=device,
        prefetch=config.prefetch,
        workers=config.workers,
        share=ranks.share,
        parts=config.accumulation,
    )
    with closing(reading) as stream:
        first = next(stream)
        ranks.expect_all("read its first batch; its loader is dead or slow", FIRST_BATCH_SECONDS)
        yield first
        yield from stream


def initial_state(policy: Trainable, config: TrainConfig, parallel: Parallel = SINGLE) -> State:
    """Where training begins, with `policy` (an nn.Module) as it is and in training mode."""
    module = cast(nn.Module, policy).train()
    if config.precision == "bf16":
        store_frozen_linears(module, torch.bfloat16)
    recompute(module, config.checkpoint_blocks)
    parallel.share(module)
    groups = optimizer_groups(
        module, policy.parameter_groups(), config.weight_decay, config.decayed, config.undecayed_names
    )
    optimizer = torch.optim.AdamW(groups, config.learning_rate, config.betas, config.eps, fused=True)
    return State(policy, optimizer, MovingAverage(module, config.average_decay))


def forward_of(module: nn.Module, config: TrainConfig) -> Callable[[Batch, Draws], dict[str, Tensor]]:
    """What computes the losses of a step: the policy, or what it is compiled to."""
    return compiled(module) if config.compile else module


def optimize(
    forward: Callable[[Batch, Draws], dict[str, Tensor]],
    batch: Batch,
    step: int,
    state: State,
    config: TrainConfig,
    parallel: Parallel = SINGLE,
) -> dict[str, Tensor]:
    """Optimizer step `step` (from 0), with `forward` the policy, its compiled twin, or what `parallel` makes of it.

    batch: the rows of this rank.
    Returns scalars on the device: "loss", "loss/<name>" and "grad_norm" (before clipping).
    """
    device, weights = batch.actions.device, state.policy.loss_weights
    share = parallel.ranks.share
    total = len(batch.ids) * share.count
    places = share.rows(total, config.accumulation)  # of this rank's rows in the global batch
    for group in state.optimizer.param_groups:
        group["lr"] = group["lr_scale"] * config.rates.rate(step)
    state.optimizer.zero_grad()

    def losses(rows: range) -> tuple[Tensor, Tensor]:
        part = batch.map(lambda x: x[rows.start : rows.stop], batch.ids[rows.start : rows.stop])
        draws = Draws.of_step(config.seed, step, device, places[rows.start], len(rows), total)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            found = forward(part, parallel.draws(draws))
        if found.keys() != weights.keys():
            raise ValueError(f"losses: expected {sorted(weights)} (loss_weights), got {sorted(found)}")
        found = parallel.losses(state.policy, part, found)
        loss = torch.stack([weight * found[name] for name, weight in weights.items()]).sum()
        return loss, torch.stack([loss, *(found[name] for name in weights)]).detach()

    learn, size = parallel.learn(how_to_learn(state.policy, batch, config)), config.part_size // share.count
    trained, seen = list(trained_parameters(state.module).values()), []
    for first in range(0, len(batch.ids), size):
        with parallel.part(forward, last=first + size >= len(batch.ids)):
            seen.append(learn(losses, range(first, first + size), trained, config.accumulation))
    norm = clip_gradients(state.module, config.clip_norm)
    state.optimizer.step()
    state.average.update(step)
    loss, *named = torch.stack(seen).mean(0)
    return {
        "loss": loss,
        **{f"loss/{name}": value for name, value in zip(weights, named, strict=True)},
        "grad_norm": parallel.whole(norm),
    }


def how_to_learn(policy: Trainable, batch: Batch, config: TrainConfig) -> Learn:
    """Halves side by side on a CPU of several cores, where the policy's losses allow it and nothing is compiled."""
    halves = (
        batch.actions.device.type == "cpu"
        and torch.get_num_threads() > 1
        and config.part_size % 2 == 0
        and not config.compile  # torch compiles in one thread at a time
        and policy.separable(batch)
    )
    return side_by_side if halves else at_once


@dataclass(frozen=True)
class Begin:
    """Where a run stands, and its rows so far."""

    progress: Progress
    training: list[Row]
    held_out: list[Row]


def _begin(run_dir: Path, state: State, config: TrainConfig, samples: Samples, parallel: Parallel) -> Begin:
    """Where the run stands, on all ranks. Agreed where one of them cannot go on, or they cannot share a batch."""
    with parallel.ranks.together():
        expect_divisible(parallel.ranks, config.batch_size, config.accumulation)
        return _resume(run_dir, state, Progress(0, 0, {}, asdict(config), len(samples)), parallel)


def _resume(run_dir: Path, state: State, start: Progress, parallel: Parallel) -> Begin:
    """Where the run stands; `state` is put there. `start` is its beginning."""
    for path in checkpoint.unexpected(run_dir):
        warn(f"{path}: not a checkpoint (these are folders called step_NUMBER); it is left as it is")
    folder = checkpoint.latest(run_dir)
    if folder is None:
        if (run_dir / WEIGHTS).exists():
            raise BadInput(
                f"{run_dir}: has {WEIGHTS} but no checkpoints to go on from; "
                "train into another run directory, or delete that file to start over"
            )
        return Begin(start, [], [])
    found = checkpoint.read_progress(folder)
    ours = start.config | {"samples": start.samples}
    # A setting that an older checkpoint does not know had its default before there was a choice.
    theirs = asdict(TrainConfig()) | found.config | {"samples": found.samples}
    different = [
        f"{name}: expected {theirs.get(name)!r}, got {ours.get(name)!r}"
        for name in sorted(ours.keys() | theirs.keys())
        if json.dumps(ours.get(name)) != json.dumps(theirs.get(name)) and name not in FREE_TO_CHANGE
    ]
    if different:
        raise BadInput(
            f"{folder}: was trained otherwise: {'; '.join(different)}. "
            "Resume with the former settings, or train into another run directory."
        )
    training = rows_until(run_dir / FILE, found.step, found.rows)
    held_out = rows_until(run_dir / HELD_OUT, found.step, found.held_out)
    # Weights, optimizer and average are all that is restored: data order and noise follow from seed and step.
    restore(folder, state, parallel.divided)
    return Begin(replace(found, config=start.config), training, held_out)


@contextmanager
def _training_in(run_dir: Path, state: State, ranks: Ranks) -> Iterator[None]:
    """Nobody else writes there meanwhile, and a full disk is explained."""
    try:
        with only_writer(run_dir, "trains") if ranks.writes else nullcontext():
            yield
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        raise disk_full(run_dir, checkpoint.size(state), "the newest checkpoint is kept") from error
