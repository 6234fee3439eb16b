"""The page of `wamkit analyse heatmap`: predicted and recorded features of an episode as maps (LaWAM spec 6.6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from wamkit.analysis.maps import Components, alike_to
from wamkit.report.analyses import Chunks, HeatmapRecord, facts_of
from wamkit.report.facts import facts
from wamkit.report.feature_maps import HIGH, LOW, Feature, Maps, maps, scale
from wamkit.report.page import Header, Section, write_page

TITLES = {"now": "now", "truth": "at the horizon", "oracle": "oracle", "predicted": "predicted"}


@dataclass(frozen=True)
class HeatmapPage:
    """low, high, colours: of the maps' scale."""

    record: HeatmapRecord
    maps: list[Maps]
    colours: list[str]
    low: float = LOW
    high: float = HIGH


def components_of(features: Mapping[str, Float[Tensor, "n s d"]]) -> Components:
    """Of all features that are shown."""
    return Components.fit(torch.cat([own.flatten(0, 1) for own in features.values()]))


def arrays_of(
    anchor: Float[Tensor, " d"], features: Mapping[str, Float[Tensor, "n s d"]], grid: tuple[int, int]
) -> dict[str, np.ndarray]:
    """The maps as numbers, as heatmap.npz has them."""
    components = components_of(features)
    arrays = {}
    for name, own in features.items():
        arrays[f"alike_{name}"] = alike_to(anchor, own).unflatten(1, grid).numpy()
        arrays[f"components_{name}"] = components.colours(own).unflatten(1, grid).numpy()
    return arrays


def write_heatmap_page(
    out: Path, record: HeatmapRecord, anchor: Float[Tensor, " d"], seen: Chunks, grid: tuple[int, int]
) -> None:
    """Write the page, whole or not at all."""
    components = components_of(seen.features)
    drawn = []
    for n, start in enumerate(seen.starts):
        shown = [
            Feature(
                TITLES[name],
                own[n],
                seen.now[n] if name == "now" else seen.later[n],
                "the truth" if name == "truth" else f"cosine {record.cosines[name][n]:.3f}",
                recorded=name in ("now", "truth"),
            )
            for name, own in seen.features.items()
        ]
        drawn.append(
            maps(f"step {start}", f"horizon {start + record.steps}", anchor, components, shown, grid)
        )
    page = HeatmapPage(record, drawn, scale())
    row, column = record.anchor
    means = {name: float(np.mean(values)) for name, values in record.cosines.items()}
    best = "predicted" if "predicted" in means else "oracle"
    header = Header(
        f"wamkit analyse heatmap: {record.origin.policy['recipe']}",
        f"{TITLES[best].capitalize()} features {means[best]:.3f} alike to the truth; present ones {means['now']:.3f}",
        f"Episode {record.episode}, camera {record.view}, {record.steps} steps ahead. The anchor is patch {row},"
        f"{column} of its first frame.",
    )
    write_page(out, header, [Section("maps", "Maps", "world_heatmap", page), facts(facts_of(record))])
