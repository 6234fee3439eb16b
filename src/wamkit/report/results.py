"""The parts of results.json and comparison.json that pages and tables show, as typed records.

The only place here that knows the layout of these files (described in eval/evaluate.py and stages/compare.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter
from wamkit_client.stats import Paired

Tree = Mapping[str, Any]


@dataclass(frozen=True)
class Rate:
    """Solved episodes. rate: None without trials; interval: Wilson's, 95 %. Errors (crashes) are not trials."""

    successes: int
    trials: int
    errors: int
    rate: float | None
    interval: tuple[float, float]


@dataclass(frozen=True)
class TaskRate(Rate):
    """mean_steps: of solved episodes, None without one. expert_steps: the scripted expert's median, 0 if unknown."""

    instruction: str
    group: str
    mean_steps: float | None
    expert_steps: int


@dataclass(frozen=True)
class Motion:
    """How an episode was executed, or the mean of several (wamkit_client/smoothness.py); None where it is not known."""

    jerk: float | None = None
    idle_s: float | None = None
    holds: float | None = None
    staleness_ms: float | None = None
    largest_staleness_ms: float | None = None


@dataclass(frozen=True)
class Warned:
    """What a watched policy said of a query (wamkit/infer/warning.py)."""

    step: int
    score: float
    still: float
    threshold: float
    alarm: bool


@dataclass(frozen=True)
class Episode:
    """status: "success", "failure" or "error". query_ms: of each policy call; query_call: its number in the
    evaluation; query_batch: observations in it. recording: a path relative to results.json, "" for none.
    smoothness: None of a crashed one, and in older files. warnings: none of a policy that was not watched."""

    task: str
    seed: int
    status: str
    query_call: list[int]
    query_ms: list[float]
    query_batch: list[int]
    recording: str
    smoothness: Motion | None = None
    warnings: list[Warned] = field(default_factory=list)


@dataclass(frozen=True)
class Results:
    """One evaluation. demonstrated: initial states of the demonstrations that were excluded, 0 if not known."""

    suite: Tree
    policy: Tree
    config: Tree
    demonstrated: int
    total: Rate
    tasks: dict[str, TaskRate]
    groups: dict[str, Rate]
    episodes: list[Episode]
    smoothness: Motion = Motion()


@dataclass(frozen=True)
class EarlierStage:
    """What was trained before an arm, once for each training seed. parameters: as of an arm.

    step_bytes: as of an arm. run: all its values.
    """

    recipe: str
    parameters: dict[str, int]
    steps: int
    batch_size: int
    step_seconds: float
    step_bytes: int
    run: Tree


@dataclass(frozen=True)
class Arm:
    """A recipe over all its training seeds. parameters: "total", "trained" and "deployed" (loaded for acting; absent in
    older files). seeds: by training seed.

    about_losses: what the numbers of its curves are; "" in older files. steps: of training; 0 in older files, which
    have them once for all arms.
    step_bytes: of a training step, counted (stages/plan.py): weights, gradients, optimizer, and what is kept for
    backward; without the encoder. 0 in older files.
    shown: where it is shown or asked for other data than the first arm, by name.
    earlier: the stages that it starts from, in order.
    """

    name: str
    kind: str
    identity: dict[str, str]
    parameters: dict[str, int]
    total: Rate
    tasks: dict[str, TaskRate]
    seeds: dict[str, Rate]
    query_ms: float
    step_seconds: float
    about_losses: str = ""
    steps: int = 0
    step_bytes: int = 0
    shown: dict[str, str] = field(default_factory=dict)
    earlier: list[EarlierStage] = field(default_factory=list)


@dataclass(frozen=True)
class Samples:
    """What every arm was trained on in the same order. count: samples of an epoch. order: sha256 of their names and
    weights, from which the seed alone makes the order; "" in older files, whose arms share one latent cache."""

    count: int = 0
    order: str = ""


@dataclass(frozen=True)
class Pair(Paired):
    """A paired test of the arm `second` against the arm `first`."""

    first: str
    second: str


@dataclass(frozen=True)
class ComparedRun:
    """One training run of a comparison, in the folder `name`. trained, measured: revision, versions, machine."""

    name: str
    recipe: str
    seed: int
    run: Tree
    trained: Tree
    measured: Tree
    weights: str
    total: Tree
    tasks: Tree
    latency: Tree


@dataclass(frozen=True)
class Elsewhere:
    """What the arms of a comparison solve in a further suite, over all training seeds. arms: by name."""

    suite: Tree
    arms: dict[str, Rate]
    pairs: list[Pair]


@dataclass(frozen=True)
class Compared:
    """comparison.json. steps: of the first arm. cost: the machine and the batch size that costs were measured with.

    also: further suites; absent in older files.
    """

    format: str
    command: str
    suite: Tree
    seeds: tuple[int, ...]
    steps: int
    batch_size: int
    dataset: Tree
    demonstrated: int
    simulator: Tree
    revision: str
    versions: Tree
    cost: Tree
    arms: list[Arm]
    pairs: list[Pair]
    rows: list[ComparedRun]
    samples: Samples = Samples()
    also: list[Elsewhere] = field(default_factory=list)

    def steps_of(self, arm: Arm) -> int:
        """Training steps of one of its arms."""
        return arm.steps or self.steps

    @property
    def tests(self) -> list[Pair]:
        """All paired tests."""
        return [*self.pairs, *(pair for suite in self.also for pair in suite.pairs)]


RATE, TASK_RATES, MOTION = TypeAdapter(Rate), TypeAdapter(dict[str, TaskRate]), TypeAdapter(Motion)
RESULTS, COMPARED = TypeAdapter(Results), TypeAdapter(Compared)
