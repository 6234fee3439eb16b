"""Tables of constants: they move with a network, are never cast or saved, and need no file on the meta device."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from wamkit_client.types import BadInput

from tests.policies.tiny_fast_wam import tiny_config
from wamkit.nn.rope import GridRotary, LineRotary, axis_dims
from wamkit.nn.sinusoid import Sinusoid
from wamkit.nn.tables import Tables
from wamkit.policies.fast_wam.action_dit import ActionDiT
from wamkit.wan.codec import BlockCodec
from wamkit.wan.dit import NO_ADAPTERS, WanDiT
from wamkit.wan.vae import WAN21, LatentStatistics

CONFIG = tiny_config()
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "video": lambda: WanDiT(CONFIG.size, NO_ADAPTERS),
    "action": lambda: ActionDiT(CONFIG.action_size, 7),
    "codec": BlockCodec,
    "statistics": lambda: LatentStatistics(WAN21),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("cast", [nn.Module.bfloat16, nn.Module.half, nn.Module.double])
def test_they_are_never_cast_or_saved(name: str, cast: Callable[[nn.Module], nn.Module]) -> None:
    network = NETWORKS[name]()
    before = {name: table.clone() for name, table in network.named_buffers()}
    after = dict(cast(network).named_buffers())
    assert before and before.keys() == after.keys()
    assert all(after[name].dtype == before[name].dtype for name in before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert not before.keys() & network.state_dict().keys()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_without_memory_has_them(name: str) -> None:
    with torch.device("meta"):
        network = NETWORKS[name]()
    expected = dict(NETWORKS[name]().named_buffers())
    assert all(torch.equal(table, expected[name]) for name, table in network.named_buffers())
    assert all(parameter.is_meta for parameter in network.parameters())
    emptied = dict(network.to_empty(device="cpu").named_buffers())
    assert all(torch.equal(emptied[name], table) for name, table in expected.items())


def test_they_move() -> None:
    tables = Tables(x=torch.arange(3.0))
    assert nn.Sequential(tables).to("meta", torch.bfloat16)[0].x.is_meta
    assert tables.x.dtype == torch.float32


def written_out(position: int, dim: int) -> list[Tensor]:
    """(cos, sin) of one position, channel pair by channel pair."""
    angles = [
        torch.tensor(position * 10000.0 ** (-2 * j / dim), dtype=torch.float64) for j in range(dim // 2)
    ]
    return [torch.stack([angle.cos(), angle.sin()]).float() for angle in angles]


def test_a_grid_is_frames_rows_and_columns_in_that_order() -> None:
    table = GridRotary(32)([range(1), range(1, 3), range(1, 2)], 2, 3)
    tokens = product((0, 1, 2, 1), range(2), range(3))
    expected = [
        torch.stack(
            [pair for at, dim in zip(token, axis_dims(32), strict=True) for pair in written_out(at, dim)]
        )
        for token in tokens
    ]
    torch.testing.assert_close(table, torch.stack(expected), rtol=0, atol=1e-7)


def test_a_line_has_one_axis() -> None:
    expected = torch.stack([torch.stack(written_out(step, 20)) for step in range(5)])
    torch.testing.assert_close(LineRotary(20)(5), expected, rtol=0, atol=1e-7)


def test_positions_past_the_tables_are_refused() -> None:
    assert len(LineRotary(8)(1024)) == 1024
    with pytest.raises(BadInput, match="1025 positions along one axis: rotary tables have 1024"):
        LineRotary(8)(1025)
    with pytest.raises(BadInput, match="1025 positions"):
        GridRotary(32)([range(1024, 1025)], 1, 1)


def test_a_sinusoid_is_evaluated_in_float64() -> None:
    code = Sinusoid(8).bfloat16()(torch.tensor([0.3, 999.7]))
    frequency = 10000.0 ** (-torch.arange(4, dtype=torch.float64) / 4)
    angle = torch.tensor([0.3, 999.7]).double()[:, None] * frequency
    assert torch.equal(code, torch.cat([angle.cos(), angle.sin()], dim=1).float())
