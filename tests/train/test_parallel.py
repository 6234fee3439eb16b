"""Several gloo processes train as one does: the same samples, noise, losses and weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.policies.tiny_lawam import batch as lawam_batch
from tests.policies.tiny_lawam_world import PAIR_RUN
from tests.policies.tiny_policy import batch_of
from tests.train.ranks import on_ranks
from tests.train.test_loop import Diverging
from tests.train.test_no_reads import POLICIES
from tests.train.tiny import CONFIG, CPU, TinyPolicy, fresh
from wamkit.io.weights import WEIGHTS
from wamkit.stages.plan import meta_batch
from wamkit.train.loop import TrainConfig, forward_of, initial_state, optimize, train
from wamkit.train.metrics import Row, read_rows
from wamkit.train.parallel import SINGLE, Kind, Parallel
from wamkit.train.ranks import Agreed
from wamkit.types import Batch

STEPS = 20
RTOL = 1e-4
DECIDES = "fast_wam, Optional-IDM"
"""It computes the future of some samples, drawn by chance."""
TIMES = ("steps_per_second", "data_share")
Losses = dict[str, list[list[float]]]


def batch_for(name: str, policy: Any) -> Batch:
    """Of four samples, of which not all have equally many targets."""
    if name == "lawam":
        batch = lawam_batch(4)
        batch.valid[1, 2:] = False
        return batch
    if name == "lawam, stage 1":
        generator = torch.Generator().manual_seed(0)
        return meta_batch(PAIR_RUN).map(
            lambda x: torch.rand(x.shape, generator=generator).to(x.dtype), ("",) * 4
        )
    return batch_of(policy, 4)


def losses(parallel: Parallel, names: list[str], steps: int) -> Losses:
    """Of so many steps of each policy, with this rank's rows of one batch: the means over the ranks."""
    return {name: _losses(parallel, name, steps) for name in names}


def _losses(parallel: Parallel, name: str, steps: int) -> list[list[float]]:
    policy = POLICIES[name]()
    whole = batch_for(name, policy)
    config = TrainConfig(steps=STEPS, batch_size=4, warmup_steps=1, learning_rate=1e-3, average_decay=0.9)
    state = initial_state(policy, config, parallel)
    forward = parallel.forward(state.module, forward_of(state.module, config))
    own = whole.rows(parallel.ranks.share.rows(4, config.accumulation))
    found = [optimize(forward, own, step, state, config, parallel) for step in range(steps)]
    return [parallel.ranks.mean(torch.stack(list(row.values())).double()).tolist() for row in found]


@pytest.mark.parametrize(
    ("kind", "count", "steps"),
    [
        ("ddp", 2, 3),
        ("fsdp", 2, 2),
        pytest.param("ddp", 2, STEPS, marks=pytest.mark.scale),
        pytest.param("ddp", 4, STEPS, marks=pytest.mark.scale),
        pytest.param("fsdp", 4, STEPS, marks=pytest.mark.scale),
        pytest.param("hybrid", 4, STEPS, marks=pytest.mark.scale),
    ],
)
def test_any_number_of_ranks_finds_the_same_losses(kind: Kind, count: int, steps: int) -> None:
    names = [name for name in POLICIES if kind == "ddp" or name != DECIDES]
    expected = losses(SINGLE, names, steps)
    found, *others = on_ranks(count, losses, names, steps, kind=kind)
    assert all(other == found for other in others)
    for name in names:
        assert torch.allclose(torch.tensor(found[name]), torch.tensor(expected[name]), rtol=RTOL), name


def refused(parallel: Parallel) -> str:
    with pytest.raises(Agreed) as caught:
        losses(parallel, [DECIDES], 1)
    return str(caught.value)


def test_a_policy_that_decides_what_it_computes_cannot_be_divided() -> None:
    one, other = on_ranks(2, refused, kind="fsdp")
    assert one == other and "give --train.parallel ddp" in one


def trained(
    parallel: Parallel, run_dir: Path, changes: dict[str, Any]
) -> tuple[list[Row], dict[str, Tensor]]:
    """Rows and weights of a tiny run."""
    policy, config = TinyPolicy(), replace(CONFIG, **changes)
    train(policy, fresh(30), config, run_dir, CPU, parallel=parallel)
    rows = [{name: x for name, x in row.items() if name not in TIMES} for row in read_rows(run_dir)]
    return rows, dict(policy.state_dict())


@pytest.mark.parametrize("changes", [{}, {"accumulation": 2, "log_every": 3, "batch_size": 8}], ids=str)
def test_a_run_of_several_ranks_is_that_of_one(tmp_path: Path, changes: dict[str, Any]) -> None:
    changes = {"steps": STEPS} | changes
    rows, expected = trained(SINGLE, tmp_path / "alone", changes)
    one, other = (on_ranks(2, trained, tmp_path / name, changes) for name in ("one", "other"))
    for own, again in zip(one, other, strict=True):
        assert own[0] == again[0]  # bit for bit
        assert all(torch.equal(own[1][name], again[1][name]) for name in expected)
    for own, row in zip(one[0][0], rows, strict=True):
        assert own == pytest.approx(row, rel=RTOL)
    for name, weight in load_file(tmp_path / "alone" / WEIGHTS).items():
        assert torch.allclose(load_file(tmp_path / "one" / WEIGHTS)[name], weight, rtol=RTOL, atol=1e-5), name


def not_finite(parallel: Parallel, run_dir: Path) -> str:
    """What a rank says of a loss that is infinite for a sample of another rank."""
    with pytest.raises(Agreed) as caught:
        train(Diverging("0:7"), fresh(30), replace(CONFIG, steps=9), run_dir, CPU, parallel=parallel)
    return str(caught.value)


def test_every_rank_ends_where_a_loss_is_not_finite(tmp_path: Path) -> None:
    one, other = on_ranks(2, not_finite, tmp_path)
    assert one == other
    assert "not finite" in one and "0:7" in one and one.count(":") > 4  # samples of both ranks
