"""The benchmark of the full-size model, on a tiny one: every stage runs, and memory is counted as it should be."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import full_size
from benchmarks.full_size import STAGES, prepare, with_files_in
from wamkit.bench.process import GIB, Steps, cost, in_own_process
from wamkit.config import Run
from wamkit.policies.light_wam.policy import LightWAMConfig
from wamkit.policies.light_wam.state_fusion import StateFusionConfig
from wamkit.recipes.libero import libero_spatial
from wamkit.wan.dit import Adapters, WanSize
from wamkit.wan.vae import VAE_SIZES, WAN21

SIZE = WanSize(width=32, ffn=48, heads=1, head_dim=32, layers=3, channels=16, text_dim=4096, time_dim=16)


@pytest.fixture
def tiny(monkeypatch) -> Run:
    monkeypatch.setitem(VAE_SIZES, "2.1", replace(WAN21, width=4))
    monkeypatch.setattr(full_size, "CAMERA", (40, 40))
    run = libero_spatial()
    assert isinstance(run.policy, LightWAMConfig)
    policy = replace(
        run.policy,
        size=SIZE,
        adapters=Adapters(layers=(0, 1), dim=8),
        expert=StateFusionConfig(queries=3, heads=2, level_dim=24, trunk_dim=32, trunk_blocks=1, step_dim=8),
    )
    return replace(run, policy=policy, data=replace(run.data, view_height=32, view_width=32))


def test_every_stage_and_the_page(tiny, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(full_size, "in_own_process", cost)
    path = full_size.measure(tiny, tmp_path / "results")
    assert not list(tmp_path.glob(".full_size_*"))
    found = json.loads(path.with_suffix(".json").read_text())
    assert list(found["stages"]) == list(STAGES) == ["load", "convert", "encode", "train", "act"]
    assert {"first step", "second step"} <= found["stages"]["train"]["seconds"].keys()
    assert found["run"]["policy"]["tuning"]["base"] == "wan.safetensors"
    assert "| act: first query |" in path.read_text()


def test_loading_reads_the_checkpoint_that_was_written(tiny, tmp_path):
    run = with_files_in(tiny, tmp_path)
    prepare(run, tmp_path, Steps())
    file = tmp_path / full_size.CHECKPOINT
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ValueError, match="not a complete torch file"):
        full_size.load(run, tmp_path, Steps())


def hold(run: Run, folder: Path, steps: Steps) -> None:
    """Half a GiB of its own, half a GiB of a file."""
    with steps("hold"):
        own = torch.ones(GIB // 8)
        mapped = np.memmap(folder / "file", dtype=np.uint8, mode="r")
        mapped[::4096].sum()
        own.sum()


def test_anonymous_and_file_backed_memory_are_told_apart(tmp_path):
    (tmp_path / "file").write_bytes(bytes(GIB // 2))
    of = in_own_process(hold, libero_spatial(), tmp_path)
    assert 0.5 * GIB < of.peak_anonymous < 1.0 * GIB
    assert 0.5 * GIB < of.peak_file < 1.0 * GIB
    assert of.peak > 1.0 * GIB and of.before < 0.9 * GIB
    assert of.seconds["hold"] > 0
