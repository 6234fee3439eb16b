"""A recipe is a function without arguments that returns a frozen Run; this is the table of those that have a name.

The table holds names, so that listing recipes imports nothing heavy. A recipe of the user's own has no name here: it
is referred to by its file (my_recipe.py, my_recipe.py:function) or its module (package.module:function).
"""

from __future__ import annotations

import difflib
import re
from importlib import import_module
from typing import TYPE_CHECKING

from wamkit_client.references import Reference, call, is_reference, load, parse
from wamkit_client.types import BadInput

from wamkit import plugins
from wamkit.plugins import origin, plug_ins

if TYPE_CHECKING:
    from wamkit.config import Run

# name -> (module, what it is)
SMALL = {
    "metaworld3": (
        "metaworld",
        "small Light-WAM on three Meta-World tasks: the demo, minutes on two CPU cores",
    ),
    "metaworld3_no_video": ("metaworld", "the same without video co-training"),
    "metaworld3_fast_wam": ("metaworld", "small Fast-WAM on the three tasks"),
    "metaworld3_fast_wam_joint": (
        "metaworld",
        "its Joint variant: the future is imagined beside the actions",
    ),
    "metaworld3_fast_wam_idm": ("metaworld", "its IDM variant: the future is imagined before the actions"),
    "metaworld3_fast_wam_no_video": ("metaworld", "Fast-WAM without video co-training"),
    "metaworld3_fast_wam_optional_idm": (
        "metaworld",
        "its Optional-IDM variant: one policy that imagines before acting, or acts at once",
    ),
    "metaworld3_lawam_world": (
        "metaworld_lawam",
        "stage 1 of small LaWAM on the three tasks: a latent world model",
    ),
    "metaworld3_lawam": ("metaworld_lawam", "small LaWAM on the three tasks, on that world model"),
    "metaworld3_lawam_no_lawm": ("metaworld_lawam_ablations", "small LaWAM without a subgoal"),
    "metaworld3_lawam_no_distill": (
        "metaworld_lawam_ablations",
        "small LaWAM whose latent action is not taught by stage 1",
    ),
    "metaworld3_lawam_no_stop": (
        "metaworld_lawam_ablations",
        "small LaWAM whose actions train the world model too",
    ),
    "metaworld3_lawam_oracle": ("metaworld_lawam_ablations", "small LaWAM trained on true subgoals"),
    "metaworld3_lawam_shuffled": ("metaworld_lawam_ablations", "small LaWAM with subgoals of other samples"),
    "metaworld3_lawam_rates": (
        "metaworld_lawam_rates",
        "small LaWAM on demonstrations at 80, 40 and 20 Hz together",
    ),
    "metaworld3_few": ("metaworld_cotraining", "the demo's Light-WAM, shorter, for few demonstrations"),
    "metaworld3_few_no_video": ("metaworld_cotraining", "the same without video, in as many steps"),
    "metaworld3_few_no_video_longer": ("metaworld_cotraining", "the same without video, in as much time"),
    "metaworld3_few_fast_wam": ("metaworld_cotraining", "small Fast-WAM, shorter, for few demonstrations"),
    "metaworld3_few_fast_wam_no_video": ("metaworld_cotraining", "the same without video, in as many steps"),
    "metaworld3_few_fast_wam_no_video_longer": (
        "metaworld_cotraining",
        "the same without video, in as much time",
    ),
    "metaworld3_20hz": ("metaworld_20hz", "the demo's Light-WAM at 20 Hz, for measuring what latency costs"),
    "metaworld3_fast_wam_20hz": ("metaworld_20hz", "the demo's Fast-WAM at 20 Hz"),
    "metaworld3_lawam_world_20hz": ("metaworld_20hz", "stage 1 of small LaWAM at 20 Hz"),
    "metaworld3_lawam_20hz": ("metaworld_20hz", "small LaWAM at 20 Hz, on that world model"),
    "metaworld_mt10": ("metaworld", "small Light-WAM on the ten MT10 tasks, one language-conditioned policy"),
    "metaworld_mt10_topview": ("metaworld", "the same with cameras and a codec that show its small goals"),
    "metaworld_mt50_topview": (
        "metaworld",
        "a wider one of these on the fifty tasks of Meta-World, for a GPU",
    ),
    "libero_spatial_small": ("libero", "small Light-WAM on demonstrations we collect in LIBERO-Spatial"),
    "libero_object_small": ("libero", "small Light-WAM on demonstrations we collect in LIBERO-Object"),
    "libero_goal_small": ("libero", "small Light-WAM on demonstrations we collect in LIBERO-Goal"),
    "libero_10_small": ("libero", "small Light-WAM on demonstrations we collect in LIBERO-10"),
    "libero_small": ("libero", "one small Light-WAM on demonstrations of all four LIBERO suites"),
}
PUBLISHED = {
    "libero_spatial": ("libero", "Light-WAM as published, LIBERO-Spatial"),
    "libero_object": ("libero", "Light-WAM as published, LIBERO-Object"),
    "libero_goal": ("libero", "Light-WAM as published, LIBERO-Goal"),
    "libero_10": ("libero", "Light-WAM as published, LIBERO-10"),
    "libero_fast_wam": ("libero", "Fast-WAM as published, one policy for the four LIBERO suites"),
    "libero_fast_wam_optional_idm": ("libero", "Fast-WAM-Optional-IDM as published, the four LIBERO suites"),
    "robotwin": ("robotwin", "Light-WAM as published, RoboTwin 2.0, fifty tasks"),
    "robotwin_fast_wam": ("robotwin", "Fast-WAM as published, RoboTwin 2.0, fifty tasks"),
    "real_robot": ("real_robot", "Light-WAM as published, a real robot with two arms and three cameras"),
    "lawam_world": ("lawam", "stage 1 of LaWAM as published: a latent world model"),
    "lawam_world_base": ("lawam", "the same in the released code's smaller size"),
    "lawam_pretrain": ("lawam", "stage 2 of LaWAM as published, on many robots, before any benchmark"),
    "libero_lawam": ("lawam", "LaWAM as published, one policy for the four LIBERO suites"),
    "robotwin_lawam": ("lawam", "LaWAM as published, RoboTwin 2.0, fifty tasks, poses of both hands"),
}
# our name -> the published recipe that it puts right
OURS = {f"{name}_ours": name for name in PUBLISHED}
PLUG_INS = plug_ins(plugins.RECIPES, {*SMALL, *PUBLISHED, *OURS})
RECIPES = (*SMALL, *PUBLISHED, *OURS, *PLUG_INS)

