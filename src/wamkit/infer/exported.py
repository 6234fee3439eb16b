"""A policy as one program: bytes of cameras, proprio and what was made of the instruction in, a physical chunk out.

Everything between is in it (canvas, codec, normaliser, networks, all steps of a sampler), in float32 and for one
observation, so whoever runs it needs nothing of wamkit. What needs the host stays outside: the rows of an instruction
are computed beforehand, and noise is an input. Recording is torch.export's, ONNX is written by torch.onnx.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.export import ExportedProgram, default_decompositions
from wamkit_client.types import BadInput, Observation

from wamkit.data.device_canvas import by_matrices
from wamkit.infer.engine import Engine
from wamkit.nn.fused_ops import real
from wamkit.policies.base import StagedActor
from wamkit.tree import tree_leaves, tree_of
from wamkit.types import ActingEncoder, Actor, DataSpec, Policy, Query

aten = torch.ops.aten
OPERATION = re.compile(r"OpOverload\(op='([^']+)'")
Leaves = dict[str, Tensor]
"""Inputs by name: "views.CAMERA" uint8 [1 h w 3], "proprio" float32 [1 p], "text.NAME" what the encoder makes of the
instruction, "drawn.NAME" standard normal noise."""


class WholePolicy(nn.Module):
    """What is recorded. robot: whose cameras, numbers and rate it has. row: of the normaliser. fixed: what the actor
    draws for every query alike."""

    def __init__(
        self,
        encoder: ActingEncoder,
        actor: Actor,
        policy: DataSpec,
        robot: DataSpec,
        row: Tensor,
        fixed: Leaves,
    ) -> None:
        super().__init__()
        self._parts = encoder, actor  # hidden from torch: what is used is recorded, the rest is not written
        self.policy, self.robot, self.row, self.fixed = policy, robot, row, fixed

    def forward(self, given: Leaves) -> Float[Tensor, "1 k a"]:
        """Chunks in physical units."""
        encoder, actor = self._parts
        tree = tree_of(given)
        names = zip(self.policy.views, self.robot.views, strict=True)
        views = {name: tree["views"][own][:, None] for name, own in names}
        missing = self.policy.proprio_dim - self.robot.proprio_dim
        drawn = tree_of(tree_leaves(tree.get("drawn", {})) | self.fixed)
        query = Query(
            inputs={
                **encoder.frames(encoder.prepare(views, torch.Generator())),
                **tree.get("text", {}),
                "proprio": F.pad(tree["proprio"], (0, missing)),
                **drawn,
            },
            embodiment=self.row,
            hz=torch.full((1,), float(self.robot.hz)),
            generators=(),
            steps=self.robot.horizon,
        )
        chunk = actor.compute(query) if isinstance(actor, StagedActor) else actor(query)
        return chunk[:, : self.robot.horizon, : self.robot.action_dim].float()


@dataclass(frozen=True)
class Asking:
    """Observations of one robot as inputs of a program. drawn: names of what is drawn for each query."""

    engine: Engine[Policy]
    encoder: ActingEncoder
    actor: Actor
    drawn: tuple[str, ...] = ()

    def text(self, instruction: str) -> Leaves:
        """What the encoder makes of an instruction."""
        return tree_leaves({"text": self.encoder.text([instruction])})

    def inputs(self, observation: Observation) -> Leaves:
        """Of one observation, with the noise that an engine would draw for it."""
        clip = self.engine.clip([observation])
        robot = self.engine.spec(observation.embodiment)
        cameras = zip(self.engine.policy.data.views, robot.views, strict=True)
        views = {own: clip.views[name][:, 0] for name, own in cameras}
        noise = self.noise(observation)
        return (
            tree_leaves({"views": views, "proprio": clip.proprio})
            | self.text(observation.instruction)
            | {f"drawn.{name}": noise[name] for name in self.drawn}
        )

    def noise(self, observation: Observation) -> Leaves:
        """What is drawn for an observation; nothing where the actor does not say what it draws."""
        if not isinstance(self.actor, StagedActor):
            return {}
        generators = [torch.Generator().manual_seed(observation.noise_seed)]
        query = self.engine.query(self.engine.clip([observation]), generators)
        return tree_leaves(
            {name: x for name, x in self.actor.prepare(query).inputs.items() if name not in query.inputs}
        )


@dataclass(frozen=True)
class Program:
    """A recorded policy. asking: what makes its inputs. example: those of one observation, in the program's order."""

    exported: ExportedProgram
    asking: Asking
    example: Leaves


def asking_of(
    engine: Engine[Policy], encoder: ActingEncoder, actor: Actor, observation: Observation
) -> tuple[Asking, Leaves]:
    """What makes the inputs of a program, and what its actor draws for every query alike."""
    asking = Asking(engine, encoder, actor)
    first, other = (asking.noise(replace(observation, noise_seed=seed)) for seed in (0, 1))
    fixed = {name: x for name, x in first.items() if torch.equal(x, other[name])}
    return replace(asking, drawn=tuple(name for name in first if name not in fixed)), fixed


