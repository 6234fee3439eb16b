"""What the weights of a policy act in: what they are stored in, without a copy in anything else, unless asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from wamkit_client.types import BadInput, Observation

import wamkit
from tests.policies import tiny_fast_wam as fast
from tests.policies import tiny_policy as light
from tests.policies.tiny_policy import SPEC, tiny_normalizer
from wamkit.config import Run, acting_precision, load_engine_as, load_run, save_normalizer, save_run
from wamkit.data.actions import ActionSpace
from wamkit.infer.presets import PRESETS
from wamkit.io.weights import save_weights
from wamkit.policies.light_wam.policy import LoRATuning
from wamkit.train.checkpoint import trained_tensors

CPU = torch.device("cpu")
TINY = {"fast_wam": fast, "light_wam": light}


def saved(folder: Path, kind: str, dtype: torch.dtype, config=None) -> Path:
    """A run directory whose weights are stored in `dtype`."""
    tiny = TINY[kind]
    policy = tiny.tiny_policy(config or tiny.tiny_config())
    actions = ActionSpace(("x", "y"), ("absolute", "absolute"))
    folder.mkdir(parents=True)
    save_run(Run("tiny", "metaworld3", policy.config, SPEC, actions), folder)
    save_normalizer(tiny_normalizer(), folder)
    save_weights(folder, {name: x.to(dtype).contiguous() for name, x in trained_tensors(policy).items()})
    return folder


def observed() -> list[Observation]:
    rng = np.random.default_rng(0)
    images = {view: rng.integers(0, 256, (32, 32, 3), dtype=np.uint8) for view in SPEC.views}
    return [
        Observation(images, rng.normal(size=3).astype(np.float32), "do it", "robot", noise_seed=s)
        for s in (1, 2)
    ]


def chunks(folder: Path, precision: str) -> np.ndarray:
    run = load_run(folder)
    asked = replace(run, eval=replace(run.eval, precision=precision))
    return np.stack([chunk.actions for chunk in load_engine_as(asked, folder, CPU).act(observed())])


@pytest.mark.parametrize("kind", TINY)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_act_as_they_are_stored(tmp_path, kind, dtype):
    """Fails when a bfloat16 file is copied into float32 parameters. The normaliser stays float32."""
    folder = saved(tmp_path / "run", kind, dtype)
    engine, file = wamkit.load_policy(folder), load_file(folder / "weights.safetensors")
    own = dict(engine.policy.named_parameters())
    assert own.keys() == file.keys()
    assert all(own[name].dtype == dtype and torch.equal(own[name], x) for name, x in file.items())
    stored = sum(x.numel() * x.element_size() for x in file.values())
    assert sum(p.numel() * p.element_size() for p in own.values()) == stored
    buffers = dict(engine.policy.named_buffers())
    # the frequencies of sinusoids are float64; which dimensions a robot has is bool
    assert {b.dtype for b in buffers.values()} == {torch.float32, torch.float64, torch.bool}
    assert not any(x.is_meta for x in (*own.values(), *buffers.values()))
    chunk = engine.act(observed())[0].actions
    assert chunk.dtype == np.float32 and np.isfinite(chunk).all()


@pytest.mark.parametrize(("kind", "bound"), [("fast_wam", 0.02), ("light_wam", 0.02)])
def test_bfloat16_acts_close_to_float32(tmp_path, kind, bound):
    """Of the same bfloat16 weights; docs/numerics.md says how close."""
    folder = saved(tmp_path / "run", kind, torch.bfloat16)
    as_stored, bf16, fp32 = (chunks(folder, precision) for precision in ("stored", "bf16", "fp32"))
    assert np.array_equal(as_stored, bf16)
    assert 0 < np.abs(bf16 - fp32).max() < bound * np.abs(fp32).max()


def test_a_precision_may_be_asked_for_otherwise_than_stored(tmp_path):
    folder = saved(tmp_path / "run", "fast_wam", torch.float32)
    run = load_run(folder)
    asked = replace(run, eval=replace(run.eval, precision="bf16"))
    engine = load_engine_as(asked, folder, CPU)
    assert {p.dtype for p in engine.policy.parameters()} == {torch.bfloat16}
    assert np.abs(chunks(folder, "bf16") - chunks(folder, "fp32")).max() > 0


def test_weights_of_two_precisions_ask_which(tmp_path):
    folder = saved(tmp_path / "run", "fast_wam", torch.float32)
    tensors = load_file(folder / "weights.safetensors")
    tensors["action.head.bias"] = tensors["action.head.bias"].bfloat16()
    save_weights(folder, tensors)
    with pytest.raises(BadInput, match=r"torch\.float32; say what to act in: --precision"):
        wamkit.load_policy(folder)
    assert np.isfinite(chunks(folder, "fp32")).all()


def test_a_frozen_video_model_acts_in_the_precision_of_the_weights(tmp_path):
    """LoRA weights in bfloat16 on a video model that is stored in float32, as Wan2.1 is."""
    base = tmp_path / "wan.safetensors"
    config = light.tiny_config(LoRATuning(base=str(base), rank=2, alpha=4.0))
    policy = light.tiny_policy(config)
    frozen = {n: p.data for n, p in policy.dit.named_parameters() if "lora_" not in n and "adapters" not in n}
    save_file(frozen, base)
    folder = saved(tmp_path / "run", "light_wam", torch.bfloat16, config)
    engine = wamkit.load_policy(folder)
    assert {p.dtype for p in engine.policy.parameters()} == {torch.bfloat16}
    q = engine.policy.dit.blocks[0].self_attn.q
    assert torch.equal(q.weight, frozen["blocks.0.self_attn.q.weight"].bfloat16())
    assert np.isfinite(engine.act(observed())[0].actions).all()


@pytest.mark.parametrize("kind", TINY)
def test_loading_leaves_the_callers_generator_alone(tmp_path, kind):
    folder = saved(tmp_path / "run", kind, torch.float32)
    torch.manual_seed(123)
    before = torch.get_rng_state()
    wamkit.load_policy(folder)
    assert torch.equal(torch.get_rng_state(), before)


PEAK = """
import json, sys
from pathlib import Path
import torch
from wamkit.config import load_engine

