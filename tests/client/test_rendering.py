"""What is said where headless rendering does not work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from wamkit_client.envs.rendering import TRIED, Probe, choose_platform, probe

CHOOSE = """
from wamkit_client.envs.rendering import choose_platform
from wamkit_client.types import BadInput
try:
    print("CHOSEN", choose_platform())
except BadInput as error:
    print("REFUSED", error)
"""


def choose_elsewhere(**environment: str) -> str:
    """Output of a process without this one's choice."""
    choice = ("MUJOCO_GL", "PYOPENGL_PLATFORM", TRIED)
    kept = {name: value for name, value in os.environ.items() if name not in choice}
    command = [sys.executable, "-c", CHOOSE]
    return subprocess.run(
        command, env={**kept, **environment}, capture_output=True, text=True, check=True
    ).stdout


def test_this_machine_can_render() -> None:
    found = probe()
    assert found.working, found.describe()
    assert choose_platform() in found.working
    assert choose_elsewhere().split() == ["CHOSEN", found.working[0]]


def test_a_users_choice_is_kept_if_it_works() -> None:
    for platform in probe().working:
        assert choose_elsewhere(MUJOCO_GL=platform).split() == ["CHOSEN", platform]
    said = choose_elsewhere(MUJOCO_GL="nonsense")
    assert said.startswith("REFUSED MUJOCO_GL=nonsense (set in the environment) does not work")


def test_children_do_not_try_again_but_another_environment_does(tmp_path: Path) -> None:
    """Trying imports mujoco in a process of its own."""
    (tmp_path / "mujoco.py").write_text("raise ImportError('tried')")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    choice = {"MUJOCO_GL": choose_platform(), "PYTHONPATH": path}
    assert choose_elsewhere(**choice, **{TRIED: os.environ[TRIED]}).startswith("CHOSEN")
    elsewhere = os.environ[TRIED].replace(sys.prefix, "/other/environment")
    assert choose_elsewhere(**choice, **{TRIED: elsewhere}).startswith("REFUSED MUJOCO_GL")


def test_a_machine_without_opengl_is_told_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "mujoco.py").write_text("raise ImportError('libEGL.so.1: cannot open shared object file')")
    said = choose_elsewhere(PYTHONPATH=str(tmp_path))
    assert said.startswith("REFUSED headless rendering is not possible")
    for word in ("libEGL.so.1", "libegl1 libegl-mesa0 libgl1-mesa-dri", "libosmesa6", "apt-get install"):
        assert word in said


def test_one_working_platform_is_enough() -> None:
    found = Probe({"egl": "does not work (no driver)", "osmesa": ""})
    assert found.working == ("osmesa",)
    assert found.describe() == "egl: does not work (no driver)\nosmesa: works"
