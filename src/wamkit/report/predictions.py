"""What a run's policy predicts at steps of a dataset, beside what was recorded there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wamkit.analysis.open_loop import Chunk
from wamkit.data.clips import Clips
from wamkit.infer.engine import Engine
from wamkit.io.progress import Advance
from wamkit.report.watched import located, observations
from wamkit.types import Policy

BATCH = 8
"""Samples that are predicted at once."""


def chunks_of(
    clips: Clips, indices: Sequence[int], engines: Sequence[Engine[Policy]], advance: Advance
) -> dict[int, Chunk]:
    """By number of the sample: recorded actions, and what the policy (where there is one) predicts from the observation
    of that step alone. The number is the seed of its noise."""
    chunks = {}
    for start in range(0, len(indices), BATCH):
        batch = indices[start : start + BATCH]
        places = [located(clips, i) for i in batch]
        predicted = [np.zeros((0, clips.spec.action_dim), np.float32)] * len(batch)
        for engine in engines:
            predicted = [chunk.actions for chunk in engine.act(observations(clips, batch))]
        for i, (episode, step), actions in zip(batch, places, predicted, strict=True):
            sample = episode.chunk(step)
            chunks[i] = Chunk(
                id=sample.id,
                instruction=sample.clip.instructions[0],
                recorded=sample.actions[0].numpy(),
                is_pad=sample.action_is_pad[0].numpy(),
                predicted=actions,
                before=episode.before(step),
            )
        advance(len(batch), note="action chunks")
    return chunks
