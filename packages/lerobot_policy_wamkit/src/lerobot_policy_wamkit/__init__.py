"""Policies of wamkit as a plug-in of LeRobot, which imports this package for the types that it registers."""

from lerobot_policy_wamkit.configuration_fast_wam import FastWAMConfig
from lerobot_policy_wamkit.configuration_lawam import LaWAMConfig
from lerobot_policy_wamkit.configuration_light_wam import LightWAMConfig

__all__ = ["FastWAMConfig", "LaWAMConfig", "LightWAMConfig"]
