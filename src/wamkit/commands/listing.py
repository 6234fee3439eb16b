"""What there is: recipes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg
from wamkit_client.references import is_reference

from wamkit.commands.overrides import Overrides, refuse
from wamkit.commands.values import print_values
from wamkit.io.progress import say
from wamkit.plugins import origin
from wamkit.recipes import EARLIER, OURS, PLUG_INS, PUBLISHED, SMALL, recipe

COLUMN = 34

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
