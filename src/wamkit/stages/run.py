"""The stages of a run, each a function of a Run and paths: collect -> check -> encode -> train -> evaluate -> report.

Every stage goes on where it was interrupted and returns at once when it is finished. The command line and the demo
call these; nothing else does.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from wamkit_client.types import BadInput

from wamkit.config import (
    PROVENANCE_FILE,
    Run,
    build_encoder,
    build_policy,
    save_normalizer,
    save_run,
    to_json,
)
from wamkit.data.cache import Cache, fill
from wamkit.data.clips import Clips, episodes_of
from wamkit.data.colours import colours_of, written
from wamkit.data.joined import AnyDataset, open_datasets
from wamkit.data.lerobot.dataset import Episode
from wamkit.data.normalize import Normalizer, pooled_stats
from wamkit.data.official_statistics import pooled_window_stats, read_statistics
from wamkit.data.samples import Fresh, Mixture, Samples
from wamkit.data.statistics import Stats
from wamkit.io.files import replace_text
from wamkit.io.hub import is_reference, reference_of
from wamkit.io.progress import say
from wamkit.io.provenance import record
from wamkit.stages.alike import expect_shared, facts_of_rank
from wamkit.stages.collect import is_collected
from wamkit.stages.during import during
from wamkit.stages.findings import warn_of_kinds
from wamkit.stages.held_out import held_out
from wamkit.stages.plan import parts
from wamkit.stages.start import NormalizerOf, start_of
from wamkit.subset import EVERY
from wamkit.train.beside import nothing
from wamkit.train.held_out import HeldOut
from wamkit.train.loop import train as fit
from wamkit.train.parallel import SINGLE, Parallel
from wamkit.train.trackers import TrackerName, tracker_of
from wamkit.types import UNCHANGED, Augmentation, DataSpec, Encoder, Trainable

NO_FILE = Path()
CODE_VERSION = "1"  # of what encoding means; raise it when cached latents of older code must not be used


def best_device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name(device: torch.device) -> str:
    """cpu, or the GPU's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def open_clips(run: Run, datasets: Sequence[Path]) -> list[Clips]:
    """The datasets as training samples, one entry per source. Raises BadInput where they do not fit the run."""
    if not run.sources:
        return [Clips(open_datasets(datasets, run.data.columns, run.data.only), run.data, run.actions)]
    if len(datasets) != len(run.sources):
        raise BadInput(
            f"{len(datasets)} datasets for the {len(run.sources)} sources of run {run.recipe}; give one --dataset for "
            f"each, in order: {', '.join(source.name for source in run.sources)}"
        )
    clips = []
    for source, path in zip(run.sources, datasets, strict=True):
        dataset = open_datasets([path], source.data.columns, source.data.only)
        if source.robot not in ("", dataset.robot_type):
            raise BadInput(
                f"{path}: robot_type is {dataset.robot_type!r}, source {source.name!r} is of {source.robot!r}; give "
                f"one --dataset for each source, in order: {', '.join(each.name for each in run.sources)}"
            )
        clips.append(Clips(dataset, source.data, source.actions, run.data.views))
    return clips


def everything(run: Run) -> Run:
    """The run, reading every step of every episode."""
    return _reading(run, held_out=0.0, only=EVERY, sample_every=1)


def every_step(run: Run) -> Run:
    """The run, with a sample for every step of the episodes that it reads: number and step are the same."""
    return _reading(run, sample_every=1)


def _reading(run: Run, **changes: Any) -> Run:
    sources = tuple(replace(source, data=replace(source.data, **changes)) for source in run.sources)
    return replace(run, data=replace(run.data, **changes), sources=sources)


def cache_folders(run: Run, cache_path: Path) -> list[Path]:
    """Where the latents of each source lie."""
    return [cache_path / source.name for source in run.sources] or [cache_path]


def fingerprint(encoder: Encoder, clips: Clips) -> dict[str, str]:
    """Everything the latents of a dataset depend on, by name."""
    spec, space = clips.spec, clips.space
    return {
        "code": CODE_VERSION,
        **encoder.fingerprint,
        "window": f"frames {','.join(map(str, spec.frame_offsets))}; actions {spec.horizon}"
        + ("; whole windows" if spec.whole_windows else "")
        + (f"; every {spec.sample_every} steps" if spec.sample_every > 1 else "")
        + ("; targets past the end" if spec.past_end == "supervised" else "")
        + ("; proprio of every frame" if spec.frame_proprio else ""),
        "actions": " ".join(f"{n}:{k}" for n, k in zip(space.names, space.kinds, strict=True)),
        "dataset": clips.dataset.fingerprint(),
    } | what_is_read(spec)


