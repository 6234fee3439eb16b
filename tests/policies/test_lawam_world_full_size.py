"""The published stage 1 of LaWAM on the meta device, and what its structure says of position codes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_dataset import RUN
from wamkit.policies.lawam.convert import WORLD_NAMES
from wamkit.policies.lawam.latent_action import SIZES, InverseDynamics, LatentSize
from wamkit.policies.lawam.positions import grid_code
from wamkit.policies.lawam.world import LaWAMWorldConfig
from wamkit.stages.plan import meta_batch, meta_policy, parts
from wamkit.types import DataSpec

DATA = DataSpec(
    views=("head",),
    canvas="separate",
    view_height=256,
    view_width=256,
    hz=30.0,
    frame_times=(0.0, 1.2),
    chunk_seconds=1.2,
    proprio_dim=14,
    action_dim=16,
    frame_proprio=True,
)
FULL = replace(RUN, recipe="full", policy=LaWAMWorldConfig(), data=DATA)


def test_parts() -> None:
    found = {part.name: (part.parameters, part.trainable) for part in parts(FULL, meta_policy(FULL))}
    assert found == {
        "inverse-dynamics encoder": (309_432_352, 309_432_352),
        "bottleneck": (2_176, 2_176),
        "latent world model": (228_286_720, 228_286_720),
        "state head": (101_713_344, 101_713_344),
        "image features": (85_660_416, 0),
    }
    assert sum(parameters for parameters, _ in found.values()) == 725_095_008


def test_every_name_and_shape_of_the_released_groups() -> None:
    keys = json.loads((Path(__file__).parents[1] / "golden" / "lawam_keys.json").read_text())
    ours = {name: list(x.shape) for name, x in meta_policy(FULL).state_dict().items()}
    groups = ("lam.encoder", "lam.vq", "lam.decoder", "lam.state_decoder")
    theirs = {
        f"{group}.{name.format(i=i)}": entry[0]
        for group in groups
        for name, entry in keys["groups"][group].items()
        for i in _indices(*entry[1:])
    }
    assert {WORLD_NAMES.forward(name): shape for name, shape in theirs.items()} == ours
    assert {WORLD_NAMES.backward(name) for name in ours} == theirs.keys()
    assert len(ours) == sum(keys["counts"][group]["tensors"] for group in groups)


def _indices(blocks: str = "0..0") -> range:
    first, last = map(int, blocks.split(".."))
    return range(first, last + 1)


def test_two_versions_of_two_frames_go_through_the_published_networks() -> None:
    batch = meta_batch(FULL)
    assert batch.inputs["features"].shape == (FULL.train.part_size, 2, 2, 256, 768)
    world: Any = meta_policy(FULL)
    code = world.infer(batch.inputs["features"][:, 0])
    assert code.mu.shape == (FULL.train.part_size, 32)
    assert world.world(batch.inputs["features"][:, 1, 0], code.mu).shape[1:] == (256, 768)


def test_base_is_smaller() -> None:
    base = replace(FULL, policy=replace(FULL.policy, latent=SIZES["base"]))
    counts = {part.name: part.parameters for part in parts(base, meta_policy(base))}
    assert counts["inverse-dynamics encoder"] < 0.3 * 309_432_352
    assert counts["latent world model"] < 0.3 * 228_286_720


def test_overlapped_codes_cannot_tell_rows_from_columns_and_concatenated_ones_can() -> None:
    overlapped, concatenated = (grid_code((4, 4), 32, layout) for layout in ("overlapped", "concatenated"))
    assert torch.equal(overlapped, overlapped.transpose(0, 1))
    assert not overlapped[..., 16:].any()
    assert len({tuple(code) for code in concatenated.flatten(0, 1).tolist()}) == 16
    frames = grid_code((2, 4, 4), 32, "concatenated")
    assert torch.equal(frames[0, ..., :16], frames[0, :1, :1, :16].expand(4, 4, 16))
    assert torch.equal(frames[0, ..., 16:], frames[1, ..., 16:])


def test_patches_do_not_see_the_query() -> None:
    torch.manual_seed(0)
    size = LatentSize(width=16, heads=2, ffn=24, inverse_layers=2, world_layers=1, code=4)
    inverse, seen = InverseDynamics(size, 5, (2, 3)), []
    inverse.layers[-1].register_forward_hook(lambda module, args, output: seen.append(output))
    pair = torch.randn(1, 2, 6, 5)
    first = inverse(pair)
    inverse.queries.data.add_(1)
    second = inverse(pair)
    assert torch.equal(seen[0][:, :-1], seen[1][:, :-1])
    assert not torch.allclose(first, second, atol=1e-3)


@pytest.mark.parametrize("name", SIZES)
def test_the_named_sizes_hold(name: str) -> None:
    size = SIZES[name]
    assert size.width % (8 * size.heads) == 0
