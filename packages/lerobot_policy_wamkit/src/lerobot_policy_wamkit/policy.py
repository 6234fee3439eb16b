"""A wamkit policy as LeRobot knows policies: trained by its loop, acting one step or one chunk at a time.

It acts by the engine, as everywhere else. What it saves is a run directory, with LeRobot's config beside.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from lerobot.configs.policies import PreTrainedConfig
from lerobot.policies.pretrained import PreTrainedPolicy
from torch import Tensor
from wamkit_client.types import BadInput

from lerobot_policy_wamkit.batches import left_over, observations
from lerobot_policy_wamkit.config import WamkitConfig
from lerobot_policy_wamkit.folders import CONFIG, local_folder
from lerobot_policy_wamkit.learner import Learner, Stored
from wamkit.config import load_acting
from wamkit.infer.engine import Engine
from wamkit.types import Policy

MODEL = "model."
"""How names of a learner's weights begin among the policy's."""


class WamkitPolicy(PreTrainedPolicy):
    """Of every type of this package.

    model: the learner where the policy is made for a dataset, which it is then trained on; else the run directory that
    it acts from, and the policy has no parameters.
    """

    config_class: ClassVar[type[WamkitConfig]] = WamkitConfig
    name: ClassVar[str] = "wamkit"

    def __init__(self, config: WamkitConfig, dataset_meta: Any = None, **unused: Any) -> None:
        """dataset_meta: LeRobot's description of the dataset that is trained on; None: the policy acts.

        Raises BadInput where config, folder and dataset do not go together.
        """
        super().__init__(config)
        self.config = config
        config.take_features()
        config.validate_features()
        self._run, directory = config.run(), Path(config.pretrained_path or "")
        if dataset_meta is None and not config.pretrained_path:
            raise BadInput(
                f"policy {self.name}: a new one is made for a dataset; give --policy.path to evaluate one"
            )
        self.model = (
            Stored(directory, config.robot)
            if dataset_meta is None
            else Learner(self._run, directory, Path(dataset_meta.root))
        )
        self._engines: list[Engine[Policy]] = []  # one, of the weights as they are, once it is asked
        self.reset()

    @classmethod
    def from_pretrained(
        cls, pretrained_name_or_path: str | Path, *, config: PreTrainedConfig | None = None, **given: Any
    ) -> WamkitPolicy:
        """The policy of a folder: a run directory of `wamkit train`, or one that LeRobot saved. A name that is no
        folder is one on the Hugging Face Hub.

        given: dataset_meta, where it is trained on; `revision`, `token` and the like of the Hub.
        """
        folder = local_folder(pretrained_name_or_path, given)
        if config is None:
            config = (
                PreTrainedConfig.from_pretrained(folder)
                if (folder / CONFIG).exists()
                else cls.config_class.of_run(folder)
            )
        if not isinstance(config, cls.config_class):
            raise BadInput(f"{folder}: is a policy of type {config.type}, expected {cls.name}")
        config.pretrained_path = folder
        policy = cls(config, **given)
        policy.to(config.device)
        policy.eval()
        return policy

    def _save_pretrained(self, save_directory: Path, state_dict: Mapping[str, Tensor] | None = None) -> None:
        """A run directory with LeRobot's config. state_dict: of the policy, gathered; None: as it is here."""
        state = self.state_dict() if state_dict is None else state_dict
        self.config._save_pretrained(save_directory)
        self.model.save(save_directory, {name.removeprefix(MODEL): state[name] for name in state})

    def get_optim_params(self) -> list[dict[str, Any]]:
        """Every trained parameter, in groups with the rates and decays that the run gives them."""
        return self.model.groups()

    def train(self, mode: bool = True) -> WamkitPolicy:
        """As of nn.Module: weights may change now."""
        if mode:
            self._engines = []
        super().train(mode)
        return self

    def forward(self, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, float]]:
        """The weighted sum of the losses, and each of them. Noise follows from torch's generator.

        BadInput for what the batch lacks, and where the policy was loaded to act.
        """
        return self.model(batch)

    def supports_rtc(self) -> bool:
        """Whether a chunk can continue the previous one (LeRobot's real-time chunking)."""
        return self._run.policy.continues

    def predict_action_chunk(
        self,
        batch: Mapping[str, Any],
        inference_delay: int | None = None,
        prev_chunk_left_over: Tensor | None = None,
        **unused: Any,
    ) -> Tensor:
        """Chunks float32 [b, k, a], physical units, on LeRobot's device.

        prev_chunk_left_over: [n, a], what is left of the previous chunk from now on, for a policy that continues it.
        inference_delay: control steps until the answer is used.
        BadInput for what the batch lacks, and as of the engine (wamkit.infer.engine).
        """
        previous, delay = left_over(prev_chunk_left_over), inference_delay or 0
        seen = observations(batch, self.config.spec(), self.model.robot, previous, delay)
        chunks = [torch.from_numpy(chunk.actions) for chunk in self._engine().act(seen)]
        return torch.stack(chunks).to(self.config.device)

    def select_action(self, batch: Mapping[str, Any], **unused: Any) -> Tensor:
        """The actions [b, a] of this step: of the chunks predicted last, or of new ones when these are used up."""
        if not self._queue:
            chunk = self.predict_action_chunk(batch)[:, : self.config.executed_steps]
            self._queue.extend(chunk.unbind(1))
        return self._queue.popleft()

    def reset(self) -> None:
        """A new episode begins: what is left of the last chunks is dropped."""
        self._queue: deque[Tensor] = deque()

    def _engine(self) -> Engine[Policy]:
        if not self._engines:
            with self.model.folder() as directory:
                self._engines = [load_acting(self._run, directory, torch.device(self.config.device))]
        return self._engines[0]
