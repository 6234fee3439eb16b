"""Datasets whose columns and cameras have the names of another project."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet as pq

OPENPI = {
    "action": "actions",
    "observation.state": "state",
    "observation.images.top": "image",
    "observation.images.wrist": "wrist_image",
}


def rename(root: Path, names: Mapping[str, str]) -> Path:
    """Rename features of a dataset, in place: its meta files, columns and folders of videos."""
    info = root / "meta/info.json"
    content = json.loads(info.read_text())
    content["features"] = {names.get(key, key): feature for key, feature in content["features"].items()}
    info.write_text(json.dumps(content))
    for file in root.rglob("*.parquet"):
        table = pq.read_table(file)
        metadata = table.schema.metadata
        table = table.rename_columns([_renamed(name, names) for name in table.column_names])
        pq.write_table(table.replace_schema_metadata(metadata), file)
    for folder in [*root.glob("videos/*"), *root.glob("videos/*/*")]:
        if folder.name in names:
            folder.rename(folder.with_name(names[folder.name]))
    return root


def _renamed(column: str, names: Mapping[str, str]) -> str:
    """A column of the data, or one like "videos/KEY/file_index"."""
    return "/".join(names.get(part, part) for part in column.split("/"))
