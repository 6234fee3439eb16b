"""Released latent caches become ours: the same cache that encoding gives, but for bfloat16; all else is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor
from wamkit_client.types import BadInput

from tests import tiny_dataset
from tests.policies.tiny_policy import SPEC
from tests.tiny_dataset import RUN
from wamkit.config import build_encoder, load_normalizer
from wamkit.convert import official_cache
from wamkit.convert.official_cache import import_latents
from wamkit.data.cache import Cache, read_fingerprint
from wamkit.data.canvas import tile
from wamkit.data.clips import Clips
from wamkit.data.lerobot.dataset import Dataset
from wamkit.data.samples import read_all
from wamkit.io.progress import console
from wamkit.stages.fit import Place
from wamkit.stages.run import NO_FILE, encode, train
from wamkit.stages.tables import plan_tables

CPU = torch.device("cpu")
LENGTHS = (21, 30, 17, 25)
WHOLE = replace(SPEC, whole_windows=True)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four episodes; do not change it."""
    return tiny_dataset.write(tmp_path_factory.mktemp("official") / "dataset", LENGTHS)


@pytest.fixture(scope="module")
def encoded(dataset: Path) -> Cache:
    """What our own encoding makes of it."""
    folder = dataset.parent / "encoded"
    encode(RUN, [dataset], folder, CPU)
    return opened(folder)


def opened(folder: Path) -> Cache:
    return Cache.open(folder, read_fingerprint(folder), SPEC.hz)


@pytest.fixture(scope="module")
def latents(dataset: Path) -> Tensor:
    """Every sample's latents as the released code stores them: whole, in bfloat16, in our order."""
    source = Dataset.open(dataset)
    codec = build_encoder(RUN).codec
    clips = Clips(source, RUN.data, RUN.actions)
    stored = [codec.encode(tile(clips.sample(i).clip.views, SPEC)) for i in range(len(clips))]
    return torch.cat(stored).bfloat16()


Write = Callable[[Path, Tensor], None]


def sharded(folder: Path, stored: Tensor, world: int = 3, size: int = 8) -> None:
    """Rank r holds samples r, r + W, ...; shards of `size`."""
    (folder / "shards").mkdir(parents=True)
    index = {name: torch.full((len(stored),), -1, dtype=torch.int32) for name in official_cache.TABLES}
    paths = []
    for rank in range(world):
        numbers = torch.arange(rank, len(stored), world)
        for number, part in enumerate(numbers.split(size)):
            index["sample_to_shard"][part] = len(paths)
            index["sample_to_offset"][part] = torch.arange(len(part), dtype=torch.int32)
            paths.append(f"shards/rank{rank:03d}_shard{number:06d}.pt")
            torch.save({"sample_indices": part, "video_latents": stored[part].clone()}, folder / paths[-1])
    save_index(folder, "sharded_v1", paths, index)


def episode_packed(folder: Path, stored: Tensor, lengths: tuple[int, ...] = LENGTHS) -> None:
    """One file per episode."""
    (folder / "episodes").mkdir(parents=True)
    index = {name: torch.full((len(stored),), -1, dtype=torch.int32) for name in official_cache.TABLES}
    paths = []
    for episode, part in enumerate(torch.arange(len(stored)).split(list(lengths))):
        index["sample_to_shard"][part] = episode
        index["sample_to_offset"][part] = torch.arange(len(part), dtype=torch.int32)
        paths.append(f"episodes/rank000_episode{episode:06d}_000000.pt")
        content = {"sample_indices": part, "video_latents": stored[part].clone(), "episode_index": episode}
        torch.save(content, folder / paths[-1])
    save_index(folder, "episode_packed_v1", paths, index)


def single_files(folder: Path, stored: Tensor) -> None:
    folder.mkdir(parents=True)
    for number, one in enumerate(stored):
        torch.save({"sample_idx": number, "video_latents": one.clone()}, folder / f"{number:08d}.pt")


