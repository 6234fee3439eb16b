"""`wamkit analyse`: what a trained latent world model predicts on a dataset, as a record and a page.

rollout: it runs on its own predictions over whole episodes (LaWAM spec 6.5). heatmap: its predictions of one episode as
feature maps, chunk by chunk (spec 6.6). Either reads a run of a latent world model, or of a policy that has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from wamkit_client.types import BadInput

from wamkit.analysis.codes import changes, effect, statistics
from wamkit.analysis.maps import anchor_index
from wamkit.analysis.rollout import codes_of, roll_out
from wamkit.config import Run, load_engine, load_run
from wamkit.data.clips import Clips
from wamkit.data.joined import AnyDataset, open_datasets
from wamkit.data.lerobot.dataset import Episode
from wamkit.foresight import WorldModel
from wamkit.io.files import replacing, sha256
from wamkit.io.progress import bar
from wamkit.io.records import write_record
from wamkit.io.weights import WEIGHTS
from wamkit.report.analyses import (
    Chunks,
    HeatmapConfig,
    HeatmapRecord,
    Origin,
    RolloutConfig,
    RolloutRecord,
    Transferred,
)
from wamkit.report.watched import evenly
from wamkit.stages.plan import meta_policy
from wamkit.stages.run import best_device, device_name, every_step
from wamkit.types import Policy

if TYPE_CHECKING:
    from wamkit.report.latent_action import Transfer


@dataclass(frozen=True)
class Looked:
    """A run that is analysed on a dataset. steps: control steps that its world model predicts ahead."""

    run: Run
    world: WorldModel
    clips: Clips
    steps: int
    device: torch.device

    def frames(self, episode: Episode, steps: Sequence[int]) -> Tensor:
        """Of the world model's camera, uint8 [t, h, w, 3]."""
        spec = self.clips.spec
        camera = dict(zip(self.run.data.views, spec.views, strict=True))[self.world.view]
        return torch.from_numpy(self.clips.dataset.frames(camera, episode.index, steps))


def look(run_dir: Path, datasets: Sequence[Path]) -> Looked:
    """Open both. BadInput where the run has no latent world model, or the dataset does not fit it."""
    run, device = load_run(run_dir), best_device()
    world = run.policy.world_model(run_dir, run.data, device)
    read = every_step(run)
    own = {source.robot: source for source in read.sources}
    chosen = own.get(open_datasets(datasets).robot_type, read)
    dataset = open_datasets(datasets, chosen.data.columns, chosen.data.only)
    clips = Clips(dataset, chosen.data, chosen.actions, run.data.views)
    return Looked(run, world, clips, round(world.seconds * chosen.data.hz), device)


def origin(run: Run, run_dir: Path, dataset: AnyDataset, device: torch.device, command: str) -> Origin:
    """For a record."""
    policy = {
        "kind": run.policy.kind,
        "recipe": run.recipe,
        **run.policy.identity,
        "seed": run.train.seed,
        "steps": run.train.steps,
        "weights": sha256(run_dir / WEIGHTS),
        "device": device_name(device),
    }
    about = {
        "folders": [part.root.name for part in dataset.parts],
        "fingerprint": dataset.fingerprint(),
        "episodes": len(dataset.episodes),
        "steps": dataset.total_steps,
        "fps": dataset.fps,
    }
    return Origin(command, policy, about)


