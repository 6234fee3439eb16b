"""Damaged messages by the million for the decoder (wamkit_client/codec.py), which a server lets anybody send to.

    python -m benchmarks.fuzz_decoder                  a million frames, about two minutes; writes benchmarks/results
    python -m benchmarks.fuzz_decoder --frames 20000   fewer; --seed for others

Each frame must be a value or Malformed. Of every hundredth the memory that decoding takes is measured, which must stay
below PER_BYTE times its length.
"""

from __future__ import annotations

import argparse
import datetime
import json
import random
import struct
import time
import tracemalloc
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
from wamkit_client.codec import Malformed, msgpack_numpy, openpi, pack, unpack

from wamkit.io.provenance import machine, revision, versions

RESULTS = Path(__file__).parent / "results"
PER_BYTE, AT_LEAST = 150, 20_000
"""Bytes of memory: a value of one byte may be a dict, which takes 64 and its place in a list 8; and for the decoder."""
EVERY = 100


def messages() -> list[bytes]:
    """What clients send, in small."""
    image, state = np.zeros((6, 6, 3), np.uint8), np.arange(8, dtype=np.float32)
    libero = {"observation/image": image, "observation/state": state, "prompt": "lift the cup", "seed": 7}
    several = {"request_id": "a-1", "observations": [{"images": {"front": image}, "proprio": state}] * 2}
    envelope = {"message_type": "infer", "message_id": "1", "evaluation_id": "e", "trial_id": None, "step": 3}
    vision = {"vision": {"cam_head": {"color": image}}, "state": {"left": state, "open": np.float32(0.5)}}
    values = [2**63, -(2**63), 0.5, -1, 300, 70_000, True, None, b"raw", "x" * 40, "y" * 300, [], {}]
    trees = [libero, several, {**envelope, "payload": {"observation": vision}}, values]
    return [pack(tree, form) for tree in trees for form in (openpi, msgpack_numpy)]


def damaged(whole: bytes, rng: random.Random) -> bytes:
    """Bytes altered, taken away or repeated, a length that is not true, or nothing but noise."""
    data = bytearray(whole)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(data) or 1)
        match rng.randrange(12):
            case 1:
                del data[at : at + rng.randrange(20)]
            case 2:
                data[at:at] = data[at : at + rng.randrange(60)] * rng.randrange(1, 6)
            case 3:
                data[at:at] = bytes([rng.choice(b"\xc6\xdb\xdd\xdf")]) + struct.pack(
                    ">I", rng.getrandbits(32)
                )
            case 4:
                data[at:at] = bytes([rng.choice(b"\x80\x90\x91\x81\xc0\xc1\xc7\xd4")]) * rng.randrange(
                    1, 2000
                )
            case 5:
                del data[at:]
            case 6:
                data[at:at] = rng.randbytes(rng.randrange(30))
            case _:
                data[at : at + 1] = rng.randbytes(1)
    return bytes(data)


def peak(frame: bytes) -> int:
    """Bytes that decoding takes, its result included."""
    tracemalloc.start()
    with suppress(Malformed):
        _kept = unpack(frame)
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


def main() -> None:
    """See the file's own words."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    rng, whole = random.Random(asked.seed), messages()
    ended: Counter[str] = Counter()
    sent, most, begin = 0, 0.0, time.perf_counter()
    for number in range(asked.frames):
        frame = damaged(rng.choice(whole), rng)
        sent += len(frame)
        try:
            unpack(frame)
            ended["a value"] += 1
        except Malformed as error:
            ended[str(error).partition(":")[0].partition("(")[0][:40].strip("0123456789 ")] += 1
        if number % EVERY == 0:
            taken = peak(frame)
            assert taken < AT_LEAST + PER_BYTE * len(frame), f"{taken} bytes for {frame!r}"
            most = max(most, (taken - AT_LEAST) / max(len(frame), 1))
    result = {
        "frames": asked.frames,
        "seed": asked.seed,
        "megabytes": round(sent / 1e6, 1),
        "seconds": round(time.perf_counter() - begin, 1),
        "memory_per_byte": round(most, 1),
        "ended": dict(ended.most_common(12)),
        "machine": machine(),
        "revision": revision(),
        "versions": versions(),
    }
    name = f"fuzz_decoder_{datetime.date.today()}.json"
    (asked.out / name).write_text(json.dumps(result, indent=1) + "\n")
    print(
        json.dumps({key: result[key] for key in ("frames", "seconds", "memory_per_byte", "ended")}, indent=1)
    )


if __name__ == "__main__":
    main()
