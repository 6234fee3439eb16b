"""Run a script as `python SCRIPT ARGUMENTS` does, with $VARIABLES expanded in its arguments.

    python -m wamkit_client.envs.robotwin.launch \
        scripts/eval_policy_xpolicylab.py --additional_info 'server=$WAMKIT_SERVER'

The arguments of a process are visible to every user of the machine, its environment only to its owner. So an evaluator
that takes the server's URL, which holds the token, as an argument is started through this. Standard library only.
"""

from __future__ import annotations

import os
import runpy
import sys

SERVER_VARIABLE = "WAMKIT_SERVER"


def main() -> None:
    """sys.argv[1:] is the command line of the script."""
    sys.argv = [os.path.expandvars(word) for word in sys.argv[1:]]
    sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