def save_index(folder: Path, storage: str, paths: list[str], tables: dict[str, Tensor]) -> None:
    about = {"format": official_cache.INDEX_FORMAT, "storage_format": storage, "shard_paths": paths}
    torch.save(about | {"num_samples": len(tables["sample_to_shard"])} | tables, folder / "index.pt")


@pytest.mark.parametrize("write", [sharded, episode_packed, single_files])
def test_an_import_is_the_cache_that_encoding_gives(write: Write, dataset, encoded, latents, tmp_path):
    write(tmp_path / "official", latents)
    import_latents(RUN, [dataset], tmp_path / "official", tmp_path / "cache", CPU)
    imported = opened(tmp_path / "cache")
    assert (tmp_path / "cache/fingerprint.json").read_text() == (
        encoded.folder / "fingerprint.json"
    ).read_text()
    assert imported.ids == encoded.ids and imported.embodiments == encoded.embodiments
    one, two = (read_all(cache, range(len(encoded))) for cache in (imported, encoded))
    for name in ("actions", "valid", "frame_is_pad"):
        assert torch.equal(getattr(one, name), getattr(two, name))
    assert torch.equal(one.inputs["context"], two.inputs["context"])
    assert torch.equal(one.inputs["proprio"], two.inputs["proprio"])
    assert torch.equal(one.inputs["present"], latents[:, :, :1].float())
    pooled = latents[:, :, 1:].float().unflatten(4, (-1, 2)).unflatten(3, (-1, 2)).mean(dim=(4, 6))
    assert torch.equal(one.inputs["future"], pooled)
    assert one.inputs.keys() == two.inputs.keys()
    for name, a in one.inputs.items():
        b = two.inputs[name]
        assert a.dtype == b.dtype and a.shape == b.shape
        assert (a - b).norm() <= 2**-8 * b.norm()


def test_a_run_is_trained_from_it(dataset, latents, tmp_path):
    sharded(tmp_path / "official", latents)
    import_latents(RUN, [dataset], tmp_path / "official", tmp_path / "cache", CPU)
    train(RUN, [dataset], tmp_path / "cache", tmp_path / "run", CPU)
    assert (tmp_path / "run" / "weights.safetensors").is_file()


def test_an_interrupted_import_goes_on(dataset, latents, tmp_path, monkeypatch):
    episode_packed(tmp_path / "official", latents)
    monkeypatch.setattr(official_cache, "fill", small_shards)
    taken: list[int] = []
    original = official_cache.Imported.finish

    def stopping(self: official_cache.Imported, read: Any) -> Any:
        taken.extend(range(len(taken), len(taken) + len(read.rest.ids)))
        if len(taken) > 40:
            raise KeyboardInterrupt
        return original(self, read)

    monkeypatch.setattr(official_cache.Imported, "finish", stopping)
    with pytest.raises(KeyboardInterrupt):
        import_latents(RUN, [dataset], tmp_path / "official", tmp_path / "cache", CPU)
    finished = sorted((tmp_path / "cache").glob("shard-*.json"))
    assert len(finished) == 2 and taken[-1] > 32
    monkeypatch.setattr(official_cache.Imported, "finish", original)
    before = [path.stat().st_mtime_ns for path in finished]
    import_latents(RUN, [dataset], tmp_path / "official", tmp_path / "cache", CPU)
    assert [path.stat().st_mtime_ns for path in finished] == before
    assert len(opened(tmp_path / "cache")) == sum(LENGTHS)


def small_shards(*arguments: Any, **named: Any) -> None:
    from wamkit.data.cache import fill

    fill(*arguments, **named, shard_size=16, batch_size=4)


def test_each_file_is_opened_once(dataset, latents, tmp_path, monkeypatch):
    sharded(tmp_path / "official", latents)
    opens: list[str] = []
    read = official_cache.read_torch
    monkeypatch.setattr(official_cache, "read_torch", lambda path: opens.append(path.name) or read(path))
    import_latents(RUN, [dataset], tmp_path / "official", tmp_path / "cache", CPU)
    assert len(opens) == len(set(opens)) == 1 + len(list((tmp_path / "official/shards").iterdir()))


# the order of the released code's samples


