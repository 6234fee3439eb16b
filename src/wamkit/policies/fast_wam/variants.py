"""Fast-WAM's controlled comparison as rows of data (arXiv 2603.16666 section 3; spec 0 and 2), and the variant that was
published later, one set of weights that acts in two ways.

Groups of tokens: `present` (the clean first latent frame), `future` (noised latents of what follows), `given` (a second
copy of the future that the actions are conditioned on), `action`. Video never looks at actions, in any variant.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from wamkit_client.types import BadInput

from wamkit.nn.attention import FIRST_FRAME_CAUSAL, Visibility


@dataclass(frozen=True)
class Variant:
    """sees: the groups of a training sequence, in order, and what each may look at.

    trains_video: whether the future's velocity is learned. imagines: what is sampled before or beside the actions:
    "nothing", the future "alongside" them (same steps), or the future "first" (then they are conditioned on it).
    sometimes: groups that a training sample has only with probability `policy.idm_share`.
    modes: ways of acting by name -> the row whose way it is; "" is the one that is meant where none is named.
    """

    title: str
    sees: Visibility
    trains_video: bool
    imagines: Literal["nothing", "alongside", "first"]
    sometimes: tuple[str, ...] = ()
    modes: Mapping[str, str] = field(default_factory=dict)

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups of a training sequence, in order."""
        return tuple(group for group, _ in self.sees)


IDM: Visibility = (
    *FIRST_FRAME_CAUSAL,
    ("given", ("present", "given")),
    ("action", ("present", "given", "action")),
)
VARIANTS: Mapping[str, Variant] = {
    "fast": Variant(
        title="Fast-WAM",
        sees=(*FIRST_FRAME_CAUSAL, ("action", ("present", "action"))),
        trains_video=True,
        imagines="nothing",
    ),
    "joint": Variant(
        title="Fast-WAM-Joint",
        sees=(*FIRST_FRAME_CAUSAL, ("action", ("present", "future", "action"))),
        trains_video=True,
        imagines="alongside",
    ),
    # The published training sequence also has a second copy of the present; it stays equal to the first in every
    # layer and is left out (exact, spec 0.3).
    "idm": Variant(
        title="Fast-WAM-IDM",
        sees=IDM,
        trains_video=True,
        imagines="first",
    ),
    # Without the video loss nothing depends on the future's tokens, so they are not computed (exact).
    "no_video": Variant(
        title="Fast-WAM without video co-training",
        sees=(("present", ("present",)), ("action", ("present", "action"))),
        trains_video=False,
        imagines="nothing",
    ),
    # Published training lets the actions of a sample look at the whole condition, or at its first frame alone; the
    # condition is then looked at by nobody and left out (exact), which makes it a sample of the first row.
    "optional_idm": Variant(
        title="Fast-WAM-Optional-IDM",
        sees=IDM,
        trains_video=True,
        imagines="first",
        sometimes=("given",),
        modes={"": "idm", "idm": "idm", "first_frame": "fast"},
    ),
}


def variant(name: str) -> Variant:
    """The row of that name. Raises BadInput with the nearest name for an unknown one."""
    if name not in VARIANTS:
        near = difflib.get_close_matches(name, VARIANTS, n=1, cutoff=0.0)[0]
        raise BadInput(
            f"unknown Fast-WAM variant {name!r}; did you mean {near!r}? There are {', '.join(VARIANTS)}"
        )
    return VARIANTS[name]


def acting(name: str, mode: str) -> Variant:
    """The row as which variant `name` acts in `mode`. Raises BadInput where it has no such mode."""
    row = variant(name)
    modes = row.modes or {"": name}
    if mode in modes:
        return VARIANTS[modes[mode]]
    others = {other.title: [way for way in other.modes if way] for other in VARIANTS.values() if other.modes}
    has = f"it has {', '.join(filter(None, modes))}" if row.modes else "it acts in one way only"
    raise BadInput(
        f"policy.mode: {row.title} has no mode {mode!r}; {has}"
        + "".join(f"; {title} has {', '.join(ways)}" for title, ways in others.items() if title != row.title)
    )
