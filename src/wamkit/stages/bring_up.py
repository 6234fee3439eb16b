"""A robot is brought up without a model: what stands in for a run's policy has its cameras, numbers and rate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from wamkit_client.bringup import DummyPolicy, ReplayPolicy
from wamkit_client.types import BadInput

from wamkit.config import Run
from wamkit.data.actions import pad_actions
from wamkit.data.joined import open_datasets
from wamkit.data.lerobot.columns import SOURCES
from wamkit.serve.served import Served
from wamkit.stages.serving import facts_of


def dummy(name: str, run_dir: Path, asked: Run, action: tuple[float, ...]) -> Served:
    """Answers every observation with one action. BadInput where that is not as wide as the run's."""
    expected = ", ".join(asked.actions.names)
    if len(action) != asked.data.action_dim or not np.isfinite(action).all():
        raise BadInput(
            f"--dummy: expected {asked.data.action_dim} finite numbers ({expected}), got {len(action)}"
        )
    policy = DummyPolicy(np.array(action, np.float32), asked.data.horizon)
    return Served(name, policy, facts_of(run_dir, asked, kind="dummy"))


def replay(name: str, run_dir: Path, asked: Run, dataset: Path, episode: int) -> Served:
    """Plays the actions of a recorded episode to one robot, from every reset on, and then what padding means: stay.

    Raises BadInput where the dataset is not of the run's actions and rate, or has no such episode.
    """
    data = asked.data
    recorded = open_datasets([dataset], data.columns)
    found = {one.index: one for one in recorded.episodes}
    if episode not in found:
        raise BadInput(
            f"{dataset}: no episode {episode}; it has {len(found)}, from {min(found)} to {max(found)}"
        )
    actions = recorded.rows(SOURCES["action"], [found[episode]])[: found[episode].actions]
    if actions.shape[1:] != (data.action_dim,) or recorded.fps != data.hz:
        raise BadInput(
            f"{dataset}: actions {list(actions.shape)[1:]} at {recorded.fps:g} Hz, the run has [{data.action_dim}] at "
            f"{data.hz:g} Hz; replay a dataset of the robot that the run was trained for"
        )
    last = torch.from_numpy(actions[-1:])
    after = pad_actions(last.repeat(2, 1), torch.tensor([False, True]), asked.actions)[1].numpy()
    policy = ReplayPolicy(actions, asked.eval.replan_steps, after)
    return Served(name, policy, facts_of(run_dir, asked, kind="replay"))
