"""What the meta files say, whichever of the known ways they say it in."""

from __future__ import annotations

import pytest

from wamkit.data.lerobot.files import dimension_labels, dimension_names

NONE = ("", "")


@pytest.mark.parametrize(
    ("written", "names"),
    [
        (["a", "b"], ("a", "b")),
        ({"motors": ["a", "b"]}, ("a", "b")),
        ({"left": ["a"], "right": ["b"]}, ("a", "b")),
        ({"b": 1, "a": 0}, ("a", "b")),
        ([3, 4], ("3", "4")),
        (["a"], NONE),
        (["a", "b", "c"], NONE),
        ({"motors": ["a"]}, NONE),
        ({"a": 0, "b": 0}, NONE),
        ({"a": 1, "b": None}, NONE),
        ([], NONE),
        ("ab", NONE),
        (7, NONE),
        (None, NONE),
    ],
)
def test_names_are_used_only_where_there_is_one_for_each_dimension(
    written: object, names: tuple[str, ...]
) -> None:
    assert dimension_names({"names": written}, 2) == names
    assert dimension_labels({"names": written}, 2) == (("0", "1") if names == NONE else names)


def test_a_feature_without_names_has_numbers() -> None:
    assert dimension_names({}, 2) == NONE
    assert dimension_labels({}, 3) == ("0", "1", "2")
