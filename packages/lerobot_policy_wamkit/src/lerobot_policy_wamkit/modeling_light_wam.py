"""Light-WAM in LeRobot: the policy."""

from lerobot_policy_wamkit.configuration_light_wam import LightWAMConfig
from lerobot_policy_wamkit.policy import WamkitPolicy


class LightWAMPolicy(WamkitPolicy):
    """See WamkitPolicy."""

    config_class = LightWAMConfig
    name = "wamkit_light_wam"
