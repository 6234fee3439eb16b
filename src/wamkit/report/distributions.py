"""How actions and proprio are spread in the data, and the range the policy's normaliser maps to [-1, 1].

Knows datasets and normalisers, no policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from wamkit.data.joined import AnyDataset
from wamkit.data.lerobot.columns import SOURCES
from wamkit.data.lerobot.files import dimension_labels
from wamkit.data.normalize import Normalizer, field_rows
from wamkit.report.page import Section
from wamkit.report.plots import histogram


@dataclass(frozen=True)
class Distribution:
    """robot: the dataset's. values [n, d] of one field in physical units; low, high [d]: ends of the unit range; mode:
    the normaliser's."""

    robot: str
    field: str
    names: tuple[str, ...]
    values: np.ndarray
    low: np.ndarray
    high: np.ndarray
    mode: str

    @property
    def plots(self) -> list[Markup]:
        """A histogram per dimension."""
        columns = zip(self.names, self.values.T, self.low, self.high, strict=True)
        return [histogram(name, values, (float(low), float(high))) for name, values, low, high in columns]


def distributions_of(dataset: AnyDataset, normalizer: Normalizer) -> list[Distribution]:
    """Every frame's actions and proprio of a dataset. BadInput where the normaliser does not know its robot."""
    found = []
    for field, column in SOURCES.items():
        values = field_rows(dataset, field, dataset.episodes)
        low, high = normalizer.ends(field, dataset.robot_type)
        if not len(low):
            continue  # the policy is not given it
        names = dimension_labels(dataset.features[column], values.shape[1])
        found.append(
            Distribution(dataset.robot_type, field, names, values, low, high, normalizer.modes[field])
        )
    return found


def distributions(shown: Sequence[Distribution]) -> Section:
    """A histogram per dimension."""
    return Section("data", "Data", "distributions", shown)
