"""The normaliser: the published formulas, the rule for still dimensions, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from wamkit_client.types import BadInput

from tests.data import recording
from wamkit.data.lerobot.dataset import Dataset
from wamkit.data.normalize import Normalizer, Stats, dataset_stats
from wamkit.data.statistics import QUANTILES

MODES = {"action": "min_max", "proprio": "z_score"}


def table(seed: int, still: bool = False) -> dict[str, Stats]:
    random = np.random.default_rng(seed)
    rows = random.normal(3, 2, size=(200, 3))
    if still:
        rows[:, 1] = 7.0
    return {"action": Stats.of(rows), "proprio": Stats.of(rows[:, :2] * 10)}


def only(rows: int = 1) -> Tensor:
    """The row of the only robot, `rows` times."""
    return torch.zeros(rows, dtype=torch.int64)


def test_formulas() -> None:
    stats = table(0)
    normalizer = Normalizer.fit({"arm": stats}, MODES)
    x = torch.from_numpy(np.random.default_rng(1).normal(3, 2, size=(1, 5, 3))).float()
    action, proprio = stats["action"], stats["proprio"]
    scale = 2 / (action.max - action.min)
    expected = x.numpy() * scale + (-1 - scale * action.min)
    np.testing.assert_allclose(normalizer.to_unit("action", x, only()), expected, atol=1e-5)
    low_high = torch.tensor(np.stack([action.min, action.max]))[None].float()
    np.testing.assert_allclose(
        normalizer.to_unit("action", low_high, only())[0], [[-1] * 3, [1] * 3], atol=1e-5
    )
    expected = (x[:, 0, :2].numpy() - proprio.mean) / (proprio.std + 1e-8)
    np.testing.assert_allclose(normalizer.to_unit("proprio", x[:, 0, :2], only()), expected, atol=1e-5)


def test_unit_range_is_clamped_and_the_way_back_is_not() -> None:
    normalizer = Normalizer.fit({"arm": table(0)}, MODES)
    far = torch.full((1, 3), 1e6)
    assert torch.equal(normalizer.to_unit("action", far, only()), torch.full((1, 3), 5.0))
    outside = torch.full((1, 3), 20.0)
    assert (normalizer.to_physical("action", outside, only()) > 50).all()


@pytest.mark.parametrize("mode", ["min_max", "z_score"])
def test_round_trip(mode: str) -> None:
    normalizer = Normalizer.fit({"arm": table(0)}, {"action": mode})
    x = torch.from_numpy(np.random.default_rng(1).normal(3, 1.5, size=(1, 8, 3))).float()
    again = normalizer.to_physical("action", normalizer.to_unit("action", x, only()), only())
    torch.testing.assert_close(again, x, rtol=1e-5, atol=1e-5)


def test_a_still_dimension_is_only_shifted_by_min_max() -> None:
    normalizer = Normalizer.fit({"arm": table(0, still=True)}, {"action": "min_max"})
    x = torch.tensor([[3.0, 7.0, 3.0], [3.0, 7.25, 3.0]])
    unit = normalizer.to_unit("action", x, only(2))
    assert unit[:, 1].tolist() == [0.0, 0.25]
    torch.testing.assert_close(normalizer.to_physical("action", unit, only(2)), x)


def test_z_score_has_no_rule_for_still_dimensions() -> None:
    """As the released weights were trained."""
    normalizer = Normalizer.fit({"arm": table(0, still=True)}, {"action": "z_score"})
    x = torch.tensor([[3.0, 7.0, 3.0], [3.0, 7.001, 3.0], [3.0, 6.999, 3.0]])
    unit = normalizer.to_unit("action", x, only(3))
    assert unit[:, 1].tolist() == [0.0, 5.0, -5.0]
    torch.testing.assert_close(normalizer.to_physical("action", unit, only(3))[:1], x[:1])


def test_every_row_uses_its_own_embodiment() -> None:
    one, two = table(0), table(5)
    both = Normalizer.fit({"one": one, "two": two}, MODES)
    x = torch.randn(3, 4, 3)
    mixed = both.to_unit("action", x, both.index(("two", "one", "two")))
    for row, (name, stats) in enumerate((("two", two), ("one", one), ("two", two))):
        alone = Normalizer.fit({name: stats}, MODES).to_unit("action", x[row : row + 1], only())
        assert torch.equal(mixed[row : row + 1], alone)


def test_robots_of_different_widths_share_a_table() -> None:
    """Fails when a narrow robot's own dimensions move, or what it has not is scaled."""
    wide, narrow = table(0), table(5)
    narrow["action"] = narrow["proprio"]
    both = Normalizer.fit({"wide": wide, "narrow": narrow}, MODES)
    assert both.embodiments == ("wide", "narrow")
    assert both.index(("narrow", "wide", "narrow")).tolist() == [1, 0, 1]
    both.expect({"action": 3, "proprio": 2}, "normalizer.json")

    x = torch.randn(2, 4, 3)
    unit = both.to_unit("action", x, both.index(("wide", "narrow")))
    alone = {
        name: Normalizer.fit({name: stats}, MODES) for name, stats in (("wide", wide), ("narrow", narrow))
    }
    assert torch.equal(unit[:1], alone["wide"].to_unit("action", x[:1], only()))
    assert torch.equal(unit[1:, :, :2], alone["narrow"].to_unit("action", x[1:, :, :2], only()))
    assert torch.equal(unit[1, :, 2], x[1, :, 2])
    again = both.to_physical("action", unit, both.index(("wide", "narrow")))
    assert torch.equal(again[1, :, 2], x[1, :, 2])
    assert Normalizer.from_json(both.to_json(), "normalizer.json").to_json() == both.to_json()


