"""Headless rendering: which OpenGL platform works here, what is missing, and an offscreen renderer.

The only file that reads or sets the rendering environment variables. It knows MuJoCo, but no task and no robot.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Dict, List, Tuple

import numpy as np

from wamkit_client.types import BadInput

PLATFORMS = ("egl", "osmesa")
TRIED = "WAMKIT_RENDERING_TRIED"  # tells children which platform works, in which environment's packages
HIDDEN = 5  # a group of geometries that MuJoCo does not draw unless asked
PACKAGES = {"egl": "libegl1 libegl-mesa0 libgl1-mesa-dri", "osmesa": "libosmesa6"}
_TRY = """
import mujoco
context = mujoco.GLContext(8, 8)
context.make_current()
mujoco.MjrContext(mujoco.MjModel.from_xml_string("<mujoco/>"), mujoco.mjtFontScale.mjFONTSCALE_100).free()
context.free()
"""


@dataclass(frozen=True)
class Probe:
    """Result of trying every OpenGL platform: "" where it works, else the reason why not."""

    failures: Dict[str, str]

    @property
    def working(self) -> Tuple[str, ...]:
        return tuple(platform for platform in PLATFORMS if self.failures[platform] == "")

    def describe(self) -> str:
        """One line per platform and, where none works, how to install one."""
        lines = [f"{platform}: {self.failures[platform] or 'works'}" for platform in PLATFORMS]
        if not self.working:
            lines.append(
                f"install one of them, for example: apt-get install {PACKAGES['egl']}"
                f"   (or: apt-get install {PACKAGES['osmesa']})"
            )
        return "\n".join(lines)


def probe() -> Probe:
    """Try every platform in a subprocess (about a second each), because a failed import cannot be retried here."""
    return Probe({platform: _failure(platform) for platform in PLATFORMS})


@lru_cache(maxsize=None)
def _failure(platform: str) -> str:
    env = dict(os.environ, MUJOCO_GL=platform, PYOPENGL_PLATFORM=platform)
    result = subprocess.run(
        [sys.executable, "-c", _TRY], env=env, capture_output=True, text=True, check=False
    )
    if result.returncode == 0:
        return ""
    last = (result.stderr.strip().splitlines() or ["the process died"])[-1]
    packages = f"; Debian packages: {PACKAGES[platform]}" if platform in PACKAGES else ""
    return f"does not work ({last}){packages}"


def choose_platform() -> str:
    """Set MUJOCO_GL for this process and its children; must come before the first `import mujoco`.

    A value set by the user is kept, if it works. Raises BadInput, naming the packages, where nothing works.
    """
    # Mesa's software renderer starts a thread per core in every process. Simulators that run side by side then compete
    # for the cores: a fifth slower alone, half as slow again beside another one. The images are the same.
    os.environ.setdefault("LP_NUM_THREADS", "0")
    chosen = os.environ.get("MUJOCO_GL", "")
    if chosen and os.environ.get(TRIED) == _tried(chosen):
        return chosen
    if chosen:
        failure = _failure(chosen)
        if failure:
            raise BadInput(
                f"MUJOCO_GL={chosen} (set in the environment) {failure}. Unset it, or make it work"
            )
    else:
        for platform in PLATFORMS:
            if _failure(platform) == "":
                chosen = platform
                break
        else:
            raise BadInput("headless rendering is not possible on this machine.\n" + probe().describe())
        os.environ["MUJOCO_GL"] = chosen
    os.environ[TRIED] = _tried(chosen)
    return chosen


def _tried(platform: str) -> str:
    return f"{platform} {sys.prefix}"


@dataclass(frozen=True)
class RenderSettings:
    """Part of an environment's definition, because images depend on it.

    In software rendering, shadows and multisampling cost several times more than everything else.
    """

    shadows: bool = False
    reflections: bool = False
    multisampling: int = 0


@dataclass(frozen=True)
class Ball:
    """Something to be seen that the physics does not know. Metres; colour: RGBA, 0 to 1."""

    position: Tuple[float, float, float]
    radius: float
    colour: Tuple[float, float, float, float]


class Renderer:
    """Renders one MuJoCo model offscreen: one graphics context for every size up to (height, width).

    balls: are added to the scene.

    What lies outside a view is left out of its scene, where it cannot cast a shadow or be mirrored: the images are the
    same, and a camera at a gripper needs half the time.
    `mujoco.Renderer` needs a context for each size, and an environment renders policy views and larger display images.
    Close it explicitly: a context that dies with the interpreter raises EGL errors.
    """

    def __init__(self, model: Any, height: int, width: int, settings: RenderSettings) -> None:
        import mujoco

        self._mujoco = mujoco
        model.vis.quality.offsamples = settings.multisampling
        model.vis.global_.offheight, model.vis.global_.offwidth = height, width
        self._model = model
        self.balls: List[Ball] = []
        self._gl = mujoco.GLContext(width, height)
        self._gl.make_current()
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(model, maxgeom=2000)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = settings.shadows
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = settings.reflections
        self._options = mujoco.MjvOption()
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._drawn = everything if settings.shadows or settings.reflections else inside

    def render(self, data: Any, camera: str, height: int, width: int) -> np.ndarray:
        """The view of a fixed camera: uint8 RGB [height, width, 3], first row on top."""
        mujoco = self._mujoco
        self._gl.make_current()
        self._update(data, self._model.camera(camera).id, width / height)
        for ball in self.balls:
            self._add(ball)
        rectangle = mujoco.MjrRect(0, 0, width, height)
        image = np.empty((height, width, 3), np.uint8)
        mujoco.mjr_render(rectangle, self._scene, self._context)
        mujoco.mjr_readPixels(image, None, rectangle, self._context)
        return image[::-1]

    def _update(self, data: Any, camera: int, aspect: float) -> None:
        mujoco, groups = self._mujoco, self._model.geom_group
        before = groups.copy()
        groups[~self._drawn(self._model, data, camera, aspect)] = HIDDEN
        self._camera.fixedcamid = camera
        categories = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(self._model, data, self._options, None, self._camera, categories, self._scene)
        groups[:] = before

    def _add(self, ball: Ball) -> None:
        mujoco, scene = self._mujoco, self._scene
        size, turn = np.full(3, ball.radius), np.eye(3).ravel()
        colour = np.array(ball.colour, np.float32)
        geom = scene.geoms[scene.ngeom]
        mujoco.mjv_initGeom(geom, mujoco.mjtGeom.mjGEOM_SPHERE, size, np.array(ball.position), turn, colour)
        scene.ngeom += 1

    def close(self) -> None:
        self._gl.make_current()
        self._context.free()
        self._gl.free()


def everything(model: Any, data: Any, camera: int, aspect: float) -> np.ndarray:
    """All geometries: bool [n]."""
    return np.ones(model.ngeom, bool)


def inside(model: Any, data: Any, camera: int, aspect: float) -> np.ndarray:
    """Geometries whose bounding sphere reaches into the view of a perspective camera: bool [n].

    aspect: width of the image by its height. Unbounded planes have no sphere and are inside.
    """
    centre = (data.geom_xpos - data.cam_xpos[camera]) @ data.cam_xmat[camera].reshape(3, 3)
    up = np.deg2rad(model.cam_fovy[camera]) / 2
    right = np.arctan(np.tan(up) * aspect)
    ahead = -centre[:, 2]
    beyond = [
        np.abs(centre[:, axis]) * np.cos(angle) - ahead * np.sin(angle)
        for axis, angle in ((0, right), (1, up))
    ]
    radius = np.where(model.geom_rbound > 0, model.geom_rbound, np.inf)
    return np.maximum(np.maximum(*beyond), -ahead) <= radius


def camera_matrix(model: Any, data: Any, camera: str, height: int, width: int) -> np.ndarray:
    """The matrix [3, 4] of a fixed MuJoCo camera (looks along its -z, y up): pixel times depth = matrix @ point."""
    index = model.camera(camera).id
    focal = 0.5 * height / np.tan(np.deg2rad(model.cam_fovy[index]) / 2)
    intrinsic = np.array([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])
    world_to_camera = np.diag([1.0, -1.0, -1.0]) @ data.cam_xmat[index].reshape(3, 3).T
    return intrinsic @ np.concatenate(
        [world_to_camera, -world_to_camera @ data.cam_xpos[index][:, None]], axis=1
    )
