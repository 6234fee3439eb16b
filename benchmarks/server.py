"""What `wamkit serve` adds to a query, and many robots at one server for long.

    python -m benchmarks.server overhead                             one robot, a request of LIBERO's size, no model
    python -m benchmarks.server robots pretrained/metaworld3         32 robots at 20 Hz for ten minutes
    python -m benchmarks.server robots RUN --robots 4 --seconds 20   fewer; --hz, --replan-steps

The server is a process of its own, on this machine, and clients speak to it over TCP. A robot moves once in 1 / hz
seconds and asks before every `replan_steps`th move; whatever is answered later than its next question counts as late.
Both write benchmarks/results.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import re
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from wamkit_client.codec import pack, unpack
from wamkit_client.types import ActionChunk, Policy
from websockets.asyncio.client import connect as connect_async
from websockets.sync.client import connect

from wamkit.io.provenance import machine, revision, versions
from wamkit.serve.dialects.base import Service
from wamkit.serve.dialects.spoken import dialects, greeting
from wamkit.serve.scheduler import Scheduler
from wamkit.serve.served import Facts, Policies, Robot, Served
from wamkit.serve.server import Server

RESULTS = Path(__file__).parent / "results"
IMAGE = np.random.default_rng(0).integers(0, 255, (224, 224, 3), np.uint8)
LIBERO = {
    "observation/image": IMAGE,
    "observation/wrist_image": IMAGE,
    "observation/state": np.zeros(8),
    "prompt": "pick up the alphabet soup and place it in the basket",
}
MEMORY = re.compile(r"^process_resident_memory_bytes (\S+)$", re.MULTILINE)


class Nothing(Policy):
    """Answers at once."""

    def act(self, observations: Any) -> list[ActionChunk]:
        return [ActionChunk(np.zeros((10, 7), np.float32)) for _ in observations]


def serve_nothing() -> None:
    robot = Robot("panda", ("image", "wrist_image"), 8, 7, 10, 20.0)
    policies = Policies(
        Served("nothing", Nothing(), Facts("nothing", (robot,), tuple("xyzabc_"), 224, 224, 5))
    )
    with Server(Service(policies, Scheduler()), dialects(), greeting=greeting(policies)) as server:
        print(f"serving at {server.url}", flush=True)
        sys.stdin.read()


@contextmanager
def process(*words: str) -> Iterator[str]:
    """A server as a process; its address."""
    running = subprocess.Popen(
        [sys.executable, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert running.stdout
    try:
        yield running.stdout.readline().split()[-1]
    finally:
        running.terminate()
        running.wait()


def overhead(rounds: int) -> dict[str, Any]:
    """Milliseconds from packing a request until its answer is unpacked, without those of the policy's call."""
    times = []
    with process("-m", "benchmarks.server", "nothing") as url, connect(url, compression=None) as one:
        one.recv()
        for _ in range(rounds):
            begin = time.perf_counter()
            one.send(pack(LIBERO))
            answer = unpack(one.recv())
            times.append(1000 * (time.perf_counter() - begin) - answer["server_timing"]["infer_ms"])
    return {"request_bytes": len(pack(LIBERO)), "rounds": rounds, "overhead_ms": percentiles(times[50:])}


@dataclass
class Count:
    """What came of all questions. late: answered after the robot's next question was due."""

    answered: int = 0
    late: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    milliseconds: list[float] = field(default_factory=list)
    infer: list[float] = field(default_factory=list)
    batch: list[int] = field(default_factory=list)


async def drive(
    url: str, number: int, seen: dict[str, Any], period: float, until: float, count: Count
) -> None:
    """One robot. Its proprio and ids are its own; an answer to anybody else's question is an error."""
    async with connect_async(url, compression=None) as one:
        await one.recv()
        due = time.monotonic() + period * number / 32  # robots do not begin together
        asked = 0
        while due < until:
            await asyncio.sleep(max(due - time.monotonic(), 0))
            name = f"{number}-{asked}"
            begin = time.perf_counter()
            await one.send(pack({**seen, "request_id": name, "seed": asked}))
            answer = unpack(await one.recv())
            took = time.perf_counter() - begin
            if answer.get("request_id") != name:
                count.errors["an answer to another question"] += 1
            elif "error" in answer:
                count.errors[answer["error"]["reason"]] += 1
            else:
                count.answered += 1
                count.late += took > period
                count.milliseconds.append(1000 * took)
                count.infer.append(answer["server_timing"]["infer_ms"])
                count.batch.append(answer["server_timing"]["batch"])
            asked += 1
            due = max(due + period, time.monotonic())


async def watch(address: str, until: float, memory: list[float]) -> None:
    while time.monotonic() < until:
        page = await asyncio.to_thread(lambda: urllib.request.urlopen(f"{address}/metrics").read().decode())
        memory.append(round(float(MEMORY.search(page)[1]) / 1e6, 1))  # type: ignore[index]
        await asyncio.sleep(min(30, max(until - time.monotonic(), 0)))


async def drive_all(url: str, robots: int, period: float, seconds: float) -> tuple[Count, list[float]]:
    with connect(url, compression=None) as one:
        told = unpack(one.recv())
    rng = np.random.default_rng(0)
    shapes = {camera["name"]: (camera["height"], camera["width"], 3) for camera in told["cameras"]}
    images = {name: rng.integers(0, 255, shape, np.uint8) for name, shape in shapes.items()}
    seen = {"images": images, "prompt": "open the drawer"}
    count, memory, until = Count(), list[float](), time.monotonic() + seconds
    every = [
        drive(url, n, {**seen, "state": np.full(told["state_dim"], n / robots)}, period, until, count)
        for n in range(robots)
    ]
    await asyncio.gather(watch(url.replace("ws://", "http://"), until, memory), *every)
    return count, memory


def robots(run: str, number: int, hz: float, replan_steps: int, seconds: float) -> dict[str, Any]:
    period = replan_steps / hz
    with process("-m", "wamkit.cli", "serve", run, "--port", "0", "--device", "cpu") as url:
        began = time.monotonic()
        count, memory = asyncio.run(drive_all(url, number, period, seconds))
        took = time.monotonic() - began
    return {
        "run": run,
        "robots": number,
        "control_hz": hz,
        "replan_steps": replan_steps,
        "seconds": round(took, 1),
        "answered": count.answered,
        "late": count.late,
        "errors": dict(count.errors),
        "queries_per_second": round(count.answered / took, 1),
        "asked_per_second": round(number / period, 1),
        "query_ms": percentiles(count.milliseconds),
        "infer_ms": percentiles(count.infer),
        "mean_batch": round(float(np.mean(count.batch)), 2),
        "memory_mb": memory,
    }


def percentiles(values: list[float]) -> dict[str, float]:
    return {f"p{q}": round(float(np.percentile(values, q)), 3) for q in (50, 95, 99)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("overhead", "robots", "nothing"))
    parser.add_argument("run", nargs="?", default="pretrained/metaworld3")
    parser.add_argument("--robots", type=int, default=32)
    parser.add_argument("--hz", type=float, default=20.0)
    parser.add_argument("--replan-steps", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    if asked.what == "nothing":
        serve_nothing()
        return
    if asked.what == "overhead":
        measured = overhead(asked.rounds)
    else:
        measured = robots(asked.run, asked.robots, asked.hz, asked.replan_steps, asked.seconds)
    found = {
        **measured,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "versions": versions(),
        "revision": revision(),
    }
    name = f"server_{asked.what}_{machine()['cpu'].split()[0].lower()}_{found['date']}.json"
    (asked.out / name).write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
