"""Released checkpoints <-> run directories, of every kind of policy that has a policies.released.Released.

A released file holds weights; a recipe (or the config file of its run) and the statistics file beside it say the rest.
Every tensor keeps its value and dtype both ways. It knows no tensor names (policies/*/convert.py do).
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from wamkit_client.types import BadInput

from wamkit.config import (
    PROVENANCE_FILE,
    Run,
    diff,
    load_normalizer,
    load_provenance,
    load_run,
    save_normalizer,
    save_run,
)
from wamkit.data.normalize import Normalizer
from wamkit.data.official_statistics import Statistics
from wamkit.io.files import replace_text
from wamkit.io.provenance import record
from wamkit.io.tensors import digest, load_strict
from wamkit.io.weights import WEIGHTS, run_weights, save_weights
from wamkit.plugins import load
from wamkit.policies import released_formats
from wamkit.policies.released import Released
from wamkit.recipes import earlier
from wamkit.stages.plan import parts
from wamkit.stages.run import NO_FILE
from wamkit.train.checkpoint import trained_tensors
from wamkit.types import DataSpec, Trainable


def released(kind: str) -> Released[Any]:
    """The released files of a kind of policy. Raises BadInput naming a plug-in that cannot be imported."""
    form: Released[Any] = load(released_formats()[kind])
    return form


def earlier_run(out: Path, kind: str, begun: str) -> Path:
    """Where the run directory of an earlier stage, of kind `begun`, goes that comes in one file with the run `out`."""
    return out.with_name(f"{out.name}{begun.removeprefix(kind)}")


def from_official(kind: str, file: Path, run: Run, statistics: Path, robot: str, out: Path) -> Run:
    """A released file -> a run directory that acts; its run, which has the file's sizes and step.

    Where the file holds an earlier stage too, that gets a run directory of its own, `earlier_run(out, ...)`.
    kind: of the policy.
    run: what the file was trained with. A recipe gives what no tensor shows, and the file may have another structure;
        any other run states the structure, and an error names where the file contradicts it.
    statistics: the official JSON. robot: its robot, as observations name it.
    What a run directory does not hold (frozen encoders, the video model under LoRA) is read where the run says.
    Raises BadInput where a file cannot be read, does not fit the run, or a directory exists.
    """
    _expect_kind(kind, run, f"recipe {run.recipe}")
    form = released(kind)
    directories = {stage.kind: earlier_run(out, kind, stage.kind) for stage in form.earlier}
    for directory in (out, *directories.values()):
        if directory.exists():
            raise BadInput(f"{directory} exists; choose another name for the run directory")
    known = form.statistics(statistics, run.data, robot)
    official = form.read(file)
    finished = []
    for stage in form.earlier:
        begun, directory = _earlier(run, stage.kind), directories[stage.kind]
        begun = replace(begun, policy=stage.before(run.policy, begun.policy))
        unknown = released(stage.kind).statistics(NO_FILE, begun.data, robot)
        finished.append(_converted(official, file, begun, unknown, robot, directory))
        run = replace(run, policy=stage.after(run.policy, finished[-1].run.policy, directory))
    finished.append(_converted(official, file, run, known, robot, out))
    for converted in finished:
        _write_run(converted)
    return finished[-1].run


def to_official(kind: str, run_dir: Path, file: Path) -> int:
    """A run directory -> a file as the released code reads it, in the dtype of the weights; its training step.

    Raises BadInput where the run is of another policy, incomplete, or `file` exists; and where the frozen weights
    that the run names are not those that its released file held.
    """
    _expect_kind(kind, load_run(run_dir), str(run_dir))
    if file.exists():
        raise BadInput(f"{file} exists; choose another name")
    official = _official(run_dir)
    file.parent.mkdir(parents=True, exist_ok=True)
    released(kind).save(file, official)
    return int(official["step"])


@dataclass(frozen=True)
class _Converted:
    """A run directory before it is written."""

    run: Run
    normalizer: Normalizer
    policy: Trainable
    facts: Mapping[str, Any]
    directory: Path


def _converted(
    official: Mapping[str, Any], file: Path, run: Run, known: Statistics, robot: str, out: Path
) -> _Converted:
    """The policy of one kind that is in a released file, with its run."""
    form = released(run.policy.kind)
    found = form.structure(official, run.policy, str(file))
    _expect_dims(found.dims, run.data, file)
    # Not every file contains the step; then it is the recipe's.
    train = replace(run.train, steps=official["step"]) if official["step"] else run.train
    normalization = replace(run.normalization, statistics="file")
    stated, run = run, replace(run, policy=found.config, train=train, normalization=normalization)
    _expect_as_stated(stated, run, file)
    form.fits(run.policy, str(file))
    normalizer = run.normalization.fit({robot: known.fields}, {robot: run.actions})
    policy: Any = _without_memory(run, normalizer)
    policy.embodiment([robot])  # refuses a robot that the run does not know
    form.fill(policy, official, str(file))
    facts = _provenance(policy, run, robot, known)
    facts["released"] = {"file": file.name, "frozen": digest(_frozen(policy).items())}
    facts["released"] |= {name: official[name] for name in form.envelope.facts}
    return _Converted(run, normalizer, policy, facts, out)


def _official(run_dir: Path) -> dict[str, Any]:
    """The checkpoint dict of a run directory, and of those of earlier stages that it started from."""
    run = load_run(run_dir)
    form = released(run.policy.kind)
    official: dict[str, Any] = {}
    for stage in form.earlier:
        directory = stage.directory(run.policy)
        _expect_kind(stage.kind, load_run(directory), str(directory))
        official |= _official(directory)
    policy: Any = _without_memory(run, load_normalizer(run_dir))
    policy.load_frozen()
    frozen = _frozen(policy)
    load_strict(policy, run_weights(run_dir), str(run_dir / WEIGHTS), fresh=tuple(map(re.escape, frozen)))
    # What lies beside a run may be stored in a wider dtype than it was released in.
    for name in frozen:
        parameter = policy.get_parameter(name)
        parameter.data = parameter.data.to(policy.get_parameter(form.frozen.like).dtype)
    # A run that came from a released file goes back with the facts of that file.
    origin = load_provenance(run_dir).get("released", {})
    if "frozen" in origin and origin["frozen"] != digest(_frozen(policy).items()):
        raise BadInput(
            f"{run_dir}: its frozen {form.frozen.what} is not the one that {origin['file']} held; name that one in "
            f"{form.frozen.path} of run.json"
        )
    known = {name: origin[name] for name in form.envelope.facts if name in origin}
    return official | form.write(policy, run.train.steps) | known


def _earlier(run: Run, kind: str) -> Run:
    """The run of the earlier stage that a recipe's weights started from."""
    for begun in earlier(run.recipe):
        if begun.policy.kind == kind:
            return begun
    raise BadInput(
        f"recipe {run.recipe}: no recipe of {_spelt(kind)} is known that comes before it; name a recipe of weights "
        "that were released"
    )


