"""Folders that LeRobot can load: run directories with LeRobot's config and processors beside.

python -m lerobot_policy_wamkit RUN        adds these three files to a run directory of `wamkit train`
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from wamkit_client.types import BadInput

CONFIG = "config.json"


def local_folder(name: str | Path, hub: Mapping[str, Any]) -> Path:
    """A folder, or the copy of one that the Hugging Face Hub has under this name. hub: `revision`, `token` ..."""
    if Path(name).is_dir():
        return Path(name)
    if Path(name).is_absolute() or len(Path(name).parts) != 2:
        raise BadInput(
            f"{name}: no such folder; expected a run directory, or owner/name on the Hugging Face Hub"
        )
    known = ("revision", "token", "cache_dir", "force_download", "local_files_only")
    return Path(snapshot_download(str(name), **{key: hub[key] for key in known if key in hub}))


def copy_run(directory: Path, target: Path) -> None:
    """The files that make a run directory."""
    from wamkit.config import NORMALIZER_FILE, PROVENANCE_FILE, RUN_FILE
    from wamkit.io.weights import WEIGHTS, WEIGHTS_RECORD

    for name in (RUN_FILE, NORMALIZER_FILE, PROVENANCE_FILE, WEIGHTS, WEIGHTS_RECORD):
        if (directory / name).exists() and directory.resolve() != target.resolve():
            shutil.copyfile(directory / name, target / name)


def make_loadable(directory: Path) -> str:
    """Add LeRobot's files to a run directory; the policy type. BadInput where it is none, or of an unknown kind."""
    from lerobot.configs.policies import PreTrainedConfig

    from lerobot_policy_wamkit.config import WamkitConfig
    from lerobot_policy_wamkit.processors import make_processors
    from wamkit.config import load_run

    kind = load_run(directory).policy.kind
    types = [name for name in PreTrainedConfig.get_known_choices() if name.startswith("wamkit_")]
    if f"wamkit_{kind}" not in types:
        raise BadInput(f"{directory}: is of {kind}; LeRobot knows the types {', '.join(types)}")
    chosen: type[WamkitConfig] = PreTrainedConfig.get_choice_class(f"wamkit_{kind}")
    config = chosen.of_run(directory)
    for processor in make_processors(config):
        processor.save_pretrained(directory)
    config.device = config.pretrained_path = (
        None  # LeRobot chooses where it runs, and knows where it found it
    )
    config._save_pretrained(directory)
    return config.type
