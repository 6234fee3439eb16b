"""What `wamkit bench latency` found, as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from wamkit.bench.counting import OUTSIDE
from wamkit.bench.latency import TWIN, Batch, Latency
from wamkit.bench.limits import Hardware
from wamkit.bench.process import GIB, Cost
from wamkit.bench.results import shown, table
from wamkit.spans import PARTS

MOST_KERNELS = 20
GATE_FAILED = """The gate failed, so nothing was timed: the two ways do not give the same chunks.

{gate}
"""

PAGE = """# {title}

{facts}

{about} A query is camera images and proprio in host memory to a chunk of actions in host memory; every query is about
other images. Weights: {precision}.

## Milliseconds per query

{seconds}

{ratios}

## Where one observation's time goes

Milliseconds by part, each part waited for, so that their sum is more than a query takes. The limit is each product at
the peak of {hardware}: {peaks}.

{parts}

## Work of one observation

Counted on shapes: operations that are no views, 10^9 FLOP of products, 10^6 bytes read and written. A way that reads
numbers on the host cannot be counted so, and is missing.

{work}

{more}"""


def page(
    title: str,
    about: str,
    precision: str,
    found: Latency,
    hardware: Hardware,
    cold: Cost | None,
    official: Sequence[float],
    facts: Mapping[str, Any],
) -> str:
    """As Markdown."""
    gate = _gate(found)
    if found.gate and not found.gate.passed:
        return f"# {title}\n\n{shown(facts)}\n\n" + GATE_FAILED.format(gate=gate)
    more = [
        part
        for part in (
            _depths(found),
            gate,
            _official(found, official),
            _kernels(found),
            _ladder(found),
            _cold(found, cold),
        )
        if part
    ]
    return PAGE.format(
        title=title,
        facts=shown(facts),
        about=about,
        precision=precision,
        seconds=_seconds(found),
        ratios=_ratios(found),
        hardware=hardware.name,
        peaks=f"{hardware.bf16 / 1e12:.4g} TF/s in bf16, {hardware.fp32 / 1e12:.4g} in fp32, "
        f"{hardware.bandwidth / 1e9:.4g} GB/s",
        parts=_parts(found),
        work=_work(found),
        more="\n\n".join(more) + "\n",
    )


def _seconds(found: Latency) -> str:
    rows = []
    for batch in found.batches:
        for name, seconds in batch.seconds.items():
            own = seconds.summary
            times = [f"{1e3 * own[each]:.2f}" for each in ("median", "p95", "p99", "min", "cpu_median")]
            rows.append(
                [name, str(batch.size), *times, f"{batch.size / own['median']:.3g}", f"{own['n']:.0f}"]
            )
    head = ("", "observations", "median", "p95", "p99", "min", "processor", "observations/s", "rounds")
    return table(head, rows)


def _ratios(found: Latency) -> str:
    """Of each batch, with its interval."""
    return "\n".join(
        f"Batch {batch.size}: {ratio} times as fast as the {name} on the wall, with the 95 % interval over rounds "
        f"taken in turns; {batch.processor_ratios[name]} in processor time."
        for batch in found.batches
        for name, ratio in batch.ratios.items()
    )


def _depths(found: Latency) -> str:
    """What was measured, where full depth follows from it."""
    if not found.depths:
        return ""
    rows = [
        [str(layers), str(batch.size), *_medians(batch), *map(str, batch.ratios.values())]
        for layers, batches in found.depths.items()
        for batch in batches
    ]
    names = [*found.batches[0].seconds]
    head = ("layers", "observations", *names, *(f"{name} / {names[-1]}" for name in found.batches[0].ratios))
    return (
        "## Two small depths\n\nThese were measured, in turns; milliseconds, medians. All times above are those of "
        "full depth as it follows from them, round by round: that of one more layer, times the missing layers.\n\n"
        + table(head, rows)
    )


def _medians(batch: Batch) -> list[str]:
    return [f"{1e3 * seconds.summary['median']:.2f}" for seconds in batch.seconds.values()]


def _parts(found: Latency) -> str:
    first = found.batches[0]
    names = [name for name in (*PARTS, OUTSIDE) if any(name in spans for spans in first.spans.values())]
    rows = [
        [name, *(f"{1e3 * spans.get(name, 0.0):.2f}" for spans in first.spans.values()), _limit(found, name)]
        for name in names
    ]
    total = sum(found.limit.values())
    sums = [f"{1e3 * sum(spans.values()):.2f}" for spans in first.spans.values()]
    fast = [*first.seconds.values()][-1].summary["median"]
    rows.append(["sum", *sums, f"{1e3 * total:.2f}"])
    reached = f"\n\nLimit / median of a query: {total / fast:.2f}." if first.size == 1 else ""
    return table(("", *first.spans, "limit"), rows) + reached


def _limit(found: Latency, name: str) -> str:
    return f"{1e3 * found.limit.get(name, 0.0):.2f}"


def _work(found: Latency) -> str:
    names = [name for name in (*PARTS, OUTSIDE) if any(name in way for way in found.work.values())]
    rows = []
    for name in names:
        cells = []
        for way in found.work.values():
            own = way.get(name)
            cells += (
                [f"{own.operations:,}", f"{own.flops / 1e9:,.1f}", f"{own.bytes / 1e6:,.0f}"]
                if own
                else ["0"] * 3
            )
        rows.append([name, *cells])
    totals = []
    for way in found.work.values():
        parts = way.values()
        totals += [
            f"{sum(of.operations for of in parts):,}",
            f"{sum(of.flops for of in parts) / 1e9:,.1f}",
            f"{sum(of.bytes for of in parts) / 1e6:,.0f}",
        ]
    head = [f"{way}: {unit}" for way in found.work for unit in ("operations", "GF", "MB")]
    return table(("", *head), [*rows, ["sum", *totals]])


def _gate(found: Latency) -> str:
    if not found.gate:
        return ""
    wanted = "is allowed" if found.gate.binding else "is wanted of weights that are not quantised"
    errors = ", ".join(f"{name} {error:.1e}" for name, error in found.gate.errors.items())
    return (
        f"## Agreement\n\nError of the chunks, root mean square over that of the chunks: {errors}; at most "
        f'{found.gate.allowed:.1e} {wanted}. "{TWIN}" is our twin of it (src/wamkit/bench/reference), not the '
        "official program."
    )


def _official(found: Latency, seconds: Sequence[float]) -> str:
    if not seconds:
        return ""
    own = [*found.batches[0].seconds.values()][-1].summary["median"]
    return (
        f"## The official code\n\nMeasured by the program that was named: {1e3 * median(seconds):.2f} ms, the median "
        f"of {len(seconds)} queries, {median(seconds) / own:.2f} times ours. It was not measured in turns with it."
    )


def _kernels(found: Latency) -> str:
    """Of a GPU: how long it is busy, and with what."""
    pages = []
    for name, kernels in found.kernels.items():
        if kernels:
            busy, started = sum(kernel.seconds for kernel in kernels), sum(kernel.count for kernel in kernels)
            rows = [
                [of.name[:80], f"{of.count:.1f}", f"{1e3 * of.seconds:.3f}"] for of in kernels[:MOST_KERNELS]
            ]
            pages.append(
                f"{name}: {started:.0f} kernels and copies, busy for {1e3 * busy:.2f} ms.\n\n"
                + table(("kernel", "times per query", "ms per query"), rows)
            )
    return "\n\n".join(["## Kernels of one observation", *pages]) if pages else ""


def _ladder(found: Latency) -> str:
    if not found.ladder:
        return ""
    rows = [[rung.name, str(rung.alone), str(rung.all_before)] for rung in found.ladder]
    head = ("pass", "with it / with those before it", "with it and those before it / with none")
    return (
        "## Passes, one after the other\n\nTimes as fast, one observation, each measured in turns.\n\n"
        + table(head, rows)
    )


def _cold(found: Latency, cold: Cost | None) -> str:
    memory = f"On the GPU at most {found.memory / GIB:.2f} GiB while it was asked. " if found.memory else ""
    if not cold:
        return memory
    first = cold.started + cold.seconds["load"] + cold.seconds["first query"]
    steps = "; ".join(f"{name} {seconds:.2f} s" for name, seconds in cold.seconds.items())
    gpu = "".join(f" On the GPU at most {size / GIB:.2f} GiB: {name}." for name, size in cold.gpu.items())
    return (
        f"## A new process\n\n{first:.1f} s until its first chunk: started {cold.started:.2f} s; {steps}. {memory}"
        f"Memory of the process at most {cold.peak / GIB:.2f} GiB, of which {cold.peak_anonymous / GIB:.2f} GiB must "
        f"stay; {cold.before / GIB:.2f} GiB before it loads anything.{gpu}"
    )
