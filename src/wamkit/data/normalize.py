"""Physical units <-> the unit range a network works in, by embodiment.

    x_unit = clamp(x * scale + offset, -5, 5)        x = (x_unit - offset) / scale

Scale and offset follow from a dimension's statistics by a rule (data/rules.py): one for the whole field, its mode, and
others for single dimensions where a robot needs them.
It does not know about padding (data/actions.py), what dimensions mean, or which policy uses which mode.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from types import MappingProxyType
from typing import Any, cast, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from wamkit_client.types import BadInput

from wamkit.data.joined import AnyDataset
from wamkit.data.lerobot.columns import SOURCES
from wamkit.data.lerobot.dataset import Episode
from wamkit.data.rules import (
    Binary,
    Exceptions,
    Mode,
    Quaternions,
    corrections,
    expect_rules,
    rows,
    scale_and_offset,
)
from wamkit.data.statistics import RESTORE, Stats
from wamkit.nn.tables import Tables

__all__ = ["Normalizer", "Stats", "dataset_stats"]

Rules = Mapping[str, Mapping[str, Exceptions]]
"""{embodiment: {field: {dimension: rule}}}; what is not there is as the field's mode."""

LIMIT = 5.0
FORMATS = "wamkit normalizer 1", "wamkit normalizer 2"
"""The second has rules; without any, what is written is the first."""
NO_RULES: Rules = MappingProxyType({})


def dataset_stats(dataset: AnyDataset, episodes: Sequence[Episode]) -> dict[str, Stats]:
    """Statistics of "action" and "proprio" over every frame of some episodes. BadInput for missing or non-finite
    columns."""
    return pooled_stats([(dataset, episodes)])


def pooled_stats(chosen: Sequence[tuple[AnyDataset, Sequence[Episode]]]) -> dict[str, Stats]:
    """The same over episodes of several datasets, every step counted once."""
    return {
        field: Stats.of(
            np.concatenate([field_rows(dataset, field, episodes) for dataset, episodes in chosen])
        )
        for field in SOURCES
    }


def field_rows(dataset: AnyDataset, field: str, episodes: Sequence[Episode]) -> np.ndarray:
    """Every action or proprio of some episodes: [n, d]; d = 0 where the dataset has no proprio.

    Steps without an action have none.
    Raises BadInput as Dataset.rows.
    """
    if field == "proprio" and SOURCES[field] not in dataset.features:
        return np.zeros((sum(episode.length for episode in episodes), 0))
    counts = [episode.actions if field == "action" else episode.length for episode in episodes]
    columns = [dataset.rows(SOURCES[field], [episode]) for episode in episodes]
    return np.concatenate([rows[:count] for rows, count in zip(columns, counts, strict=True)])


