"""Recorded episodes: the .npz files of an evaluation (their arrays: wamkit_client/rollout.py), read and checked.

A Recording knows what was seen, predicted and done at every step; it is a report/watched.Episode.
It does not know policies, videos or pages.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from wamkit_client.types import BadInput

from wamkit.io.files import explained
from wamkit.types import Clip

REMEDY = "evaluate again with recording on"
NONE = (
    "No episode was recorded. Evaluate with --eval.record-episodes of at least 1 to see it here, and keep the "
    "recordings beside results.json."
)


@dataclass(frozen=True)
class Recording:
    """One episode of t steps and q queries.

    views: uint8 [t + 1, h, w, 3] by camera; display: uint8 [t + 1, H, W, 3], for people; proprio [t + 1, p];
    actions [t, a]: physical.
    query_steps [q] ascending from 0; query_paths [q, k, 2]: where each chunk leads, pixels (u right, v down) in the
    display image, NaN where it cannot be seen.
    """

    task: str
    seed: int
    instruction: str
    embodiment: str
    views: Mapping[str, np.ndarray]
    display: np.ndarray
    proprio: np.ndarray
    actions: np.ndarray
    query_steps: np.ndarray
    query_paths: np.ndarray
    success: bool

    @property
    def title(self) -> str:
        """The task."""
        return self.task

    @property
    def detail(self) -> str:
        """Which of the task's episodes."""
        return f"seed {self.seed}"

    @property
    def robot(self) -> str:
        """The embodiment."""
        return self.embodiment

    @property
    def steps(self) -> int:
        """Actions taken."""
        return len(self.display) - 1

    def query_of(self, step: int) -> int:
        """Index of the query whose chunk is being executed at `step`."""
        return int(np.searchsorted(self.query_steps, step, side="right")) - 1

    def clip(self, step: int, offsets: Sequence[int], views: Sequence[str]) -> Clip:
        """What a policy is shown: `views` at step + offsets (b = 1). BadInput for a view that was not recorded."""
        for view in views:
            if view not in self.views:
                raise BadInput(
                    f"recording of {self.task}, seed {self.seed}: no view {view!r}; it has {list(self.views)}"
                )
        frames = [step + offset for offset in offsets]
        return Clip(
            views={view: torch.from_numpy(self.views[view][frames])[None] for view in views},
            proprio=torch.from_numpy(self.proprio[[step]].astype(np.float32)),
            instructions=(self.instruction,),
            embodiments=(self.embodiment,),
        )


def read_recording(path: Path, task: str, seed: int, instruction: str, embodiment: str) -> Recording:
    """The recording in an .npz file. BadInput, naming the file, where it is missing, truncated or inconsistent."""
    arrays = _arrays(path)
    for key in ("display", "proprio", "action", "query_step", "query_path", "success"):
        if key not in arrays:
            raise BadInput(f"{path}: no array {key!r}, it has {sorted(arrays)}; {REMEDY}")
    views = {key.removeprefix("view_"): value for key, value in arrays.items() if key.startswith("view_")}
    frames = len(arrays["display"])
    for key in ("display", "proprio", *(f"view_{view}" for view in views)):
        if len(arrays[key]) != frames or frames < 2:
            raise BadInput(f"{path}: {key!r} has {len(arrays[key])} rows, 'display' {frames}; {REMEDY}")
    if len(arrays["action"]) != frames - 1:
        raise BadInput(f"{path}: 'action' has {len(arrays['action'])} rows, 'display' {frames}; {REMEDY}")
    steps, paths = arrays["query_step"], arrays["query_path"]
    if paths.ndim != 3 or paths.shape[2:] != (2,) or len(paths) != len(steps) or len(steps) == 0:
        raise BadInput(
            f"{path}: 'query_path' is {list(paths.shape)} for {len(steps)} queries, expected [q, k, 2]; {REMEDY}"
        )
    return Recording(
        task=task,
        seed=seed,
        instruction=instruction,
        embodiment=embodiment,
        views=views,
        display=arrays["display"],
        proprio=arrays["proprio"],
        actions=arrays["action"],
        query_steps=steps,
        query_paths=paths,
        success=bool(arrays["success"]),
    )


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except FileNotFoundError as error:
        raise BadInput(f"{path}: the recording is missing; {REMEDY}") from error
    except PermissionError as error:
        raise explained(error, path) from error
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError) as error:
        raise BadInput(f"{path}: the recording is truncated or damaged ({error}); {REMEDY}") from error
