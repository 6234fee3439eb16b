"""LaWAM in LeRobot: its processors."""

from lerobot_policy_wamkit.processors import make_processors as make_wamkit_lawam_pre_post_processors

__all__ = ["make_wamkit_lawam_pre_post_processors"]
