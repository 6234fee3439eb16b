"""Freed memory that a process keeps."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

TOUCHED = """
import resource
import torch
from wamkit.train.heap import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if {keeps}:
    keep_freed_memory()
for step in range(12):
    if step == 2:
        before = faults()
    tensors = [torch.ones(2**20) for _ in range(24)]  # 4 MiB each
    del tensors
print(faults() - before)
"""


def pages(keeps: bool) -> int:
    """That the system gives to ten steps of 24 tensors."""
    command = [sys.executable, "-c", TOUCHED.format(keeps=keeps)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of glibc")
def test_freed_memory_is_given_out_again() -> None:
    """But for one tensor of the 240. Without the setting most processes fetch them again and again, not all."""
    one_tensor = 2**22 // resource.getpagesize()
    assert pages(keeps=True) <= one_tensor
    assert any(pages(keeps=False) > 10 * one_tensor for _ in range(6))
