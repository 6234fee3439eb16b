"""Records of `wamkit analyse`: what their JSON files hold, typed, and the facts that their pages end with."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor
from wamkit_client.types import BadInput

from wamkit.analysis.codes import CodeStatistics, Effect
from wamkit.analysis.similarity import Mean
from wamkit.bounds import AT_LEAST_0, AT_LEAST_1, Bound, check
from wamkit.io.provenance import machine, revision, versions
from wamkit.report.facts import Facts

Tree = dict[str, Any]


@dataclass(frozen=True)
class Origin:
    """Where the numbers of an analysis came from. policy: what identifies it; dataset: what was looked at."""

    command: str
    policy: Tree
    dataset: Tree
    revision: str = field(default_factory=revision)
    versions: Tree = field(default_factory=versions)
    machine: Tree = field(default_factory=machine)


@dataclass(frozen=True)
class RolloutConfig:
    """trajectories: most episodes that are rolled out, evenly over the dataset. least: a curve ends where fewer are
    left. images, codes: frames and latent actions that are tried on each other. seed: of the bootstrap intervals.
    """

    trajectories: int = 500
    least: int = 50
    images: int = 64
    codes: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        check("analyse", self, ROLLOUT_BOUNDS)


AT_LEAST_2 = Bound("at least 2", lambda count: count >= 2)
ROLLOUT_BOUNDS = {
    "least": AT_LEAST_1,
    "seed": AT_LEAST_0,
    **dict.fromkeys(("trajectories", "images", "codes"), AT_LEAST_2),
}


@dataclass(frozen=True)
class Transferred:
    """episodes, tasks: one each. sizes: mean over patches of the change (1 - cosine) that the latent action at the
    middle of each (columns) makes in the frame at the middle of each (rows)."""

    episodes: list[str]
    tasks: list[str]
    sizes: list[list[float]]


@dataclass(frozen=True)
class RolloutRecord:
    """rollout.json. view: the camera. seconds, steps: of one prediction. remaining: trajectories left after each.

    curves: cosines by patches ("all", "moving") and name (analysis/rollout.CURVES), after 1, 2, ... predictions.
    codes: latent actions of all trajectories. effect: what some of them do to frames of others. transfer: the same of
    one trajectory of each task.
    """

    origin: Origin
    config: RolloutConfig
    view: str
    seconds: float
    steps: int
    remaining: list[int]
    curves: dict[str, dict[str, list[Mean]]]
    codes: CodeStatistics
    effect: Effect
    transfer: Transferred
    format: str = "wamkit-rollout-1"


@dataclass(frozen=True)
class HeatmapConfig:
    """episode: number in the dataset. anchor: row and column of the patch of its first frame; (): as published, at 3/16
    of the height and 7/16 of the width. chunks: most that are shown."""

    episode: int = 0
    anchor: tuple[int, ...] = ()
    chunks: int = 6

    def __post_init__(self) -> None:
        check("analyse", self, {"episode": AT_LEAST_0, "chunks": AT_LEAST_1})
        if len(self.anchor) not in (0, 2):
            raise BadInput(f"--anchor: expected a row and a column, as 3,7; got {self.anchor}")


@dataclass(frozen=True)
class HeatmapRecord:
    """heatmap.json. starts: steps that chunks begin at. cosines: with the truth, by guess and chunk, over all patches.

    heatmap.npz: alike_<name> [n, rows, columns], cosine to the anchor patch; components_<name> [n, rows, columns, 3] in
    [0, 1]; `now` and `truth` are of the recorded frames, the others are guesses.
    """

    origin: Origin
    config: HeatmapConfig
    episode: str
    view: str
    steps: int
    anchor: tuple[int, int]
    starts: list[int]
    cosines: dict[str, list[float]]
    format: str = "wamkit-heatmap-1"


@dataclass(frozen=True)
class ImaginationConfig:
    """episodes: most that are imagined, evenly over the dataset. least: a curve ends where fewer are left. seed: of the
    noise, and of the bootstrap intervals."""

    episodes: int = 40
    least: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        check("analyse", self, {"episodes": AT_LEAST_1, "least": AT_LEAST_1, "seed": AT_LEAST_0})


@dataclass(frozen=True)
class ImaginationRecord:
    """imagination.json. about: the episodes, in a sentence. hz: control steps per second. window: of them, that are
    imagined at a time. steps: of the imagined frames. remaining: episodes that reach each.

    errors: mean squared, of pixels in [-1, 1] over the canvas, by guess (report/imagination.py), at each of the frames
    that at least `config.least` episodes reach.
    """

    origin: Origin
    config: ImaginationConfig
    about: str
    hz: float
    window: int
    steps: list[int]
    remaining: list[int]
    errors: dict[str, list[Mean]]
    format: str = "wamkit-imagination-1"


@dataclass(frozen=True)
class Chunks:
    """starts: steps that n chunks of an episode begin at. features: by the way they are known, `now` and `truth` among
    them. now, later: images, uint8 [h, w, 3], at both ends."""

    starts: list[int]
    features: dict[str, Float[Tensor, "n s d"]]
    now: list[np.ndarray]
    later: list[np.ndarray]


def facts_of(record: RolloutRecord | HeatmapRecord | ImaginationRecord) -> Facts:
    """What a page ends with."""
    about = record.origin
    groups = {
        "policy": about.policy,
        "dataset": about.dataset,
        "analysis": asdict(record.config),
        "software": {"revision": about.revision, **about.versions},
        "machine": about.machine,
    }
    return Facts(groups, {}, {}, about.command)
