"""A RoboTwin 2.0 checkout on this machine: what must be there, what is installed in it, how its evaluator is called.

Two ages of it: since August 2026 evaluation goes through XPolicyLab's client; before, the evaluator imports the policy.
RoboTwin's Python is CHECKOUT/.venv/bin/python: an environment made there, or a link to the one that has it.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wamkit_client
from wamkit_client.envs.robotwin.conventions import RoboTwinConfig
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
class Age:
    """Where checkouts of one age keep things. needs: paths that must exist, and how one gets them.

    packages: what its Python must have besides.  episodes: what it runs whatever is asked (0: as asked).
    """

    script: str
    configs: str
    needs: tuple[tuple[str, str], ...]
    packages: tuple[str, ...] = ()
    episodes: int = 0


ASSETS = ("assets/embodiments", "download the assets: bash {folder}/_download_assets.sh")
PRESENT = Age(
    script="scripts/eval_policy_xpolicylab.py",
    configs="env_cfg/task_config",
    needs=(
        ("XPolicyLab/client_server/ws/model_client.py", "git submodule update --init XPolicyLab"),
        ASSETS,
    ),
)
FORMER = Age(
    script="script/eval_policy.py",
    configs="task_config",
    needs=(ASSETS,),
    packages=("msgpack", "websockets"),
    episodes=100,
)


@dataclass(frozen=True)
class Checkout:
    """A checkout that can evaluate. versions: of its Python and the packages that matter."""

    root: Path
    age: Age
    versions: dict[str, str]

    def step_limits(self) -> dict[str, int]:
        """Control steps an episode may take, by task, as the simulator's own table says."""
        path = self.root / self.age.configs / "_eval_step_limit.yml"
        rows = [line.split("#")[0].split(":") for line in path.read_text().splitlines() if ":" in line]
        return {name.strip(): int(limit) for name, limit in rows}

    def facts(self) -> dict[str, Any]:
        """What results say of the simulator."""
        return {
            "simulator": "robotwin",
            "versions": {"robotwin": _commit(self.root), **self.versions},
            "opengl": "Vulkan (SAPIEN)",
            "step_limits": self.step_limits(),
            "actions": "absolute targets; success as the simulator says",
            "success": "the simulator's eval_success before its own step limit",
        }

    def command(
        self, task: str, env: RoboTwinConfig, episodes: int, control: str, url: str, folder: Path
    ) -> list[str]:
        """Evaluate one task against the server at `url`; `folder` is ours and takes what the call needs.

        The URL holds the server's token and is no argument: it stands in a file of ours or in `environment`.
        """
        values = {
            "task_name": task,
            "task_config": env.task_config,
            "seed": env.seed,
            "instruction_type": env.instructions,
        }
        python = str(self.root.absolute() / PYTHON)
        if self.age is FORMER:
            config = {**values, "policy_name": ADAPTER, "ckpt_setting": POLICY_NAME, "server": url}
            path = folder / f"{task}.yml"
            path.write_text(json.dumps(config))  # JSON is YAML
            return [python, self.age.script, "--config", str(path)]
        asked = {
            **values,
            "policy_name": POLICY_NAME,
            "port": 0,  # asked for, but the URL counts
            "protocol": "ws",
            "test_num": episodes,
            "expert_check": "true",
            "additional_info": f"action_type={control},policy_server_url=${SERVER_VARIABLE}",
        }
        start = [python, "-m", LAUNCHER, self.age.script]
        return [*start, *(word for key, value in asked.items() for word in (f"--{key}", str(value)))]

    def environment(self, folder: Path, url: str) -> dict[str, str]:
        """Of the evaluator's process; our client package is linked into `folder`, so that nothing is installed."""
        package = folder / "wamkit_client"
        if not package.exists():
            package.symlink_to(Path(wamkit_client.__file__).parent.absolute())
        own = os.environ
        here = "127.0.0.1,localhost"
        return {
            **own,
            "PATH": f"{(self.root / PYTHON).parent.absolute()}{os.pathsep}{own.get('PATH', '')}",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(folder.absolute()), own.get("PYTHONPATH", "")])),
            "PYTHONUNBUFFERED": "1",
            SERVER_VARIABLE: url,
            "NO_PROXY": ",".join(filter(None, [here, own.get("NO_PROXY", "")])),
            "no_proxy": ",".join(filter(None, [here, own.get("no_proxy", "")])),
        }


def find_checkout(root: Path, env: RoboTwinConfig, episodes: int) -> Checkout:
    """The checkout at `root`. Raises BadInput saying what is missing and how to get it."""
    ages = [age for age in (PRESENT, FORMER) if (root / age.script).is_file()]
    if not ages:
        raise BadInput(
            f"{root} is not a RoboTwin 2.0 checkout: neither {PRESENT.script} nor {FORMER.script} is there. "
            "RoboTwin is not part of wamkit: clone and install it, and name the folder with --robotwin CHECKOUT; "
            f"{GUIDE}"
        )
    age = ages[0]
    config = f"{age.configs}/{env.task_config}.yml"
    needs = (*age.needs, (config, "choose a checkout that has this task config"))
    for path, remedy in needs:
        if not (root / path).exists():
            how = remedy.format(folder=Path(age.script).parent)
            raise BadInput(f"{root}: {path} is missing; {how} (in the checkout); {GUIDE}")
    if age.episodes and episodes > age.episodes:
        raise BadInput(
            f"{root}: this version of RoboTwin evaluates {age.episodes} episodes per task, {episodes} are asked for; "
            f"ask for at most {age.episodes}, or take a newer checkout"
        )
    return Checkout(root, age, _versions(root, age))


def _versions(root: Path, age: Age) -> dict[str, str]:
    python = root.absolute() / PYTHON
    if not python.exists():
        raise BadInput(
            f"{python} is missing; expected RoboTwin's own Python there. Where it lives in another environment, link "
            f"it: ln -s ENVIRONMENT {root / '.venv'} (for conda: ln -s $CONDA_PREFIX ...); {GUIDE}"
        )
    try:
        said = subprocess.run(
            [str(python), "-c", LIST_VERSIONS, *LISTED],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
        found: dict[str, str] = json.loads(said)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise BadInput(
            f"{python} does not run ({error}); install RoboTwin's environment again; {GUIDE}"
        ) from None
    missing = [name for name in age.packages if name not in found]
    if missing:
        raise BadInput(
            f"{python} has no {' and no '.join(missing)}, which talk to the policy; install them there: "
            f"{python} -m pip install 'websockets>=11' 'msgpack>=1.0.5'"
        )
    return found


def _commit(root: Path) -> str:
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