def test_gaps_in_the_episodes_are_refused(dataset, latents, tmp_path):
    """Their numbers decide the order."""
    gap = tmp_path / "dataset"
    shutil.copytree(dataset, gap)
    for path in (gap / "meta/episodes").rglob("*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.filter(pc.not_equal(table["episode_index"], 1)), path)
    facts = json.loads((gap / "meta/info.json").read_text())
    facts |= {"total_episodes": 3, "total_frames": facts["total_frames"] - LENGTHS[1]}
    (gap / "meta/info.json").write_text(json.dumps(facts))
    single_files(tmp_path / "official", latents)
    with pytest.raises(BadInput, match="its 3 episodes are not numbered from 0 without gaps"):
        import_latents(RUN, [gap], tmp_path / "official", tmp_path / "cache", CPU)


@pytest.mark.parametrize("whole", [False, True])
def test_a_cache_of_a_split_dataset(dataset, encoded, latents, tmp_path, whole):
    """Of four episodes the released split keeps two, shuffled; its reader of whole windows sorts them again."""
    kept, spec = list(range(len(LENGTHS))), replace(SPEC, held_out=0.3, whole_windows=whole)
    np.random.default_rng(42).shuffle(kept)
    kept = kept[: int(len(LENGTHS) * (1 - 0.3))]
    assert kept != sorted(kept) and len(kept) == 2
    starts = np.cumsum([0, *LENGTHS])
    numbers = [
        int(starts[episode]) + step
        for episode in (sorted(kept) if whole else kept)
        for step in range(LENGTHS[episode] - 16 * whole)
    ]
    sharded(tmp_path / "official", latents[numbers])
    run = replace(RUN, data=spec)
    import_latents(run, [dataset], tmp_path / "official", tmp_path / "cache", CPU)
    imported = opened(tmp_path / "cache")
    assert imported.ids == tuple(encoded.ids[i] for i in numbers)
    some = [0, len(numbers) - 1]
    one, two = read_all(imported, some), read_all(encoded, [numbers[i] for i in some])
    assert torch.equal(one.actions, two.actions)
    assert torch.equal(one.inputs["present"], two.inputs["present"].bfloat16().float())
    encode(run, [dataset], tmp_path / "fresh", CPU)
    assert opened(tmp_path / "fresh").ids == imported.ids
    assert read_fingerprint(tmp_path / "fresh") == read_fingerprint(tmp_path / "cache")
    with pytest.raises(BadInput, match=rf"expected \d+ samples.*got {len(numbers)}.*--data.held-out 0.01"):
        import_latents(RUN, [dataset], tmp_path / "official", tmp_path / "other", CPU)


def test_a_cache_of_several_datasets_in_a_row(dataset, latents, tmp_path):
    other = tiny_dataset.write(tmp_path / "other", (9, 6), seed=1)
    two = Dataset.open(other)
    clips = Clips(two, SPEC, RUN.actions)
    codec = build_encoder(RUN).codec
    more = torch.cat([codec.encode(tile(clips.sample(i).clip.views, SPEC)) for i in range(len(clips))])
    sharded(tmp_path / "official", torch.cat([latents, more.bfloat16()]))
    import_latents(RUN, [dataset, other], tmp_path / "official", tmp_path / "cache", CPU)
    imported = opened(tmp_path / "cache")
    assert imported.ids[0] == "dataset/0:0" and imported.ids[-1] == "other/1:5"
    train(RUN, [dataset, other], tmp_path / "cache", tmp_path / "run", CPU)
    with pytest.raises(BadInput, match=r"sample 0 is not episode:step other/0:0"):
        import_latents(RUN, [other, dataset], tmp_path / "official", tmp_path / "wrong", CPU)


def test_a_cache_of_recordings_with_a_last_look(tmp_path):
    """States and pictures after the last action complete one more window, which a released cache has."""
    lengths, long_chunk = (21, 18), replace(WHOLE, chunk_seconds=16 / SPEC.hz)
    dataset = tiny_dataset.write(tmp_path / "dataset", lengths, last_look=True)
    run, source = replace(RUN, data=long_chunk), Dataset.open(dataset)
    clips = Clips(source, long_chunk, RUN.actions)
    counts = [min(n - 16, (n - 1) - 15) for n in lengths]  # n states, n - 1 actions
    assert len(clips) == sum(counts) == 5 + 2
    codec = build_encoder(run).codec
    stored = torch.cat([codec.encode(tile(clips.sample(i).clip.views, SPEC)) for i in range(len(clips))])
    episode_packed(tmp_path / "official", stored.bfloat16(), tuple(counts))
    import_latents(run, [dataset], tmp_path / "official", tmp_path / "cache", CPU)
    assert opened(tmp_path / "cache").ids[-1] == "1:1"
    assert read_all(opened(tmp_path / "cache"), range(len(clips))).valid.all()


def test_what_is_held_out_is_neither_trained_on_nor_counted(dataset, tmp_path):
    run = replace(RUN, data=replace(SPEC, held_out=0.3))
    encode(run, [dataset], tmp_path / "cache", CPU)
    train(run, [dataset], tmp_path / "cache", tmp_path / "run", CPU)
    out = json.loads((tmp_path / "run/provenance.json").read_text())["dataset"]["held_out"]
    seen = {int(name.partition(":")[0]) for name in opened(tmp_path / "cache").ids}
    with console.capture() as printed:
        for table in plan_tables(run, [dataset], NO_FILE, Place("a GPU", 2**34)):
            console.print(table)
    assert "0.3 of the episodes: 2 of 4" in printed.get()
    assert len(out) == 2 and seen == {*range(len(LENGTHS))} - {*map(int, out)}
    stats = load_normalizer(tmp_path / "run").stats["robot"]["action"]
    source = Dataset.open(dataset)
    rows = np.concatenate([source.column("action", episode) for episode in sorted(seen)])
    assert stats.count == len(rows) and np.array_equal(stats.max, rows.max(0).astype(np.float64))
    assert "held out" not in read_fingerprint(opened_without(dataset, tmp_path))
    with pytest.raises(BadInput, match=r"held out: expected '\(absent\)', got '0.3 of the episodes'"):
        train(RUN, [dataset], tmp_path / "cache", tmp_path / "other", CPU)


def opened_without(dataset: Path, tmp_path: Path) -> Path:
    encode(RUN, [dataset], tmp_path / "all", CPU)
    return tmp_path / "all"


def test_a_cache_of_whole_windows(dataset, encoded, latents, tmp_path):
    starts = torch.tensor([0, *LENGTHS]).cumsum(0)
    kept = torch.cat([starts[i] + torch.arange(length - 16) for i, length in enumerate(LENGTHS)])
    episode_packed(tmp_path / "official", latents[kept], tuple(length - 16 for length in LENGTHS))
    run = replace(RUN, data=WHOLE)
    import_latents(run, [dataset], tmp_path / "official", tmp_path / "cache", CPU)
    imported = opened(tmp_path / "cache")
    assert [WHOLE.starts(n, n) for n in (18, 16, 17)] == [2, 0, 1]
    assert read_fingerprint(tmp_path / "cache")["window"].endswith("; whole windows")
    assert imported.ids == tuple(encoded.ids[i] for i in kept)
    assert read_all(imported, range(len(kept))).valid.all()
    with pytest.raises(BadInput, match=rf"expected {len(latents)} samples.*--data.whole-windows True"):
        import_latents(RUN, [dataset], tmp_path / "official", tmp_path / "other", CPU)


# what is refused


def swapped(stored: Tensor) -> Tensor:
    """Two episodes in another order."""
    episodes = list(stored.split(list(LENGTHS)))
    return torch.cat([episodes[1], episodes[0], *episodes[2:]])


@pytest.mark.parametrize(
    ("wrong", "sample"),
    [
        (swapped, r"sample 0 is not episode:step 0:0"),
        (lambda x: x.roll(1, 0), r"sample 0 is not"),
        (lambda x: torch.cat([x[:1], x[2:], x[-1:]]), r"sample 30 is not episode:step 1:9"),
        (lambda x: x * 1.05, r"sample 0 is not"),
        (lambda x: torch.full_like(x, float("nan")), r"sample 0 is not"),
    ],
)
def test_latents_of_other_samples_are_refused(wrong, sample, dataset, latents, tmp_path):
    sharded(tmp_path / "official", wrong(latents))
    with pytest.raises(BadInput, match=sample + r".*bfloat16 explains \d+\.\d+%.*Nothing was written"):
        import_latents(RUN, [dataset], tmp_path / "official", tmp_path / "cache", CPU)
    assert not (tmp_path / "cache").exists()


def edit(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        index = torch.load(folder / "index.pt", weights_only=True)
        torch.save(index | changes, folder / "index.pt")

    return change


def never_encoded(folder: Path) -> None:
    index = torch.load(folder / "index.pt", weights_only=True)
    index["sample_to_shard"][7] = -1
    torch.save(index, folder / "index.pt")


def of_another_shape(folder: Path) -> None:
    path = folder / "shards/rank000_shard000000.pt"
    content = torch.load(path, weights_only=True)
    content["video_latents"] = content["video_latents"][..., :2]
    torch.save(content, path)


def of_other_samples(folder: Path) -> None:
    path = folder / "shards/rank000_shard000000.pt"
    content = torch.load(path, weights_only=True)
    content["sample_indices"] += 1
    torch.save(content, path)


def something_else(folder: Path) -> None:
    torch.save([1, 2], folder / "shards/rank000_shard000000.pt")


def half(folder: Path) -> None:
    path = folder / "shards/rank000_shard000000.pt"
    path.write_bytes(path.read_bytes()[:2000])


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (never_encoded, r"index.pt: 1 of 93 samples were never encoded \(first 7\)"),
        (
            lambda folder: (folder / "shards/rank001_shard000000.pt").unlink(),
            r"rank001_shard000000.pt: missing; 8",
        ),
        (lambda folder: (folder / "index.pt").unlink(), r"neither index.pt nor 00000000.pt"),
        (edit(num_samples=90), r"index.pt: expected 93 samples.*got 90"),
        (
            edit(storage_format="packed_v9"),
            r"expected format .* got lightwam_video_latent_cache_index_v1 with packed_v9",
        ),
        (edit(format="other"), r"got other with sharded_v1"),
        (edit(shard_paths=["a.pt"]), r"a.pt: missing"),
        (edit(sample_to_shard=[0]), r"index.pt: expected format, storage_format"),
        (
            of_another_shape,
            r"shard000000.pt: latents of 8 samples: expected \[8, 27, 2, 4, 8\], got \[8, 27, 2, 4, 2\]",
        ),
        (of_other_samples, r"shard000000.pt: expected sample 0 at place 0, got 1"),
        (something_else, r"shard000000.pt: expected sample_indices and video_latents"),
        (half, r"shard000000.pt: not a complete torch file"),
    ],
)
def test_a_damaged_cache_is_named(break_it, message, dataset, latents, tmp_path):
    sharded(tmp_path / "official", latents)
    break_it(tmp_path / "official")
    with pytest.raises(BadInput, match=message):
        import_latents(RUN, [dataset], tmp_path / "official", tmp_path / "cache", CPU)
    assert not list(tmp_path.glob("cache/shard-*"))


def test_single_files_that_are_missing_are_named(dataset, latents, tmp_path):
    single_files(tmp_path / "official", latents)
    (tmp_path / "official/00000050.pt").rename(tmp_path / "official/00000093.pt")
    with pytest.raises(BadInput, match=r"00000050.pt: missing"):
        import_latents(RUN, [dataset], tmp_path / "official", tmp_path / "cache", CPU)
    (tmp_path / "official/00000093.pt").unlink()
    with pytest.raises(BadInput, match=r"expected 93 samples.*got 92"):
        import_latents(RUN, [dataset], tmp_path / "official", tmp_path / "cache", CPU)
    with pytest.raises(BadInput, match="no such folder"):
        import_latents(RUN, [dataset], tmp_path / "nothing", tmp_path / "cache", CPU)
