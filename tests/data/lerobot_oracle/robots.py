"""Robots that the real LeRobot writes datasets of, in the oracle environment: standard library only.

They differ in what users' datasets differ in: version, columns, kind of action, cameras, rate and storage of images.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Robot:
    """One dataset. version: of lerobot, which decides that of the format.

    style: of the columns' names, "lerobot" or "openpi". kind: "delta", changes of the state, or "absolute", targets;
    the last dimension is a gripper. cameras: names as the style has them. storage: "image" or "video".
    """

    version: str
    style: str
    kind: str
    cameras: tuple[str, ...]
    hz: int
    storage: str

    @property
    def columns(self) -> tuple[str, str]:
        """Of state and action."""
        return ("observation.state", "action") if self.style == "lerobot" else ("state", "actions")

    @property
    def camera_keys(self) -> tuple[str, ...]:
        """Of the features."""
        return tuple(f"observation.images.{c}" if self.style == "lerobot" else c for c in self.cameras)


NEW, OLD = "0.4.4", "0.3.3"  # datasets v3.0 and v2.1
ONE, TWO, THREE = ("front",), ("image", "wrist_image"), ("cam_high", "cam_left_wrist", "cam_right_wrist")

COMMITTED = {
    "openpi-delta-5hz": Robot(NEW, "openpi", "delta", ("image",), 5, "image"),
    "lerobot-absolute-50hz": Robot(NEW, "lerobot", "absolute", THREE, 50, "video"),
    "openpi-absolute-15hz": Robot(OLD, "openpi", "absolute", TWO, 15, "image"),
    "lerobot-delta-30hz": Robot(OLD, "lerobot", "delta", THREE, 30, "video"),
}
"""Those in tests/data/fixtures/robots, written by `build.py fixtures`."""

FRESH = COMMITTED | {
    "lerobot-delta-10hz": Robot(NEW, "lerobot", "delta", ONE, 10, "image"),
    "openpi-absolute-30hz": Robot(NEW, "openpi", "absolute", TWO, 30, "video"),
    "lerobot-absolute-20hz": Robot(OLD, "lerobot", "absolute", ONE, 20, "video"),
    "openpi-delta-50hz": Robot(OLD, "openpi", "delta", THREE, 50, "image"),
}
"""Those that `make test-lerobot` writes anew."""
