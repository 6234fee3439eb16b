"""What clients' names mean: a message's keys -> images, proprio and instruction of an Observation.

A layout is a row of data. The keys of maps inside a message are joined by "/", so {"images": {"front": ...}} has
"images/front". Which layout a client uses is told by the keys that come; other names are given by `--map`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from wamkit_client.envs.robotwin.conventions import ARMS, CAMERAS, CONTROLS, GRIPPER_KEY
from wamkit_client.types import WHOLE, BadInput, Observation

from wamkit.serve.limits import Limits
from wamkit.serve.served import Robot

PART = re.compile(r"(?P<key>.+)\[(?P<first>\d+):(?P<end>\d+)\]")
NO_CAMERAS: Mapping[str, str] = MappingProxyType({})
LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True)
class Layout:
    """Keys of a message. image: of a view's image, "{view}" stands for its name; cameras: of those that it is not.

    proprio: joined one after the other, each whole or a part, "state[0:7]". instruction: the first that is there.
    """

    name: str
    image: str
    proprio: tuple[str, ...]
    instruction: tuple[str, ...]
    cameras: Mapping[str, str] = field(default_factory=lambda: NO_CAMERAS)

    def key(self, view: str) -> str:
        """Where the image of a view is."""
        return self.cameras.get(view, self.image.format(view=view))

    def missing(self, robot: Robot, came: Mapping[str, Any]) -> list[str]:
        """Keys that the robot's policy needs and that did not come."""
        needed = [self.key(view) for view in robot.views]
        if robot.proprio_dim:
            needed += [_part(text)[0] for text in self.proprio]
        missing = [key for key in needed if key not in came]
        if not any(key in came for key in self.instruction):
            missing.append(self.instruction[0])
        return missing


PROMPT = ("prompt", "task_description", "instruction", "task")


def _robotwin(name: str, control: str) -> Layout:
    arms = [f"state/{arm}_{key}" for arm in ARMS for key in (CONTROLS[control].key, GRIPPER_KEY)]
    cameras = {view: f"vision/{sent}/color" for view, (sent, _) in CAMERAS.items()}
    return Layout(name, "vision/{view}/color", tuple(arms), PROMPT, MappingProxyType(cameras))


LAYOUTS = (
    Layout("wamkit", "images/{view}", ("proprio",), PROMPT),
    Layout("aloha", "images/{view}", ("state",), PROMPT),
    Layout("libero", "observation/{view}", ("observation/state",), PROMPT),
    Layout(
        "droid",
        "observation/{view}",
        ("observation/joint_position", "observation/gripper_position"),
        PROMPT,
    ),
    *(_robotwin(name, control) for name, control in (("robotwin", "joint"), ("robotwin_ee", "ee"))),
    Layout("lerobot", "observation.images.{view}", ("observation.state",), PROMPT),
    Layout("gr00t", "video/{view}", ("state/proprio",), PROMPT),
)


def mapped(layouts: Sequence[Layout], names: Mapping[str, str]) -> tuple[Layout, ...]:
    """The layouts with other keys. names: by "proprio" (keys joined by "+"), "instruction" or a view."""
    cameras = {name: key for name, key in names.items() if name not in ("proprio", "instruction")}
    changed = [replace(layout, cameras={**layout.cameras, **cameras}) for layout in layouts]
    if "proprio" in names:
        parts = tuple(part.strip() for part in names["proprio"].split("+"))
        changed = [replace(layout, proprio=parts) for layout in changed]
    if "instruction" in names:
        changed = [replace(layout, instruction=(names["instruction"],)) for layout in changed]
    return tuple(changed)


def observe(
    message: Mapping[Any, Any], layouts: Sequence[Layout], robot: Robot, seed: int, limits: Limits
) -> Observation:
    """What a robot saw, as a client sent it. seed: of the noise, where the message has none.

    Raises BadInput: a key is missing (with what came and what is needed), or its value cannot be used.
    """
    came = dict(flattened(message))
    layout = _layout(layouts, robot, came)
    return Observation(
        images={view: _image(came[layout.key(view)], layout.key(view), limits) for view in robot.views},
        proprio=_proprio(layout, robot, came),
        instruction=_instruction(layout, came, limits),
        embodiment=robot.name,
        noise_seed=_integer(came, "seed", seed),
        previous=_previous(came, robot),
        delay=_integer(came, "inference_delay", 0),
        steps=_integer(came, "steps", WHOLE, least=1),
        episode=_episode(came, limits),
        step=_integer(came, "step", 0),
    )


