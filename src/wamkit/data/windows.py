"""Which steps of an episode make one sample: pure integers, no data.

A window looks forward from one step: video frames at given offsets, and one action per control step.
Past the episode's end the last step is repeated and the pad flags are True.
It does not know about seconds, files or tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """Steps within one episode; `is_pad` is True where a step lies past the end and the last stands in."""

    frame_steps: tuple[int, ...]
    frame_is_pad: tuple[bool, ...]
    action_steps: tuple[int, ...]
    action_is_pad: tuple[bool, ...]


def window(length: int, actions: int, step: int, frame_offsets: Sequence[int], horizon: int) -> Window:
    """The window that begins at `step` of an episode.

    length: steps of the episode. actions: how many of them, from the first on, have an action.
    frame_offsets: steps of the video frames relative to now, e.g. (0, 4, ..., 32).
    horizon: number of actions, beginning with the one at `step`.
    Raises IndexError where `step` has no action.
    """
    if not 0 <= step < actions <= length:
        raise IndexError(f"step {step} of an episode with {actions} actions; use 0..{actions - 1}")
    frames = [step + offset for offset in frame_offsets]
    chunk = range(step, step + horizon)
    last, last_action = length - 1, actions - 1
    return Window(
        frame_steps=tuple(min(frame, last) for frame in frames),
        frame_is_pad=tuple(frame > last for frame in frames),
        action_steps=tuple(min(action, last_action) for action in chunk),
        action_is_pad=tuple(action > last_action for action in chunk),
    )
