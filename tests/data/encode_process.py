"""One process that encodes the tiny clips into a folder, slowly, naming each.

python -m tests.data.encode_process FOLDER SECONDS_PER_BATCH
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

from tests.train.tiny import TinyClips, TinyEncoder
from wamkit.data.cache import fill
from wamkit.data.clips import ClipSample
from wamkit.data.samples import Fresh

SAMPLES, SHARD_SIZE, BATCH_SIZE = 60, 8, 4
FINGERPRINT = {"codec": "tiny", "window": "3 frames"}


class SlowClips(TinyClips):
    def sample(self, i: int) -> ClipSample:
        time.sleep(float(sys.argv[2]) / BATCH_SIZE)
        print(f"sample {i}", flush=True)
        return super().sample(i)


if __name__ == "__main__":
    torch.set_num_threads(1)
    fill(
        Fresh(SlowClips(SAMPLES), TinyEncoder()),
        Path(sys.argv[1]),
        FINGERPRINT,
        shard_size=SHARD_SIZE,
        batch_size=BATCH_SIZE,
    )
