"""What we recommend where a published recipe has something to put right. Not measured at full size.

`wamkit train NAME --plan` prints the difference, for a published recipe and for ours.
"""

from __future__ import annotations

from dataclasses import replace

from wamkit.config import PolicyConfig, Run
from wamkit.policies.fast_wam.policy import FastWAMConfig, FromVideoModel
from wamkit.policies.light_wam.policy import LightWAMConfig


def ours(published: Run) -> Run:
    """A published run with the same data, batches and steps, trained as we recommend."""
    train = replace(
        published.train,
        clip_norm=1.0,  # what both papers mean and both launch files drop; one bad batch must not throw weights about
        decayed="matrices",  # decay pulls gains of norms towards zero, which regularises nothing
    )
    # Every step counts once: windows count an episode's last action as often as it fills them up.
    normalization = replace(published.normalization, statistics="frames")
    policy = _policy(published.policy, published.eval.replan_steps)
    # A policy sees what it was trained on.
    evaluation = replace(published.eval, preprocessing="training")
    return replace(
        published,
        recipe=f"{published.recipe}_ours",
        policy=policy,
        normalization=normalization,
        train=train,
        eval=evaluation,
    )


def _policy(config: PolicyConfig, replan_steps: int) -> PolicyConfig:
    match config:
        case LightWAMConfig():
            # Every executed action is a trained one (on LIBERO ten are executed and eight trained). Times keep their
            # digits, where bfloat16 tells late ones apart in steps of 0.004.
            weights = replace(config.step_weights, prefix=replan_steps)
            return replace(config, step_weights=weights, time_precision="float32")
        case FastWAMConfig():
            # The published start scales block modulation like a matrix and lets the six rows of the time projection
            # bleed into each other; nobody chose that. Times keep their digits.
            # And a query that was unlucky with its noise is not unlucky again.
            start = FromVideoModel(action="corrected")
            return replace(config, start=start, time_precision="float32", noise="per_query")
        case _:
            return config
