"""What samples have in common goes to the device once, whatever it comes from, and gives the same batches."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.train.tiny import TASKS, TinyClips, TinyEncoder, TinyPolicy, fresh
from wamkit.data import shared
from wamkit.data.cache import Cache, fill
from wamkit.data.loader import batches
from wamkit.data.samples import Fresh, Mixture, Samples, read_all
from wamkit.data.shared import Row, Table
from wamkit.tree import tree_leaves

CPU, SAMPLES = torch.device("cpu"), 40
ROBOTS = TinyPolicy().embodiment


def cached(folder: Path, samples: int = SAMPLES) -> Cache:
    """In shards of eight samples, of which each has one or two instructions."""
    fill(fresh(samples), folder, {"codec": "tiny"}, shard_size=8)
    return Cache.open(folder, {"codec": "tiny"}, 10.0)


def mixed(folder: Path) -> Mixture:
    return Mixture((cached(folder), fresh(SAMPLES)), (1.0, 1.0), horizon=8, action_dim=2, proprio_dim=4)


@pytest.mark.parametrize(
    "make", [cached, lambda folder: fresh(SAMPLES), mixed], ids=["cache", "fresh", "mixture"]
)
def test_batches_have_what_their_samples_have(make: object, tmp_path: Path) -> None:
    samples: Samples = make(tmp_path)  # type: ignore[operator]
    plain = {name: number for number in range(len(samples)) for name in read_all(samples, [number]).ids}
    with closing(batches(samples, ROBOTS, 9, seed=3)) as stream:
        for batch in islice(stream, 6):
            whole = read_all(samples, [plain[name] for name in batch.ids]).batch(ROBOTS)
            own, expected = tree_leaves(batch.inputs), tree_leaves(whole.inputs)
            assert own.keys() == expected.keys()
            assert all(torch.equal(own[name], x) for name, x in expected.items())


def test_equal_rows_of_many_shards_are_one(tmp_path: Path) -> None:
    cache = cached(tmp_path)
    found = cache.finish(cache.reader(range(SAMPLES), [0] * SAMPLES))
    assert set(found.shared) == {"context"} and "context" not in found.inputs
    assert len({row.key for row in found.shared["context"]}) == len(set(map(len, TASKS)))


def test_a_row_is_read_once() -> None:
    read: list[int] = []

    def row(number: int) -> Row:
        def value() -> Tensor:
            read.append(number)
            return torch.full((3,), number)

        return Row(number, value)

    table = Table(CPU)
    for numbers in ([1, 2, 1], [2, 2, 3], [1, 3, 2]):
        rows = table.stacked({"context": tuple(map(row, numbers))})["context"]
        assert rows[:, 0].tolist() == numbers
    assert read == [1, 2, 3]


def test_rows_that_were_not_used_lately_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "KEPT", 2)
    read: list[int] = []

    def rows(numbers: Sequence[int]) -> tuple[Row, ...]:
        return tuple(Row(n, lambda n=n: read.append(n) or torch.tensor(n)) for n in numbers)  # type: ignore[misc]

    table = Table(CPU)
    for numbers in ([1, 2, 3, 4], [4, 3], [1, 3]):  # a batch may have more than are kept
        assert table.stacked({"context": rows(numbers)})["context"].tolist() == numbers
    assert read == [1, 2, 3, 4, 1]


class Counted(TinyEncoder):
    """asked: the instructions that it was given."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def text(self, instructions: Sequence[str]) -> dict[str, Tensor]:
        self.asked += instructions
        return super().text(instructions)


def test_an_instruction_is_encoded_once_for_a_batch() -> None:
    encoder = Counted()
    found = read_all(Fresh(TinyClips(SAMPLES), encoder), range(30))
    assert sorted(encoder.asked) == sorted(TASKS)
    assert found.inputs["context"].shape == (30, 6, 5)
