"""An exported policy beside the engine: time of a query, in turns, on one thread of the processor.

    python -m benchmarks.exported demo/run policy.onnx --out benchmarks/results

Seconds of this process, not of the clock, so that other processes of the machine count little.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from wamkit.bench.subject import subject_of
from wamkit.config import load_engine, load_run
from wamkit.infer.exported import read_onnx
from wamkit.io.provenance import machine, revision, versions
from wamkit.stages.export import INSTRUCTIONS, inputs_of


def measure(run_dir: Path, target: Path, rounds: int) -> dict[str, object]:
    """Milliseconds of a query, medians, least and the median of the ratios."""
    torch.set_num_threads(1)
    run, cpu = load_run(run_dir), torch.device("cpu")
    engine, answer = load_engine(run_dir, cpu), read_onnx(target)
    with np.load(target.with_name(f"{target.stem}{INSTRUCTIONS}")) as rows:
        instruction = str(rows["instructions"][0])
    subject = subject_of(str(run_dir), run, cpu)
    seen = [replace(each, instruction=instruction) for each in subject.observations(8)]
    asking = inputs_of(engine, run, seen[0])
    given = [asking.inputs(each) for each in seen]
    taken: dict[str, list[float]] = {"engine": [], "exported": []}
    for round_ in range(rounds + 3):
        place = round_ % len(seen)
        ways: dict[str, Callable[[], object]] = {
            "engine": lambda place=place: engine.act([seen[place]]),
            "exported": lambda place=place: answer(given[place]),
        }
        for name, way in ways.items():
            began = time.process_time()
            way()
            if round_ >= 3:  # the first ones warm up
                taken[name].append(1000 * (time.process_time() - began))
    ratios = np.array(taken["exported"]) / np.array(taken["engine"])
    return {
        "run": run_dir.name,
        "recipe": run.recipe,
        "engine": run.eval.engine,
        "rounds": rounds,
        "cpu_ms": {
            name: {"median": float(np.median(each)), "least": min(each)} for name, each in taken.items()
        },
        "ratio": {"median": float(np.median(ratios)), "quarters": np.quantile(ratios, [0.25, 0.75]).tolist()},
        "revision": revision(),
        "versions": versions() | {"onnxruntime": onnxruntime.__version__},
        "machine": machine(),
    }


def main() -> None:
    """Print and, with --out, write `exported_RECIPE.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("file", type=Path, help="what `wamkit export` wrote of it, as ONNX")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path())
    args = parser.parse_args()
    found = json.dumps(measure(args.run, args.file, args.rounds), indent=1)
    print(found)
    if args.out != Path():
        (args.out / f"exported_{args.run.name}.json").write_text(found + "\n")


if __name__ == "__main__":
    main()
