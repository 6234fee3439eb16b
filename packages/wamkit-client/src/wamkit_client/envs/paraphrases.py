"""Instructions in other words, in three styles. Knows English, and no simulator.

The words are those of the tasks of Meta-World and LIBERO. A synonym leaves no doubt which object or which place is
meant in any of their scenes.
"""

from __future__ import annotations

import re
from typing import Dict, Tuple

import numpy as np

FRAMES = (
    "please {}",
    "could you {}?",
    "would you please {}",
    "{}, please",
    "your task is to {}",
    "go ahead and {}",
)
LONGER = (
    "the robot should now {}",
    "{}, and then stop",
    "look first, then {}",
    "next thing to do: {}",
    "now it is time to {}",
)
"""Of few words, since small policies read few: 15 with a text length of 16."""
SYNONYMS: Dict[str, Tuple[str, ...]] = {
    # What is done.
    "pick up": ("grab", "lift up"),
    "pick": ("grab", "take"),
    "grasp": ("grip", "take hold of"),
    "place": ("set down", "deposit"),
    "put": ("place", "lay"),
    "stack": ("pile",),
    "press": ("push", "hit"),
    "push": ("shove", "nudge"),
    "pull": ("tug", "draw"),
    "open": ("open up",),
    "close": ("shut",),
    "slide": ("shift", "glide"),
    "turn on": ("switch on", "ignite"),
    "turn off": ("switch off",),
    "rotating": ("turning", "twisting"),
    "rotate": ("turn", "twist"),
    "reach": ("move to", "go to"),
    "bypass": ("go around", "avoid"),
    "lock": ("bolt", "latch"),
    "unlock": ("unbolt", "unlatch"),
    "insert": ("stick", "fit"),
    "unplug": ("draw out", "disconnect"),
    "get": ("fetch", "retrieve"),
    "dunk": ("drop", "throw"),
    "hammer": ("pound", "drive in"),
    "kick": ("shoot", "knock"),
    "sweep": ("brush", "wipe"),
    "using": ("with the help of",),
    # What it is done with.
    "button": ("switch", "push-button"),
    "wall": ("partition",),
    "coffee machine": ("coffee maker", "espresso machine"),
    "dial": ("knob",),
    "revolving joint": ("hinge", "swivel"),
    "faucet": ("tap",),
    "handle": ("bar",),
    "lever": ("control rod",),
    "peg": ("pin", "dowel"),
    "cabinet": ("cupboard",),
    "goal position": ("target position", "marked spot"),
    "goal": ("target",),
    "window": ("windowpane",),
    "basketball": ("ball",),
    "puck": ("disc",),
    "cover": ("lid",),
    "screw": ("nail",),
    "nut": ("ring",),
    "hole": ("opening", "cavity"),
    "soccer": ("soccer ball", "football"),
    "shelf": ("ledge",),
    "stick": ("rod",),
    "gripper": ("robot's hand", "claw"),
    "bowl": ("soup bowl",),
    "plate": ("dinner plate",),
    "mug": ("cup",),
    "cookie box": ("box of cookies", "biscuit box"),
    "stove": ("cooker", "cooktop"),
    "basket": ("hamper", "woven basket"),
    "tray": ("serving tray",),
    "alphabet soup": ("can of alphabet soup",),
    "cream cheese box": ("box of cream cheese",),
    "cream cheese": ("soft cheese", "cheese spread"),
    "salad dressing": ("bottle of salad dressing", "dressing for salad"),
    "bbq sauce": ("barbecue sauce",),
    "ketchup": ("bottle of ketchup", "catsup"),
    "tomato sauce": ("can of tomato sauce",),
    "butter": ("stick of butter",),
    "milk": ("carton of milk",),
    "chocolate pudding": ("pudding made of chocolate",),
    "orange juice": ("carton of orange juice", "juice made of oranges"),
    "wine bottle": ("bottle of wine",),
    "wine rack": ("holder for wine", "bottle rack"),
    "moka pots": ("coffee pots",),
    "moka pot": ("coffee pot",),
    "frying pan": ("skillet",),
    "microwave": ("microwave oven",),
    "book": ("volume",),
    "caddy": ("desk organizer",),
    # Where.
    "next to": ("beside",),
    "on top of": ("onto the top of",),
    "to the front of": ("in front of",),
    "sideways": ("from the side",),
}
_TERMS = re.compile(r"\b(" + "|".join(sorted(SYNONYMS, key=len, reverse=True)) + r")\b")
STYLES = ("asked politely", "synonyms", "synonyms in a longer sentence")


def paraphrase(instruction: str, style: int, rng: np.random.Generator) -> str:
    """The instruction in a style of STYLES, counted from 1. Begins with a capital letter where the instruction does."""
    told = instruction[:1].lower() + instruction[1:]
    if style > 1:
        told = _TERMS.sub(lambda match: str(rng.choice(SYNONYMS[match[0]])), told)
        told = re.sub(r"\ba (?=[aeiou])", "an ", told)
    if style != 2:
        told = str(rng.choice(FRAMES if style == 1 else LONGER)).format(told)
    return told[:1].upper() + told[1:] if instruction[:1].isupper() else told
