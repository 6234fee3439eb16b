"""`wamkit inspect`: exactly what a policy is shown of a dataset, as a page, and what looks wrong about it.

With a run the normaliser is the run's and its policy predicts chunks; with a recipe alone the normaliser is fitted as
training would. Images, words and chunks come from a few samples, numbers from every step. Nothing is random.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from wamkit.analysis.open_loop import open_loop
from wamkit.config import Run, inference_overrides, load_engine_as, load_normalizer, load_run, to_json
from wamkit.data.canvas import canvas_size, tile, view_boxes
from wamkit.data.clips import Clips, ClipSample
from wamkit.data.evidence import Recording, contradictions
from wamkit.data.joined import AnyDataset, dataset_flags, open_datasets
from wamkit.data.lerobot.columns import SOURCES
from wamkit.data.lerobot.dataset import Episode
from wamkit.data.lerobot.files import dimension_labels, dimension_names, image_size
from wamkit.data.normalize import Normalizer, field_rows
from wamkit.data.statistics import Stats
from wamkit.io.progress import Advance, bar, command
from wamkit.io.tensors import not_finite
from wamkit.io.weights import run_weights
from wamkit.report.predictions import chunks_of
from wamkit.report.seen import Field, Look, Seen, View
from wamkit.report.watched import evenly
from wamkit.stages.findings import findings
from wamkit.stages.run import best_device, every_step, fit_normalizer
from wamkit.train.checkpoint import told_not_finite
from wamkit.types import DataSpec
from wamkit.wan.encoders import Codec

EPISODES = 3
"""Whose first, middle and last step are looked at: the first, the middle and the last of the dataset."""

PREDICTED = 24
"""Samples that a run's policy predicts, evenly over the dataset."""


def inspect(run: Run, datasets: Sequence[Path], run_dir: Path, page: Path) -> list[str]:
    """Write the page; what looks suspicious, in sentences.

    run_dir: the run's directory; Path() for a recipe that has not been trained. Raises BadInput where the dataset does
    not fit the run (camera, dimension, rate, instruction) and where either cannot be read. Weights that the run is
    built on and that are not on this machine are no error: the page says what it cannot show.
    """
    from wamkit.report.facts import Facts  # here, as in stages/report.py: matplotlib takes a second
    from wamkit.report.inspection import write_inspection

    dataset = open_datasets(datasets, run.data.columns, run.data.only)
    clips = Clips(dataset, every_step(run).data, run.actions)
    trained = run_dir != Path()
    normalizer = load_normalizer(run_dir) if trained else fit_normalizer(run, [clips])
    seen = see(run, clips, normalizer, run_dir)
    found = findings(seen)
    words = (run_dir, *dataset_flags(datasets)) if trained else (*datasets, "--recipe", run.recipe)
    about = {
        "path": dataset.where,
        "format": f"LeRobot {dataset.version}",
        "robot": dataset.robot_type,
        "episodes": len(dataset.episodes),
        "steps": dataset.total_steps,
        "fps": dataset.fps,
        "revision": dataset.fingerprint()[:16],
    }
    facts = Facts(
        {"dataset": about}, {"run": json.loads(to_json(run))}, {}, command("wamkit", "inspect", *words)
    )
    write_inspection(page, f"{run_dir if trained else run.recipe} on {dataset.where}", seen, found, facts)
    return found


def see(run: Run, clips: Clips, normalizer: Normalizer, run_dir: Path) -> Seen:
    """Everything that is shown and judged."""
    dataset, device = clips.dataset, best_device()
    known, instructions = dataset.robot_type in normalizer.stats, tuple(dict.fromkeys(dataset.tasks.values()))
    facts = run.policy.encoder_facts(run.data, instructions, device)
    broken = told_not_finite(not_finite(run_weights(run_dir))) if run_dir != Path() else ""
    no_policy = why_no_policy(run, run_dir, known) or facts.missing or broken
    engines = [] if no_policy else [load_engine_as(run, run_dir, device)]
    looked, shown, predicted = chosen(clips, PREDICTED if engines else 0)
    with bar("inspect", len(looked) + len({*shown, *predicted}), unit="samples") as advance:
        looks = tuple(_look(clips.sample(i), run.data, facts.codecs, device, advance) for i in looked)
        chunks = chunks_of(clips, sorted({*shown, *predicted}), engines, advance)
    fields = tuple(_field(name, run, dataset, normalizer) for name in SOURCES)
    return Seen(
        spec=run.data,
        space=run.actions,
        trained=run_dir != Path(),
        robot=dataset.robot_type,
        known=tuple(normalizer.stats),
        canvas=canvas_size(run.data),
        views=tuple(_view(name, dataset, run.data, looks) for name in run.data.views),
        looks=looks,
        fields=fields,
        contradictions=tuple(contradictions(clips.space, Recording.of(dataset))),
        prompts=facts.prompts,
        chunks=tuple(chunks[i] for i in shown),
        open_loop=open_loop(list(chunks.values()), 2 / (fields[0].high - fields[0].low)),
        padded_actions=padded_share(clips.episodes, run.data),
        no_codec=facts.no_codec,
        no_tokens=facts.no_tokens,
        no_policy=no_policy,
        broken=broken,
    )


