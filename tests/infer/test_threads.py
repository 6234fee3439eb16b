"""A small policy answers with one thread, whatever the process uses otherwise; a large one with all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from tests.infer.test_engine import seen
from tests.policies.tiny_policy import engine_of, tiny_config, tiny_policy
from wamkit.infer.threads import fastest


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_a_small_policy_answers_with_one_thread() -> None:
    engine = engine_of(tiny_policy(tiny_config()))
    during, answer = [], engine._answer
    engine._answer = lambda query: (during.append(torch.get_num_threads()), answer(query))[1]
    engine.act([seen()])
    assert engine.threads == 1 and during == [1] and torch.get_num_threads() == 2
    with pytest.raises(ZeroDivisionError):
        engine._answer = lambda query: 1 / 0
        engine.act([seen()])
    assert torch.get_num_threads() == 2


def test_a_large_policy_answers_with_all_of_them() -> None:
    with torch.device("meta"):
        assert fastest(nn.Linear(8000, 8000), 6) == 6 and fastest(nn.Linear(80, 80), 6) == 1
