"""Writing a LeRobot v3.0 dataset so that no finished episode is ever lost.

Every episode is first staged in a folder of its own, which appears as a whole. `finalize` packs the staged episodes
into the files of the format; the dataset is finished when meta/ appears, which comes last:

    ROOT/.staging/plan.json                           fps, robot type, features, codec
    ROOT/.staging/episode-000012/                     columns.parquet, <camera key>.mp4, episode.json
    ROOT/data, ROOT/videos, ROOT/meta                 after finalize; the staging folder is gone

A process killed at any moment leaves a folder that `Writer.resume` continues. One process writes at a time: commands
that record hold `io.files.only_writer`. Where two wrote the same folder without it, `finished`, `resume` and `clear`
tidy up. It does not know about simulators or robots, nor about the format's files (data/lerobot/pack.py).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from wamkit_client.types import BadInput

from wamkit.data.lerobot.files import CAMERA_PREFIX, STAGING
from wamkit.data.lerobot.pack import INDEX_FEATURES, Plan, Staged, column_type, pack
from wamkit.data.lerobot.video import VideoCodec, write_video
from wamkit.io.files import LOCK, sync
from wamkit.io.records import read_record, write_record

PLAN, RECORD, COLUMNS = "plan.json", "episode.json", "columns.parquet"
NO_EXTRA: Mapping[str, Any] = {}


class Writer:
    """Writes one dataset. Use `create` or `resume`; episodes are numbered in the order they are added.

    staged: the episodes added so far, with their length, task and extra columns.
    """

    def __init__(self, root: Path, plan: Plan):
        self.root, self.plan = root, plan
        self.staged = _read_staged(root / STAGING, plan)

    @classmethod
    def create(
        cls,
        path: str | Path,
        fps: float,
        robot_type: str,
        features: Mapping[str, Mapping[str, Any]],
        *,
        codec: VideoCodec = VideoCodec(),  # noqa: B008 (frozen)
    ) -> Writer:
        """Begin a dataset in a new or empty folder.

        features: as in LeRobot, {"action": {"dtype": "float32", "shape": [4], "names": ["x", "y", "z", "grip"]},
        "observation.images.top": {"dtype": "video", "shape": [64, 64, 3]}}; index and time columns are added.
        Raises BadInput where the folder is not empty, or a feature cannot be written.
        """
        root = Path(path)
        # a folder may hold its lock, and a staging folder whose plan was never written
        ours = {LOCK} if _begun(root) else {LOCK, STAGING}
        if root.exists() and not (root.is_dir() and ours.issuperset(os.listdir(root))):
            raise BadInput(
                f"{root} is not empty; give a new folder, or continue an unfinished one with Writer.resume"
            )
        for name, feature in features.items():
            _check_feature(name, feature)
        plan = Plan(fps, robot_type, {name: dict(feature) for name, feature in features.items()}, codec)
        shutil.rmtree(root / STAGING, ignore_errors=True)
        (root / STAGING).mkdir(parents=True)
        write_record(root / STAGING / PLAN, plan)
        return cls(root, plan)

    @classmethod
    def resume(cls, path: str | Path, *, repeatable: bool = False) -> Writer:
        """Continue an unfinished dataset. BadInput where there is none (see `Writer.unfinished`).

        repeatable: the caller adds the same episodes in the same order. Where one is missing, those after it are then
        removed, to be added again.
        """
        root = Path(path)
        if not cls.unfinished(root):
            raise BadInput(f"{root} holds no unfinished recording; begin one with Writer.create")
        writer = cls(root, read_record(root / STAGING / PLAN, Plan, "remove the folder and record again"))
        if repeatable:
            writer._drop_after_gap()
        return writer

    @staticmethod
    def unfinished(path: str | Path) -> bool:
        """Whether `resume` has something to continue."""
        return _begun(Path(path)) and not (Path(path) / "meta").exists()

    @staticmethod
    def finished(path: str | Path) -> bool:
        """Whether the dataset is complete; removes the staging folder that a kill at the very end left behind.

        Raises BadInput where two processes finished it at the same time, and one removed the data of the other.
        """
        root = Path(path)
        if not (root / "meta").exists():
            return False
        if not (root / "data").exists():
            raise BadInput(f"{root}: meta/ is there, data/ is not; remove {root} and run the command again")
        shutil.rmtree(root / STAGING, ignore_errors=True)
        return True

    @staticmethod
    def clear(path: str | Path, note: str) -> None:
        """Make room for a new dataset where there is neither meta/ nor a plan. note: a file to remove too."""
        for part in ("data", "videos"):
            shutil.rmtree(Path(path) / part, ignore_errors=True)
        (Path(path) / note).unlink(missing_ok=True)

    def add_episode(
        self,
        columns: Mapping[str, np.ndarray],
        videos: Mapping[str, np.ndarray],
        task: str,
        extra: Mapping[str, Any] = NO_EXTRA,
    ) -> int:
        """Stage one episode and return its index; once this returns, the episode survives a kill.

        columns: [t, d] (or [t] for shape [1]) by feature name. videos: uint8 RGB [t, h, w, 3] by camera name.
        extra: further columns of meta/episodes (numbers, texts or flat lists), the same names in every episode.
        Raises BadInput where a feature is missing, has another shape, is not finite, or the task is empty.
        """
        self._check_unfinished()
        index = len(self.staged)
        length = self._check_episode(columns, videos, task, extra)
        final = _next_folder(self.root / STAGING)
        with _fresh(final.with_suffix(".draft")) as draft:
            histograms = self._write_draft(draft, columns, videos)
            record = {"length": length, "task": task, "extra": dict(extra), "histograms": histograms}
            (draft / RECORD).write_text(json.dumps(record))
            for file in (*draft.iterdir(), draft):
                sync(file)
            os.replace(draft, final)
        sync(final.parent)
        self.staged.append(Staged(final, index, length, task, dict(extra), histograms))
        return index

    def _write_draft(
        self, draft: Path, columns: Mapping[str, np.ndarray], videos: Mapping[str, np.ndarray]
    ) -> dict[str, list[list[int]]]:
        """Writes columns and videos of an episode; returns the histograms of its images."""
        pq.write_table(self._table(columns), draft / COLUMNS)
        histograms = {}
        for camera, frames in videos.items():
            write_video(draft / f"{CAMERA_PREFIX}{camera}.mp4", frames, self.plan.fps, self.plan.codec)
            histograms[CAMERA_PREFIX + camera] = _histogram(frames)
        return histograms

    def finalize(self) -> None:
        """Pack all staged episodes into the dataset, remove the staging folder. BadInput without an episode."""
        self._check_unfinished()
        if not self.staged:
            raise BadInput(f"{self.root}: no episode was added; a dataset needs at least one")
        with _fresh(self.root / STAGING / "packed") as packed:
            pack(packed, self.plan, self.staged)
            for path in packed.rglob("*"):
                sync(path)
            for part in ("data", "videos", "meta"):
                shutil.rmtree(self.root / part, ignore_errors=True)
                if (packed / part).exists():
                    os.replace(packed / part, self.root / part)
        shutil.rmtree(self.root / STAGING)

    def _drop_after_gap(self) -> None:
        kept = [e for number, e in enumerate(self.staged) if e.folder.name == _name(number)]
        for folder in (self.root / STAGING).glob("episode-*"):
            if folder not in {episode.folder for episode in kept}:
                shutil.rmtree(folder)
        self.staged = kept

    def _check_unfinished(self) -> None:
        if not self.unfinished(self.root):
            raise BadInput(f"{self.root} is finalized already; write further episodes into a new folder")

    def _check_episode(
        self,
        columns: Mapping[str, np.ndarray],
        videos: Mapping[str, np.ndarray],
        task: str,
        extra: Mapping[str, Any],
    ) -> int:
        """The episode's length. Raises BadInput as `add_episode`."""
        where = f"{self.root}: episode {len(self.staged)}"
        if not task.strip():
            raise BadInput(f"{where} has no task text; a policy is told what to do in words, give them")
        arrays = {**columns, **{CAMERA_PREFIX + camera: frames for camera, frames in videos.items()}}
        if arrays.keys() != self.plan.features.keys():
            odd = sorted(arrays.keys() ^ self.plan.features.keys())
            raise BadInput(
                f"{where}: features {odd} are missing or unknown; expected {list(self.plan.features)}"
            )
        if self.staged and extra.keys() != self.staged[0].extra.keys():
            raise BadInput(
                f"{where}: extra columns {sorted(extra)}; expected {sorted(self.staged[0].extra)} as in episode 0"
            )
        for name, array in arrays.items():
            shape, expected = list(array.shape[1:]) or [1], list(self.plan.features[name]["shape"])
            if shape != expected:
                raise BadInput(f"{where}: {name} is {shape} per step; expected {expected}")
            if not np.isfinite(array).all():
                step = np.argwhere(~np.isfinite(array))[0][0]
                raise BadInput(f"{where}: {name} is not finite at step {step}; correct or omit the episode")
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) != 1 or 0 in lengths.values():
            raise BadInput(f"{where}: steps are {lengths}; expected the same number above 0 everywhere")
        return next(iter(lengths.values()))

    def _table(self, columns: Mapping[str, np.ndarray]) -> pa.Table:
        arrays = {}
        for name, values in columns.items():
            feature = self.plan.features[name]
            flat = pa.array(np.asarray(values).astype(feature["dtype"]).reshape(-1))
            width = feature["shape"][0]
            arrays[name] = flat if width == 1 else pa.FixedSizeListArray.from_arrays(flat, width)
        return pa.table(arrays)