@torch.no_grad()
def record(engine: Engine[Policy], encoder: ActingEncoder, actor: Actor, observation: Observation) -> Program:
    """The program for observations like this one: of its robot, and with images of its sizes.

    encoder, actor: what `engine` acts with, but for what is kept from query to query. Raises BadInput naming what
    cannot be recorded.
    """
    asking, fixed = asking_of(engine, encoder, actor, observation)
    robot = engine.spec(observation.embodiment)
    row = engine.policy.embodiment([observation.embodiment])
    whole = WholePolicy(encoder, actor, engine.policy.data, robot, row, fixed).eval()
    example = asking.inputs(observation)
    with _named("recorded"), real(), by_matrices():
        whole(example)  # what is made at a first call is made
        recorded = torch.export.export(whole, (example,), strict=False)
        exported = recorded.run_decompositions({**default_decompositions(), **SIMPLER})
    return Program(exported, asking, example)


def _hypot(x: Tensor, y: Tensor) -> Tensor:
    return (x * x + y * y).sqrt()


SIMPLER: Mapping[Any, Callable[..., Tensor]] = {
    aten.hypot.default: _hypot,
    aten.hypot_.default: _hypot,
}
"""Operations that ONNX does not have, made of those that it has."""


@contextmanager
def _named(what: str) -> Iterator[None]:
    """BadInput with the operation that could not be `what`, in place of torch's errors; no warnings."""
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        chain: BaseException | None = error
        reasons = []
        while chain is not None:
            reasons.append(str(chain))
            chain = chain.__cause__ or chain.__context__
        found = next((named[1] for reason in reasons for named in [OPERATION.search(reason)] if named), "")
        first = next((line for line in reasons[-1].splitlines() if line.strip()), type(error).__name__)
        operation = f"operation {found}" if found else f"an operation ({first.strip():.300})"
        raise BadInput(
            f"export: {operation} of this policy cannot be {what}; use --format torch for what only ONNX lacks, or "
            "`wamkit serve` beside the robot"
        ) from error


def to_onnx(program: Program, path: Path, about: Mapping[str, str]) -> None:
    """Write it; weights of more than 2 GB stand in a file beside it. about: its metadata.

    Raises BadInput naming the operation that ONNX does not have.
    """
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir", "torch.onnx")]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with _named("written as ONNX"):
        written = torch.onnx.export(
            program.exported,
            input_names=list(program.example),
            output_names=["actions"],
            dynamo=True,
            optimize=False,  # ONNX Runtime does, in a hundredth of the time
            verbose=False,
        )
    made = cast(Any, written)
    made.model.metadata_props.update(about)
    made.save(path)


def to_torch(program: Program, path: Path, about: Mapping[str, str]) -> None:
    """Write it for `torch.export.load`."""
    torch.export.save(
        program.exported, path, extra_files={f"{name}.json": text for name, text in about.items()}
    )


def to_package(program: Program, path: Path, about: Mapping[str, str]) -> None:
    """Compile it to a package for `torch._inductor.aoti_load_package`, of this kind of processor alone. BadInput where
    there is no compiler."""
    from torch._inductor import aoti_compile_and_package

    from wamkit.nn.compiler import can_compile, cpp_compilers

    if not can_compile(torch.device("cpu")):
        raise BadInput(
            f"export: --format compiled needs a C++ compiler ({', '.join(cpp_compilers())}) on this machine; install "
            "one, or use --format torch"
        )
    with _named("compiled"):
        aoti_compile_and_package(program.exported, package_path=str(path))


Answer = Callable[[Leaves], np.ndarray]
"""What a written program answers, [1 k a]."""


def read_onnx(path: Path) -> Answer:
    """By ONNX Runtime on the processor, with as many threads as torch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    taken = [given.name for given in session.get_inputs()]
    return lambda leaves: np.asarray(session.run(None, {name: leaves[name].numpy() for name in taken})[0])


def read_torch(path: Path) -> Answer:
    """By torch's operations."""
    module = torch.export.load(path).module()
    return lambda leaves: np.asarray(module(leaves).detach())


def read_package(path: Path) -> Answer:
    """As it was compiled."""
    from torch._inductor import aoti_load_package

    compiled = aoti_load_package(str(path))
    return lambda leaves: np.asarray(compiled(leaves).detach())


def chosen(passes: Sequence[str], exported: Collection[str]) -> tuple[str, ...]:
    """Of the passes that there are."""
    return tuple(name for name in passes if name in exported)


def text_rows(asking: Asking, instructions: Sequence[str]) -> dict[str, np.ndarray]:
    """What the encoder makes of instructions, [n ...] by the name of the program's input; and "instructions"."""
    rows = [asking.text(instruction) for instruction in instructions]
    return {
        "instructions": np.array(instructions),
        **{name: np.concatenate([row[name].numpy() for row in rows]) for name in rows[0]},
    }
