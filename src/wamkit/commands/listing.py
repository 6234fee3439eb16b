"""What there is: recipes and suites."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg
from wamkit_client.references import is_reference

from wamkit.commands.overrides import Overrides, refuse
from wamkit.commands.values import print_values
from wamkit.io.progress import say
from wamkit.plugins import origin
from wamkit.recipes import EARLIER, OURS, PLUG_INS, PUBLISHED, SMALL, recipe

if TYPE_CHECKING:
    from wamkit_client.suites import Suite

COLUMN = 41

ListedName = Annotated[
    str, arg(metavar="NAME", help="One recipe: where it is from, and all its values. A file or module, too.")
]


@dataclass(frozen=True)
class Recipes:
    """List the recipes, or all that there is to know about one.

    Examples: wamkit recipes
              wamkit recipes metaworld3
    """

    name: Positional[ListedName] = ""

    def __call__(self, overrides: Overrides) -> int:
        refuse(overrides)
        if not self.name:
            for line in lines():
                say(line)
            return 0
        recipe(self.name)  # an unknown name, or a file that is none, is refused before anything is printed
        say(f"{self.name}: {about(self.name)}")
        say(f"from: {where(self.name)}")
        if self.name in EARLIER:
            say(f"starts from a run of: {EARLIER[self.name]}")
        print_values(self.name, f"wamkit train {self.name}")
        return 0


@dataclass(frozen=True)
class Suites:
    """List the suites that a policy can be measured on, or what one consists of: tasks, and what can go wrong in it.

    Examples: wamkit suites
              wamkit suites metaworld3
    """

    name: Positional[
        Annotated[str, arg(metavar="NAME", help="One suite, also with what goes wrong: metaworld3+camera_2.")]
    ] = ""

    def __call__(self, overrides: Overrides) -> int:
        refuse(overrides)
        for line in suite_lines(self.name) if self.name else all_suites():
            say(line)
        return 0


def all_suites() -> list[str]:
    """Every suite that has a name, and by simulator what can go wrong."""
    from wamkit_client.envs.libero import plus
    from wamkit_client.suites import SUITES

    simulators = {suite.env.simulator: suite for suite in SUITES.values()}
    found = []
    for simulator, any_suite in simulators.items():
        own = [suite for suite in SUITES.values() if suite.env.simulator == simulator]
        found += [f"Of {simulator}:", *(f"  {suite.name:<{COLUMN}}{protocol(suite)}" for suite in own), ""]
        found += [
            f"What can go wrong, behind the name of a suite of {simulator}:",
            *perturbations(any_suite),
            "",
        ]
    changed = [(name, plus.AXES[name.rpartition("_")[2]]) for name in plus.SUITES]
    return [
        *found,
        "Of LIBERO-Plus, whose files make libero installs, 350 to 449 tasks each, one trial each:",
        *(f"  {name:<{COLUMN}}{what}" for name, what in changed),
        "",
        "Also: metaworld:TASK, RoboTwin's (docs/robotwin.md), and an environment of your own, my_env.py:make.",
    ]


def suite_lines(name: str) -> list[str]:
    """One suite: its protocol and tasks, and what can go wrong. BadInput for an unknown name."""
    from wamkit_client.suites import suite

    chosen = suite(name)
    tasks = [f"  {number:<4}{task.name}: {task.instruction}" for number, task in enumerate(chosen.tasks)]
    wrong = chosen.env.perturbation
    kind = chosen.env.perturbations[wrong.kind]
    if wrong.kind != "none":
        return [
            f"{chosen.name}: {protocol(chosen)}; {kind.about}: {wrong.strength:g} ({kind.unit})",
            *tasks,
        ]
    others = perturbations(chosen)
    more = ["What can go wrong, behind its name:", *others] if others else []
    return [f"{chosen.name}: {protocol(chosen)}", *tasks, *more]


def protocol(suite: Suite) -> str:
    """Size and limits of a suite, in a line."""
    many = f"{len(suite.tasks)} tasks" if len(suite.tasks) > 1 else "1 task"
    return f"{many}, {suite.episodes} episodes each, at most {suite.max_steps} steps at {suite.env.control_hz:g} Hz"


def perturbations(suite: Suite) -> list[str]:
    """What can go wrong in a suite, by the words behind its name."""
    found = []
    for name, kind in suite.env.perturbations.items():
        numbers = ", ".join(f"{strength:g}" for strength in kind.strengths)
        words = f"+{name}_1 to _{len(kind.strengths)}" if len(kind.strengths) > 1 else f"+{name}"
        if name != "none":
            found.append(f"  {words:<{COLUMN}}{kind.about}: {numbers} ({kind.unit})")
    return found


def about(name: str) -> str:
    """What a recipe is, in a line."""
    table = SMALL | PUBLISHED
    if name in table:
        return table[name][1]
    if name in OURS:
        return f"{OURS[name]} as we recommend it; `wamkit train {name} --plan` says what differs, and why"
    return "a recipe of a plug-in" if name in PLUG_INS else "a recipe of your own"


def where(name: str) -> str:
    """The function that it is."""
    table = SMALL | PUBLISHED
    if name in PLUG_INS:
        return f"{origin(PLUG_INS[name])}, {PLUG_INS[name].value}"
    if is_reference(name):
        return name
    return "wamkit.recipes.ours:ours" if name in OURS else f"wamkit.recipes.{table[name][0]}:{name}"


def lines() -> list[str]:
    """All recipes by group, each with what it is and, of plug-ins, where it is from."""
    groups = {
        "Small, for a few CPU cores (wamkit.recipes)": {name: about(name) for name in SMALL},
        "As published, for GPUs (wamkit.recipes)": {name: about(name) for name in PUBLISHED},
        "With what we would change (wamkit.recipes.ours); `wamkit train NAME --plan` says what, and why": {
            name: about(name).partition(";")[0] for name in OURS
        },
        "Of installed plug-ins": {name: where(name) for name in PLUG_INS},
    }
    found: list[str] = []
    for title, group in groups.items():
        if group:
            found += [f"{title}:", *(f"  {name:<{COLUMN}}{what}" for name, what in group.items()), ""]
    return [
        *found,
        "Of your own: a function without arguments that returns a Run, named by its file or module: my_recipe.py, "
        "my_recipe.py:function, package.module:function. `wamkit init DATASET > my_recipe.py` writes one.",
    ]
