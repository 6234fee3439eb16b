"""`wamkit analyse imagination`: how long what a policy imagines can be trusted, over episodes of a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wamkit_client.types import BadInput

from wamkit.analysis.similarity import Mean, interval
from wamkit.config import load_engine, load_provenance, load_run
from wamkit.infer.engine import Engine
from wamkit.io.progress import bar
from wamkit.io.records import write_record
from wamkit.report.analyses import ImaginationConfig, ImaginationRecord
from wamkit.report.imagination import fitted, imagine_episodes, out_of_reach
from wamkit.report.watched import DatasetEpisode, dataset_episodes
from wamkit.stages.analyse import origin
from wamkit.stages.plan import meta_policy
from wamkit.stages.report import judged
from wamkit.stages.run import best_device
from wamkit.types import Policy

BATCH = 8
"""Episodes side by side."""


def imagination(
    run_dir: Path, datasets: Sequence[Path], config: ImaginationConfig, out: Path, command: str
) -> ImaginationRecord:
    """Write imagination.json and imagination.html into `out`.

    Raises BadInput where the policy imagines no video, where its chunks do not reach from one imagined frame to the
    next, where too few episodes are longer than a window, and where the dataset does not fit the run.
    """
    from wamkit.report.imagination_page import write_imagination_page  # matplotlib takes a second

    run, device = load_run(run_dir), best_device()
    policy = meta_policy(run)
    if not isinstance(policy, Policy) or "future" in policy.unsupported_sections:
        raise BadInput(
            f"{run_dir}: {run.recipe} imagines no video; name a run of a policy that was trained with one"
        )
    clips, about = judged(run, load_provenance(run_dir), datasets)[0]
    engine: Engine[Any] = load_engine(run_dir, device)
    robot = clips.dataset.robot_type
    unreached = out_of_reach(engine, robot)
    if unreached:
        raise BadInput(f"{run_dir}: {unreached}")
    window = clips.spec.frame_offsets[-1]
    chosen = [one for one in dataset_episodes(clips, config.episodes) if one.steps > window]
    if len(chosen) < config.least:
        raise BadInput(
            f"{clips.dataset.where}: {len(chosen)} episodes are longer than a window of {window} steps, expected at "
            f"least {config.least}; give a larger dataset, or a smaller --least"
        )
    motion, found = fitted(chosen), []
    with bar("imagine", len(chosen), unit="episodes") as advance:
        for start in range(0, len(chosen), BATCH):
            found.append(imagine_episodes(engine, chosen[start : start + BATCH], motion, config.seed + start))
            advance(len(found[-1].episodes), note="windows")
    longest = max(found, key=lambda own: len(own.steps))
    errors = [own.of(n) for own in found for n in range(len(own.episodes))]
    remaining = [
        sum(place < len(next(iter(own.values()))) for own in errors)
        for place in range(len(longest.steps) - 1)
    ]
    reached = sum(count >= config.least for count in remaining)
    record = ImaginationRecord(
        origin=origin(run, run_dir, clips.dataset, device, command),
        config=config,
        about=about,
        hz=clips.spec.hz,
        window=window,
        steps=longest.steps[1 : reached + 1],
        remaining=remaining[:reached],
        errors={name: means([own[name] for own in errors], reached, config.seed) for name in errors[0]},
    )
    out.mkdir(parents=True, exist_ok=True)
    write_record(out / "imagination.json", record)
    write_imagination_page(out / "imagination.html", record, engine, first_of_tasks(chosen), motion)
    return record


def means(errors: Sequence[Sequence[float]], reached: int, seed: int) -> list[Mean]:
    """At each of so many frames, over the episodes that reach it."""
    return [interval([own[frame] for own in errors if frame < len(own)], seed) for frame in range(reached)]


def first_of_tasks(episodes: Sequence[DatasetEpisode]) -> list[DatasetEpisode]:
    """One of each instruction, in their order."""
    first: dict[str, DatasetEpisode] = {}
    for episode in episodes:
        first.setdefault(episode.detail, episode)
    return list(first.values())
