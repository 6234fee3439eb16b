"""What is kept of an instruction gives the attention that all of its rows give."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.policies.tiny_policy import shaken
from wamkit.wan.block import Block, TransformerSize, text_mlp
from wamkit.wan.fused import FusedContext, Look, Seen
from wamkit.wan.kept_text import ROWS, KeptText, distinct, shares

SIZE = TransformerSize(width=32, ffn=48, heads=2, head_dim=20, layers=3, text_dim=12)
LENGTH = 40
WORDS = {"go": 1, "turn the knob": 4, "a long story": LENGTH, "silence": 0}


def context(dtype: torch.dtype = torch.float32) -> FusedContext:
    torch.manual_seed(0)
    blocks = [shaken(Block(SIZE)).to(dtype) for _ in range(SIZE.layers)]
    looks = [Look.of(block.cross_attn) for block in blocks]
    return FusedContext(shaken(text_mlp(SIZE)).to(dtype), looks)


def text(names: Sequence[str]) -> Tensor:
    """Rows of instructions, zero after their words."""
    made = torch.zeros(len(names), LENGTH, SIZE.text_dim)
    for row, name in zip(made, names, strict=True):
        generator = torch.Generator().manual_seed(len(name))
        row[: WORDS[name]] = torch.randn(WORDS[name], SIZE.text_dim, generator=generator)
    return made


def token(batch: int, seed: int = 0) -> Tensor:
    return torch.randn(batch, 1, SIZE.text_dim, generator=torch.Generator().manual_seed(seed))


def attended(parts: Sequence[Seen]) -> Tensor:
    q = torch.randn(
        len(parts[0].k), 2, 7, SIZE.head_dim, generator=torch.Generator().manual_seed(9)
    )  # b n s e
    return torch.stack(
        [F.scaled_dot_product_attention(q.to(k.dtype), k, v, bias) for k, v, bias in parts]
    ).float()


def whole(seen: FusedContext, names: Sequence[str], tokens: Tensor) -> Tensor:
    """With every row, as the plain way has it."""
    return attended(seen(torch.cat([text(names), tokens], dim=1)))


def kept(store: KeptText, names: Sequence[str], tokens: Tensor, told: Sequence[str] | None = None) -> Tensor:
    state = store.of(text(names), names if told is None else told)
    embedded = store.context.text_embedding(tokens.to(store.context.dtype))
    return attended(state.beside(store.context.keys_values(embedded)[..., : store.tokens, :]))


BATCHES = [["go"], ["turn the knob", "go"], ["a long story", "go", "go"], ["silence"], ["a long story"]]


@torch.inference_mode()
@pytest.mark.parametrize("names", BATCHES)
@pytest.mark.parametrize("known", [True, False])
def test_all_rows_are_seen(names: list[str], known: bool) -> None:
    store, tokens = KeptText(context(), tokens=1), token(len(names))
    found = kept(store, names, tokens, names if known else ())
    torch.testing.assert_close(found, whole(store.context, names, tokens), rtol=0, atol=2e-6)


@torch.inference_mode()
def test_without_other_tokens() -> None:
    store = KeptText(context(), tokens=0)
    found = kept(store, ["go"], token(1))
    torch.testing.assert_close(found, whole(store.context, ["go"], token(1)[:, :0]), rtol=0, atol=2e-6)


@torch.inference_mode()
def test_an_answer_does_not_depend_on_what_was_asked_before() -> None:
    store = KeptText(context(), tokens=1, capacity=2)
    for turn in range(3):
        for names in BATCHES:
            tokens = token(len(names), turn)
            torch.testing.assert_close(
                kept(store, names, tokens), kept(KeptText(store.context, 1), names, tokens), rtol=0, atol=0
            )
            assert len(store._told) <= 2


@torch.inference_mode()
def test_the_one_asked_for_longest_ago_is_forgotten() -> None:
    store = KeptText(context(), tokens=1, capacity=2)
    for name in ("go", "silence", "go", "turn the knob"):
        store.of(text([name]), [name])
    assert list(store._told) == ["go", "turn the knob"]
    store.of(text(["silence"]), ())  # unknown to it, and not kept
    assert list(store._told) == ["go", "turn the knob"]


@torch.inference_mode()
def test_a_second_query_makes_nothing_of_the_text() -> None:
    store = KeptText(context(), tokens=1)
    first = store.of(text(["go"]), ["go"])
    again = store.of(torch.full((1, LENGTH, SIZE.text_dim), math.nan), ["go"])
    assert again is first
    assert first.kv.shape[4] % ROWS == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 98, 127, 512])
def test_a_few_keys_weigh_as_much_as_all(dtype: torch.dtype, count: int) -> None:
    assert shares(count, dtype).double().exp().sum().item() == pytest.approx(count, rel=1e-4)


@torch.inference_mode()
def test_bfloat16_is_as_close_as_with_every_row() -> None:
    names, tokens = ["turn the knob", "go"], token(2)
    exact = whole(context(), names, tokens)
    mine = kept(KeptText(context(torch.bfloat16), tokens=1), names, tokens)
    plain = whole(context(torch.bfloat16), names, tokens)
    assert (mine - exact).square().mean() <= 1.5**2 * (plain - exact).square().mean()


def test_zero_rows_are_counted_wherever_they_are() -> None:
    rows = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    words, padding = distinct(rows)
    assert words.tolist() == [[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]] and padding == 2
