"""Golden observations: the file, the comparison, and the robot's command against a real server."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from wamkit_client.codec import pack
from wamkit_client.golden import Golden, differences
from wamkit_client.types import BadInput, NotSaved

from tests.client.toy import Reacher, Sleeper, Toy, ToyConfig, toy_suite
from tests.serve.reacher_process import server


@pytest.fixture
def golden() -> Golden:
    env, seen = Toy(ToyConfig(), toy_suite("reach").tasks[0]), []
    for seed in range(3):
        env.reset(seed)
        env.step(np.ones(1))
        seen.append(replace(env.observe(), noise_seed=2**62 + seed))
    chunks = [chunk.actions for chunk in Reacher().act(seen)]
    return Golden(seen, chunks, ("x",), np.array([2.0]), "Reacher")


def test_a_file_keeps_everything(golden: Golden, tmp_path: Path) -> None:
    path = str(tmp_path / "golden.msgpack")
    golden.save(path)
    loaded = Golden.load(path)
    for before, after in zip(golden.observations, loaded.observations, strict=True):
        np.testing.assert_equal(vars(after), vars(before))
    np.testing.assert_equal(loaded.chunks, golden.chunks)
    assert (list(loaded.names), loaded.spread, loaded.answered_by) == (["x"], [2.0], "Reacher")


def test_a_file_that_the_disk_refuses_stays_as_it_was(golden: Golden, tmp_path: Path) -> None:
    path, unfinished = tmp_path / "golden.msgpack", tmp_path / "golden.msgpack.tmp"
    golden.save(str(path))
    before = path.read_bytes()
    unfinished.symlink_to("/dev/full")
    with pytest.raises(NotSaved, match="No space left") as caught:
        golden.save(str(path))
    assert caught.value.filename == str(path) and path.read_bytes() == before
    assert not unfinished.is_symlink()


def test_how_far_answers_are_apart(golden: Golden) -> None:
    assert [one.share for one in differences(Reacher(), golden)] == [0, 0, 0]
    (first, *_) = differences(Sleeper(), golden)
    assert first.share == 0.5 and first.where == "x of action 0: 0, expected 1"
    shorter = replace(golden, chunks=[chunk[:4] for chunk in golden.chunks])
    assert {(one.share, one.where) for one in differences(Reacher(), shorter)} == {
        (float("inf"), "[6, 1], expected [4, 1]")
    }


def asked(*words: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "wamkit_client.golden", *words], check=False, capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


def test_the_robots_command(golden: Golden, tmp_path: Path) -> None:
    right, wrong = str(tmp_path / "right"), str(tmp_path / "wrong")
    golden.save(right)
    replace(golden, chunks=[golden.chunks[0], *(chunk + 0.1 for chunk in golden.chunks[1:])]).save(wrong)
    with server() as running:
        status, said = asked(right, running.url)
        assert status == 0 and said.endswith("every answer is as expected\n")
        status, said = asked(wrong, running.url)
        assert status == 1 and said.endswith("2 of 3 answers are not those expected\n")
        assert asked(wrong, running.url, "--tolerance", "0.06")[0] == 0
        status, said = asked(right, running.url, "--served", "other")
        assert status == 2 and "policy 'other' is not served here" in said


@pytest.mark.parametrize("content", [b"", pack({"form": "other"}), pack([1]), pack({"actions": 1})])
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(BadInput, match="`wamkit golden` writes"):
        Golden.load(str(path))
    with pytest.raises(BadInput, match="no golden observations"):
        Golden.load(str(tmp_path / "missing"))
