"""Light-WAM to act with: LoRA folded into the weights it stands on, one product in place of three in every layer."""

from __future__ import annotations

from wamkit.nn.lora import merge_lora
from wamkit.policies.light_wam.policy import LightWAM


def merged(policy: LightWAM) -> LightWAM:
    """An equal policy without LoRA, for weights that do not change any more; `policy` stays as it is.

    It shares all tensors but the merged weights. In float32 chunks agree to about 1e-6 of their size; in bfloat16 the
    sum is rounded once and not twice, which moves chunks by as much as bfloat16 itself does.
    """
    return merge_lora(policy)
