"""Of each kind of policy, how many layers its config has, and the same config with another number of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from wamkit_client.types import BadInput

from wamkit.config import Run
from wamkit.policies.fast_wam.policy import FastWAMConfig
from wamkit.policies.lawam.policy import LaWAMConfig
from wamkit.policies.light_wam.policy import LightWAMConfig


@dataclass(frozen=True)
class Depth:
    """layers: how many a config has. of: the config with so many."""

    layers: Callable[[Any], int]
    of: Callable[[Any, int], Any]


def light_wam(config: LightWAMConfig, layers: int) -> LightWAMConfig:
    """As many blocks follow the last tap as before."""
    taps, more = config.adapters.layers, layers - config.size.layers
    adapters = replace(config.adapters, layers=moved(taps, taps[-1] + 1, taps[-1] + 1 + more))
    return replace(config, size=replace(config.size, layers=layers), adapters=adapters)


def fast_wam(config: FastWAMConfig, layers: int) -> FastWAMConfig:
    """Both networks."""
    return replace(config, size=replace(config.size, layers=layers))


def lawam(config: LaWAMConfig, layers: int) -> LaWAMConfig:
    """Of the expert; the prior and the world model become as many times as deep. Features stay as they are."""

    whole = config.expert.layers

    def scaled(count: int) -> int:
        if count * layers % whole:
            raise BadInput(
                f"--layers {layers}: of {whole} in the expert; another part would have {count * layers / whole:g} "
                f"layers of its {count}. Choose a depth in which all have whole numbers"
            )
        return count * layers // whole

    prior = config.prior
    blocks = scaled(prior.vision_blocks)
    taps = moved(prior.vision_taps, prior.vision_blocks, blocks)
    return replace(
        config,
        expert=replace(config.expert, layers=layers),
        prior=replace(prior, layers=scaled(prior.layers), vision_blocks=blocks, vision_taps=taps),
        latent=replace(config.latent, world_layers=scaled(config.latent.world_layers)),
    )


def moved(taps: Sequence[int], of: int, into: int) -> tuple[int, ...]:
    """Numbers of layers among `of`, as those among `into`. BadInput where two would become one."""
    found = tuple(round((tap + 1) * into / of) - 1 for tap in taps)
    if len({*found, -1}) <= len(taps):
        raise BadInput(f"--layers: {len(taps)} taps need more layers than {into}")
    return found


DEPTHS: Mapping[str, Depth] = {
    "light_wam": Depth(lambda config: config.size.layers, light_wam),
    "fast_wam": Depth(lambda config: config.size.layers, fast_wam),
    "lawam": Depth(lambda config: config.expert.layers, lawam),
}
"""By `policy.kind`."""


def layers_of(run: Run) -> int:
    """Of its policy. BadInput for one whose depth is not known."""
    kind = run.policy.kind
    if kind not in DEPTHS:
        raise BadInput(f"--layers: the depth of {kind} cannot be changed, only of {', '.join(DEPTHS)}")
    return DEPTHS[kind].layers(run.policy)


def of_depth(run: Run, layers: int) -> Run:
    """With a policy of so many layers. BadInput where it cannot have them."""
    if layers_of(run) == layers:
        return run
    return replace(run, policy=DEPTHS[run.policy.kind].of(run.policy, layers))
