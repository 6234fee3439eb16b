"""The golden vectors of the official modules, through the same runner users call."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.golden.compare import Golden
from tests.golden.fast_wam import fast_wam_rows
from tests.golden.lawam import lawam_rows
from tests.golden.light_wam import light_wam_rows
from tests.processes import command

FILE = Path(__file__).parent / "golden" / "lightwam_seed1.safetensors"
FAST = FILE.with_name("fastwam_seed1.safetensors")
GROUPS = {
    *("context", "action_branch", "rope", "masked_context", "video_branch", "expert", "action", "scheduler"),
    *("loss", "loss_cases", "grad_norm_groups", "grad_norm_per_param"),
}

LAWAM = FILE.with_name("lawam_seed1.safetensors")
LAWAM_GROUPS = {
    *(f"lawm.{group}" for group in ("const", "out", "losses", "metrics", "grad", "grad_norms")),
    *("qagg.out", "pte.code", "pte.grid", "pte.tokens", "ph.out"),
    *(f"flow.{group}" for group in ("out", "fused", "buckets", "loss", "grad", "grad_norms")),
    *(f"stage2.{group}" for group in ("out", "losses", "grad.z_hat", "grad_norms")),
}

FAST_GROUPS = {
    *(f"{variant}.train.{what}" for variant in ("fastwam", "joint", "idm") for what in ("video", "action")),
    *(f"{variant}.infer.action" for variant in ("fastwam", "joint", "idm")),
    *(f"{variant}.infer.video_latents" for variant in ("joint", "idm")),
    *("fastwam.infer.cache", "losses", "grad_l2_fastwam", "grad_l2_nocotrain", "checks", "init.action"),
    *("fused", "schedule", "loss_weight", "normaliser.min/max", "normaliser.z-score"),
}


def test_every_group_is_within_its_bound():
    rows = {row.group: row for row in light_wam_rows(Golden.read(FILE))}
    assert rows.keys() == GROUPS
    assert [row for row in rows.values() if not row.ok] == []


def test_every_tensor_of_the_file_is_an_input_or_compared():
    golden = Golden.read(FILE)
    in_json = ("loss_cases", "grad_norm_groups", "grad_norm_per_param")
    compared = sum(row.count for row in light_wam_rows(golden) if row.group not in in_json)
    inputs = (
        "params/",
        "inputs/",
        "pads/",
        "scheduler/u",
        "scheduler/t",
        "masked_context/mask",
        "expert/in_",
    )
    assert compared == len([name for name in golden.tensors if not name.startswith(inputs)])


def test_a_wrong_number_is_noticed():
    golden = Golden.read(FILE)
    golden.tensors["action/pred"][0, 0, 0] += 1e-3
    assert [row.group for row in light_wam_rows(golden) if not row.ok] == ["action"]


def test_fast_wam_is_within_its_bounds_and_every_tensor_of_the_file_is_an_input_or_compared():
    golden = Golden.read(FAST)
    rows = {row.group: row for row in fast_wam_rows(golden)}
    assert rows.keys() == FAST_GROUPS
    assert [row for row in rows.values() if not row.ok] == []
    compared = sum(row.count for name, row in rows.items() if ".train." in name or ".infer." in name)
    inputs = ("weights.", "in.", "infer.")
    outputs = [name for name in golden.tensors if not name.startswith(inputs)]
    assert compared + rows["init.action"].count == len(outputs)


@pytest.mark.parametrize(
    ("tensor", "groups"),
    [
        ("joint.infer.action_5steps", {"joint.infer.action"}),
        ("fastwam.infer.cache_v_last", {"fastwam.infer.cache"}),
        ("init.action.blocks.0.modulation", {"init.action"}),
        # of a padded step: the losses pass over it, the networks do not
        ("in.noise_action", {"fastwam.train.action", "joint.train.action", "idm.train.action"}),
    ],
)
def test_a_wrong_number_of_fast_wam_is_noticed(tensor, groups):
    golden = Golden.read(FAST)
    golden.tensors[tensor].flatten()[-1] += 1e-2
    assert groups <= {row.group for row in fast_wam_rows(golden) if not row.ok}


def test_lawam_is_within_its_bounds_and_every_tensor_of_the_file_is_an_input_or_compared():
    golden = Golden.read(LAWAM)
    rows = {row.group: row for row in lawam_rows(golden)}
    assert rows.keys() == LAWAM_GROUPS
    assert [row for row in rows.values() if not row.ok] == []
    given = re.compile(r"\w+\.(w|in)\.")
    outputs = {name for name in golden.tensors if not given.match(name)}
    in_json = ("losses", "loss", "metrics", "grad_norms", "tokens", "buckets", "fused")
    compared = sum(row.count for group, row in rows.items() if not group.endswith(in_json))
    assert compared == len(outputs) + 1  # the subgoal of stage 2 is the same whether gradients stop at it


@pytest.mark.parametrize(
    ("tensor", "groups"),
    [
        ("lawm.const.pos3d", {"lawm.const"}),
        ("lawm.w.encoder.QFormer.layers.0.norm2.bias", {"lawm.out", "lawm.grad", "lawm.grad_norms"}),
        ("lawm.in.states", {"lawm.losses", "lawm.grad_norms"}),
        ("qagg.w.ffns.0.4.bias", {"qagg.out"}),
        ("flow.w.DiT.proj_out_1.bias", {"flow.out", "flow.loss", "flow.grad_norms", "stage2.losses"}),
        ("stage2.in.z_hat", {"stage2.out", "stage2.losses", "stage2.grad.z_hat"}),
    ],
)
def test_a_wrong_number_of_lawam_is_noticed(tensor, groups):
    golden = Golden.read(LAWAM)
    golden.tensors[tensor].flatten()[0] += 1e-2
    assert groups <= {row.group for row in lawam_rows(golden) if not row.ok}


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        ([str(FILE)], 0, "12 of 12 groups within bounds"),
        ([str(FILE.with_name("lightwam_vae_seed1.safetensors"))], 0, "3 of 3 groups within bounds"),
        ([str(FAST)], 0, "22 of 22 groups within bounds"),
        ([str(LAWAM)], 0, "21 of 21 groups within bounds"),
        (["unknown_seed1.safetensors"], 2, "no runner"),
        ([], 2, "python -m tests.golden FILE"),
    ],
)
def test_the_command(arguments, status, says):
    done = command(["python", "-m", "tests.golden", *arguments], FILE.parents[2])
    assert done.status == status, done.out + done.err
    assert says in done.out
