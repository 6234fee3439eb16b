"""Rules of single dimensions: LIBERO's and RoboTwin's actions as LaWAM's spec 2.8 has them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import Tensor
from wamkit_client.types import BadInput

from wamkit.config import Normalization
from wamkit.data.actions import ActionSpace
from wamkit.data.normalize import Normalizer, Rules
from wamkit.data.statistics import Stats

LIBERO = ActionSpace((*"xyzabcg",), (*["delta"] * 3, *["rotation"] * 3, "gripper"))
ARM = (*["absolute"] * 3, *["quaternion"] * 4, "gripper")
ROBOTWIN = ActionSpace(tuple(f"{side}{i}" for side in "lr" for i in range(8)), (*ARM, *ARM))
BINARY = Normalization(gripper="binary")
INVERTED = Normalization(gripper="inverted_min_max")
ONE = torch.zeros(1, dtype=torch.int64)


def rows(width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.3, 0.7, (50, width)).astype(np.float32)


def libero(normalization: Normalization = BINARY) -> tuple[Normalizer, np.ndarray]:
    data = rows(7)
    data[:, 6] = np.where(data[:, 6] > 0.3, 1, -1)
    return normalization.fit({"panda": {"action": Stats.of(data)} | unused()}, {"panda": LIBERO}), data


def unused() -> dict[str, Stats]:
    return {"proprio": Stats.of(np.zeros((1, 0)))}


def test_a_binary_gripper() -> None:
    normalizer, data = libero()
    x = torch.from_numpy(data)[None]
    unit = normalizer.to_unit("action", x, ONE)
    assert torch.equal(unit[..., 6], (x[..., 6] > 0.5).float())
    usual, _ = libero(Normalization())
    assert torch.equal(unit[..., :6], usual.to_unit("action", x, ONE)[..., :6])
    assert torch.equal(normalizer.to_physical("action", unit, ONE)[..., 6], x[..., 6])
    predicted = torch.tensor([[[0.0] * 6 + [g] for g in (-3.0, 0.4999, 0.5, 0.5001, 7.0)]])
    assert normalizer.to_physical("action", predicted, ONE)[0, :, 6].tolist() == [-1, -1, -1, 1, 1]


@pytest.mark.parametrize(("rules", "space"), [(BINARY, LIBERO), (INVERTED, ROBOTWIN)])
def test_a_network_built_without_memory_has_its_rules(rules: Normalization, space: ActionSpace) -> None:
    data = Stats.of(rows(len(space.names)))
    with torch.device("meta"):
        normalizer = rules.fit({"robot": {"action": data} | unused()}, {"robot": space})
    assert not [name for name, table in normalizer.named_buffers() if table.is_meta]


def test_quaternions_are_as_they_are_and_come_back_with_length_one() -> None:
    data = rows(16)
    normalizer = INVERTED.fit({"aloha": {"action": Stats.of(data)} | unused()}, {"aloha": ROBOTWIN})
    x = torch.from_numpy(data)[None]
    unit = normalizer.to_unit("action", x, ONE)
    assert torch.equal(unit[..., 3:7], x[..., 3:7]) and torch.equal(unit[..., 11:15], x[..., 11:15])
    usual = Normalizer.fit({"aloha": {"action": Stats.of(data)}}, {"action": "min_max"})
    scaled = usual.to_unit("action", x, ONE)
    assert torch.equal(unit[..., :3], scaled[..., :3]) and torch.equal(unit[..., 8:11], scaled[..., 8:11])
    assert torch.equal(unit[..., [7, 15]], -scaled[..., [7, 15]])
    back = normalizer.to_physical("action", unit, ONE)
    for dims in (slice(3, 7), slice(11, 15)):
        torch.testing.assert_close(back[..., dims], x[..., dims] / x[..., dims].norm(dim=-1, keepdim=True))
    others = [0, 1, 2, 7, 8, 9, 10, 15]
    torch.testing.assert_close(back[..., others], x[..., others], rtol=1e-5, atol=1e-5)
    low, high = normalizer.ends("action", "aloha")
    assert (low[[3, 14]] == -1).all() and (high[[3, 14]] == 1).all() and (low <= high).all()


def test_every_robot_has_rules_of_its_own_and_says_which_dimensions_it_has() -> None:
    wide, narrow = rows(16, 1), libero()[1]
    stats = {"aloha": {"action": Stats.of(wide)} | unused(), "panda": {"action": Stats.of(narrow)} | unused()}
    both = BINARY.fit(stats, {"aloha": ROBOTWIN, "panda": LIBERO})
    x = torch.zeros(2, 5, 16)
    x[0], x[1, :, :7] = torch.from_numpy(wide[:5]), torch.from_numpy(narrow[:5])
    robots = both.index(("aloha", "panda"))
    unit = both.to_unit("action", x, robots)
    for row, name, width, space in ((0, "aloha", 16, ROBOTWIN), (1, "panda", 7, LIBERO)):
        alone = BINARY.fit({name: stats[name]}, {name: space})
        own = x[row : row + 1, :, :width]
        assert torch.equal(unit[row : row + 1, :, :width], alone.to_unit("action", own, ONE))
        assert torch.equal(
            both.to_physical("action", unit, robots)[row : row + 1, :, :width],
            alone.to_physical("action", unit[row : row + 1, :, :width], ONE),
        )
    assert not unit[1, :, 7:].any()
    assert both.dimensions("action").sum(dim=1).tolist() == [16, 7]
    assert both.dimensions("action")[1, :7].all() and both.dimensions("proprio").shape == (2, 0)
    again = Normalizer.from_json(both.to_json(), "n.json")
    assert again.to_json() == both.to_json() and torch.equal(again.to_unit("action", x, robots), unit)


def test_without_rules_the_file_is_that_of_older_versions() -> None:
    normalizer, _ = libero(Normalization())
    saved = json.loads(normalizer.to_json())
    assert saved["format"] == "wamkit normalizer 1" and "rules" not in saved
    saved = json.loads(libero()[0].to_json())
    assert (saved["format"], saved["rules"]) == (
        "wamkit normalizer 2",
        {"panda": {"action": {"6": "binary"}}},
    )


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            {"panda": {"action": {"6": "sign"}}},
            r"n.json: normalizer: action of panda: rule 'sign' of dimension 6",
        ),
        ({"panda": {"action": {"7": "binary"}}}, r"n.json: .* rule 'binary' of dimension 7; .* 0 to 6"),
        ({"panda": {"action": {"x": "binary"}}}, r"n.json: rules: 'x' is no number of a dimension"),
        ({"panda": {"action": ["binary"]}}, r"n.json: rules.panda.action: expected a JSON object"),
        (
            {"panda": {"action": {"3": "quaternion"}}},
            r"n.json: .* four dimensions in a row.*got dimensions \[3\]",
        ),
    ],
)
def test_damaged_rules(rules: Rules, message: str) -> None:
    saved = json.loads(libero()[0].to_json()) | {"rules": rules}
    with pytest.raises(BadInput, match=message):
        Normalizer.from_json(json.dumps(saved), "n.json")


def test_a_prediction_of_no_length_stays_finite() -> None:
    data = rows(16)
    normalizer = INVERTED.fit({"aloha": {"action": Stats.of(data)} | unused()}, {"aloha": ROBOTWIN})
    still: Tensor = torch.zeros(1, 2, 16)
    assert normalizer.to_physical("action", still, ONE).isfinite().all()
    with pytest.raises(BadInput, match=r"normalization.robots: shared statistics .* is file"):
        Normalization(statistics="file", robots="shared")
