"""An environment as LeRobot takes them, and its config: a square that moves as it is told (runs with the real LeRobot).

Every episode is kept in `EPISODES`, with what was seen and what was done.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import gymnasium as gym
import numpy as np
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig

VIEWS, SIZE, PROPRIO, ACTION, STEPS = ("front", "wrist"), 32, 3, 2, 7
EPISODES = []


class Square(gym.Env):
    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 10}
    task_description = task = "push the square 0"
    _max_episode_steps = STEPS

    def __init__(self, render_mode="rgb_array", **unused):
        image = gym.spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8)
        pixels = gym.spaces.Dict(dict.fromkeys(VIEWS, image))
        state = gym.spaces.Box(-np.inf, np.inf, (PROPRIO,), np.float64)
        self.observation_space = gym.spaces.Dict({"pixels": pixels, "agent_pos": state})
        self.action_space = gym.spaces.Box(-np.inf, np.inf, (ACTION,), np.float32)
        self.render_mode = render_mode

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self._place, self._episode = self.np_random.uniform(0, 20, 2), {"seen": [], "done": []}
        EPISODES.append(self._episode)
        return self._observe(), {"is_success": False}

    def step(self, action):
        self._episode["done"].append(action.copy())
        self._place = np.clip(self._place + action, 0, 20)
        over = len(self._episode["done"]) == STEPS
        return self._observe(), 0.0, over, False, {"is_success": over}

    def render(self):
        return self._image(0)

    def _observe(self):
        seen = {"pixels": {view: self._image(i) for i, view in enumerate(VIEWS)}}
        seen["agent_pos"] = np.array([*self._place, len(self._episode["done"])])
        self._episode["seen"].append(seen)
        return seen

    def _image(self, camera):
        image = np.full((SIZE, SIZE, 3), 40 * camera, np.uint8)
        x, y = self._place.astype(int)
        image[y : y + 8, x : x + 8] = (200, 30 + 90 * camera, 30)
        return image


@EnvConfig.register_subclass("square")
@dataclass
class SquareEnv(EnvConfig):
    task: str | None = "Move-v0"
    fps: int = 10
    features: dict[str, PolicyFeature] = field(
        default_factory=lambda: {
            "action": PolicyFeature(FeatureType.ACTION, (ACTION,)),
            "agent_pos": PolicyFeature(FeatureType.STATE, (PROPRIO,)),
            **{f"pixels/{view}": PolicyFeature(FeatureType.VISUAL, (SIZE, SIZE, 3)) for view in VIEWS},
        }
    )
    features_map: dict[str, str] = field(
        default_factory=lambda: {
            "action": "action",
            "agent_pos": "observation.state",
            **{f"pixels/{view}": f"observation.images.{view}" for view in VIEWS},
        }
    )

    @property
    def gym_kwargs(self):
        return {"render_mode": "rgb_array"}


# Without wrappers, which would hide `task_description`.
gym.register("gym_square/Move-v0", entry_point=Square, order_enforce=False)
