"""A RoboTwin 2.0 checkout on this machine: what must be there, what is installed in it, how its evaluator is called.

Since August 2026 evaluation goes through XPolicyLab's client; in older checkouts the evaluator imports the policy.
RoboTwin's Python is CHECKOUT/.venv/bin/python: an environment made there, or a link to the one that has it.
"""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wamkit_client
import yaml
from wamkit_client.envs.robotwin.conventions import CONTROLS, RoboTwinConfig
from wamkit_client.envs.robotwin.launch import SERVER_VARIABLE
from wamkit_client.types import BadInput

PYTHON = ".venv/bin/python"
GUIDE = "see docs/robotwin.md"
ADAPTER = "wamkit_client.envs.robotwin.adapter"
LAUNCHER = "wamkit_client.envs.robotwin.launch"
POLICY_NAME = "wamkit"
LISTED = ("sapien", "mplib", "numpy", "torch", "msgpack", "websockets")
LIST_VERSIONS = """
import json, sys
from importlib import metadata
found = {"python": sys.version.split()[0]}
for name in sys.argv[1:]:
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Version:
    """Where checkouts of one version keep things. needs: paths that must exist, and how one gets them.

    packages: what its Python must have besides.  episodes: what it runs whatever is asked (0: as asked).
    """

    script: str
    configs: str
    needs: dict[str, str]
    packages: tuple[str, ...] = ()
    episodes: int = 0


CURRENT = Version(
    script="scripts/eval_policy_xpolicylab.py",
    configs="env_cfg/task_config",
    needs={
        "XPolicyLab/client_server/ws/model_client.py": "git submodule update --init XPolicyLab",
        "assets/embodiments": "download the assets: bash scripts/_download_assets.sh",
    },
)
OLDER = Version(
    script="script/eval_policy.py",
    configs="task_config",
    needs={"assets/embodiments": "download the assets: bash script/_download_assets.sh"},
    packages=("msgpack", "websockets"),
    episodes=100,
)


@dataclass(frozen=True)
class Checkout:
    """A checkout that can evaluate.

    installed: versions of its Python and of the packages that matter.
    step_limits: control steps an episode may take, by task, as the simulator's own table says.
    """

    root: Path
    version: Version
    installed: dict[str, str]
    step_limits: dict[str, int]

    def facts(self, control: str) -> dict[str, Any]:
        """What results say of the simulator, for a policy that acts by `control` (conventions.CONTROLS)."""
        head = ["git", "-C", str(self.root), "rev-parse", "HEAD"]
        commit = subprocess.run(head, capture_output=True, text=True, check=False).stdout.strip()
        return {
            "simulator": "robotwin",
            "versions": {"robotwin": commit or "unknown", **self.installed},
            "opengl": "Vulkan (SAPIEN)",
            "step_limits": self.step_limits,
            "actions": CONTROLS[control].targets,
            "success": "the simulator's eval_success before its own step limit",
        }

    def command(
        self, task: str, env: RoboTwinConfig, episodes: int, control: str, url: str, folder: Path
    ) -> list[str]:
        """Evaluate one task against the server at `url`; `folder` is ours and takes what the call needs.

        The URL holds the server's token and is no argument: it is in a file of ours or in `environment`.
        """
        python = str(self.root.absolute() / PYTHON)
        values = {
            "task_name": task,
            "task_config": env.task_config,
            "seed": env.seed,
            "instruction_type": env.instructions,
        }
        if self.version is OLDER:
            values |= {"policy_name": ADAPTER, "ckpt_setting": POLICY_NAME, "server": url}
            path = folder / f"{task}.yml"
            path.write_text(json.dumps(values))  # JSON is YAML
            return [python, self.version.script, "--config", str(path)]
        values |= {
            "policy_name": POLICY_NAME,
            "port": 0,  # required, but the URL counts
            "protocol": "ws",
            "test_num": episodes,
            "expert_check": "true",
            "additional_info": f"action_type={control},policy_server_url=${SERVER_VARIABLE}",
        }
        flags = (word for key, value in values.items() for word in (f"--{key}", str(value)))
        return [python, "-m", LAUNCHER, self.version.script, *flags]

    def environment(self, folder: Path, url: str) -> dict[str, str]:
        """Of the evaluator's process; our client package is linked into `folder`, so that nothing is installed."""
        with suppress(FileExistsError):
            (folder / "wamkit_client").symlink_to(Path(wamkit_client.__file__).parent.absolute())
        changes = {"PYTHONUNBUFFERED": "1", SERVER_VARIABLE: url}
        for name, first, separator in (
            ("PATH", str((self.root / PYTHON).parent.absolute()), os.pathsep),
            ("PYTHONPATH", str(folder.absolute()), os.pathsep),
            ("NO_PROXY", "127.0.0.1,localhost", ","),
            ("no_proxy", "127.0.0.1,localhost", ","),
        ):
            changes[name] = separator.join(filter(None, [first, os.environ.get(name, "")]))
        return {**os.environ, **changes}


def find_checkout(root: Path, env: RoboTwinConfig, episodes: int) -> Checkout:
    """The checkout at `root`. Raises BadInput saying what is missing and how to get it."""
    for version in (CURRENT, OLDER):
        if (root / version.script).is_file():
            break
    else:
        raise BadInput(
            f"{root} is not a RoboTwin 2.0 checkout: neither {CURRENT.script} nor {OLDER.script} is there. "
            "RoboTwin is not part of wamkit: clone and install it, and name the folder with --robotwin CHECKOUT; "
            f"{GUIDE}"
        )
    limits = f"{version.configs}/_eval_step_limit.yml"
    configs = {f"{version.configs}/{env.task_config}.yml": "choose a checkout that has this task config"}
    for path, remedy in {**version.needs, **configs, limits: "choose another checkout"}.items():
        if not (root / path).exists():
            raise BadInput(f"{root}: {path} is missing; {remedy} (in the checkout); {GUIDE}")
    if version.episodes and episodes > version.episodes:
        raise BadInput(
            f"{root}: this version of RoboTwin evaluates {version.episodes} episodes per task, {episodes} are asked "
            f"for; ask for at most {version.episodes}, or take a newer checkout"
        )
    return Checkout(root, version, _installed(root, version), yaml.safe_load((root / limits).read_text()))


def _installed(root: Path, version: Version) -> dict[str, str]:
    python = root.absolute() / PYTHON
    if not python.exists():
        raise BadInput(
            f"{python} is missing; expected RoboTwin's own Python there. Where it lives in another environment, link "
            f"it: ln -s ENVIRONMENT {root / '.venv'} (for conda: ln -s $CONDA_PREFIX ...); {GUIDE}"
        )
    command = [str(python), "-c", LIST_VERSIONS, *LISTED]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
        found: dict[str, str] = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise BadInput(
            f"{python} does not run ({error}); install RoboTwin's environment again; {GUIDE}"
        ) from None
    missing = [name for name in version.packages if name not in found]
    if missing:
        raise BadInput(
            f"{python} has no {' and no '.join(missing)}, which talk to the policy; install them there: "
            f"{python} -m pip install 'websockets>=11' 'msgpack>=1.0.5'"
        )
    return found
