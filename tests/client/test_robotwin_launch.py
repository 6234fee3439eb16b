"""A script under the launcher is what it is under Python itself, but for the variables in its arguments."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import wamkit_client

SCRIPT = """
import json, multiprocessing, os, sys
import beside_it

def child(queue):
    queue.put([__name__, sys.argv])

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    print(json.dumps([sys.argv, sys.path[0], os.path.abspath(__file__), queue.get(timeout=60)]))
    process.join()
    sys.exit(3)
"""


def test_a_script_and_the_processes_it_spawns(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "run.py").write_text(SCRIPT)
    (tmp_path / "scripts" / "beside_it.py").touch()
    environment = os.environ | {
        "PYTHONPATH": str(Path(wamkit_client.__file__).parents[1]),
        "SECRET": "ws://h:1/abc",
    }

    def run(*command: str) -> list[object]:
        done = subprocess.run(
            [sys.executable, *command],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 3, done.stderr
        found: list[object] = json.loads(done.stdout)
        return found

    plain = run("scripts/run.py", "--url", "u=ws://h:1/abc")
    assert run("-m", "wamkit_client.envs.robotwin.launch", "scripts/run.py", "--url", "u=$SECRET") == plain
    assert plain[0] == ["scripts/run.py", "--url", "u=ws://h:1/abc"]
