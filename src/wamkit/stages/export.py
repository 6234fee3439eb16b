"""A run directory as a file that acts without wamkit, checked against the engine before it is there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from wamkit_client.types import BadInput, Observation

from wamkit.config import Run, load_engine_as, load_normalizer
from wamkit.infer.engine import Engine
from wamkit.infer.exported import (
    Answer,
    Asking,
    Program,
    asking_of,
    chosen,
    read_onnx,
    read_package,
    read_torch,
    record,
    text_rows,
    to_onnx,
    to_package,
    to_torch,
)
from wamkit.io.progress import bar
from wamkit.io.provenance import revision, versions
from wamkit.stages.run import open_clips
from wamkit.types import ActingEncoder, Actor, Policy

Format = Literal["onnx", "torch", "compiled"]
AGREES = 1e-4
"""Share of an action's range in training by which file and engine may differ, both in float32."""
SMALLEST_RANGE = 1e-6
INSTRUCTIONS = ".instructions.npz"
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Form:
    """suffix: of the file. write: a program to a path, with what is said of it. read: the file as something that
    answers."""

    suffix: str
    write: Callable[[Program, Path, Mapping[str, str]], None]
    read: Callable[[Path], Answer]


FORMS: Mapping[Format, Form] = {
    "onnx": Form(".onnx", to_onnx, read_onnx),
    "torch": Form(".pt2", to_torch, read_torch),
    "compiled": Form(".pt2", to_package, read_package),
}


@dataclass(frozen=True)
class Asked:
    """robot: whose program it is, where the run has several; "": the only one. instructions: those whose rows are
    written. count: observations that file and engine are compared on. height, width: of a camera's images; 0: those of
    the dataset, or of the run."""

    format: Format
    robot: str = ""
    instructions: tuple[str, ...] = ()
    count: int = 100
    height: int = 0
    width: int = 0


@dataclass(frozen=True)
class Exported:
    """files: what was written. apart: largest difference from the engine, as a share of an action's range in training.
    asked: observations that were compared."""

    files: tuple[Path, ...]
    apart: float
    asked: int


def export(run_dir: Path, run: Run, target: Path, asked: Asked, datasets: Sequence[Path]) -> Exported:
    """Write `target` and, beside it, the rows of the instructions. Whole, checked, or not at all.

    datasets: whose recorded observations are compared; without any, random ones are. Raises BadInput where something
    cannot be exported, and where the file answers otherwise than the engine.
    """
    form = FORMS[asked.format]
    _expect(target, asked, form)
    run = replace(run, eval=replace(run.eval, precision="fp32", engine="plain"))
    engine = load_engine_as(run, run_dir, CPU)
    robot = _robot(run_dir, asked.robot)
    seen = _recorded(run, datasets, asked) if datasets else _random(engine, robot, asked)
    program = program_of(engine, run, seen[0])
    instructions = tuple(dict.fromkeys((*asked.instructions, *(each.instruction for each in seen))))
    staged = target.with_name(f"{target.name}.tmp")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    try:
        form.write(program, staged / target.name, {"wamkit": json.dumps(about(run, robot, engine, program))})
        np.savez(staged / f"{target.stem}{INSTRUCTIONS}", **text_rows(program.asking, instructions))  # type: ignore[arg-type]
        apart = compared(form.read(staged / target.name), program, seen, _range(run_dir, robot))
        if not apart <= AGREES:
            raise BadInput(
                f"{target}: what was written answers otherwise than the engine, by {apart:.1e} of an action's range "
                f"(at most {AGREES:g}); nothing is kept. Export it with --format torch, and report it"
            )
        files = sorted(staged.iterdir())
        for file in files:
            os.replace(file, target.parent / file.name)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return Exported(tuple(target.parent / file.name for file in files), apart, len(seen))


def program_of(engine: Engine[Policy], run: Run, observation: Observation) -> Program:
    """Recorded with the passes that the policy's kind has for it."""
    return record(engine, *_halves(engine, run), observation)


def inputs_of(engine: Engine[Policy], run: Run, observation: Observation) -> Asking:
    """What makes the inputs of `program_of`."""
    return asking_of(engine, *_halves(engine, run), observation)[0]