def _check_feature(name: str, feature: Mapping[str, Any]) -> None:
    shape = list(feature["shape"])
    if name in INDEX_FEATURES:
        raise BadInput(f"feature {name}: is added by the writer; omit it")
    if (feature["dtype"] == "video") != name.startswith(CAMERA_PREFIX):
        raise BadInput(
            f"feature {name}: dtype {feature['dtype']!r}; '{CAMERA_PREFIX}...' are videos, nothing else is"
        )
    if feature["dtype"] == "video":
        if len(shape) != 3 or shape[2] != 3:
            raise BadInput(f"feature {name}: video of shape {shape}; expected [height, width, 3]")
    elif len(shape) != 1:
        raise BadInput(f"feature {name}: shape {shape}; expected [d], flatten it")
    else:
        column_type(name, feature)


def _begun(root: Path) -> bool:
    return (root / STAGING / PLAN).exists()


def _read_staged(staging: Path, plan: Plan) -> list[Staged]:
    """The complete episodes, in order. Of two processes with the same draft, one may have renamed it too early."""
    files = (RECORD, COLUMNS, *(f"{key}.mp4" for key in plan.video_keys))
    complete = [folder for folder in _folders(staging) if all((folder / file).exists() for file in files)]
    records = [json.loads((folder / RECORD).read_text()) for folder in complete]
    return [
        Staged(folder, i, **record) for i, (folder, record) in enumerate(zip(complete, records, strict=True))
    ]


def _next_folder(staging: Path) -> Path:
    """After the last one, even where one before it is missing."""
    last = max((folder.name for folder in _folders(staging)), default=_name(-1))
    return staging / _name(int(last.removeprefix("episode-")) + 1)


def _folders(staging: Path) -> list[Path]:
    """Those of staged episodes; a draft has a suffix."""
    return sorted(path for path in staging.glob("episode-*") if not path.suffix)


def _name(number: int) -> str:
    return f"episode-{number:06d}"


@contextmanager
def _fresh(folder: Path) -> Iterator[Path]:
    """An empty folder, removed again where it could not be completed, also on a full disk."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _histogram(frames: np.ndarray) -> list[list[int]]:
    """How often each 8-bit value occurs, per channel: [3][256]; exact statistics of pixels follow from it."""
    total = np.zeros((3, 256), np.int64)
    for frame in frames:  # one at a time: counting widens every pixel to 64 bits
        total += [np.bincount(frame[..., channel].reshape(-1), minlength=256) for channel in range(3)]
    return total.tolist()
