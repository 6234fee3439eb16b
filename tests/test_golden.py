"""The golden vectors of the official modules, through the same runner users call."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.golden.compare import Golden
from tests.golden.light_wam import light_wam_rows

FILE = Path(__file__).parent / "golden" / "lightwam_seed1.safetensors"
GROUPS = {
    *("context", "action_branch", "rope", "masked_context", "video_branch", "expert", "action", "scheduler"),
    *("loss", "loss_cases", "grad_norm_groups", "grad_norm_per_param"),
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


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        ([str(FILE)], 0, "12 of 12 groups within bounds"),
        ([str(FILE.with_name("lightwam_vae_seed1.safetensors"))], 0, "3 of 3 groups within bounds"),
        (["unknown_seed1.safetensors"], 2, "no runner"),
        ([], 2, "python -m tests.golden FILE"),
    ],
)
def test_the_command(arguments, status, says):
    done = subprocess.run(
        [sys.executable, "-m", "tests.golden", *arguments],
        cwd=FILE.parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert says in done.stdout
