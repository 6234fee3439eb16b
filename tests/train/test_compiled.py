"""Layers that are compiled give the losses and gradients of those that are not, each kind once; without a compiler
training is refused before anything is written.

The compiler's front half only: its code generation takes minutes on a small machine.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch._inductor.config as compiler
from wamkit_client.types import BadInput

from tests.train.tiny import CONFIG, CPU, TinyPolicy, fresh
from wamkit.train.loop import train

ROOT = Path(__file__).parents[2]

# In a process of its own: the compiler does not go through the checks of shapes that tests install.
PROGRAM = """
import json
from dataclasses import replace
from functools import partial
import torch
from tests.policies import tiny_fast_wam as fast, tiny_policy as light
from tests.policies.tiny_policy import batch_of, draws
from wamkit.policies.light_wam.policy import LoRATuning
from wamkit.train.compiled import compiled
from wamkit.wan.dit import Adapters, WanSize

SIZE = WanSize(width=32, ffn=48, heads=1, head_dim=32, layers=1, channels=27, text_dim=16, time_dim=16)
torch.compile = partial(torch.compile, backend="aot_eager", fullgraph=True)


def light_wam():
    # one block, with LoRA
    config = light.tiny_config(LoRATuning(rank=2), adapters=Adapters(layers=(0,), dim=8), size=SIZE)
    return light.tiny_policy(config)


def fast_wam():
    # two layers of both networks
    return fast.tiny_policy(fast.tiny_config(size=replace(SIZE, layers=2)))


def learned(policy, forward):
    losses = forward(batch_of(policy), draws())
    sum(losses.values()).backward()
    return torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])


found = {}
for make in (light_wam, fast_wam):
    torch._dynamo.utils.counters.clear()
    eager, policy = make(), make()
    one, two = learned(eager, eager), learned(policy, compiled(policy))
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    found[make.__name__] = [float((one - two).norm() / one.norm()), graphs]
print(json.dumps(found))
"""


def test_compiled_layers_learn_the_same() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, check=True, capture_output=True, text=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    for name, (difference, graphs) in found.items():
        assert difference < 1e-5, name
        assert graphs == 1, name


def test_without_a_compiler_nothing_begins(tmp_path: Path) -> None:
    config = CONFIG.__class__(steps=2, batch_size=2, warmup_steps=1, compile=True)
    without = compiler.patch({"cpp.cxx": ("no-such-compiler",)})
    refused = pytest.raises(
        BadInput, match=r"no C\+\+ compiler is found; install g\+\+ or set CXX, or train without"
    )
    with without, refused:
        train(TinyPolicy(), fresh(8), config, tmp_path / "run", CPU)
    assert not (tmp_path / "run").exists()
