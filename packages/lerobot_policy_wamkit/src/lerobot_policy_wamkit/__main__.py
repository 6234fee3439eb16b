"""python -m lerobot_policy_wamkit RUN: make a run directory one that LeRobot can load (folders.py)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from wamkit_client.types import BadInput

from lerobot_policy_wamkit.folders import make_loadable


def main() -> int:
    """The exit code: 2 where the folder is no run directory of a policy that LeRobot can load."""
    parser = argparse.ArgumentParser("python -m lerobot_policy_wamkit", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run directory of `wamkit train`")
    try:
        run = parser.parse_args().run
        print(f"{run} is a LeRobot policy of type {make_loadable(run)}: give --policy.path={run}")
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
