"""A Run: everything that was decided about a policy, in one frozen value that is saved with it.

Saved as `run.json`, read back strictly: an unknown or misspelt key is an error with its path, never ignored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

import torch
import tyro
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError
from torch import nn
from wamkit_client.types import BadInput

from wamkit.bounds import POSITIVE, check
from wamkit.data.actions import ActionSpace
from wamkit.data.normalize import Normalizer
from wamkit.data.rules import Mode
from wamkit.data.statistics import Stats
from wamkit.eval.evaluate import EvalConfig, current_names
from wamkit.infer.engine import Engine
from wamkit.infer.presets import PRESETS
from wamkit.io.differences import differing
from wamkit.io.files import replace_text
from wamkit.io.provenance import Provenance
from wamkit.io.tensors import read_tensors
from wamkit.io.weights import WEIGHTS
from wamkit.policies.base import PolicyConfig
from wamkit.registry import policy_type
from wamkit.taking import SHARED, Take, taken
from wamkit.train.checkpoint import read_weights
from wamkit.train.loop import FREE_TO_CHANGE, TrainConfig
from wamkit.types import DataSpec, Encoder, Policy, Trainable

if TYPE_CHECKING:
    AnyPolicyConfig = PolicyConfig
else:
    AnyPolicyConfig = policy_type()

RUN_FILE = "run.json"
NORMALIZER_FILE = "normalizer.json"
PROVENANCE_FILE = "provenance.json"


@dataclass(frozen=True)
class Normalization:
    """How each field is brought to unit range.

    action, proprio: "min_max" or "z_score" (spec 3.3).
    statistics: "frames": of every step, each counted once. "published_windows": as the released code computes them
        (data/official_statistics.py). "file": as it saved them (`wamkit train --stats`).
    gripper: rule of an action's grippers: that of the other dimensions, "binary" or "inverted_min_max" (data/rules.py).
    robots: of a mixture. "own": every robot has statistics of its own. "shared": all have those of all their steps
        together, as copies of one robot's data at several rates may (LaWAM spec 6.7).
    """

    action: Mode = "min_max"
    proprio: Mode = "min_max"
    statistics: Literal["frames", "published_windows", "file"] = "frames"
    gripper: Literal["as_action", "binary", "inverted_min_max"] = "as_action"
    robots: Literal["own", "shared"] = "own"

    def __post_init__(self) -> None:
        if self.robots == "shared" and self.statistics != "frames":
            raise BadInput(
                f"normalization.robots: shared statistics are those of all steps, and normalization.statistics is "
                f"{self.statistics}; give --normalization.statistics frames"
            )

    @property
    def modes(self) -> dict[str, Mode]:
        """By field."""
        return {"action": self.action, "proprio": self.proprio}

    def rules(self, space: ActionSpace) -> dict[int, str]:
        """Dimensions of an action that have a rule of their own."""
        own = {"quaternion": "quaternion"}
        if self.gripper != "as_action":
            own["gripper"] = self.gripper
        return {dim: own[kind] for dim, kind in enumerate(space.kinds) if kind in own}

    def fit(self, stats: Mapping[str, Mapping[str, Stats]], spaces: Mapping[str, ActionSpace]) -> Normalizer:
        """The normalizer of these robots, of which `spaces` has the meaning of actions."""
        rules = {robot: {"action": self.rules(space)} for robot, space in spaces.items()}
        return Normalizer.fit(stats, self.modes, rules)


@dataclass(frozen=True)
class Source:
    """One dataset of a mixture, and where it differs from the others.

    name: of its part of the latent cache. weight: how often its samples are seen, relative to those of other sources.
    data: its rate, cameras (in the order of the run's views), window and dimensions; the canvas is the run's.
    actions: what they mean. robot: `robot_type` of the dataset. It is needed where `data` is not the run's: when
    acting, an observation names its robot, and nothing else tells which source it is like.
    """

    name: str
    data: DataSpec
    actions: ActionSpace
    weight: float = 1.0
    robot: str = ""

    def __post_init__(self) -> None:
        check(f"sources.{self.name}", self, {"weight": POSITIVE})


@dataclass(frozen=True)
class Run:
    """recipe: the function it came from. suite: the benchmark it is measured on (wamkit_client/suites.py); "": none.

    data: what the policy is shown and predicts. sources: its datasets, where they differ among themselves: `data` then
    has the widest dimensions and the longest chunk. (): all datasets are as `data` says, and every step counts once.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    recipe: str
    suite: str
    policy: AnyPolicyConfig
    data: DataSpec
    actions: ActionSpace
    normalization: Normalization = field(default_factory=Normalization)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    sources: Annotated[tuple[Source, ...], tyro.conf.Fixed] = ()

    def __post_init__(self) -> None:
        if self.sources:
            _check_sources(self.sources, self.data)
            for source in self.sources:
                _check_source(source, self.policy, self.data)

    @property
    def robots(self) -> dict[str, DataSpec]:
        """By name, the robots of a mixture; all others are as `data` says."""
        return {source.robot: source.data for source in self.sources if source.robot}

    def displacements(self, robot: str) -> tuple[int, ...]:
        """Dimensions of a robot's actions that are relative to where it is."""
        own = {source.robot: source.actions for source in self.sources if source.robot}
        return own.get(robot, self.actions).relative


def _check_sources(sources: Sequence[Source], data: DataSpec) -> None:
    """BadInput where the run's `data` is not as wide as its widest source, or sources do not go together."""
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise BadInput(f"sources: two are named {name!r}; each needs a part of the cache of its own")
    for name in ("horizon", "action_dim", "proprio_dim"):
        widest = max(sources, key=lambda source: getattr(source.data, name))
        if getattr(widest.data, name) != getattr(data, name):
            raise BadInput(
                f"sources.{widest.name}: {name} is {getattr(widest.data, name)}, the run's data has "
                f"{getattr(data, name)}; data must be as wide as the widest source"
            )
    for source in sources:
        if len(source.data.views) != len(data.views) or len(source.data.frame_times) != len(data.frame_times):
            raise BadInput(
                f"sources.{source.name}: {len(source.data.views)} views and {len(source.data.frame_times)} frames, "
                f"the run's data has {len(data.views)} and {len(data.frame_times)}; every source has as many"
            )
        own = replace(source.data, augmentation=data.augmentation)
        if own != data and not source.robot:
            raise BadInput(
                f"sources.{source.name}: its data is not the run's, so it needs the name of its robot (robot=...), "
                "by which acting recognizes it"
            )


def _check_source(source: Source, policy: PolicyConfig, data: DataSpec) -> None:
    """BadInput where the policy cannot be trained on it."""
    try:
        policy.expect_source(data, source.data)
    except BadInput as error:
        raise BadInput(f"sources.{source.name}: {error}") from error


RUN = TypeAdapter(Run)
PROVENANCE = TypeAdapter(Provenance)


def to_json(run: Run) -> str:
    """The whole run, readable."""
    return RUN.dump_json(run, indent=1).decode() + "\n"


def from_json(text: str, source: str) -> Run:
    """The run a text describes. Raises BadInput naming each wrong key."""
    try:
        return RUN.validate_json(_with_current_names(text), strict=False)
    except ValidationError as error:
        raise BadInput(
            f"{source}: not a run of this version of wamkit ({_wrong(error)}); train it again"
        ) from None


def _with_current_names(text: str) -> str:
    """What runs of older versions call otherwise. A text that is no run is left for the validation to name."""
    try:
        values = json.loads(text)
    except ValueError:
        return text
    if not isinstance(values, dict) or not isinstance(values.get("eval"), dict):
        return text
    data = values.get("data")
    hz = data["hz"] if isinstance(data, dict) and type(data.get("hz")) in (int, float) else 0.0
    return json.dumps(values | {"eval": current_names(values["eval"], hz)})


def typed(run: Run, source: str) -> Run:
    """A run that Python code made, with every value of its type (a list that stands for a tuple is made one).

    Raises BadInput naming each value of another type, and `source`, where they were written.
    """
    try:
        return RUN.validate_json(RUN.dump_json(run, warnings=False), strict=False)
    except ValidationError as error:
        raise BadInput(f"{source}: values of another type than expected: {_wrong(error)}") from None
    except PydanticSerializationError as error:
        raise BadInput(
            f"{source}: a value that cannot be saved with a run ({error}); use numbers, texts, and the config classes "
            "of wamkit"
        ) from None


def _wrong(error: ValidationError) -> str:
    return "; ".join(f"{_path(e['loc'])}: {e['msg']}" for e in error.errors()[:5])


def _path(location: tuple[int | str, ...]) -> str:
    """As the command line spells it; pydantic puts the kind of a policy behind `policy`."""
    named = location[:1] + location[2:] if location[:1] == ("policy",) else location
    return ".".join(map(str, named))


def save_run(run: Run, directory: Path) -> None:
    """Write `run.json`. Raises BadInput when the directory holds another run.

    One that differs in what a resumed run is free to change is the same; the file stays as it was.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / RUN_FILE
    if path.exists():
        free = tuple(f"train.{name}:" for name in FREE_TO_CHANGE)
        changes = [change for change in diff(load_run(directory), run) if not change.startswith(free)]
        if changes:
            raise BadInput(
                f"{path} describes another run ({'; '.join(changes[:5])}); "
                "choose another --out, or repeat the command with the values it was begun with"
            )
        return
    replace_text(path, to_json(run))


def load_run(directory: Path) -> Run:
    """The run of a run directory."""
    return from_json(read(directory, RUN_FILE), str(directory / RUN_FILE))


def read(directory: Path, name: str) -> str:
    """A text file of a run directory; BadInput when it is missing or no text."""
    path = directory / name
    if not path.is_file():
        raise BadInput(f"{directory}: {name} is missing; expected a run directory written by `wamkit train`")
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not a text file ({error}); restore it from a copy of the run") from error


def load_provenance(directory: Path) -> dict[str, Any]:
    """Where a run came from, as `provenance.record` wrote it. BadInput where it is missing or damaged."""
    text, path = read(directory, PROVENANCE_FILE), directory / PROVENANCE_FILE
    try:
        PROVENANCE.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the content"
        raise BadInput(
            f"{path}: {place}: {first['msg'].lower()}; restore it from a copy of the run"
        ) from error
    facts: dict[str, Any] = json.loads(text)
    return facts


def diff(old: Run, new: Run) -> list[str]:
    """What differs, one "path: old -> new" each; first the kinds, which explain the rest."""
    changes = differing(RUN.dump_python(old, mode="json"), RUN.dump_python(new, mode="json"))
    ordered = sorted(changes, key=lambda change: (not change[0].endswith(".kind"), change[0]))
    return [f"{name}: {before} -> {after}" for name, before, after in ordered]


def check_together(given: Run, asked: Run) -> None:
    """BadInput where values that a command line changed do not go together. given: the run without these changes.

    Not part of reading a run: an older one may hold such values.
    """
    if asked.train != given.train and asked.train.warmup_steps > asked.train.steps:
        raise BadInput(
            f"train.warmup_steps: expected at most train.steps, {asked.train.steps}, got {asked.train.warmup_steps}; "
            f"give --train.warmup-steps too, {asked.train.steps} or less"
        )
    if asked.policy != given.policy:
        asked.policy.validate_together()
    if asked.eval.executor == "guided" and not asked.policy.continues:
        raise BadInput(
            f"eval.executor: a {asked.policy.kind} policy makes a chunk from what the robot sees alone and cannot "
            "continue the previous one; expected sync, async or ensemble, got guided"
        )
    needed = asked.eval.needed(asked.data.hz)
    late = needed - asked.eval.replan_steps  # actions whose time passes before their chunk arrives
    if needed > asked.data.horizon:
        raise BadInput(
            f"eval.replan_steps: expected at most the {asked.data.horizon} actions of a chunk "
            f"(data.chunk_seconds {asked.data.chunk_seconds:g} at data.hz {asked.data.hz:g})"
            + (f" less a delay of {late}" if late else "")
            + f", got {asked.eval.replan_steps}; give --eval.replan-steps {asked.data.horizon - late} or less"
        )


def inference_overrides(trained: Run, asked: Run) -> list[str]:
    """What is asked of a trained policy otherwise than it was trained. Raises BadInput where it cannot do that."""
    changes = [change for change in diff(trained, asked) if not change.startswith("eval.")]
    free = ("data.chunk_seconds", *(f"policy.{name}" for name in asked.policy.inference_overrides))
    fixed = [change for change in changes if not change.startswith(free)]
    if fixed:
        raise BadInput(
            f"{fixed[0]}: what was trained cannot be changed now; only eval.* and "
            f"{', '.join(free)} can. Train another run"
        )
    if asked.data.horizon > trained.data.horizon:
        raise BadInput(
            f"data.chunk_seconds: {asked.data.horizon} actions are asked for, the policy was trained to predict "
            f"{trained.data.horizon}; ask for at most {trained.data.chunk_seconds} s, or train with longer chunks"
        )
    asked.policy.validate(trained.policy)
    return changes


def save_normalizer(normalizer: Normalizer, directory: Path) -> None:
    """Write `normalizer.json`. Raises BadInput when the directory holds that of another dataset, or a damaged one."""
    path, text = directory / NORMALIZER_FILE, normalizer.to_json()
    if not path.exists():
        replace_text(path, text)
    elif Normalizer.from_json(read(directory, NORMALIZER_FILE), str(path)).to_json() != text:
        raise BadInput(
            f"{path} has other statistics: of another dataset, or of another --stats; choose another --out, or its own"
        )


def build_policy(run: Run, normalizer: Normalizer) -> Trainable:
    """The policy of a run with random weights drawn for its training seed; the global random state is left alone."""
    with torch.random.fork_rng():
        torch.manual_seed(run.train.seed)
        return run.policy.build(run.data, normalizer)


def build_encoder(run: Run) -> Encoder:
    """The encoder as training uses it, on the CPU. Raises BadInput naming a missing file."""
    return run.policy.encoder(run.data, "training")


def load_engine(directory: Path, device: torch.device) -> Engine[Policy]:
    """A run directory as something that acts. Raises BadInput naming a missing or truncated file."""
    return load_engine_as(load_run(directory), directory, device)


def load_engine_as(run: Run, directory: Path, device: torch.device) -> Engine[Policy]:
    """The weights of a run directory, acting as `run` says; see `inference_overrides` for what that may change.

    Its policy and its encoder stay whole; where nobody looks into them, `load_acting` takes less memory.
    """
    policy, precision = stored_policy(run, directory), acting_precision(run, directory)
    module = cast(nn.Module, policy)
    for parameter in module.parameters():
        parameter.data = parameter.data.to(device, precision)
    module.to(device)
    return _engine(run, policy, device, SHARED)


def load_acting(run: Run, directory: Path, device: torch.device) -> Engine[Policy]:
    """`load_engine_as` for acting alone: its policy knows its data and its robots, and computes nothing.

    Weights go part by part from the mapped file to where they act, and no part of them is there twice (taking.py).
    """
    policy = stored_policy(run, directory)
    engine = _engine(run, policy, device, taken(device, acting_precision(run, directory)))
    engine.release()
    return engine


def stored_policy(run: Run, directory: Path) -> Policy:
    """The policy of a run directory, with the tensors of its files as they are, memory-mapped. Nothing is drawn."""
    with torch.device("meta"):
        policy = run.policy.build(run.data, load_normalizer(directory))
    policy.load_frozen()
    module = cast(nn.Module, policy)
    read_weights(directory, module)
    module.eval()
    return acting(policy, run)


def _engine(run: Run, policy: Policy, device: torch.device, take: Take) -> Engine[Policy]:
    given = run.eval.engine, run.robots, take, run.displacements, run.policy.continues
    return Engine(run.policy.encoder(run.data, run.eval.preprocessing).to(device), policy, device, *given)


def acting(policy: Trainable, run: Run) -> Policy:
    """The policy, if it is one. BadInput for a model that is only trained."""
    if not isinstance(policy, Policy):
        raise BadInput(f"run {run.recipe}: {run.policy.kind} is a model that is trained, and does not act")
    return policy


PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def acting_precision(run: Run, directory: Path) -> torch.dtype:
    """What the weights of a run directory act in: as `run.eval.precision` asks, else as its preset does, else as they
    are stored.

    Raises BadInput where they are missing, or stored in several precisions.
    """
    if run.eval.precision in PRECISIONS:
        return PRECISIONS[run.eval.precision]
    if preset := PRESETS[run.eval.engine].precision:
        return preset
    stored = {tensor.dtype for tensor in read_tensors(directory / WEIGHTS).values()}
    if len(stored) != 1:
        found = ", ".join(sorted(map(str, stored)))
        raise BadInput(
            f"{directory / WEIGHTS}: weights of {found}; say what to act in: --precision bf16 or fp32"
        )
    return stored.pop()


def load_normalizer(directory: Path) -> Normalizer:
    """The normaliser of a run directory. Raises BadInput where it is damaged or of other dimensions than the run."""
    source, data = str(directory / NORMALIZER_FILE), load_run(directory).data
    normalizer = Normalizer.from_json(read(directory, NORMALIZER_FILE), source)
    normalizer.expect({"action": data.action_dim, "proprio": data.proprio_dim}, source)
    return normalizer
