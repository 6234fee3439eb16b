"""The samples on which a training measures itself: of the episodes that its run holds out."""

from __future__ import annotations

from collections.abc import Sequence

from wamkit_client.types import BadInput

from wamkit.config import Run
from wamkit.data.clips import Clips
from wamkit.data.normalize import Normalizer
from wamkit.data.samples import Fresh, Mixture, Observations, Samples
from wamkit.io.progress import say
from wamkit.train.held_out import NOTHING, HeldOut, read_held_out
from wamkit.types import Encoder, Trainable

PART = 8
"""Samples that go through encoder and policy at a time, at most: it is not for them that memory runs out."""


def held_out(
    run: Run, sources: Sequence[Clips], encoder: Encoder, policy: Trainable, normalizer: Normalizer
) -> HeldOut:
    """Samples of held-out episodes, of every source that has some, encoded where the encoder is and not augmented.

    Raises BadInput where they cannot be read, or are too short for a sample.
    """
    if not run.train.held_out_every:
        return NOTHING
    try:
        return _read(run, sources, encoder, policy, normalizer)
    except BadInput as error:
        raise BadInput(
            f"held-out episodes: {error}; or train without measuring on them: --train.held-out-every 0"
        ) from error


def _read(
    run: Run, sources: Sequence[Clips], encoder: Encoder, policy: Trainable, normalizer: Normalizer
) -> HeldOut:
    own = [clips.held_out() for clips in sources if clips.spec.held_out]
    if not own:
        return NOTHING
    whole, observed = (
        _together(run, samples)
        for samples in (
            [Fresh(clips, encoder) for clips in own],
            [Fresh(Observations(clips), encoder) for clips in own],
        )
    )
    read = read_held_out(
        whole, observed, [*map(len, own)], policy, normalizer, min(run.train.part_size, PART)
    )
    episodes = sum(len(clips.episodes) for clips in own)
    say(
        f"{read.count} samples of {episodes} held-out episodes are measured every {run.train.held_out_every} steps"
    )
    return read


def _together(run: Run, sources: Sequence[Samples]) -> Samples:
    """As the policy takes them, numbered one source after the other."""
    if not run.sources:
        return sources[0]
    equally, data = (1.0,) * len(sources), run.data
    return Mixture(tuple(sources), equally, data.horizon, data.action_dim, data.proprio_dim)
