"""Which of the server's trials was which episode that the evaluator printed: by what the evaluator told both.

With a reset it tells the simulator's seed, or the episode's number (wamkit_client/envs/robotwin/adapter.py), and it
prints both when the episode is over. Order and count of resets mean nothing: a connection that breaks repeats one,
and an evaluator may warm up, or try a seed again.
"""

from __future__ import annotations

from collections.abc import Sequence

from wamkit.robotwin.evaluator import Ended
from wamkit.robotwin.server import Trial


def matched(episodes: Sequence[Ended], trials: Sequence[Trial]) -> list[Trial]:
    """For every printed episode, in order, its trial; where it cannot be told, an empty one whose error says so.

    A reset that no query followed is no trial. Of several trials of one episode the one counts that was ended as told.
    """
    printed = [{"seed": ended.seed, "episode": number} for number, ended in enumerate(episodes)]
    asked = [trial for trial in trials if trial.calls or trial.error]
    return [_trial(number, episodes[number], printed, asked) for number in range(len(episodes))]


def _trial(number: int, ended: Ended, printed: Sequence[dict[str, int]], asked: Sequence[Trial]) -> Trial:
    own = [trial for trial in asked if _is_of(trial, printed[number])]
    if not own:
        return _unknown(ended, "the evaluator asked this policy nothing in this episode, as far as it told")
    same = [
        other for other, words in enumerate(printed) if _is_of(own[0], words)
    ]  # a seed may be printed twice
    if len(own) != len(same):
        own = [trial for trial in own if trial.ended]
    if len(own) != len(same):
        return _unknown(
            ended, f"the evaluator did not tell which of its attempts at seed {ended.seed} this was"
        )
    trial = own[same.index(number)]
    if trial.ended and (trial.ended == "success") != ended.success:
        printed_word = "success" if ended.success else "failure"
        return _unknown(ended, f"the evaluator told the policy {trial.ended} and printed {printed_word}")
    return trial


def _is_of(trial: Trial, words: dict[str, int]) -> bool:
    return bool(trial.told) and trial.told.items() <= words.items()


def _unknown(ended: Ended, why: str) -> Trial:
    return Trial(ended.seed, error=ended.error or why)