def _halves(engine: Engine[Policy], run: Run) -> tuple[ActingEncoder, Actor]:
    policy, encoder = engine.policy, run.policy.encoder(run.data, run.eval.preprocessing)
    actor = policy.actor(chosen(policy.passes, run.policy.exported))
    return encoder.acting(chosen(encoder.passes, run.policy.exported)), actor


def compared(answer: Answer, program: Program, seen: Sequence[Observation], spread: np.ndarray) -> float:
    """The largest difference between what answers and the engine, as a share of an action's range [a]."""
    apart = 0.0
    with bar("compare", len(seen), unit="queries") as advance, torch.no_grad():
        for each in seen:
            expected = program.asking.engine.act([each])[0].actions
            found = answer(program.asking.inputs(each))[0]
            apart = max(apart, float((np.abs(found - expected) / spread).max()))
            advance()
    return apart


def about(run: Run, robot: str, engine: Engine[Policy], program: Program) -> dict[str, object]:
    """What whoever runs the file should know."""
    data = engine.spec(robot)
    return {
        "recipe": run.recipe,
        "robot": robot,
        "hz": data.hz,
        "actions": asdict(run.actions),
        "replan_steps": run.eval.replan_steps,
        "inputs": {
            name: [str(x.dtype).removeprefix("torch."), *x.shape] for name, x in program.example.items()
        },
        "revision": revision(),
        "versions": versions(),
    }


def _expect(target: Path, asked: Asked, form: Form) -> None:
    if target.suffix != form.suffix:
        raise BadInput(
            f"{target}: --format {asked.format} writes a file whose name ends with {form.suffix}; call it "
            f"{target.with_suffix(form.suffix).name}, or choose another --format"
        )
    if asked.count < 1:
        raise BadInput(f"--count is {asked.count}, expected at least 1")
    if (asked.height > 0) != (asked.width > 0) or asked.height < 0:
        raise BadInput(f"--height {asked.height} --width {asked.width}: give both in pixels, or omit both")


def _robot(run_dir: Path, name: str) -> str:
    known = load_normalizer(run_dir).embodiments
    if name == "" and len(known) == 1:
        return str(known[0])
    if name not in known:
        given = f"--robot {name}: is none of its robots" if name else "--robot is missing"
        raise BadInput(f"{run_dir}: {given}; give one of {', '.join(known)}")
    return name


def _recorded(run: Run, datasets: Sequence[Path], asked: Asked) -> list[Observation]:
    """Moments at equal distances."""
    clips = open_clips(run, datasets)[0]
    if asked.height:
        raise BadInput(
            "--height and --width: images of a dataset have their size; omit the flags, or --dataset"
        )
    if len(clips) < asked.count:
        raise BadInput(f"--count is {asked.count}, and the datasets have {len(clips)} moments; ask for fewer")
    numbers = np.linspace(0, len(clips) - 1, asked.count).round().astype(int)
    return [clips[int(i)].observation(noise_seed=order) for order, i in enumerate(numbers)]


def _random(engine: Engine[Policy], robot: str, asked: Asked) -> list[Observation]:
    """Random images and proprio, of the instructions in turn."""
    if not asked.instructions:
        raise BadInput(
            "--instructions is missing: the file comes with their rows; give what the robot is told, or a --dataset"
        )
    rng, data = np.random.default_rng(0), engine.spec(robot)
    shape = (asked.height or data.view_height, asked.width or data.view_width, 3)
    make = partial(Observation, embodiment=robot)
    return [
        make(
            images={view: rng.integers(256, size=shape, dtype=np.uint8) for view in data.views},
            proprio=rng.uniform(-1, 1, data.proprio_dim).astype(np.float32),
            instruction=asked.instructions[number % len(asked.instructions)],
            noise_seed=number,
        )
        for number in range(asked.count)
    ]


def _range(run_dir: Path, robot: str) -> np.ndarray:
    """Of every action dimension in training [a]."""
    stats = load_normalizer(run_dir).stats[robot]["action"]
    return np.maximum(stats.max - stats.min, SMALLEST_RANGE)