class Normalizer(Tables):
    """One row of scale and offset per embodiment, for each field.

    stats: {embodiment: {field: Stats}}; every embodiment has the same fields. Rows of robots with fewer dimensions are
        filled up to the widest, with dimensions that are not scaled.
    modes: {field: "min_max" or "z_score"}. rules: exceptions from the modes.
    The buffers follow the module's device but are not in its state dict: a run saves `to_json()` instead.
    """

    def __init__(
        self, stats: Mapping[str, Mapping[str, Stats]], modes: Mapping[str, str], rules: Rules = NO_RULES
    ):
        super().__init__()  # the tables follow below, a field at a time
        self.stats = {name: dict(fields) for name, fields in stats.items()}
        self.modes = dict(modes)
        self.rules = _exceptions(rules)
        self._row = {name: row for row, name in enumerate(stats)}
        if not stats:
            raise BadInput("normalizer: no embodiment; give the statistics of at least one dataset")
        self.corrections = nn.ModuleDict()
        for field, mode in modes.items():
            self._add(field, mode)

    def _add(self, field: str, mode: str) -> None:
        """Registers the tables of a field."""
        stats = [_field(self.stats, name, field) for name in self.stats]
        exceptions = [self.rules.get(name, {}).get(field, {}) for name in self.stats]
        if mode not in get_args(Mode):
            raise BadInput(f"normalizer: unknown mode {mode!r}; expected one of {get_args(Mode)}")
        for name, own, rules in zip(self.stats, stats, exceptions, strict=True):
            expect_rules(f"normalizer: {field} of {name}", len(own.min), rules)
        maps = [scale_and_offset(own, mode, rules) for own, rules in zip(stats, exceptions, strict=True)]
        present = [np.ones(len(scale), bool) for scale, _ in maps]
        widest = max(map(len, present))
        columns = (*zip(*maps, strict=True), present)
        for part, column, fill in zip(
            ("scale", "offset", "present"), columns, (1.0, 0.0, False), strict=True
        ):
            filled = [np.pad(row, (0, widest - len(row)), constant_values=fill) for row in column]
            table = torch.from_numpy(np.stack(filled))
            self.register_buffer(
                f"{field}_{part}", table if part == "present" else table.float(), persistent=False
            )
        self.corrections[field] = nn.ModuleList(corrections(stats, exceptions, widest))

    @classmethod
    def fit(
        cls, stats: Mapping[str, Mapping[str, Stats]], modes: Mapping[str, str], rules: Rules = NO_RULES
    ) -> Normalizer:
        """The normalizer of these statistics, e.g. of `{dataset.robot_type: dataset_stats(dataset, episodes)}`."""
        return cls(stats, modes, rules)

    @property
    def embodiments(self) -> tuple[str, ...]:
        """The names of the rows, in order."""
        return tuple(self._row)

    def index(self, embodiments: Sequence[str]) -> Int[Tensor, " b"]:
        """The rows of these names, on the CPU. BadInput for an unknown one."""
        unknown = [name for name in embodiments if name not in self._row]
        if unknown:
            raise BadInput(
                f"normalizer: unknown embodiment {unknown[0]!r}; it was fitted on {list(self._row)}. "
                "Use one of these names, or train on data of the new robot"
            )
        return torch.tensor([self._row[name] for name in embodiments])

    def to_unit(
        self, field: str, x: Float[Tensor, "b *_ d"], embodiment: Int[Tensor, " b"]
    ) -> Float[Tensor, "b *_ d"]:
        """Physical -> unit range, clamped to [-5, 5]."""
        scale, offset = self._maps(field, x, embodiment)
        unit = (x * scale + offset).clamp(-LIMIT, LIMIT)
        for correction in self._corrections(field):
            unit = correction.to_unit(x, unit, embodiment)
        return unit

    def to_physical(
        self, field: str, x: Float[Tensor, "b *_ d"], embodiment: Int[Tensor, " b"]
    ) -> Float[Tensor, "b *_ d"]:
        """Unit range -> physical, not clamped."""
        scale, offset = self._maps(field, x, embodiment)
        physical = (x - offset) / scale
        for correction in self._corrections(field):
            physical = correction.to_physical(x, physical, embodiment)
        return physical

    def dimensions(self, field: str) -> Bool[Tensor, "embodiments d"]:
        """Which dimensions each robot has; a narrower one lacks the last ones."""
        return self.get_buffer(f"{field}_present")

    def ends(self, field: str, robot: str) -> tuple[np.ndarray, np.ndarray]:
        """What a robot's dimensions are at -1 and 1 in unit range, the smaller first, [d] each."""
        row = self.index([robot]).to(self.dimensions(field).device)
        own = self.dimensions(field)[row[0]]
        single = torch.eye(len(own), device=own.device)  # one dimension at a time, for quaternions
        at = [self.to_physical(field, sign * single[None], row)[0].diagonal()[own].cpu() for sign in (-1, 1)]
        return torch.minimum(*at).numpy(), torch.maximum(*at).numpy()

    def to_json(self) -> str:
        """Everything needed to make the same normalizer again."""
        stats = {n: {f: s.to_dict() for f, s in fields.items()} for n, fields in self.stats.items()}
        rules = {"rules": self.rules} if self.rules else {}
        saved = {"format": FORMATS[len(rules)], "modes": self.modes, **rules, "stats": stats}
        return json.dumps(saved, indent=2, allow_nan=False)

    @classmethod
    def from_json(cls, text: str, source: str) -> Normalizer:
        """The inverse of `to_json`. BadInput, beginning with `source`, where the text is not one or is damaged."""
        try:
            saved = json.loads(text)
        except ValueError as error:
            raise BadInput(f"{source}: truncated or not JSON ({error}); {RESTORE}") from error
        found = _object(saved, source).get("format")
        if found not in FORMATS:
            raise BadInput(
                f"{source}: format is {found!r:.60}; expected {' or '.join(map(repr, FORMATS))}; {RESTORE}"
            )
        modes, robots = (_object(saved.get(name), f"{source}: {name}") for name in ("modes", "stats"))
        stats = {
            robot: {
                field: Stats.from_dict(values, f"{source}: stats.{robot}.{field}")
                for field, values in _object(fields, f"{source}: stats.{robot}").items()
            }
            for robot, fields in robots.items()
        }
        try:
            return cls(stats, modes, _read_rules(saved.get("rules", {}), f"{source}: rules"))
        except BadInput as error:
            raise BadInput(f"{source}: {error}") from error

    def expect(self, widths: Mapping[str, int], source: str) -> None:
        """BadInput, beginning with `source`, unless it has these fields with so many dimensions."""
        found = {field: self.get_buffer(f"{field}_scale").shape[-1] for field in self.modes}
        if found != dict(widths):
            raise BadInput(f"{source}: has dimensions {found}, its run has {dict(widths)}; {RESTORE}")

    def _maps(self, field: str, x: Tensor, embodiment: Tensor) -> tuple[Tensor, Tensor]:
        if field not in self.modes:
            raise BadInput(f"normalizer: unknown field {field!r}; it has {list(self.modes)}")
        scale, offset = self.get_buffer(f"{field}_scale"), self.get_buffer(f"{field}_offset")
        if len(embodiment) != len(x) or x.shape[-1] != scale.shape[-1]:
            raise BadInput(
                f"normalizer: {field} is {list(x.shape)} for {len(embodiment)} embodiment(s); "
                f"expected one row each and {scale.shape[-1]} dimensions"
            )
        return rows(scale, x, embodiment), rows(offset, x, embodiment)

    def _corrections(self, field: str) -> Iterable[Binary | Quaternions]:
        return cast("Iterable[Binary | Quaternions]", self.corrections[field])


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadInput(f"{where}: expected a JSON object, got {value!r:.60}; {RESTORE}")
    return value


