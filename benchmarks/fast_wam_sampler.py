"""Fast-WAM's sampler beside a twin that does the official work: operations at full size, seconds on this processor.

    python -m benchmarks.fast_wam_sampler                  about ten minutes on two cores; writes benchmarks/results
    python -m benchmarks.fast_wam_sampler --rounds 1 --layers 1 2 --out /tmp/results      a try

Operations are counted on the meta device in bfloat16, at full depth. Seconds are taken in float32 at full width but
two small depths, since an observation at full depth needs 24 GB: the time of one more layer, times the layers that are
missing, gives full depth. Both samplers take turns in every round, so that other work on the machine hits both.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor

from benchmarks import official_sampler
from benchmarks.operations import Operations
from wamkit.config import new_policy
from wamkit.data.normalize import Normalizer
from wamkit.data.statistics import Stats
from wamkit.policies.fast_wam.action_dit import ActionDiT
from wamkit.policies.fast_wam.fused import FusedSampler
from wamkit.policies.fast_wam.policy import FastWAM, FastWAMConfig
from wamkit.policies.fast_wam.sampling import Noise
from wamkit.policies.fast_wam.variants import VARIANTS, Variant
from wamkit.provenance import machine, revision, versions
from wamkit.recipes.metaworld import metaworld3_fast_wam
from wamkit.types import Clip
from wamkit.wan.dit import NO_ADAPTERS, SIZES, WanDiT

Asked = tuple[Tensor, Tensor, Noise]  # present, context, noise
STEPS = 10
