"""Fast-WAM's controlled comparison as four rows of data (arXiv 2603.16666 section 3; spec 0 and 2).

Groups of tokens: `present` (the clean first latent frame), `future` (noised latents of what follows), `given` (a second
copy of the future that the actions are conditioned on), `action`. Video never looks at actions, in any variant.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from wamkit_client.types import BadInput

from wamkit.nn.attention import FIRST_FRAME_CAUSAL, Visibility


@dataclass(frozen=True)
class Variant:
    """sees: the groups of a training sequence, in order, and what each may look at.

    trains_video: whether the future's velocity is learned. imagines: what is sampled before or beside the actions:
    "nothing", the future "alongside" them (same steps), or the future "first" (then they are conditioned on it).
    """

    title: str
    sees: Visibility
    trains_video: bool
    imagines: Literal["nothing", "alongside", "first"]

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups of a training sequence, in order."""
        return tuple(group for group, _ in self.sees)

    @property
    def clip_groups(self) -> tuple[str, ...]:
        """Those that the video model computes."""
        return tuple(group for group in self.groups if group != "action")


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
        sees=(
            *FIRST_FRAME_CAUSAL,
            ("given", ("present", "given")),
            ("action", ("present", "given", "action")),
        ),
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
}


def variant(name: str) -> Variant:
    """The row of that name. Raises BadInput with the nearest name for an unknown one."""
    if name not in VARIANTS:
        near = difflib.get_close_matches(name, VARIANTS, n=1, cutoff=0.0)[0]
        raise BadInput(
            f"unknown Fast-WAM variant {name!r}; did you mean {near!r}? There are {', '.join(VARIANTS)}"
        )
    return VARIANTS[name]
