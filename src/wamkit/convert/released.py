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
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from wamkit_client.types import BadInput

from wamkit.config import (
    PROVENANCE_FILE,
    Run,
    diff,
    load_provenance,
    load_run,
    save_normalizer,
    save_run,
)
from wamkit.data.normalize import Normalizer
from wamkit.data.official_statistics import Statistics, read_statistics
from wamkit.io.files import replace_text
from wamkit.io.provenance import record
from wamkit.io.tensors import digest, load_strict, write_torch
from wamkit.plugins import load
from wamkit.policies import released_formats
from wamkit.policies.released import Released
from wamkit.recipes import RECIPES
from wamkit.stages.plan import meta_policy, parts
from wamkit.train.checkpoint import WEIGHTS, run_weights, save_weights, trained_tensors
from wamkit.types import Trainable

FACTS = ("step", "torch_dtype")


def released(kind: str) -> Released[Any]:
    """The released files of a kind of policy. Raises BadInput naming a plug-in that cannot be imported."""
    form: Released[Any] = load(released_formats()[kind])
    return form


def from_official(kind: str, file: Path, run: Run, statistics: Path, robot: str, out: Path) -> Run:
    """A released file -> a run directory that acts; its run, which has the file's sizes and step.

    kind: of the policy.
    run: what the file was trained with. A recipe gives what no tensor shows, and the file may have another structure;
        any other run states the structure, and an error names where the file contradicts it.
    statistics: the official JSON. robot: its robot, as observations name it.
    What a run directory does not hold (frozen encoders, the video model under LoRA) is read where the run says.
    Raises BadInput where a file cannot be read, does not fit the run, or `out` exists.
    """
    _expect_kind(kind, run, f"recipe {run.recipe}")
    if out.exists():
        raise BadInput(f"{out} exists; choose another name for the run directory")
    known = read_statistics(statistics, run.data)
    form = released(kind)
    official = form.read(file)
    found = form.structure(official, run.policy, str(file))
    if (found.action_dim, found.proprio_dim) != (run.data.action_dim, run.data.proprio_dim):
        raise BadInput(
            f"{file}: its policy has {found.action_dim} action and {found.proprio_dim} proprio dimensions, the recipe "
            f"{run.data.action_dim} and {run.data.proprio_dim}; choose the recipe it was trained with"
        )
    # LeRobot's files do not contain the step; then it is the recipe's.
    train = replace(run.train, steps=official["step"]) if official["step"] else run.train
    normalization = replace(run.normalization, statistics="file")
    stated, run = run, replace(run, policy=found.config, train=train, normalization=normalization)
    _expect_as_stated(stated, run, file)
    policy: Any = meta_policy(run)
    given = run.policy.example_inputs(run.data, 1)["present"].shape[1]
    if given != found.config.size.channels:
        raise BadInput(
            f"{file}: its video model takes {found.config.size.channels} latent channels, the codec of recipe "
            f"{run.recipe} gives {given}; choose the recipe it was trained with"
        )
    form.fill(policy, official, str(file))
    facts = _provenance(policy, run, robot, known)
    facts["released"] = {"file": file.name, "frozen": digest(_frozen(policy).items())}
    facts["released"] |= {name: official[name] for name in FACTS}
    _write_run(out, run, Normalizer.fit({robot: known.fields}, run.normalization.modes), policy, facts)
    return run


def to_official(kind: str, run_dir: Path, file: Path) -> int:
    """A run directory -> a file as the released code reads it, in the dtype of the weights; its training step.

    Raises BadInput where the run is of another policy, incomplete, or `file` exists; and where the frozen video model
    that the run names is not the one that its released file held.
    """
    run = load_run(run_dir)
    _expect_kind(kind, run, str(run_dir))
    if file.exists():
        raise BadInput(f"{file} exists; choose another name")
    policy: Any = meta_policy(run)
    policy.load_frozen()
    trained = trained_tensors(policy)
    frozen = tuple(re.escape(name) for name in policy.state_dict() if name not in trained)
    load_strict(policy, run_weights(run_dir), str(run_dir / WEIGHTS), fresh=frozen)
    # A released file is of one dtype; the frozen video model beside a run may be stored in a wider one.
    policy.to(next(iter(trained_tensors(policy).values())).dtype)
    # A run that came from a released file goes back with the facts of that file.
    origin = load_provenance(run_dir).get("released", {})
    if "frozen" in origin and origin["frozen"] != digest(_frozen(policy).items()):
        raise BadInput(
            f"{run_dir}: its frozen video model is not the one that {origin['file']} held; name that one in "
            "policy.tuning.base of run.json"
        )
    official = released(kind).write(policy, run.train.steps)
    official |= {name: origin[name] for name in FACTS if name in origin}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_torch(file, official)
    return int(official["step"])


def _expect_kind(kind: str, run: Run, what: str) -> None:
    if run.policy.kind != kind:
        found, asked = (name.replace("_", "-") for name in (run.policy.kind, kind))
        raise BadInput(f"{what} is of {found}, not of {asked}; use `wamkit convert {found}`, or name another")


def _expect_as_stated(stated: Run, found: Run, file: Path) -> None:
    if stated.recipe in RECIPES:
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


def _write_run(
    out: Path, run: Run, normalizer: Normalizer, policy: nn.Module, facts: Mapping[str, Any]
) -> None:
    """The directory appears whole or not at all."""
    partial = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        save_run(run, partial)
        save_normalizer(normalizer, partial)
        replace_text(partial / PROVENANCE_FILE, json.dumps(facts, indent=1, allow_nan=False))
        save_weights(partial, trained_tensors(policy))
        os.rename(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
