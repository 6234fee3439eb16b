"""The encoder of Wan-based systems: a prompt is encoded once, and its context lies where the encoder does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.policies.tiny_policy import SPEC, clip
from wamkit.policies.wan_encoder import WanEncoder
from wamkit.types import encode
from wamkit.wan.codec import BlockCodec
from wamkit.wan.text import HashedText
from wamkit.wan.vae import WAN21, WanVAE


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


@pytest.mark.parametrize("pool", [1, 2])
@pytest.mark.parametrize(
    "passes", [(), ("still_codec",), ("device_images",), ("still_codec", "device_images")]
)
def test_acting_it_sees_the_same(passes: tuple[str, ...], pool: int) -> None:
    for codec in (BlockCodec(), BlockCodec("whole"), WanVAE(replace(WAN21, width=8))):
        whole, seen = WanEncoder(codec, HashedText(8, 6), SPEC, pool), clip(3, frames=1)
        acting, expected = encode(whole.acting(passes), seen), encode(whole, seen)
        assert acting.keys() == expected.keys()
        for name, tensor in expected.items():
            assert acting[name].shape == tensor.shape
            error = 1e-5 * tensor.abs().max() if tensor.numel() else 0
            torch.testing.assert_close(acting[name], tensor, rtol=0, atol=float(error))


def test_acting_it_keeps_no_decoder_and_its_own_precision() -> None:
    vae = WanVAE(replace(WAN21, width=8))
    acting = WanEncoder(vae, HashedText(8, 6), SPEC).acting(("still_codec", "device_images"), torch.bfloat16)
    assert encode(acting, clip(2, frames=1))["present"].dtype == torch.bfloat16
    assert next(vae.parameters()).dtype == torch.float32
    held = {id(parameter) for parameter in acting.codec.parameters()}
    assert held.isdisjoint(id(parameter) for parameter in vae.parameters())
    assert sum(p.numel() for p in acting.codec.parameters()) < sum(p.numel() for p in vae.parameters()) / 4
