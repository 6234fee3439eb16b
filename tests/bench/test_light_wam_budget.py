"""A query of the published Light-WAM, counted at full size without doing it: views to chunks, RoboTwin's cameras."""

from __future__ import annotations

from dataclasses import replace

import torch

from wamkit.bench.counting import work_by_span
from wamkit.bench.subject import META, asking, random_subject, run_of


def test_a_seventh_of_the_operations_and_sixty_percent_of_the_arithmetic() -> None:
    """Officially 3,798 operations and 2,231 GFLOP."""
    run = run_of("robotwin")
    subject = random_subject(replace(run, eval=replace(run.eval, precision="bf16")), META)
    encoder, policy = subject.encoder, subject.policy
    ask = asking(subject, encoder.acting(encoder.passes), policy.actor(policy.passes), 1)
    with torch.inference_mode():
        ask()  # the instruction is new
    parts = work_by_span(ask)
    assert sum(part.operations for part in parts.values()) <= 520
    assert sum(part.flops for part in parts.values()) <= 1_345e9
    # Text rows are all kept where nobody knows which are padding: 128, up to a multiple of 16 with the other keys.
    assert parts["blocks"].flops <= 1_049e9
    assert parts["expert"].flops <= 3.6e9  # of all 32 steps
    assert parts["text"].flops == 0
