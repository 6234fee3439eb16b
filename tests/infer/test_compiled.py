"""Compiled programs answer as what they were made of.

That operations are recorded rightly is tested without a compiler: what was recorded is done again, operation by
operation. One small function goes through the compiler.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.nn import functional as F
from wamkit_client.types import BadInput

from tests.infer.test_properties import answers, continuing, engine_of, same
from tests.policies.tiny_policy import query_of, seeded
from wamkit.infer.compiled import Compiled, Program, by_programs, inductor
from wamkit.infer.engine import Engine
from wamkit.infer.graphs import Replayed, bucket, expect_staged
from wamkit.nn.fused_ops import add_norm_, place_heads_
from wamkit.tree import Tree


class Recorded:
    """In place of a compiler: the operations as they were recorded, and how often that happened."""

    def __init__(self) -> None:
        self.programs: list[GraphModule] = []

    def __call__(self, traced: GraphModule, examples: list[Tensor]) -> Program:
        assert not any(node.op == "get_attr" for node in traced.graph.nodes)
        assert not any(x.is_inference() or x.is_complex() for x in examples)
        self.programs.append(traced)
        return traced


def compiled_engine(name: str) -> tuple[Engine[object], Recorded]:
    engine, recorded = engine_of(name, "exact"), Recorded()
    engine._answer = by_programs(expect_staged(engine._answer), Compiled(recorded))
    engine._size = bucket
    return engine, recorded


@pytest.mark.parametrize(("name", "pieces"), [("light_wam", 1), ("fast_wam, fast", 2)])
def test_programs_answer_as_what_was_compiled(name: str, pieces: int) -> None:
    """Other images, instructions, noise and sizes of batch; a program for each piece and bucket."""
    plain, (fast, recorded) = engine_of(name, "plain"), compiled_engine(name)
    for seeds in ([1], [2], [3, 4, 5], [5, 6, 7, 8], [1]):
        same(answers(fast, seeds), answers(plain, seeds))
    assert len(recorded.programs) == 2 * pieces


def test_lawam_is_one_program() -> None:
    """Without complex numbers, which its prior rotates by where it is not compiled. Its programs take long to record,
    so there is one."""
    plain, (fast, recorded) = engine_of("lawam", "plain"), compiled_engine("lawam")
    for seeds in ([1], [2]):
        same(answers(fast, seeds), answers(plain, seeds))
    (program,) = recorded.programs
    assert not any(
        "complex" in str(node.target) or "real" in str(node.target) for node in program.graph.nodes
    )


def test_a_chunk_that_continues_another_has_a_program_of_its_own() -> None:
    """Of the piece that is steered, for any delay."""
    plain, (fast, recorded) = engine_of("fast_wam, fast", "plain"), compiled_engine("fast_wam, fast")
    answers(fast, [1])
    free = len(recorded.programs)
    for left, delay in ((3, 1), (5, 5), (1, 0)):
        asked = continuing(plain, 2, left, delay)
        same(fast.act([asked])[0].actions, plain.act([asked])[0].actions)
    assert len(recorded.programs) == free + 1


def test_without_rows_that_are_kept() -> None:
    """All rows of the text, without biases."""
    policy = engine_of("fast_wam, fast", "exact").policy
    few = policy.actor(("fused_blocks",))
    query = query_of(policy, 2, seeded(range(2)))
    expected = few(query)
    found = by_programs(few, Compiled(Recorded()))(replace(query, generators=seeded(range(2))))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["fast_wam, joint", "fast_wam, idm"])
def test_variants_that_imagine_are_refused(name: str) -> None:
    with pytest.raises(
        BadInput, match=r"compiled: this variant of Fast-WAM imagines while it acts.*choose exact"
    ):
        compiled_engine(name)


def test_the_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What blocks are made of, as a program of its own."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    generator = torch.Generator().manual_seed(0)
    norm, floor = torch.randn(3, 16, generator=generator), torch.tensor(0.1)
    weight, row = torch.randn(48, 16, generator=generator), torch.randn(16, generator=generator)
    angles = torch.randn(5, 3, 1, 4, generator=generator)
    rotary = torch.polar(torch.ones_like(angles), angles)

    def block(given: Tree) -> Tree:
        x = given["x"].clone()
        out = x.new_empty(len(x), 3, 5, 2, 8)
        place_heads_(out, F.linear(x, weight), norm, floor, rotary)
        return {"qkv": out, "u": add_norm_(x, out[:, 1].flatten(2), row, row, row, 1e-6)}

    fast = Replayed(lambda tree, about: block(tree), Compiled(inductor))
    for _ in range(2):
        given = {"x": torch.randn(2, 5, 16, generator=generator)}
        with torch.inference_mode():
            found, expected = fast(given), block(given)
        for name, x in expected.items():
            torch.testing.assert_close(found[name], x, rtol=1e-5, atol=1e-5)
    assert any(tmp_path.iterdir())


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One line says so, and operations are done one by one."""
    monkeypatch.setenv("PATH", "")
    engine = engine_of("light_wam", "compiled")
    assert capsys.readouterr().out.startswith("compiled: there is no C++ compiler (g++)")
    same(answers(engine, [1, 2]), answers(engine_of("light_wam", "exact"), [1, 2]))
