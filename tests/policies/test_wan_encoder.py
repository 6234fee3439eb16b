"""The encoder of Wan-based systems: a prompt is encoded once, and its context lies where the encoder does."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tests.policies.tiny_policy import SPEC
from wamkit.policies.wan_encoder import WanEncoder
from wamkit.wan.codec import BlockCodec
from wamkit.wan.text import HashedText


class Counted(HashedText):
    """Remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__(8, 6)
        self.asked: list[str] = []

    def encode(self, instructions: Sequence[str]) -> Tensor:
        self.asked += instructions
        return super().encode(instructions)


def test_a_prompt_is_encoded_once() -> None:
    text = Counted()
    encoder = WanEncoder(BlockCodec(), text, SPEC)
    first = encoder.text(["open it", "close it", "open it"])["context"]
    assert torch.equal(encoder.text(["close it", "open it", "push it"])["context"][:2], first[[1, 0]])
    assert text.asked == ["open it", "close it", "push it"]
    assert torch.equal(first, HashedText(8, 6).encode(["open it", "close it", "open it"]))
    assert encoder.to(torch.device("meta")).text(["open it", "lift it"])["context"].is_meta
    assert text.asked[3:] == ["lift it"]
