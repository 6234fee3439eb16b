"""What LeRobot does to batches before and after a policy of this package: it renames, adds the batch's dimension and
moves; the policy normalizes.

The two normalizing steps change nothing. They are there because LeRobot, when it goes on training a folder, hands them
the new dataset's statistics by name and refuses a folder without them.
"""

from __future__ import annotations

from typing import Any

import torch
from lerobot.processor import (
    AddBatchDimensionProcessorStep,
    DeviceProcessorStep,
    NormalizerProcessorStep,
    PolicyProcessorPipeline,
    RenameObservationsProcessorStep,
    UnnormalizerProcessorStep,
)
from lerobot.processor.converters import policy_action_to_transition, transition_to_policy_action
from lerobot.utils.constants import POLICY_POSTPROCESSOR_DEFAULT_NAME, POLICY_PREPROCESSOR_DEFAULT_NAME

from lerobot_policy_wamkit.config import WamkitConfig

Statistics = dict[str, dict[str, torch.Tensor]]


def make_processors(
    config: WamkitConfig, dataset_stats: Statistics | None = None
) -> tuple[PolicyProcessorPipeline[Any, Any], PolicyProcessorPipeline[Any, Any]]:
    """The pre- and the post-processor. dataset_stats: not used."""
    norm_map = config.normalization_mapping
    inputs, outputs = config.input_features or {}, config.output_features or {}
    before = [
        RenameObservationsProcessorStep(rename_map={}),
        AddBatchDimensionProcessorStep(),
        DeviceProcessorStep(device=config.device),
        NormalizerProcessorStep(features={**inputs, **outputs}, norm_map=norm_map),
    ]
    after = [
        UnnormalizerProcessorStep(features=outputs, norm_map=norm_map),
        DeviceProcessorStep(device="cpu"),
    ]
    return (
        PolicyProcessorPipeline[Any, Any](steps=before, name=POLICY_PREPROCESSOR_DEFAULT_NAME),
        PolicyProcessorPipeline[Any, Any](
            steps=after,
            name=POLICY_POSTPROCESSOR_DEFAULT_NAME,
            to_transition=policy_action_to_transition,
            to_output=transition_to_policy_action,
        ),
    )
