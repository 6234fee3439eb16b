"""What we recommend where a published recipe has something to put right. Not measured at full size.

`wamkit train NAME --plan` prints the difference and its reasons, for a published recipe and for ours.
"""

from __future__ import annotations

from dataclasses import replace

from wamkit.config import Run
from wamkit.policies.fast_wam.policy import FastWAMConfig, FromVideoModel
from wamkit.policies.lawam.begin import FromRun
from wamkit.policies.lawam.latent_action import LatentSize
from wamkit.policies.lawam.policy import LaWAMConfig
from wamkit.policies.lawam.world import LaWAMWorldConfig
from wamkit.policies.light_wam.policy import LightWAMConfig

REASONS = {
    "data.frame_times": "as in the paper, and as long as the longest chunk of stage 2",
    "eval.precision": "a policy acts in the precision that it was trained in",
    "eval.preprocessing": "a policy sees what it was trained on",
    "normalization.statistics": "windows count an episode's last action as often as it fills them up",
    "policy.begin.path": "a run with the same position codes",
    "policy.latent.positions": "the published codes of rows and columns overlap: patch (i, j) has that of (j, i)",
    "policy.noise": "a query that was unlucky with its noise is not unlucky again",
    "policy.prior_precision": "bfloat16 weights without a copy in float32 lose what small steps would add up to",
    "policy.start.action": "the published start scales block modulation like a matrix and mixes the rows of the time "
    "projection; nobody chose that",
    "policy.step_weights.prefix": "every executed action is a trained one",
    "policy.time_precision": "bfloat16 tells late flow times apart in steps of 0.004",
    "policy.world": "a run with the same position codes",
    "train.clip_norm": "both papers mean it and both launch files drop it; one bad batch must not throw weights about",
    "train.decayed": "decay pulls gains of norms towards zero, which regularises nothing",
}
"""Of every value that differs, why."""


def ours(published: Run) -> Run:
    """A published run with the same data, batches and steps, trained as we recommend."""
    run = replace(
        published,
        recipe=f"{published.recipe}_ours",
        normalization=replace(published.normalization, statistics="frames"),
        train=replace(published.train, clip_norm=1.0, decayed="matrices"),
        eval=replace(published.eval, preprocessing="training", precision="stored"),
    )
    match run.policy:
        case LightWAMConfig():
            weights = replace(run.policy.step_weights, prefix=run.eval.replan_steps)
            return replace(run, policy=replace(run.policy, step_weights=weights, time_precision="float32"))
        case FastWAMConfig():
            start = FromVideoModel(action="corrected")
            policy = replace(run.policy, start=start, time_precision="float32", noise="per_query")
            return replace(run, policy=policy)
        case LaWAMWorldConfig():
            data = replace(run.data, frame_times=(0.0, 1.2))
            return replace(run, policy=replace(run.policy, latent=_latent(run.policy.latent)), data=data)
        case LaWAMConfig():
            return replace(run, policy=_lawam(run.policy))
        case _:
            return run


def _latent(published: LatentSize) -> LatentSize:
    return replace(published, positions="concatenated")


def _lawam(published: LaWAMConfig) -> LaWAMConfig:
    begin = FromRun("runs/lawam_pretrain_ours") if published.begin == FromRun() else published.begin
    return replace(
        published,
        latent=_latent(published.latent),
        prior_precision="float32",
        world="runs/lawam_world_ours",
        begin=begin,
    )