def what_is_read(spec: DataSpec) -> dict[str, str]:
    """What of a dataset, by name; nothing where it is everything under its usual name."""
    names = ", ".join(f"{name}={column}" for name, column in sorted(spec.columns.items()))
    held_out = f"{spec.held_out:g} of the episodes" if spec.held_out else ""
    chosen = {"held out": held_out, "columns": names, "only": spec.only.described}
    return {name: value for name, value in chosen.items() if value}


def fit_normalizer(run: Run, sources: Sequence[Clips], released: Path = NO_FILE) -> Normalizer:
    """The run's statistics of what is trained on, by the robots' names; released: the file, where it says "file".

    Sources of one robot have the statistics of all their steps together, whatever their weights; all robots have where
    they share them. Raises BadInput where they differ in what they record, and where one file would stand in for
    several robots.
    """
    robots: dict[str, list[Clips]] = {}
    for clips in sources:
        robots.setdefault(clips.dataset.robot_type, []).append(clips)
    if len(robots) > 1 and run.normalization.statistics == "file":
        raise BadInput(
            f"normalization.statistics is file, which has those of one robot, and there are {', '.join(robots)}; "
            "omit --stats"
        )
    for own in robots.values():
        _expect_one_meaning(own)
    spaces = {robot: own[0].space for robot, own in robots.items()}
    if run.normalization.robots == "shared":
        grouped = [clips for own in robots.values() for clips in own]
        stats = dict.fromkeys(robots, _shared(grouped))
    else:
        stats = {robot: _statistics(run, own, released) for robot, own in robots.items()}
    return run.normalization.fit(stats, spaces)


def _shared(sources: Sequence[Clips]) -> dict[str, Stats]:
    """Statistics of every step of several robots. BadInput where their dimensions do not mean the same."""
    first = sources[0]
    for other in sources:
        if (other.space, other.spec.proprio_dim) != (first.space, first.spec.proprio_dim):
            raise BadInput(
                f"{other.dataset.where}: normalization.robots is shared, and its actions or proprio do not mean what "
                f"those of {first.dataset.where} do; give --normalization.robots own"
            )
    return pooled_stats(_trained(sources)) | _unused(first)


def _expect_one_meaning(sources: Sequence[Clips]) -> None:
    """BadInput unless the sources of a robot differ at most in where things are in their datasets."""
    first = sources[0]
    for other in sources:
        spec = replace(other.spec, views=first.spec.views, columns=first.spec.columns, only=first.spec.only)
        if (spec, other.space) != (first.spec, first.space):
            raise BadInput(
                f"{other.dataset.where}: robot_type {other.dataset.robot_type!r} is also that of "
                f"{first.dataset.where}, whose source has another rate, window or meaning of actions; numbers of one "
                "robot are normalized alike, so name one of the two robots differently"
            )


def _statistics(run: Run, sources: Sequence[Clips], released: Path) -> dict[str, Stats]:
    """Of one robot."""
    first = sources[0]
    match run.normalization.statistics:
        case "frames":
            stats = pooled_stats(_trained(sources))
        case "published_windows":
            stats = pooled_window_stats(_trained(sources), first.spec)
        case "file":
            if released == NO_FILE:
                raise BadInput(
                    "normalization.statistics is file: name it, with `wamkit train ... --stats FILE`"
                )
            stats = read_statistics(released, first.spec).fields
    return stats | _unused(first)


def _trained(sources: Sequence[Clips]) -> list[tuple[AnyDataset, Sequence[Episode]]]:
    """The datasets, and their episodes that are trained on."""
    return [(clips.dataset, clips.episodes) for clips in sources]


def _unused(clips: Clips) -> dict[str, Stats]:
    """Of a proprio that the policy is not given."""
    return {"proprio": Stats.of(np.zeros((1, 0)))} if not clips.spec.proprio_dim else {}


def encode(run: Run, datasets: Sequence[Path], cache_path: Path, device: torch.device) -> None:
    """Datasets -> latent cache. Raises BadInput where they do not fit the run, or the cache is another's."""
    sources, encoder = to_encode(run, datasets)
    samples = encoded_by(sources, encoder, device)
    for clips, fresh, folder in zip(sources, samples, cache_folders(run, cache_path), strict=True):
        fill(fresh, folder, fingerprint(encoder, clips))


