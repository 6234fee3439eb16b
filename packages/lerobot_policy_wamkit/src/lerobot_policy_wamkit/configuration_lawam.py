"""LaWAM in LeRobot, which finds the other two modules of a type by the name of this one."""

from dataclasses import dataclass
from typing import ClassVar

from lerobot.configs.policies import PreTrainedConfig

from lerobot_policy_wamkit.config import WamkitConfig


@PreTrainedConfig.register_subclass("wamkit_lawam")
@dataclass
class LaWAMConfig(WamkitConfig):
    """The policy type `wamkit_lawam`."""

    kind: ClassVar[str] = "lawam"
