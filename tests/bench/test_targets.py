"""What a query at full size may ask of a device, counted on shapes: the promise that needs no GPU."""

from __future__ import annotations

from dataclasses import replace

from wamkit.bench.latency import TWIN, Asked, count
from wamkit.recipes import recipe


def work_of(name: str, *, twin: bool) -> dict[str, tuple[int, float]]:
    """Operations and FLOP of a query from bytes of the views to the chunk, by way."""
    run = recipe(name)
    run = replace(run, eval=replace(run.eval, precision="bf16"))
    counted = count(run, Asked(batches=(1,), rounds=1, preset="exact", reference=twin))
    return {
        way: (sum(of.operations for of in spans.values()), sum(of.flops for of in spans.values()))
        for way, spans in counted.items()
    }


def test_a_robotwin_query_of_light_wam_whole() -> None:
    """Officially 3,798 operations and 2,231 GF."""
    found = work_of("robotwin", twin=True)
    (operations, flops), (official, their_flops) = found["exact"], found[TWIN]
    assert operations <= 1700 and flops <= 1345e9
    assert abs(official / 3798 - 1) < 0.02 and abs(their_flops / 2230.6e9 - 1) < 0.005


def test_a_libero_query_of_fast_wam_whole() -> None:
    """Ten steps; officially 24,721 operations."""
    operations, _ = work_of("libero_fast_wam", twin=False)["exact"]
    assert operations <= 5000


def test_a_libero_query_of_lawam_is_counted_beside_the_official_work() -> None:
    """Nothing in either is read on the host."""
    found = work_of("libero_lawam", twin=True)
    (operations, flops), (official, their_flops) = found["exact"], found[TWIN]
    assert 1.9 * operations <= official and 1.2 * flops <= their_flops