def to_encode(run: Run, datasets: Sequence[Path]) -> tuple[list[Clips], Encoder]:
    """The sources, and what encodes them. BadInput as of `encode`."""
    sources = open_clips(run, datasets)
    encoder = build_encoder(run)
    _expect_cacheable(run, encoder)
    return sources, encoder


def encoded_by(sources: Sequence[Clips], encoder: Encoder, device: torch.device) -> list[Fresh]:
    """Samples of each source, encoded on a device."""
    encoder.to(device)
    store_text(sources, encoder)
    return [_fresh(clips, encoder) for clips in sources]


def store_text(sources: Sequence[Clips], encoder: Encoder) -> None:
    """Contexts of every instruction first, so that no text encoder stays beside what follows."""
    told = [task for clips in sources for episode in clips.dataset.episodes for task in episode.tasks]
    encoder.store_text([task for task in dict.fromkeys(told) if task.strip()])


def _fresh(clips: Clips, encoder: Encoder, augmentation: Augmentation = UNCHANGED) -> Fresh:
    """Samples that are encoded now. BadInput where images of several datasets cannot be in one batch: found here, not
    hours later."""
    samples = Fresh(clips, encoder, augmentation)
    if len(clips.firsts) > 1:
        samples.reader(clips.firsts, [0] * len(clips.firsts))
    return samples


def _expect_cacheable(run: Run, encoder: Encoder) -> None:
    """BadInput where a sample is encoded to something else in every epoch."""
    if encoder.augments:
        raise BadInput(
            f"run {run.recipe} augments its images, so latents cannot be computed beforehand; train without --cache"
        )


def augments(run: Run, encoder: Encoder) -> bool:
    """Whether a sample of it is encoded to something else in every epoch, so that it is trained without a cache."""
    return run.data.augmentation.draws or encoder.augments


def training_samples(run: Run, sources: Sequence[Clips], encoder: Encoder, cache_path: Path) -> Samples:
    """What training reads: cached latents, or clips that are encoded now where no cache is named (NO_FILE)."""
    own: list[Samples] = []
    for clips, folder in zip(sources, cache_folders(run, cache_path), strict=True):
        if cache_path == NO_FILE:
            own.append(_fresh(clips, encoder, run.data.augmentation))
        else:
            own.append(Cache.open(folder, fingerprint(encoder, clips), clips.spec.hz))
    if not run.sources:
        return own[0]
    weights = tuple(source.weight for source in run.sources)
    mixture = Mixture(tuple(own), weights, run.data.horizon, run.data.action_dim, run.data.proprio_dim)
    for source, quota in zip(run.sources, mixture.order.quotas, strict=True):
        if not quota:
            raise BadInput(
                f"sources.{source.name}: weight {source.weight:g} is too small for any of its samples to be seen; "
                "give a larger one, or leave the source out"
            )
    return mixture


def with_statistics(run: Run, released: Path) -> Run:
    """The run with the statistics of a file in place of its own; NO_FILE: as it is."""
    if released == NO_FILE:
        return run
    return replace(run, normalization=replace(run.normalization, statistics="file"))


def as_read(run: Run, cache_path: Path) -> Run:
    """The run without augmentation where it reads a cache, and says so."""
    if cache_path == NO_FILE or not run.data.augmentation.draws:
        return run
    say("data.augmentation is off: latents of a cache are of plain images; train without --cache to have it")
    return replace(run, data=replace(run.data, augmentation=UNCHANGED))


