"""Physical units <-> the unit range a network works in, by embodiment.

    x_unit = clamp(x * scale + offset, -5, 5)        x = (x_unit - offset) / scale

min_max: the observed range becomes [-1, 1]; a dimension that does not move in the data (range below 1e-4) is only
shifted, never scaled: dividing by its range would blow noise up.
z_score: mean 0, standard deviation 1. It has no such rule, because the released weights were trained without one
(Fast-WAM spec 4.3, 7.1): a still dimension is 0 at its mean and leaves the unit range everywhere else.
It does not know about padding (data/actions.py) or about which policy uses which mode.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from wamkit_client.types import BadInput

from wamkit.data.joined import AnyDataset
from wamkit.data.lerobot.dataset import Episode
from wamkit.data.statistics import RESTORE, STILL, Stats
from wamkit.nn.tables import Tables

__all__ = ["Normalizer", "Stats", "dataset_stats"]

Mode = Literal["min_max", "z_score"]

LIMIT = 5.0
FORMAT = "wamkit normalizer 1"
SOURCES = {"action": "action", "proprio": "observation.state"}
"""Column of the dataset behind each field."""


def dataset_stats(dataset: AnyDataset, episodes: Sequence[Episode]) -> dict[str, Stats]:
    """Statistics of "action" and "proprio" over every frame of some episodes. BadInput for missing or non-finite
    columns."""
    return {field: Stats.of(field_rows(dataset, field, episodes)) for field in SOURCES}


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
    modes: {field: "min_max" or "z_score"}.
    The buffers follow the module's device but are not in its state dict: a run saves `to_json()` instead.
    """

    def __init__(self, stats: Mapping[str, Mapping[str, Stats]], modes: Mapping[str, str]):
        super().__init__()  # the tables follow below, a field at a time
        self.stats = {name: dict(fields) for name, fields in stats.items()}
        self.modes = dict(modes)
        self._row = {name: row for row, name in enumerate(stats)}
        if not stats:
            raise BadInput("normalizer: no embodiment; give the statistics of at least one dataset")
        for field, mode in modes.items():
            maps = [_scale_and_offset(_field(stats, name, field), mode) for name in stats]
            widest = max(len(scale) for scale, _ in maps)
            for part, rows, fill in zip(
                ("scale", "offset"), zip(*maps, strict=True), (1.0, 0.0), strict=True
            ):
                filled = [np.pad(row, (0, widest - len(row)), constant_values=fill) for row in rows]
                table = torch.from_numpy(np.stack(filled)).float()
                self.register_buffer(f"{field}_{part}", table, persistent=False)

    @classmethod
    def fit(cls, stats: Mapping[str, Mapping[str, Stats]], modes: Mapping[str, str]) -> Normalizer:
        """The normalizer of these statistics, e.g. of `{dataset.robot_type: dataset_stats(dataset, episodes)}`."""
        return cls(stats, modes)

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
        return (x * scale + offset).clamp(-LIMIT, LIMIT)

    def to_physical(
        self, field: str, x: Float[Tensor, "b *_ d"], embodiment: Int[Tensor, " b"]
    ) -> Float[Tensor, "b *_ d"]:
        """Unit range -> physical, not clamped."""
        scale, offset = self._maps(field, x, embodiment)
        return (x - offset) / scale

    def to_json(self) -> str:
        """Everything needed to make the same normalizer again."""
        stats = {n: {f: s.to_dict() for f, s in fields.items()} for n, fields in self.stats.items()}
        saved = {"format": FORMAT, "modes": self.modes, "stats": stats}
        return json.dumps(saved, indent=2, allow_nan=False)

    @classmethod
    def from_json(cls, text: str, source: str) -> Normalizer:
        """The inverse of `to_json`. BadInput, beginning with `source`, where the text is not one or is damaged."""
        try:
            saved = json.loads(text)
        except ValueError as error:
            raise BadInput(f"{source}: truncated or not JSON ({error}); {RESTORE}") from error
        found = _object(saved, source).get("format")
        if found != FORMAT:
            raise BadInput(f"{source}: format is {found!r:.60}; expected {FORMAT!r}; {RESTORE}")
        modes, robots = (_object(saved.get(name), f"{source}: {name}") for name in ("modes", "stats"))
        stats = {
            robot: {
                field: Stats.from_dict(values, f"{source}: stats.{robot}.{field}")
                for field, values in _object(fields, f"{source}: stats.{robot}").items()
            }
            for robot, fields in robots.items()
        }
        try:
            return cls(stats, modes)
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
        shape = (len(x), *(1,) * (x.ndim - 2), scale.shape[-1])
        return scale[embodiment].view(shape), offset[embodiment].view(shape)


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadInput(f"{where}: expected a JSON object, got {value!r:.60}; {RESTORE}")
    return value


def _scale_and_offset(stats: Stats, mode: str) -> tuple[np.ndarray, np.ndarray]:
    if mode == "min_max":
        still = stats.max - stats.min < STILL
        scale = 2 / np.where(still, 2.0, stats.max - stats.min)
        return scale, np.where(still, -stats.min, -1 - scale * stats.min)
    if mode == "z_score":
        scale = 1 / (stats.std + 1e-8)
        return scale, -stats.mean * scale
    raise BadInput(f"normalizer: unknown mode {mode!r}; expected one of {get_args(Mode)}")


def _field(stats: Mapping[str, Mapping[str, Stats]], embodiment: str, field: str) -> Stats:
    if field not in stats[embodiment]:
        raise BadInput(f"normalizer: embodiment {embodiment!r} has no statistics of {field!r}; compute them")
    return stats[embodiment][field]