def memory(kind):
    return 1024 * next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith(kind))

load_engine(Path(sys.argv[1]), torch.device("cpu"))  # what torch imports by the way is not counted
Path("/proc/self/clear_refs").write_text("5")  # the peak so far
before = memory("VmRSS")
engine = load_engine(Path(sys.argv[2]), torch.device("cpu"))
numbers = sum(p.numel() for p in engine.policy.parameters())
print(json.dumps({"numbers": numbers, "peak": memory("VmHWM") - before}))
"""


@pytest.mark.scale
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_copy_in_float32_is_made_of_a_bfloat16_file(tmp_path):
    """45 million weights, 91 MB: the pages of the file, and the matrices that the sampler lays side by side.

    A float32 copy alone would take four bytes a number.
    """
    config = fast.tiny_config()
    size = replace(config.size, width=768, ffn=2048, heads=6, head_dim=128, layers=4)
    wide = replace(config, size=size, action_width=256, action_ffn=1024)
    folder = saved(tmp_path / "run", "fast_wam", torch.bfloat16, wide)
    small = saved(tmp_path / "small", "fast_wam", torch.bfloat16)
    command = [sys.executable, "-c", PEAK, str(small), str(folder)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    stored = (folder / "weights.safetensors").stat().st_size
    assert found["numbers"] > 45e6 and abs(stored - 2 * found["numbers"]) < 1e6
    assert found["peak"] < 3.5 * found["numbers"], found


@pytest.mark.parametrize("engine", ["exact", "fast", "small"])
def test_presets_act_in_their_precision(tmp_path, engine):
    """Unless another one is asked for."""
    folder = saved(tmp_path / "run", "fast_wam", torch.float32)
    run = load_run(folder)
    for precision, expected in (
        ("stored", PRESETS[engine].precision or torch.float32),
        ("fp32", torch.float32),
    ):
        asked = replace(run, eval=replace(run.eval, engine=engine, precision=precision))
        assert acting_precision(asked, folder) == expected
        loaded = load_engine_as(asked, folder, CPU)
        assert {p.dtype for p in loaded.policy.parameters()} == {expected}
        assert np.isfinite(loaded.act(observed())[0].actions).all()


MEMORY = """
import json, sys
from dataclasses import replace
from pathlib import Path
import torch
from wamkit.config import load_acting, load_run

def memory(kind):
    return 1024 * next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith(kind))

def load(folder, engine):
    run = load_run(Path(folder))
    return load_acting(replace(run, eval=replace(run.eval, engine=engine)), Path(folder), torch.device("cpu"))

found = {}
for engine in sys.argv[3:]:
    load(sys.argv[1], engine)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far
    before = memory("VmRSS")
    loaded = load(sys.argv[2], engine)
    found[engine] = {"peak": memory("VmHWM") - before, "kept": memory("VmRSS") - before}
    del loaded
print(json.dumps(found))
"""


@pytest.mark.scale
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", TINY)
def test_loading_takes_little_more_than_the_file(tmp_path, kind):
    """At most 1.2 times the file at every moment, pages that are mapped and what passes make of them together."""
    config = TINY[kind].tiny_config()
    size = replace(config.size, width=512, ffn=2048, heads=4, head_dim=128, layers=16)
    wide = replace(config, size=size)
    folder = saved(tmp_path / "run", kind, torch.bfloat16, wide)
    small = saved(tmp_path / "small", kind, torch.bfloat16)
    command = [sys.executable, "-c", MEMORY, str(small), str(folder), "exact", "small"]
    # What is freed is given back at once, as it is at full size, where tensors are larger than glibc's own threshold.
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "100000"}
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout)
    stored = (folder / "weights.safetensors").stat().st_size
    assert stored > 6e7 and all(each["peak"] < 1.2 * stored for each in found.values()), (stored, found)
    assert found["small"]["kept"] < 0.65 * stored, (stored, found)
