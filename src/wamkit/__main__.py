"""`python -m wamkit`, as `torchrun -m wamkit train ...` starts every process of a training."""

import sys

from wamkit.cli import main

if __name__ == "__main__":
    sys.exit(main())