def flattened(message: Mapping[Any, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a map and of maps inside it, by their keys joined with "/"."""
    for key, value in message.items():
        name = before + (key if isinstance(key, str) else repr(key))
        if isinstance(value, dict):
            yield from flattened(value, f"{name}/")
        else:
            yield name, value


def _layout(layouts: Sequence[Layout], robot: Robot, came: Mapping[str, Any]) -> Layout:
    for layout in layouts:
        if not layout.missing(robot, came):
            return layout
    missing = {layout.name: layout.missing(robot, came) for layout in layouts}
    fewest: list[str] = min(missing.values(), key=len)
    needed = ", ".join(map(repr, fewest))
    views = ", ".join(robot.views)
    raise BadInput(
        f"the observation has no {needed}. It came with {', '.join(map(_shown, came.items())) or 'nothing'}; the "
        f"policy needs the images {views}, {robot.proprio_dim} numbers of proprio and an instruction, named as one of "
        f"the layouts {', '.join(missing)} names them. For other names serve with --map VIEW=KEY proprio=KEY+KEY "
        "instruction=KEY"
    )


def _shown(item: tuple[str, Any]) -> str:
    key, value = item
    return f"{key} {value.dtype}{list(value.shape)}" if isinstance(value, np.ndarray) else key


def _part(text: str) -> tuple[str, slice]:
    found = PART.fullmatch(text)
    return (found["key"], slice(int(found["first"]), int(found["end"]))) if found else (text, slice(None))


def _image(value: Any, key: str, limits: Limits) -> np.ndarray:
    """RGB [h, w, 3]; openpi's ALOHA sends [3, h, w]."""
    if (
        not isinstance(value, np.ndarray)
        or value.dtype != np.uint8
        or value.ndim != 3
        or 3 not in value.shape[::2]
    ):
        shape = (
            f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__
        )
        raise BadInput(f"{key!r}: expected uint8 RGB [h, w, 3] or [3, h, w], got {shape}")
    image = value if value.shape[2] == 3 else value.transpose(1, 2, 0)
    height, width, _ = image.shape
    if not 0 < height * width <= limits.image_pixels:
        raise BadInput(
            f"{key!r}: an image of {height} x {width} pixels, expected at least one and at most {limits.image_pixels}"
        )
    return image


def _proprio(layout: Layout, robot: Robot, came: Mapping[str, Any]) -> np.ndarray:
    if not robot.proprio_dim:
        return np.zeros(0, np.float32)
    keys = "+".join(layout.proprio)
    values = np.concatenate([_numbers(came[key], key)[dims] for key, dims in map(_part, layout.proprio)])
    if values.shape != (robot.proprio_dim,):
        raise BadInput(
            f"{keys!r}: {len(values)} numbers, the policy was trained with a proprio of {robot.proprio_dim}; give "
            f"parts by --map proprio={layout.proprio[0]}[0:{robot.proprio_dim}], or serve the policy of this robot"
        )
    if not np.isfinite(values).all():
        index = int((~np.isfinite(values)).argmax())
        raise BadInput(
            f"{keys!r}: number {index} is {values[index]:g}, expected finite numbers of float32's range; the robot or "
            "simulator that sent the observation is to be mended"
        )
    return values


def _numbers(value: Any, key: str) -> np.ndarray:
    if isinstance(value, (list, float, int)):
        try:
            value = np.asarray(value, np.float64)
        except (TypeError, ValueError):
            value = np.asarray("")
    if not isinstance(value, (np.ndarray, np.generic)) or value.dtype.kind not in "iuf" or value.ndim > 1:
        what = f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__
        raise BadInput(f"{key!r}: expected a row of numbers, got {what}")
    with np.errstate(over="ignore"):
        return np.atleast_1d(value).astype(np.float32)


def _instruction(layout: Layout, came: Mapping[str, Any], limits: Limits) -> str:
    key = next(key for key in layout.instruction if key in came)
    text = came[key]
    if not isinstance(text, str) or not text.strip():
        raise BadInput(f"{key!r}: expected what to do, in words; got {text!r:.100}")
    if len(text) > limits.instruction_length:
        raise BadInput(f"{key!r}: {len(text)} characters, expected at most {limits.instruction_length}")
    return text


def _integer(came: Mapping[str, Any], key: str, otherwise: int, least: int = 0) -> int:
    value = came.get(key, otherwise)
    if isinstance(value, np.integer):
        value = int(value)
    if type(value) is not int or not least <= value <= LARGEST_SEED:
        raise BadInput(f"{key!r}: expected an integer from {least} to 2^63 - 1, got {value!r:.100}")
    return value


def _episode(came: Mapping[str, Any], limits: Limits) -> str:
    value = came.get("episode", "")
    if type(value) not in (str, int) or len(str(value)) > limits.episode_length:
        raise BadInput(
            f"'episode': expected a name of at most {limits.episode_length} characters or a number, got {value!r:.100}"
        )
    return str(value)


def _previous(came: Mapping[str, Any], robot: Robot) -> np.ndarray:
    value = came.get("prev_actions", np.zeros((0, robot.action_dim), np.float32))
    if (
        not isinstance(value, np.ndarray)
        or value.dtype.kind not in "iuf"
        or value.shape[1:] != (robot.action_dim,)
    ):
        what = f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__
        raise BadInput(
            f"'prev_actions': expected rows of {robot.action_dim} numbers, physical units; got {what}"
        )
    if len(value) > robot.horizon or not np.isfinite(value).all():
        raise BadInput(f"'prev_actions': expected at most {robot.horizon} rows of finite numbers")
    return value.astype(np.float32)
