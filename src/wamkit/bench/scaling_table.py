"""The scaling of a run as `wamkit train --plan --train.ranks N` prints it."""

from __future__ import annotations

from rich.table import Table

from wamkit.bench.scaling import H100, cost, counts, memory_of_rank, samples_of, step_of
from wamkit.config import Run


def scaling_table(run: Run) -> Table:
    """A row for each number of ranks up to the run's: what each has, counted, and modelled time."""
    kind, step = run.train.parallel, step_of(run)
    table = Table(
        title=f"{run.recipe} on up to {run.train.ranks} ranks ({kind}), batch {run.train.batch_size}: "
        f"{step.flops / 1e12:.3g} TFLOP a sample, {step.trained / 2**30:.3g} GiB learn",
        title_justify="left",
        caption=f"memory and bytes are counted; time is a model of machines with {H100.ranks} GPUs of "
        f"{H100.flops / 1e12:.0f} TFLOP/s, {H100.inside / 1e9:.0f} GB/s inside and {H100.between / 1e9:.0f} GB/s per "
        "GPU between them (docs/scale.md)",
        caption_justify="left",
    )
    for column in ("ranks", "samples", "memory", "sent", "step", "samples/s", "efficient"):
        table.add_column(column, justify="right", no_wrap=True)
    for ranks in counts(run.train.ranks):
        if not (own := samples_of(run, ranks)):
            table.add_row(str(ranks), "the batch cannot be shared equally", *[""] * 5)
            continue
        found, need = cost(kind, step, ranks), memory_of_rank(run, ranks)
        table.add_row(
            str(ranks),
            str(own * run.train.accumulation),
            f"{need.total / 2**30:.3g} GiB",
            f"{found.sent / 1e9:.3g} GB",
            f"{found.seconds * 1e3:.3g} ms",
            f"{step.samples / found.seconds:.4g}",
            f"{100 * found.efficiency:.0f} %",
        )
    return table
