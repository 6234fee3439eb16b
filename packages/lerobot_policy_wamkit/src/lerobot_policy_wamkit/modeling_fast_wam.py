"""Fast-WAM in LeRobot: the policy."""

from lerobot_policy_wamkit.configuration_fast_wam import FastWAMConfig
from lerobot_policy_wamkit.policy import WamkitPolicy


class FastWAMPolicy(WamkitPolicy):
    """See WamkitPolicy."""

    config_class = FastWAMConfig
    name = "wamkit_fast_wam"
