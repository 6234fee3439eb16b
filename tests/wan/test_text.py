"""Hashed words: fixed bits, unit variance, order and padding, refusals."""

from __future__ import annotations

import hashlib

import pytest
import torch
from wamkit_client.types import BadInput

from wamkit.wan.text import HashedText

TEXT = HashedText(width=64, length=16)


def test_the_same_bits_everywhere_and_for_ever():
    rows = TEXT.encode(["Close the drawer."])
    digest = hashlib.sha256(rows.numpy().tobytes()).hexdigest()
    assert digest == "e8faadac64e08aa52db87fe71b9b2834d5e04989a4ac444e88a4eb2e51bd40f3"
    assert rows.dtype == torch.float32 and rows.shape == (1, 16, 64)


def test_rows_past_the_end_mark_are_zero():
    rows = TEXT.encode(["press the button"])[0]
    assert (rows[:4].abs().sum(-1) > 0).all()
    assert rows[4:].abs().sum() == 0


def test_rows_have_unit_variance():
    words = " ".join(f"word{i}" for i in range(200))
    rows = HashedText(width=256, length=256).encode([words])[0, :200]
    assert abs(rows.var().item() - 1) < 0.02
    assert abs(rows.mean().item()) < 0.02


def test_case_and_spaces_do_not_matter_but_words_and_order_do():
    same, other, swapped = "Open  the Door", "open the window", "the open door"
    base, copy, different, order = TEXT.encode(["open the door", same, other, swapped])
    assert torch.equal(base, copy)
    assert not torch.equal(base, different)
    assert not torch.equal(base.sort(0).values, order.sort(0).values)


def test_a_word_is_recognised_at_every_place():
    first, second = TEXT.encode(["door open", "open door"])[:, :2]
    similarity = torch.cosine_similarity(first[0], second[1], dim=0)
    assert similarity > 0.9
    assert torch.cosine_similarity(first[0], second[0], dim=0).abs() < 0.5


def test_fingerprint_names_the_shape():
    assert TEXT.fingerprint == HashedText(64, 16).fingerprint
    assert TEXT.fingerprint != HashedText(64, 12).fingerprint


@pytest.mark.parametrize("instruction", ["", "   ", " ".join(["push"] * 16)])
def test_refuses_empty_and_too_long_instructions(instruction):
    with pytest.raises(BadInput, match="1 to 15"):
        TEXT.encode([instruction])