# recipe -> the recipe that is trained before, from whose run directory it starts
EARLIER = {
    "metaworld3_lawam": "metaworld3_lawam_world",
    "metaworld3_lawam_no_lawm": "metaworld3_lawam_world",
    "metaworld3_lawam_no_distill": "metaworld3_lawam_world",
    "metaworld3_lawam_no_stop": "metaworld3_lawam_world",
    "metaworld3_lawam_oracle": "metaworld3_lawam_world",
    "metaworld3_lawam_shuffled": "metaworld3_lawam_world",
    "metaworld3_lawam_rates": "metaworld3_lawam_world",
    **{
        f"{name}{ours}": f"lawam_world{ours}"
        for name in ("lawam_pretrain", "libero_lawam", "robotwin_lawam")
        for ours in ("", "_ours")
    },
}

# policy -> the recipe that `wamkit demo` trains, and one that it may be compared with
DEMOS = {
    "light_wam": ("metaworld3", "metaworld3_no_video"),
    "fast_wam": ("metaworld3_fast_wam", "metaworld3_fast_wam_no_video"),
    "lawam": ("metaworld3_lawam", "metaworld3_lawam_no_lawm"),
}


FUNCTION = "recipe"
"""Of a recipe file, where none is named."""


def recipe(name: str) -> Run:
    """The run of that name, or of the function that `name` refers to (see above).

    Raises BadInput for an unknown name, a file or module that is missing or cannot be imported (with its line), and a
    function that is missing, raises, or returns no Run with a name of its own.
    """
    if is_reference(name):
        return _referred(parse(name, FUNCTION))
    if name in OURS:
        from wamkit.recipes.ours import ours

        return ours(recipe(OURS[name]))
    known = SMALL | PUBLISHED
    if name in PLUG_INS:
        return _added(name)
    if name not in known:
        near = difflib.get_close_matches(name, RECIPES, n=1, cutoff=0.0)[0]
        raise BadInput(
            f"unknown recipe {name!r}; did you mean {near!r}? There are {', '.join(RECIPES)}; one of your own is named "
            f"by its file, path/to/file.py:function (the function {FUNCTION} where none is named)"
        )
    run: Run = getattr(import_module(f"wamkit.recipes.{known[name][0]}"), name)()
    return run


def earlier(name: str) -> tuple[Run, ...]:
    """The run that is trained before that of this recipe, or none."""
    return tuple(recipe(before) for after, before in EARLIER.items() if after == name)


def _added(name: str) -> Run:
    """The run of a plug-in's recipe. BadInput where it has another name than the entry point."""
    run: Run = plugins.load(PLUG_INS[name])()
    if run.recipe != name:
        raise BadInput(f"{origin(PLUG_INS[name])}: recipe {name} returns a Run with recipe={run.recipe!r}")
    return run


NAME = re.compile(r"\w[\w.-]*")


def _referred(reference: Reference) -> Run:
    """The run that a function of the user's returns."""
    from wamkit.config import Run, typed

    where, expected = (
        f"{reference.module}:{reference.name}",
        "a function without arguments that returns a Run",
    )
    run = call(reference, load(reference, expected))
    if not isinstance(run, Run):
        raise BadInput(
            f"{where}: returns {type(run).__name__}, expected a wamkit.config.Run; end it with `return Run(...)`"
        )
    if run.recipe in RECIPES or not NAME.fullmatch(run.recipe):
        wrong = "the name of a recipe of wamkit" if run.recipe in RECIPES else "not a name"
        raise BadInput(
            f"{where}: returns a Run with recipe={run.recipe!r}, {wrong}; give it one of its own (letters, digits, "
            "'_', '-' and '.'): results and run directories bear it"
        )
    return typed(run, where)
