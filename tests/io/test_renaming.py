"""Name tables read both ways."""

from __future__ import annotations

import pytest

from wamkit.io.renaming import Renaming

NAMES = Renaming(
    ("layer.{i}.to_out.{w}", "l{i}.o.{w}"), ("layer.{i}.to_{p}.{w}", "l{i}.{p}.{w}"), ("x.{rest}", "y.{rest}")
)


@pytest.mark.parametrize(
    ("left", "right"),
    [("layer.12.to_out.bias", "l12.o.bias"), ("layer.0.to_q.weight", "l0.q.weight"), ("x.a.b", "y.a.b")],
)
def test_both_directions(left, right):
    assert NAMES.forward(left) == right
    assert NAMES.backward(right) == left


def test_dots_and_placeholders_are_exact():
    for name in (
        "layerX0.to_q.weight",
        "layer.a.to_q.weight",
        "layer.0.to_z.weight",
        "layer.0.to_q.scale",
        "z",
    ):
        with pytest.raises(KeyError):
            NAMES.forward(name)
