"""Whether torch's compiler can make programs here."""

from __future__ import annotations

import shutil

import torch


def cpp_compilers() -> list[str]:
    """The programs that it looks for on a processor: CXX, else the usual one."""
    import torch._inductor.config as inductor  # takes a while to import

    return [name for name in inductor.cpp.cxx if name]


def can_compile(device: torch.device) -> bool:
    """For a device: with Triton on CUDA, else with a C++ compiler."""
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        return bool(has_triton())
    return any(map(shutil.which, cpp_compilers()))
