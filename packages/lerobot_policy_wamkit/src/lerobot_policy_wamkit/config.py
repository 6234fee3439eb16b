"""What LeRobot asks of a policy's config, answered from the wamkit run behind it.

The run is that of the folder `pretrained_path`, or of a recipe where a new policy is trained. Nothing of it is repeated
here; a folder that LeRobot can load is a run directory with LeRobot's own files beside.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from lerobot.configs.policies import PreTrainedConfig
from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature
from lerobot.optim.optimizers import AdamWConfig
from wamkit_client.types import BadInput

from lerobot_policy_wamkit.schedule import WamkitSchedulerConfig

if TYPE_CHECKING:
    from wamkit.config import Run
    from wamkit.infer.presets import PresetName
    from wamkit.types import DataSpec

CAMERA = "observation.images."
UNCHANGED = dict.fromkeys(("VISUAL", "STATE", "ACTION"), NormalizationMode.IDENTITY)


@dataclass
class WamkitConfig(PreTrainedConfig):
    """Of every type of this package; `kind` is wamkit's name of the policy.

    recipe: of a new policy, by name or file (`wamkit recipes`, `wamkit init DATASET`). "": it has a folder.
    robot: which robot's statistics, rate and cameras; "": the only one that the run knows.
    n_action_steps: actions executed of every chunk; 0: as many as the run evaluates with.
    engine: preset by which it answers; "": the run's.
    normalization_mapping: the identity throughout, since a wamkit policy takes and returns physical units.
    """

    kind: ClassVar[str] = ""

    recipe: str = ""
    robot: str = ""
    n_action_steps: int = 0
    engine: str = ""
    normalization_mapping: dict[str, NormalizationMode] = field(default_factory=lambda: dict(UNCHANGED))

    @classmethod
    def of_run(cls, directory: Path, device: str | None = None) -> WamkitConfig:
        """That of a run directory of `wamkit train`. BadInput where it is none, or of another kind of policy."""
        config = cls(device=device, pretrained_path=directory, push_to_hub=False)
        config.take_features()
        return config

    def run(self) -> Run:
        """What was decided about the policy. BadInput where nothing says it, and where it is of another kind."""
        from wamkit.config import load_run
        from wamkit.recipes import recipe

        if not (self.pretrained_path or self.recipe):
            raise BadInput(
                f"policy {self.type}: nothing says what it is; give --policy.path with a run directory, or "
                "--policy.recipe with a recipe to train a new one (`wamkit recipes` lists them)"
            )
        run = load_run(Path(self.pretrained_path)) if self.pretrained_path else recipe(self.recipe)
        if run.policy.kind != self.kind:
            raise BadInput(
                f"policy {self.type}: {self.pretrained_path or self.recipe} is of {run.policy.kind}; give "
                f"--policy.type wamkit_{run.policy.kind}"
            )
        return replace(run, eval=replace(run.eval, engine=self._preset())) if self.engine else run

    def _preset(self) -> PresetName:
        from wamkit.infer.presets import PRESETS

        if self.engine not in PRESETS:
            raise BadInput(f"policy {self.type}: engine {self.engine!r} is none of {', '.join(PRESETS)}")
        return cast("PresetName", self.engine)

    def spec(self) -> DataSpec:
        """What its robot's observations and chunks look like."""
        run = self.run()
        return run.robots.get(self.robot, run.data)

    def take_features(self) -> None:
        """Make cameras, proprio and actions those of the run. BadInput where actions have another width."""
        spec = self.spec()
        size = (3, spec.view_height, spec.view_width)
        self.input_features = {CAMERA + view: PolicyFeature(FeatureType.VISUAL, size) for view in spec.views}
        if spec.proprio_dim:
            self.input_features["observation.state"] = PolicyFeature(FeatureType.STATE, (spec.proprio_dim,))
        given = self.action_feature
        if given and tuple(given.shape) != (spec.action_dim,):
            raise BadInput(
                f"policy {self.type}: actions have {spec.action_dim} dimensions, those of the environment or dataset "
                f"{list(given.shape)}; name another run, recipe or environment"
            )
        self.output_features = {"action": PolicyFeature(FeatureType.ACTION, (spec.action_dim,))}

    def validate_features(self) -> None:
        """BadInput where LeRobot would normalize what the policy normalizes, or execute more than a chunk has."""
        if self.normalization_mapping != UNCHANGED:
            raise BadInput(
                f"policy {self.type}: normalization_mapping is {self.normalization_mapping}, expected IDENTITY "
                "throughout: it takes and returns physical units"
            )
        if not 1 <= self.executed_steps <= self.chunk_size:
            raise BadInput(
                f"policy {self.type}: n_action_steps is {self.executed_steps}, expected 1 to {self.chunk_size}, the "
                "actions of a chunk; give --policy.n_action_steps"
            )

    @property
    def chunk_size(self) -> int:
        """Actions in a chunk."""
        return self.spec().horizon

    @property
    def executed_steps(self) -> int:
        """Actions executed of every chunk."""
        return self.n_action_steps or self.run().eval.replan_steps

    @property
    def observation_delta_indices(self) -> list[int]:
        """Frames of a training sample."""
        return list(self.spec().frame_offsets)

    @property
    def action_delta_indices(self) -> list[int]:
        """Actions of a training sample."""
        return list(range(self.chunk_size))

    @property
    def reward_delta_indices(self) -> None:
        """Rewards are not used."""

    @property
    def drop_n_last_frames(self) -> int:
        """Steps at an episode's end that begin no training sample."""
        spec = self.spec()
        return max(spec.frame_offsets[-1], spec.horizon - 1) if spec.whole_windows else 0

    def get_optimizer_preset(self) -> AdamWConfig:
        """As the run is trained."""
        train = self.run().train
        return AdamWConfig(
            lr=train.learning_rate,
            betas=train.betas,
            eps=train.eps,
            weight_decay=train.weight_decay,
            grad_clip_norm=0.0 if train.clip_norm == "none" else train.clip_norm,
        )

    def get_scheduler_preset(self) -> WamkitSchedulerConfig:
        """As the run is trained, over LeRobot's number of steps."""
        train = self.run().train
        return WamkitSchedulerConfig(
            num_warmup_steps=train.warmup_steps,
            first=train.warmup_start,
            final=train.final_fraction,
            shape=train.schedule,
        )