@torch.no_grad()
def rollout(
    run_dir: Path, datasets: Sequence[Path], config: RolloutConfig, out: Path, command: str
) -> RolloutRecord:
    """Write rollout.json and rollout.html into `out`. BadInput as `look`, and for too few trajectories."""
    from wamkit.report.world_rollout import write_rollout_page  # matplotlib takes a second

    looked = look(run_dir, datasets)
    world, stride = looked.world, looked.steps
    long = [episode for episode in looked.clips.episodes if episode.length > stride]
    if len(long) < max(config.least, 2):
        raise BadInput(
            f"{looked.clips.dataset.where}: {len(long)} episodes are longer than {stride} steps, expected at least "
            f"{max(config.least, 2)}; give a larger dataset, or a smaller --least"
        )
    chosen = [long[place] for place in evenly(len(long), config.trajectories)]

    def frames(i: int) -> Tensor:
        return looked.frames(chosen[i], range(0, chosen[i].length, stride))

    with bar("rollout", 2 * len(chosen), unit="trajectories") as advance:
        codes = []
        for i in range(len(chosen)):
            codes.append(codes_of(world, frames(i)))
            advance(1, note="latent actions")
        rolled = roll_out(world, frames, codes, lambda count: advance(count, note="predictions"))
    every = torch.cat(codes)
    images = torch.cat(
        [
            world.features(looked.frames(chosen[i], [chosen[i].length // 2]))
            for i in evenly(len(chosen), config.images)
        ]
    )
    tried = every[torch.tensor(evenly(len(every), config.codes))]
    transferred, drawn = _transfer(looked, chosen)
    record = RolloutRecord(
        origin=origin(looked.run, run_dir, looked.clips.dataset, looked.device, command),
        config=config,
        view=world.view,
        seconds=world.seconds,
        steps=stride,
        remaining=rolled.remaining(),
        curves=rolled.curves(config.least, config.seed),
        codes=statistics(every.cpu()),
        effect=effect(changes(world, images, tried).cpu()),
        transfer=transferred,
    )
    out.mkdir(parents=True, exist_ok=True)
    write_record(out / "rollout.json", record)
    write_rollout_page(out / "rollout.html", record, drawn)
    return record


def _transfer(looked: Looked, chosen: Sequence[Episode]) -> tuple[Transferred, Transfer]:
    """Of the first trajectory of each task."""
    from wamkit.report.latent_action import transfer

    dataset, world = looked.clips.dataset, looked.world
    first: dict[str, Episode] = {}
    for episode in chosen:
        first.setdefault(dataset.instruction(episode.index, 0), episode)
    middles = [max(0, (episode.length - looked.steps) // 2) for episode in first.values()]
    pairs = [
        looked.frames(episode, [step, step + looked.steps])
        for episode, step in zip(first.values(), middles, strict=True)
    ]
    u = torch.stack([world.features(pair) for pair in pairs])  # n 2 s d
    change = changes(world, u[:, 0], world.infer(u[:, 0], u[:, 1])).cpu()
    drawn = transfer(list(first), [pair[0].numpy() for pair in pairs], change, world.grid)
    episodes = [dataset.label(episode.index) for episode in first.values()]
    return Transferred(episodes, list(first), drawn.sizes), drawn


@torch.no_grad()
def heatmap(
    run_dir: Path, datasets: Sequence[Path], config: HeatmapConfig, out: Path, command: str
) -> HeatmapRecord:
    """Write heatmap.json, heatmap.npz and heatmap.html into `out`. BadInput as `look`, and for no such episode."""
    from wamkit.report.world_heatmap import arrays_of, write_heatmap_page

    looked = look(run_dir, datasets)
    episodes = looked.clips.episodes
    if config.episode >= len(episodes):
        raise BadInput(f"--episode {config.episode}: there are {len(episodes)}, numbered from 0")
    episode, grid = episodes[config.episode], looked.world.grid
    row, column = config.anchor or (3 * grid[0] // 16, 7 * grid[1] // 16)
    place = anchor_index((row, column), grid)
    seen = _chunks(looked, run_dir, config, episode)
    anchor = looked.world.features(looked.frames(episode, [0]))[0, place].cpu()
    arrays = arrays_of(anchor, seen.features, grid)
    guesses = {
        name: torch.cosine_similarity(own, seen.features["truth"], dim=-1).mean(-1).tolist()
        for name, own in seen.features.items()
        if name != "truth"
    }
    record = HeatmapRecord(
        origin=origin(looked.run, run_dir, looked.clips.dataset, looked.device, command),
        config=config,
        episode=looked.clips.dataset.label(episode.index),
        view=looked.world.view,
        steps=looked.steps,
        anchor=(row, column),
        starts=seen.starts,
        cosines=guesses,
    )
    out.mkdir(parents=True, exist_ok=True)
    with replacing(out / "heatmap.npz") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    write_record(out / "heatmap.json", record)
    write_heatmap_page(out / "heatmap.html", record, anchor, seen, grid)
    return record


def _chunks(looked: Looked, run_dir: Path, config: HeatmapConfig, episode: Episode) -> Chunks:
    """Chunk by chunk: the recorded features at both ends, the world model's from the recorded latent action, and, of a
    policy that foresees, its own."""
    world, stride, clips = looked.world, looked.steps, looked.clips
    starts = list(range(0, episode.length - stride, max(clips.spec.horizon, 1)))
    if not starts:
        raise BadInput(
            f"{clips.dataset.where}: episode {config.episode} has {episode.length} steps, expected more than the "
            f"{stride} that are predicted; name another --episode"
        )
    starts = [starts[place] for place in evenly(len(starts), config.chunks)]
    now, later = (looked.frames(episode, [start + ahead for start in starts]) for ahead in (0, stride))
    u, truth = world.features(now), world.features(later)
    features = {"now": u, "truth": truth, "oracle": world.step(u, world.infer(u, truth))}
    policy = meta_policy(looked.run)
    if isinstance(policy, Policy) and "subgoal" not in policy.unsupported_sections:
        engine = load_engine(run_dir, looked.device)
        first = clips.numbers[config.episode].start
        observed = [clips.sample(first + start).observation() for start in starts]
        foreseeing: Any = engine.policy  # report/subgoal.ForeseeingPolicy
        features["predicted"] = foreseeing.see(engine.query(engine.clip(observed)).inputs).subgoal
    known = {name: own.float().cpu() for name, own in features.items()}
    return Chunks(starts, known, list(now.numpy()), list(later.numpy()))
