"""Times of the official code of whoever has it, taken by a program of theirs: nothing of it is here.

The program is started with one argument, a JSON file {"rounds", "height", "width", "views", "horizon", "action_dim",
"instruction"}, in which images are the canvas's views. It warms up, times `rounds` queries in its own process and
environment, and writes one JSON line to standard output: {"seconds": [...]}, one number for each query.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from wamkit_client.types import BadInput

from wamkit.bench.subject import INSTRUCTION, Subject
from wamkit.io.files import replace_text

NO_PROGRAM = Path()


def official_seconds(program: Path, subject: Subject, rounds: int) -> list[float]:
    """What the program says. BadInput where it fails, or says something else."""
    data = subject.run.data
    asked = {
        "rounds": rounds,
        "height": data.view_height,
        "width": data.view_width,
        "views": data.views,
        "horizon": data.horizon,
        "action_dim": data.action_dim,
        "instruction": INSTRUCTION,
    }
    with TemporaryDirectory() as folder:
        path = Path(folder) / "asked.json"
        replace_text(path, json.dumps(asked))
        try:
            done = subprocess.run(
                [str(program.absolute()), str(path)], capture_output=True, text=True, check=False
            )
        except OSError as error:
            raise BadInput(
                f"--official {program}: cannot be started ({error}); name an executable file"
            ) from error
    if done.returncode:
        raise BadInput(f"--official {program}: ended with status {done.returncode}: {done.stderr[-500:]}")
    try:
        seconds = [float(each) for each in json.loads(done.stdout.strip().splitlines()[-1])["seconds"]]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise BadInput(
            f'--official {program}: its last line is not {{"seconds": [...]}} ({error}); docs/serve.md has the protocol'
        ) from error
    if not seconds:
        raise BadInput(f"--official {program}: it timed no query; expected one number for each of {rounds}")
    return seconds