def test_json_gives_the_same_numbers() -> None:
    normalizer = Normalizer.fit({"one": table(0), "two": table(1, still=True)}, MODES)
    again = Normalizer.from_json(normalizer.to_json(), "normalizer.json")
    x, robots = torch.randn(2, 6, 3), normalizer.index(("one", "two"))
    assert torch.equal(again.index(("one", "two")), robots)
    assert torch.equal(normalizer.to_unit("action", x, robots), again.to_unit("action", x, robots))
    assert normalizer.state_dict() == {}


def test_refusals() -> None:
    normalizer = Normalizer.fit({"arm": table(0)}, MODES)
    with pytest.raises(BadInput, match=r"unknown embodiment 'leg'; it was fitted on \['arm'\]"):
        normalizer.index(("leg",))
    with pytest.raises(BadInput, match="3 dimensions"):
        normalizer.to_unit("action", torch.zeros(1, 4), only())
    with pytest.raises(BadInput, match="one row each"):
        normalizer._maps("action", torch.zeros(2, 3), only())  # the suite's own check is sooner in to_unit
    with pytest.raises(BadInput, match="unknown field 'force'"):
        normalizer.to_unit("force", torch.zeros(1, 3), only())
    with pytest.raises(BadInput, match="unknown mode 'max'"):
        Normalizer.fit({"arm": table(0)}, {"action": "max"})
    for text in (
        "",
        "{}",
        "[]",
        '{"format": "other"}',
        '{"format": "wamkit normalizer 1", "modes": {}, "stats": 3}',
    ):
        with pytest.raises(BadInput, match="normalizer"):
            Normalizer.from_json(text, "normalizer.json")


def put(path: str, value: object) -> Callable[[Any], object]:
    """The tree with another value at a dotted path; None as value removes it."""

    def change(tree: Any) -> object:
        *folders, name = path.split("/")
        inside = tree
        for folder in folders:
            inside = inside[folder]
        if value is None:
            del inside[name]
        else:
            inside[int(name) if isinstance(inside, list) else name] = value
        return tree

    return change


