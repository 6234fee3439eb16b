"""LeRobot's batches as what wamkit takes: observations to act on, clips to train on.

A batch is a dictionary: `observation.images.<camera>` float [b, (t,) 3, h, w] in [0, 1] or uint8, `observation.state`
[b, (t,) p], `task` texts, and for training `action` [b, k, a], `action_is_pad` [b, k], `<camera>_is_pad` [b, t].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from wamkit_client.types import BadInput, Observation

from lerobot_policy_wamkit.config import CAMERA
from wamkit.data.actions import ActionSpace, pad_actions
from wamkit.data.clips import VALID, ClipSample
from wamkit.types import Clip, DataSpec

STATE, TASK, ACTION = "observation.state", "task", "action"
PIXELS = 255
NOTHING_LEFT = np.zeros((0, 0), np.float32)


def observations(
    batch: Mapping[str, Any], spec: DataSpec, robot: str, previous: np.ndarray = NOTHING_LEFT, delay: int = 0
) -> list[Observation]:
    """One per row. Noise is drawn from torch's generator, which LeRobot seeds.

    previous, delay: as of Observation, for all rows.
    Raises BadInput for a missing camera, state or task, and images that are no images.
    """
    images = {view: _images(batch, view).numpy() for view in spec.views}
    states = _entry(batch, STATE).cpu().float().numpy() if spec.proprio_dim else None
    tasks = _tasks(batch)
    seeds = torch.randint(2**62, (len(tasks),)).tolist()
    return [
        Observation(
            images={view: frames[row] for view, frames in images.items()},
            proprio=np.zeros(0, np.float32) if states is None else states[row],
            instruction=task,
            embodiment=robot,
            noise_seed=seeds[row],
            previous=previous,
            delay=delay,
        )
        for row, task in enumerate(tasks)
    ]


def left_over(rows: Tensor | None) -> np.ndarray:
    """What is left of a chunk [n, a] as LeRobot hands it over: None at first, later filled up with rows of zeros, which
    are no actions and are dropped."""
    if rows is None:
        return NOTHING_LEFT
    actions = rows.reshape(-1, rows.shape[-1]).cpu().float().numpy()
    real = np.flatnonzero(actions.any(axis=1))
    return actions[: real[-1] + 1] if len(real) else NOTHING_LEFT


@dataclass(frozen=True)
class Rows:
    """A training batch as the samples of a dataset (wamkit.data.samples.Clips): row i is sample i."""

    batch: Mapping[str, Any]
    spec: DataSpec
    space: ActionSpace
    robot: str

    def __len__(self) -> int:
        return len(_entry(self.batch, ACTION))

    def sample(self, index: int) -> ClipSample:
        """One row. BadInput for what the batch lacks."""
        spec = self.spec
        views = {view: _images(self.batch, view, index) for view in spec.views}
        states = _entry(self.batch, STATE)[index].cpu().float() if spec.proprio_dim else torch.zeros(1, 0)
        action_is_pad = _entry(self.batch, f"{ACTION}_is_pad")[index].cpu()
        frame_is_pad = _entry(self.batch, f"{CAMERA}{spec.views[0]}_is_pad")[index].cpu()
        actions = _entry(self.batch, ACTION)[index].cpu().float()
        clip = Clip(
            views={view: frames[None] for view, frames in views.items()},
            proprio=states[:1],
            instructions=(_tasks(self.batch)[index],),
            embodiments=(self.robot,),
        )
        return ClipSample(
            clip=clip,
            actions=pad_actions(actions, action_is_pad, self.space)[None],
            action_is_pad=action_is_pad[None],
            valid=VALID[spec.past_end](action_is_pad)[None],
            frame_is_pad=frame_is_pad[None],
            hz=spec.hz,
            id=f"row {index} of a batch",
            more={"frame_proprio": states[None]} if spec.frame_proprio else {},
        )


def _images(batch: Mapping[str, Any], view: str, row: int | slice = slice(None)) -> Tensor:
    """Images of a camera, uint8 [..., h, w, 3] on the CPU: the very pixels that LeRobot divided by 255."""
    images = _entry(batch, CAMERA + view)[row].cpu().movedim(-3, -1)
    if images.dtype != torch.uint8:
        if not (images.min() >= 0 and images.max() <= 1):  # also where a pixel is NaN
            raise BadInput(
                f"{CAMERA}{view}: values from {images.min():g} to {images.max():g}, expected pixels in [0, 1]; "
                "leave images as they are, the policy normalizes them itself"
            )
        images = (images * PIXELS).round().to(torch.uint8)
    return images.contiguous()


def _tasks(batch: Mapping[str, Any]) -> Sequence[str]:
    tasks: Sequence[str] = _entry(batch, TASK)
    if not all(isinstance(task, str) and task.strip() for task in tasks):
        raise BadInput(
            f"{TASK}: expected texts, got {tasks!r}; a policy is told what to do in words: an environment's "
            "`task_description`, a robot's --dataset.single_task or --task"
        )
    return tasks


def _entry(batch: Mapping[str, Any], key: str) -> Any:
    if key not in batch:
        remedy = (
            "name it by --rename_map"
            if key.startswith("observation")
            else "the environment or dataset has it"
        )
        raise BadInput(f"{key} is missing from the batch, which has {', '.join(map(str, batch))}; {remedy}")
    return batch[key]