def _without_memory(run: Run, normalizer: Normalizer) -> Trainable:
    with torch.device("meta"):
        return run.policy.build(run.data, normalizer)


def _spelt(kind: str) -> str:
    return kind.replace("_", "-")


def _expect_kind(kind: str, run: Run, what: str) -> None:
    if run.policy.kind != kind:
        found, asked = _spelt(run.policy.kind), _spelt(kind)
        raise BadInput(f"{what} is of {found}, not of {asked}; use `wamkit convert {found}`, or name another")


def _expect_dims(found: Mapping[str, int], data: DataSpec, file: Path) -> None:
    expected = {field: getattr(data, field) for field in found}
    if found != expected:
        names = " and ".join(f"{size} {field.removesuffix('_dim')}" for field, size in found.items())
        raise BadInput(
            f"{file}: its policy has {names} dimensions, the recipe {' and '.join(map(str, expected.values()))}; "
            "choose the recipe it was trained with"
        )


def _expect_as_stated(stated: Run, found: Run, file: Path) -> None:
    if not stated.recipe.startswith("released_"):  # only such a run is the file's own
        return
    wrong = diff(stated, replace(stated, policy=found.policy))
    if wrong:
        raise BadInput(
            f"{file}: contradicts what its run {stated.recipe} states (stated -> in the file): {'; '.join(wrong)}. "
            "Use the config.yaml of the file's own run folder"
        )


def _frozen(policy: nn.Module) -> dict[str, Tensor]:
    """What a released file holds and training left as it was."""
    trained = trained_tensors(policy)
    return {name: tensor for name, tensor in policy.state_dict().items() if name not in trained}


def _provenance(policy: Trainable, run: Run, robot: str, statistics: Statistics) -> dict[str, Any]:
    """As training writes it; where the demonstrations began is not known."""
    about = {
        "fingerprint": "unknown",
        "robot": robot,
        "episodes": statistics.episodes,
        "steps": statistics.steps,
        "fps": run.data.hz,
        "held_out": [],
    }
    facts = record(
        "cpu", {part.name: part.parameters for part in parts(run, policy)}, about, initial_states=[]
    )
    return facts | {"statistics": statistics.origin}


def _write_run(made: _Converted) -> None:
    """The directory appears whole or not at all."""
    partial = made.directory.with_name(f".{made.directory.name}.tmp")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        save_run(made.run, partial)
        save_normalizer(made.normalizer, partial)
        replace_text(partial / PROVENANCE_FILE, json.dumps(made.facts, indent=1, allow_nan=False))
        save_weights(partial, trained_tensors(cast(nn.Module, made.policy)))
        os.rename(partial, made.directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