def _exceptions(rules: Rules) -> dict[str, dict[str, dict[int, str]]]:
    """Without what says nothing."""
    named = {
        name: {field: dict(own) for field, own in fields.items() if own} for name, fields in rules.items()
    }
    return {name: fields for name, fields in named.items() if fields}


def _read_rules(saved: Any, where: str) -> Rules:
    """Rules from JSON, whose keys are texts. BadInput, beginning with `where`, where they are none."""
    rules = {
        robot: {
            field: _object(own, f"{where}.{robot}.{field}")
            for field, own in _object(fields, f"{where}.{robot}").items()
        }
        for robot, fields in _object(saved, where).items()
    }
    dims = chain.from_iterable(own for fields in rules.values() for own in fields.values())
    if odd := [dim for dim in dims if not dim.isdecimal()]:
        raise BadInput(f"{where}: {odd[0]!r:.60} is no number of a dimension; {RESTORE}")
    return {
        robot: {field: {int(dim): rule for dim, rule in own.items()} for field, own in fields.items()}
        for robot, fields in rules.items()
    }


def _field(stats: Mapping[str, Mapping[str, Stats]], embodiment: str, field: str) -> Stats:
    if field not in stats[embodiment]:
        raise BadInput(f"normalizer: embodiment {embodiment!r} has no statistics of {field!r}; compute them")
    return stats[embodiment][field]