def chosen(clips: Clips, predicted: int) -> tuple[list[int], list[int], list[int]]:
    """Numbers of the samples whose images are looked at, whose chunks are shown, and which are also predicted.

    The last chunk that is shown has half of its actions past its episode's end, where the episode is long enough.
    """
    episodes = [own for own in clips.numbers if own]
    looked_at = [episodes[place] for place in evenly(len(episodes), EPISODES)]
    looked = [own[step] for own in looked_at for step in sorted({0, len(own) // 2, len(own) - 1})]
    first, middle, last = looked_at[0], looked_at[len(looked_at) // 2], looked_at[-1]
    late = max(0, len(last) - clips.spec.horizon // 2)
    shown = {first[0], middle[len(middle) // 2], last[late]}
    return looked, sorted(shown), evenly(len(clips), predicted)


def _look(
    sample: ClipSample, spec: DataSpec, codecs: Sequence[Codec], device: torch.device, advance: Advance
) -> Look:
    canvas = tile({view: frames.to(device) for view, frames in sample.clip.views.items()}, spec)
    decoded = canvas[:, :, :0]
    with torch.inference_mode():
        for codec in codecs:
            decoded = codec.decode(codec.encode(canvas)).float().clamp(-1, 1)
    advance(1, note=f"images of {sample.id}")
    return Look(
        id=sample.id,
        instruction=sample.clip.instructions[0],
        canvas=canvas[0].cpu(),
        decoded=decoded[0].cpu(),
        is_pad=sample.frame_is_pad[0],
    )


def _view(name: str, dataset: AnyDataset, spec: DataSpec, looks: Sequence[Look]) -> View:
    top, left, height, width = box = view_boxes(spec)[name]
    canvas = torch.cat([look.canvas.transpose(0, 1) for look in looks])  # [n, 3, H, W]
    source = image_size(dataset.features[dataset.camera_keys[name]])
    return View(name, source, box, canvas[:, :, top : top + height, left : left + width])


def _field(field: str, run: Run, dataset: AnyDataset, normalizer: Normalizer) -> Field:
    """What is recorded of a field, and what the policy is given of it; a policy may do without proprio."""
    values = field_rows(dataset, field, dataset.episodes)
    width = values.shape[1]
    unit, (low, high) = np.zeros((0, width), np.float32), np.full((2, width), np.nan)
    if dataset.robot_type in normalizer.stats and normalizer.dimensions(field).shape[1] == width:
        robot = normalizer.index([dataset.robot_type])
        unit = normalizer.to_unit(field, torch.from_numpy(values.astype(np.float32))[None], robot)[0].numpy()
        low, high = normalizer.ends(field, dataset.robot_type)
    feature = dataset.features.get(SOURCES[field], {})
    return Field(
        field=field,
        mode=normalizer.modes[field],
        names=run.actions.names if field == "action" else dimension_labels(feature, width),
        recorded_as=dimension_names(feature, width),
        kinds=run.actions.kinds if field == "action" else ("",) * width,
        values=values,
        stats=Stats.of(values),
        unit=unit,
        low=low,
        high=high,
    )


def padded_share(episodes: Sequence[Episode], spec: DataSpec) -> float:
    """Share of the actions of all chunks that lie past an episode's end."""
    starts = [spec.starts(episode.length, episode.actions) for episode in episodes]
    padded = sum(
        max(0, step + spec.horizon - episode.actions)
        for episode, count in zip(episodes, starts, strict=True)
        for step in range(count)
    )
    return padded / (spec.horizon * sum(starts))


def why_no_policy(run: Run, run_dir: Path, known: bool) -> str:
    """Why a run's policy cannot be asked about this dataset, its encoder apart; "" where it can.

    known: whether its normaliser knows the dataset's robot. Raises BadInput where `run` cannot be asked of run_dir.
    """
    if run_dir == Path():
        return "this is a recipe that has not been trained; inspect a run directory to see what its policy predicts"
    inference_overrides(load_run(run_dir), run)
    return "" if known else "the run does not know this robot"