def train(
    run: Run,
    datasets: Sequence[Path],
    cache_path: Path,
    run_dir: Path,
    device: torch.device,
    released: Path = NO_FILE,
    init: Path = NO_FILE,
    init_normalizer: NormalizerOf = "kept",
    tracker: TrackerName = "tensorboard",
    parallel: Parallel = SINGLE,
) -> None:
    """Latent cache, or the datasets themselves (cache_path NO_FILE), -> run directory.

    Raises BadInput where a dataset, the cache or the directory belongs to another run.
    released: a file with the statistics of a released run, which then stand in for those of the dataset.
    init: a run directory whose weights training begins with. init_normalizer: what becomes of its normalizer.
    parallel: what this process does of the work, where there are several.
    """
    ranks = parallel.ranks
    with ranks.together():
        start = start_of(init, init_normalizer, run, run_dir)
        run = as_read(with_statistics(run, released), cache_path)
        track = tracker_of(tracker, json.loads(to_json(run)))
        beside = during(run, run_dir, device) if ranks.writes else nothing
        sources = open_clips(run, datasets)  # a dataset that does not fit is refused here, by name
        warn_of_kinds(sources)
        normalizer = start.normalizer(run, sources, lambda: fit_normalizer(run, sources, released))
        encoder = build_encoder(run)
        if cache_path != NO_FILE:
            _expect_cacheable(run, encoder)
        samples = training_samples(run, sources, encoder, cache_path)
        home = device if cache_path == NO_FILE else torch.device("cpu")
        encoder.to(home)
        if cache_path == NO_FILE:
            store_text(sources, encoder)
        if augments(run, encoder):
            say(f"run {run.recipe} augments its images: they are encoded anew in every step")
        policy = build_policy(run, normalizer)
        start.initialize(policy, run)
        begins = not (
            run_dir / PROVENANCE_FILE
        ).exists()  # where a run began, not where it was looked at again
        facts = provenance_of(run, policy, sources, device) | dict(start.facts) if begins else {}
        if begins:
            facts |= known_colours(sources)
        if released != NO_FILE:
            facts["statistics"] = read_statistics(released, run.data).origin
    coded = [fingerprint(encoder, clips) for clips in sources]
    ranks.expect_alike(lambda: facts_of_rank(run, coded, normalizer, policy, run_dir, device))
    with ranks.together():
        if ranks.writes:
            save_run(run, run_dir)
            save_normalizer(normalizer, run_dir)
            if begins:  # at once: what a run was begun with is known from here on
                replace_text(run_dir / PROVENANCE_FILE, json.dumps(facts, indent=1, allow_nan=False))
    with ranks.together():
        expect_shared(run_dir)

    def unseen() -> HeldOut:
        encoder.to(device)
        read = held_out(run, sources, encoder, policy, normalizer)
        encoder.to(home)
        return read

    fit(policy, samples, run.train, run_dir, device, unseen, track, beside, parallel)


def provenance_of(
    run: Run, policy: Trainable, sources: Sequence[Clips], device: torch.device
) -> dict[str, Any]:
    datasets = [clips.dataset for clips in sources]
    held_out = [
        dataset.label(episode.index)
        for clips, dataset in zip(sources, datasets, strict=True)
        for episode in episodes_of(dataset, clips.spec, "held_out")
    ]
    about = {
        "fingerprint": fingerprint_of(datasets),
        "folders": [_folder(part.root) for dataset in datasets for part in dataset.parts],
        "robot": ", ".join(dataset.robot_type for dataset in datasets),
        "episodes": sum(len(dataset.episodes) for dataset in datasets),
        "steps": sum(dataset.total_steps for dataset in datasets),
        "fps": datasets[0].fps if len(datasets) == 1 else [dataset.fps for dataset in datasets],
        "held_out": held_out,
    }
    parameters = {part.name: part.parameters for part in parts(run, policy)}
    states = [state for dataset in datasets for state in initial_states(dataset)]
    return record(device_name(device), parameters, about, states)


def _folder(root: Path) -> str:
    """What provenance calls a dataset: the hub's name and commit, else the name of its folder."""
    told = reference_of(root)
    return told if is_reference(told) else root.name


def known_colours(sources: Sequence[Clips]) -> dict[str, Any]:
    """What provenance keeps of the colours of a run's images; {} where only a cache of them is left, which is said."""
    try:
        return {"colours": written(colours_of(sources))}
    except BadInput as error:
        say(f"colours are not recorded, so that `wamkit serve` cannot tell RGB from BGR: {error}")
        return {}


def fingerprint_of(datasets: Sequence[AnyDataset]) -> str | list[str]:
    """What provenance keeps of the datasets of a run, one per source."""
    prints = [dataset.fingerprint() for dataset in datasets]
    return prints[0] if len(prints) == 1 else prints


def initial_states(dataset: AnyDataset) -> list[dict[str, Any]]:
    """Where the demonstrations began, as our collector recorded it; none for datasets of other origin."""
    collected = [part for part in dataset.parts if is_collected(part)]
    return [json.loads(state) for part in collected for state in part.episode_column("initial_state")]
