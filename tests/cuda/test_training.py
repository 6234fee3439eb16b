"""Training on a CUDA device: bfloat16 learns, a resume is bit-equal, torch.compile gives the same losses."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.policies import tiny_fast_wam as fast
from tests.policies import tiny_policy as light
from tests.policies.tiny_policy import batch_of
from wamkit.policies.light_wam.policy import LoRATuning
from wamkit.train import checkpoint
from wamkit.train.checkpoint import Progress, State
from wamkit.train.loop import TrainConfig, forward_of, initial_state, optimize

POLICIES: dict[str, Callable[[], Any]] = {
    "light_wam": lambda: light.tiny_policy(light.tiny_config()),
    "light_wam, LoRA": lambda: light.tiny_policy(light.tiny_config(LoRATuning(rank=2))),
    "fast_wam": lambda: fast.tiny_policy(fast.tiny_config()),
}
CONFIG = TrainConfig(steps=12, batch_size=3, warmup_steps=1, learning_rate=3e-3, average_decay=0.5)
BF16 = replace(CONFIG, precision="bf16")
CONFIGS = {"fp32": CONFIG, "bf16": BF16}
ROOT = Path(__file__).parents[2]


def begin(name: str, config: TrainConfig, device: torch.device) -> State:
    return initial_state(POLICIES[name]().to(device), config)


def losses(state: State, config: TrainConfig, steps: range, compiled: bool = False) -> Tensor:
    """Of every step, on one batch; float32 [steps]."""
    forward = forward_of(state.module, replace(config, compile=compiled))
    device = next(state.module.parameters()).device
    batch = batch_of(POLICIES["fast_wam"]()).to(device)
    found = [optimize(forward, batch, step, state, config)["loss"] for step in steps]
    return torch.stack(found).cpu()


@pytest.mark.parametrize("name", POLICIES)
def test_a_few_steps_in_bfloat16(name: str, cuda: torch.device) -> None:
    state = begin(name, BF16, cuda)
    found = losses(state, BF16, range(BF16.steps))
    assert found.isfinite().all()
    again = losses(state, BF16, range(1))  # with the noise of the first step
    assert again[0] < 0.9 * found[0]
    trained = [x for x in state.module.parameters() if x.requires_grad]
    assert {x.dtype for x in trained} == {torch.float32} and all(x.is_cuda for x in trained)
    exact = losses(begin(name, CONFIG, cuda), CONFIG, range(1))
    assert (found[0] - exact[0]).abs() < 0.05 * exact[0].abs()


@pytest.mark.usefixtures("repeatable")
@pytest.mark.parametrize("precision", CONFIGS)
@pytest.mark.parametrize("name", POLICIES)
def test_a_resume_is_bit_equal(name: str, precision: str, cuda: torch.device, tmp_path: Path) -> None:
    config = CONFIGS[precision]
    whole = begin(name, config, cuda)
    expected = losses(whole, config, range(6))

    first = begin(name, config, cuda)
    before = losses(first, config, range(3))
    checkpoint.write(tmp_path, Progress(3, 0, {}, asdict(config), 1), first, keep_last=1)
    second = begin(name, config, cuda)
    folder = checkpoint.latest(tmp_path)
    assert folder is not None
    checkpoint.restore(folder, second)
    after = losses(second, config, range(3, 6))

    assert torch.equal(torch.cat([before, after]), expected)
    resumed = second.module.state_dict()
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.module.state_dict().items())
    assert all(torch.equal(x, second.average.tensors[name]) for name, x in whole.average.tensors.items())


# In a process of its own: the compiler does not go through the checks of shapes that tests install.
COMPILED = """
import json, sys, torch
from tests.cuda.test_training import CONFIGS, begin, losses
device, name, config = torch.device(sys.argv[1]), sys.argv[2], CONFIGS[sys.argv[3]]
found = [losses(begin(name, config, device), config, range(5), compiled).tolist() for compiled in (False, True)]
print(json.dumps(found))
"""


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-4), ("bf16", 0.02)])
def test_compiled_layers_train_the_same(name: str, precision: str, bound: float, cuda: torch.device) -> None:
    """bound: relative, of the losses of five steps."""
    command = [sys.executable, "-c", COMPILED, str(cuda), name, precision]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    eager, compiled = json.loads(done.stdout.splitlines()[-1])
    assert compiled == pytest.approx(eager, rel=bound)
