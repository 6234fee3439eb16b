"""LaWAM in LeRobot: the policy."""

from lerobot_policy_wamkit.configuration_lawam import LaWAMConfig
from lerobot_policy_wamkit.policy import WamkitPolicy


class LaWAMPolicy(WamkitPolicy):
    """See WamkitPolicy."""

    config_class = LaWAMConfig
    name = "wamkit_lawam"
