"""The real LeRobot 0.4.4 reads what we wrote (`make test-lerobot`; builds its environment on the first run)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data import recording
from tests.data.lerobot_oracle import build
from wamkit.data.check import check
from wamkit.data.lerobot.dataset import Dataset

pytestmark = pytest.mark.lerobot

LEROBOT = "0.4.4"


@pytest.fixture(scope="module", autouse=True)
def environment() -> None:
    build.build()


def items(root: Path, folder: Path) -> dict[str, np.ndarray]:
    """Every item of a dataset as the real LeRobot hands it out, stacked."""
    print(build.run(LEROBOT, "read_items.py", root, folder / "items.npz"))
    return dict(np.load(folder / "items.npz"))


def test_every_item_is_what_was_written(recorded: Path, tmp_path: Path) -> None:
    read, dataset = items(recorded, tmp_path), Dataset.open(recorded)
    written = [recording.columns(e, length) for e, length in enumerate(recording.LENGTHS)]
    for name in written[0]:
        np.testing.assert_array_equal(read[name], np.concatenate([columns[name] for columns in written]))
    tasks = [recording.TASKS[e] for e, length in enumerate(recording.LENGTHS) for _ in range(length)]
    assert read["task"].tolist() == tasks
    for camera in dataset.cameras:
        ours = np.concatenate([dataset.frames(camera, e.index, range(e.length)) for e in dataset.episodes])
        np.testing.assert_array_equal(read[f"observation.images.{camera}"], ours)


def test_statistics_are_read(recorded: Path, tmp_path: Path) -> None:
    read = items(recorded, tmp_path)
    actions = np.concatenate([recording.columns(e, n)["action"] for e, n in enumerate(recording.LENGTHS)])
    np.testing.assert_allclose(read["stats/action/mean"], actions.mean(0), rtol=1e-5)
    np.testing.assert_allclose(read["stats/action/q99"], np.quantile(actions, 0.99, axis=0), rtol=1e-5)
    assert read["stats/observation.images.top/mean"].shape == (3, 1, 1)


def test_split_recordings_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wamkit.data.lerobot.pack.VIDEO_MEGABYTES", 0.01)
    monkeypatch.setattr("wamkit.data.lerobot.pack.DATA_MEGABYTES", 0.004)
    root = recording.write(tmp_path / "split", episodes=6)
    read, dataset = items(root, tmp_path), Dataset.open(root)
    ours = np.concatenate([dataset.frames("wrist", e.index, range(e.length)) for e in dataset.episodes])
    np.testing.assert_array_equal(read["observation.images.wrist"], ours)


def test_the_trap_that_check_warns_of(breakable: Path, tmp_path: Path) -> None:
    """Texts in an ordinary column: LeRobot loads without complaint and hands out the number."""
    table = pa.table({"task_index": [0, 1], "task": ["push the button", "open the drawer"]})
    pq.write_table(table, breakable / "meta/tasks.parquet")
    assert set(items(breakable, tmp_path)["task"].tolist()) == {0, 1}
    assert any("hands policies the number" in problem.what for problem in check(breakable))
