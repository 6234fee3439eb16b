"""What ranks tell each other: refusals, differences, who is late."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from wamkit_client.types import BadInput

from tests.train.ranks import on_ranks
from tests.train.tiny import CONFIG, CPU, TinyPolicy, fresh
from wamkit.data.order import Share
from wamkit.stages.alike import bits
from wamkit.train.loop import train
from wamkit.train.parallel import Parallel
from wamkit.train.ranks import ALONE, Agreed, Ranks, expect_divisible, joined


class Of(Ranks):
    def __init__(self, count: int) -> None:
        self.share = Share(0, count)


@pytest.mark.parametrize(
    ("count", "batch", "parts", "message"),
    [
        (5, 4, 1, "4 samples for 5 ranks; every rank needs one of each part"),
        (4, 8, 4, "8 samples in 4 parts of 2 for 4 ranks"),
        (3, 16, 1, "16 samples in 1 part.s. cannot be shared equally by 3 ranks; give 15 or 18"),
        (2, 6, 2, "6 samples in 2 part.s. cannot be shared equally by 2 ranks; give 4 or 8"),
    ],
)
def test_a_batch_that_cannot_be_shared_is_refused(count: int, batch: int, parts: int, message: str) -> None:
    with pytest.raises(BadInput, match=f"train.batch_size: {message}"):
        expect_divisible(Of(count), batch, parts)
    expect_divisible(Of(2), 8, 4)
    expect_divisible(ALONE, 7, 1)


def test_parts_are_the_same_samples_whatever_the_number_of_ranks() -> None:
    assert Share().rows(8, 2) == tuple(range(8))
    assert [Share(rank, 2).rows(8, 2) for rank in range(2)] == [(0, 1, 4, 5), (2, 3, 6, 7)]
    assert sorted(row for rank in range(3) for row in Share(rank, 3).rows(12, 2)) == list(range(12))


def test_an_error_is_told_once() -> None:
    assert joined([("a", ""), ("b", "")]) == ""
    assert joined([("a", "no disk"), ("b", "no disk")]) == "no disk"
    assert joined([("a", ""), ("b", "no disk")]) == "rank 1 (b) of 2: no disk"
    assert (
        joined([("a", "x"), ("b", "y"), ("b", "y")]) == "rank 0 (a) of 3: x; rank 1 (b), rank 2 (b) of 3: y"
    )


def refused(parallel: Parallel, run_dir: Path) -> list[str]:
    """What a rank is told in each case."""
    ranks, told = parallel.ranks, []
    rank = ranks.share.rank
    with pytest.raises(Agreed) as caught, ranks.together():
        if rank == 1:
            raise BadInput("no such file")
    told.append(str(caught.value))
    ranks.expect_alike(lambda: {"torch": "2.8"})
    with pytest.raises(Agreed) as caught:
        ranks.expect_alike(lambda: {"torch": f"2.{8 + rank}", "seed": "1"} | ({} if rank else {"more": "x"}))
    told.append(str(caught.value))
    ranks.expect_all("begun", 60)
    with pytest.raises(Agreed) as caught:
        if rank == 0:
            ranks.expect_all("read its first batch", 0.2)
        raise Agreed("")
    told.append(str(caught.value))
    with pytest.raises(Agreed) as caught:
        train(TinyPolicy(), fresh(30), replace(CONFIG, batch_size=5), run_dir, CPU, parallel=parallel)
    told.append(str(caught.value))
    return told


def test_what_differs_is_named_on_every_rank(tmp_path: Path) -> None:
    one, other = on_ranks(2, refused, tmp_path)
    assert one[:2] == other[:2] and one[3] == other[3]
    assert one[0].startswith("rank 1 (") and one[0].endswith(") of 2: no such file")
    assert "is not like rank 0" in one[1] and "torch: 2.9 instead of 2.8; more: none instead of x" in one[1]
    assert one[2] == "rank 1 of 2 has not read its first batch (within 0.2 s)"
    assert one[3].startswith("train.batch_size: 5 samples in 1 part(s) cannot be shared equally by 2 ranks")


def test_weights_that_differ_in_a_bit_have_other_sums() -> None:
    import torch

    weight = torch.randn(7, 3).bfloat16()
    other = weight.clone()
    other.view(torch.int16)[3, 1] ^= 1
    assert bits(weight) == bits(weight.clone()) != bits(other)
