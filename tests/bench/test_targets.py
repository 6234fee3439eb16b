"""What a query at full size may ask of a device, counted on shapes: the promise that needs no GPU."""

from __future__ import annotations

from dataclasses import replace

from wamkit.bench.latency import TWIN, Asked, count
from wamkit.recipes import recipe


def test_a_robotwin_query_of_light_wam_whole() -> None:
    """From bytes of the views to the chunk. Officially 3,798 operations and 2,231 GF."""
    run = recipe("robotwin")
    run = replace(run, eval=replace(run.eval, precision="bf16"))
    counted = count(run, Asked(batches=(1,), rounds=1, preset="exact", reference=True))
    operations, flops = (
        {way: sum(getattr(of, what) for of in spans.values()) for way, spans in counted.items()}
        for what in ("operations", "flops")
    )
    assert operations["exact"] <= 1700 and flops["exact"] <= 1345e9
    assert abs(operations[TWIN] / 3798 - 1) < 0.02 and abs(flops[TWIN] / 2230.6e9 - 1) < 0.005
