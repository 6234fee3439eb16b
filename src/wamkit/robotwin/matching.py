"""Finds the attempt of every episode that the evaluator printed, by seed or episode number.

With a reset the evaluator sends the simulator's seed, or the episode's number (wamkit_client/envs/robotwin/adapter.py),
and it prints both when the episode is over. Order and count of resets mean nothing: a broken connection repeats one,
and an evaluator may warm up, or try a seed again.
"""

from __future__ import annotations

from collections.abc import Sequence

from wamkit.robotwin.evaluator import Printed
from wamkit.serve.dialects.xpolicylab import Attempt


def match(episodes: Sequence[Printed], attempts: Sequence[Attempt]) -> list[Attempt]:
    """The attempt of every printed episode, in order; where it is not known, an empty one whose error says why.

    A reset that no query followed is no attempt. Of several at one episode, those whose outcome was told count.
    """
    asked = [attempt for attempt in attempts if attempt.calls or attempt.error]
    names = [{"seed": episode.seed, "episode": number} for number, episode in enumerate(episodes)]
    return [_match(episode, names[number], names, asked) for number, episode in enumerate(episodes)]


def _match(
    episode: Printed, own: dict[str, int], names: Sequence[dict[str, int]], asked: Sequence[Attempt]
) -> Attempt:
    def unknown(why: str) -> Attempt:
        return Attempt(episode.seed, error=episode.error or why)

    mine = [attempt for attempt in asked if _is_of(attempt, own)]
    if not mine:
        return unknown("the evaluator asked this policy nothing in this episode, as far as it told")
    same = [other for other in names if _is_of(mine[0], other)]  # a seed may be printed twice
    if len(mine) != len(same):
        mine = [attempt for attempt in mine if attempt.outcome]
    if len(mine) != len(same):
        return unknown(f"the evaluator did not tell which of its attempts at seed {episode.seed} this was")
    attempt = mine[same.index(own)]
    if attempt.outcome not in ("", episode.outcome):
        return unknown(f"the evaluator told the policy {attempt.outcome} and printed {episode.outcome}")
    return attempt


def _is_of(attempt: Attempt, name: dict[str, int]) -> bool:
    return bool(attempt.told) and attempt.told.items() <= name.items()
