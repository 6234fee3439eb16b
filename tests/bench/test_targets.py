"""What a query at full size may ask of a device, counted on shapes: the promise that needs no GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from wamkit.bench.counting import Work
from wamkit.bench.latency import TWIN, Asked, count
from wamkit.recipes import recipe


def work_of(name: str, *, twin: bool) -> dict[str, dict[str, Work]]:
    """Of a query from bytes of the views to the chunk, by way and span."""
    run = recipe(name)
    run = replace(run, eval=replace(run.eval, precision="bf16"))
    return count(run, Asked(batches=(1,), rounds=1, preset="exact", reference=twin))


def total(spans: Mapping[str, Work]) -> tuple[int, int]:
    """Operations and FLOP."""
    return sum(of.operations for of in spans.values()), sum(of.flops for of in spans.values())


@pytest.mark.scale
def test_a_robotwin_query_of_light_wam_whole() -> None:
    """Officially 3,798 operations and 2,231 GF; promised are 1,700 and 1,345."""
    found = work_of("robotwin", twin=True)
    (operations, flops), (official, their_flops) = total(found["exact"]), total(found[TWIN])
    assert operations <= 520 and flops <= 1345e9
    assert abs(official / 3798 - 1) < 0.02 and abs(their_flops / 2230.6e9 - 1) < 0.005
    parts = found["exact"]
    # Text rows are all kept where nobody knows which are padding: 128, up to a multiple of 16 with the other keys.
    assert parts["blocks"].flops <= 1_049e9
    assert parts["expert"].flops <= 3.6e9  # of all 32 steps
    assert parts["text"].flops == 0


@pytest.mark.scale
def test_a_libero_query_of_fast_wam_whole() -> None:
    """Ten steps; officially 24,721 operations."""
    operations, _ = total(work_of("libero_fast_wam", twin=False)["exact"])
    assert operations <= 5000


@pytest.mark.scale
def test_a_libero_query_of_lawam_whole() -> None:
    """Nothing in it or in the official work is read on the host. A norm of the prior's text layers counts as the seven
    operations that it is on a processor."""
    found = work_of("libero_lawam", twin=True)
    (operations, flops), (official, their_flops) = total(found["exact"]), total(found[TWIN])
    assert operations <= 0.53 * official and flops <= 0.8 * their_flops
    assert operations <= 3100
