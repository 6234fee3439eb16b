"""RoboTwin's evaluator of one task as a process: its output is kept and read, and it ends with us.

Outcome and seed of an episode are the evaluator's own words, the same in all its versions. A policy error or a crash of
the simulator, which it counts as a failure, is found in the same text.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wamkit_client.types import BadInput

COLOURS = re.compile(r"\x1b\[[0-9;]*m")
EPISODE = re.compile(r"Success rate: (\d+)/(\d+) => [\d.]+%, current seed: (\d+)")
CRASH = re.compile(r"Policy rollout error:\s*(.*?)\s*(?:Fail!|\Z)", re.DOTALL)
PATIENCE = 10.0  # seconds between asking a process to end and killing it
SHOWN = 1500  # characters of a log in a message


@dataclass(frozen=True)
class Printed:
    """An episode as the evaluator printed it. error: the traceback's last line where the rollout crashed."""

    seed: int
    outcome: Literal["success", "failure"]
    error: str = ""


class Transcript:
    """The evaluator's output so far, episode by episode."""

    def __init__(self, path: Path) -> None:
        self._path, self._read, self._text = path, 0, ""
        self._size, self._heard = 0, time.monotonic()
        self.episodes: list[Printed] = []

    @property
    def solved(self) -> int:
        return sum(episode.outcome == "success" for episode in self.episodes)

    def update(self) -> int:
        """Number of episodes printed since the last call. BadInput where the counts do not go up one by one."""
        with self._path.open("rb") as file:
            file.seek(self._read)
            fresh = file.read()
        if self._read + len(fresh) != self._size:
            self._size, self._heard = self._read + len(fresh), time.monotonic()
        whole = fresh[: fresh.rfind(b"\n") + 1]
        self._read += len(whole)
        self._text += COLOURS.sub("", whole.decode(errors="replace"))
        before = len(self.episodes)
        while found := EPISODE.search(self._text):
            successes, count, seed = map(int, found.groups())
            solved = successes - self.solved
            if count != len(self.episodes) + 1 or solved not in (0, 1):
                raise BadInput(
                    f"{self._path}: {found[0]!r} does not follow; is this another version of RoboTwin?"
                )
            crash = CRASH.search(self._text[: found.start()])
            error = crash[1].splitlines()[-1] if crash and crash[1] and not solved else ""
            self.episodes.append(Printed(seed, "success" if solved else "failure", error))
            self._text = self._text[found.end() :]
        return len(self.episodes) - before

    def silent_seconds(self) -> float:
        """Time for which `update` has found nothing new."""
        return time.monotonic() - self._heard

    def tail(self) -> str:
        """The last of it, for people."""
        text = COLOURS.sub("", self._path.read_bytes().decode(errors="replace")).replace("\r", "\n")
        return text[-SHOWN:].strip() or "(it printed nothing)"


class Evaluator:
    """One process in a session of its own: Ctrl-C reaches us alone, and `end` reaches all of its children."""

    def __init__(self, command: Sequence[str], folder: Path, environment: dict[str, str], log: Path) -> None:
        with log.open("wb") as output:
            os.fchmod(output.fileno(), 0o600)  # evaluators print the URL, which holds the server's token
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.transcript = Transcript(log)

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def end(self) -> str:
        """End it and its children, and say how it ended. Returns when it is gone; no-op for what has ended."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, number)
                self._process.wait(PATIENCE)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue
        code = self._process.wait()
        return f"ended with signal {-code}" if code < 0 else f"ended with status {code}"
