"""JSON files that hold one dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import ConfigDict
from wamkit_client.types import BadInput

from wamkit.data.lerobot.recorder import Request
from wamkit.io.records import read_record, write_record
from wamkit.stages import demo


@dataclass(frozen=True)
class Point:
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    place: tuple[float, ...]
    name: str = "origin"


def test_a_record_comes_back_to_the_last_digit(tmp_path: Path) -> None:
    point = Point((0.1 + 0.2, 1e-308, 1.7976931348623157e308), "größe")
    write_record(tmp_path / "p.json", point)
    assert read_record(tmp_path / "p.json", Point, "") == point
    (tmp_path / "p.json").write_text('{"place": [1]}')  # an absent value has its default
    assert read_record(tmp_path / "p.json", Point, "") == Point((1.0,))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"place": [1', r"p.json: truncated or not JSON .*; delete it"),
        (b"\xff\x00", r"p.json: truncated or not JSON"),
        (b'{"place": ["x"]}', r"p.json: place.0: .*valid number.*; delete it"),
        (b'{"name": "x"}', r"p.json: place: .*required"),
        (b'{"place": [], "colour": 1}', r"p.json: colour: "),
        (b"[1]", r"p.json: content: Input should be .*Point"),
    ],
)
def test_another_content_is_one_message(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "p.json"
    with pytest.raises(BadInput, match=r"p.json: missing; delete it"):
        read_record(path, Point, "delete it")
    path.write_bytes(content)
    with pytest.raises(BadInput, match=message):
        read_record(path, Point, "delete it")


@pytest.mark.parametrize("content", ['{"fps": 1', "[]", ""])
def test_a_damaged_small_file_of_ours_is_one_message_that_names_it(tmp_path: Path, content: str) -> None:
    for name, read in {
        "collection.json": Request(tmp_path, "collection.json", {}).finished,
        "conversion.json": Request(tmp_path, "conversion.json", {}).finished,
        "stages.json": lambda: demo._times(tmp_path),
    }.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(BadInput, match=f"{name}: "):
            read()
