"""What each piece of small LaWAM is worth: arms of `wamkit compare metaworld3_lawam ...` (spec 6.4).

All start from the same stage 1 and read the same latents. Command: docs/evaluate.md.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from wamkit.config import Run
from wamkit.policies.lawam.policy import LaWAMConfig
from wamkit.recipes.metaworld_lawam import metaworld3_lawam


def metaworld3_lawam_no_lawm() -> Run:
    """No world model: the expert is shown the present twice. The latent action is still distilled into the prior."""
    return _without("no_lawm", subgoal="none")


def metaworld3_lawam_no_distill() -> Run:
    """The prior learns its latent action from the subgoal's error alone."""
    return _without("no_distill", distill_weight=0.0)


def metaworld3_lawam_no_stop() -> Run:
    """Actions train the world model and the latent action too, through the subgoal."""
    return _without("no_stop", stop_subgoal_grad=False)


def metaworld3_lawam_oracle() -> Run:
    """The expert learns on the true later features and acts on predicted ones, which are then new to it."""
    return _without("oracle", subgoal="oracle")


def metaworld3_lawam_shuffled() -> Run:
    """The subgoal belongs to another sample's latent action: what it says must not help."""
    return _without("shuffled", subgoal="shuffled")


def _without(name: str, **changes: Any) -> Run:
    run = metaworld3_lawam()
    policy = replace(cast(LaWAMConfig, run.policy), **changes)
    return replace(run, recipe=f"metaworld3_lawam_{name}", policy=policy)