ACTION, PROPRIO = "stats/arm/action", "stats/arm/proprio"
DAMAGE = [
    (put("format", "2"), r"n.json: format is '2'; expected 'wamkit normalizer 1'"),
    (put("modes", None), r"n.json: modes: expected a JSON object, got None"),
    (put("modes/action", "q01"), r"n.json: normalizer: unknown mode 'q01'"),
    (put("stats", {}), r"n.json: normalizer: no embodiment"),
    (put("stats/arm", [1]), r"n.json: stats.arm: expected a JSON object, got \[1\]"),
    (put(PROPRIO, None), r"n.json: normalizer: embodiment 'arm' has no statistics of 'proprio'"),
    (
        put(f"{ACTION}/max", None),
        r"n.json: stats.arm.action: expected min, max, mean, std, q01.* got \['min', 'mean'",
    ),
    (
        put(f"{ACTION}/max", [1.0, 2.0]),
        r"n.json: stats.arm.action: expected lists of one length.*'max': 2, 'mean': 3",
    ),
    (put(f"{ACTION}/max", []), r"n.json: stats.arm.action: expected lists of one length"),
    (
        put(f"{ACTION}/max/1", float("nan")),
        r"n.json: stats.arm.action.max\[1\] is nan; expected a finite number",
    ),
    (put(f"{ACTION}/q99/1", float("inf")), r"n.json: stats.arm.action.q99\[1\] is inf; expected a finite"),
    (put(f"{PROPRIO}/std/0", "1"), r"n.json: stats.arm.proprio.std\[0\] is '1'"),
    (put(f"{PROPRIO}/mean/0", True), r"n.json: stats.arm.proprio.mean\[0\] is True"),
    (put(f"{PROPRIO}/mean", 3.0), r"n.json: stats.arm.proprio: expected lists of one length.*'mean': 1"),
    (put(f"{ACTION}/max/2", -1e3), r"n.json: stats.arm.action: max is below min in dimension 2"),
    (put(f"{PROPRIO}/std/1", -1.0), r"n.json: stats.arm.proprio: std is negative in dimension 1"),
    (put(f"{ACTION}/count", 0.5), r"n.json: stats.arm.action.count is 0.5"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE, ids=range(len(DAMAGE)))
def test_damage_is_named_by_file_field_and_dimension(damage: Callable[[Any], object], message: str) -> None:
    tree = json.loads(Normalizer.fit({"arm": table(0)}, MODES).to_json())
    with pytest.raises(BadInput, match=message):
        Normalizer.from_json(json.dumps(damage(tree)), "n.json")


def test_unknown_quantiles_are_null_and_were_nan_once() -> None:
    unknown = {name: np.full(3, np.nan) for name in QUANTILES}
    stats = {"action": replace(table(0)["action"], **unknown)}
    text = Normalizer.fit({"arm": stats}, {"action": "min_max"}).to_json()

    def no_literal(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    assert json.loads(text, parse_constant=no_literal)["stats"]["arm"]["action"]["q50"] == [None] * 3
    former = json.loads(text.replace("null", "NaN"))
    for tree in (json.loads(text), former):
        again = Normalizer.from_json(json.dumps(tree), "n.json")
        assert np.isnan(again.stats["arm"]["action"].q99).all() and again.to_json() == text


def test_statistics_come_from_the_frames(recorded: Path) -> None:
    dataset = Dataset.open(recorded)
    stats = dataset_stats(dataset, dataset.episodes)
    rows = np.concatenate([recording.columns(e, n)["action"] for e, n in enumerate(recording.LENGTHS)])
    np.testing.assert_allclose(stats["action"].q01, np.quantile(rows.astype(np.float64), 0.01, axis=0))
    np.testing.assert_allclose(stats["action"].mean, rows.astype(np.float64).mean(0))
    assert stats["proprio"].count == sum(recording.LENGTHS)
