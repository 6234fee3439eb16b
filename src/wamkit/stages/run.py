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

import torch
from wamkit_client.envs.base import InitialState
from wamkit_client.suites import suite as find_suite
from wamkit_client.types import BadInput

from wamkit.config import (
    PROVENANCE_FILE,
    RUN,
    WAM,
    Run,
    acting_precision,
    build_policy,
    inference_overrides,
    load_engine,
    load_engine_as,
    load_provenance,
    load_run,
    save_normalizer,
    save_run,
    to_json,
)
from wamkit.data.cache import Cache
from wamkit.data.cache import encode as fill_cache
from wamkit.data.canvas import canvas_size
from wamkit.data.clips import Clips, trained_episodes
from wamkit.data.joined import AnyDataset, open_datasets
from wamkit.data.normalize import Normalizer, dataset_stats
from wamkit.data.official_statistics import read_statistics, window_stats
from wamkit.eval.evaluate import RESULTS, differences, like, read_results
from wamkit.eval.evaluate import evaluate as measure
from wamkit.io.files import replace_text, sha256
from wamkit.io.progress import command
from wamkit.io.provenance import record
from wamkit.stages.collect import FACTS as COLLECTION
from wamkit.stages.plan import parts
from wamkit.train.checkpoint import WEIGHTS
from wamkit.train.loop import train as fit

NO_FILE = Path()
CODE_VERSION = "1"  # of what encoding means; raise it when cached latents of older code must not be used


def best_device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name(device: torch.device) -> str:
    """cpu, or the GPU's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def fingerprint(run: Run, policy: WAM, dataset: AnyDataset) -> dict[str, str]:
    """Everything the latents of a dataset depend on, by name."""
    spec, pool = run.data, run.policy.video_pool
    height, width = canvas_size(spec)
    return {
        "code": CODE_VERSION,
        "codec": policy.codec.fingerprint,
        "text": policy.text.fingerprint,
        "canvas": f"{spec.canvas} {height}x{width} of {', '.join(spec.views)} at {spec.view_height}x{spec.view_width}",
        "window": f"frames {','.join(map(str, spec.frame_offsets))}; actions {spec.horizon}"
        + ("; whole windows" if spec.whole_windows else ""),
        "actions": " ".join(f"{n}:{k}" for n, k in zip(run.actions.names, run.actions.kinds, strict=True)),
        "pooling": f"present whole, future {pool}x{pool}",
        "dataset": dataset.fingerprint(),
    } | ({"held out": f"{spec.held_out:g} of the episodes"} if spec.held_out else {})


def fit_normalizer(run: Run, dataset: AnyDataset, released: Path = NO_FILE) -> Normalizer:
    """The run's statistics of what is trained on, under the robot's name; released: the file, where it says "file"."""
    episodes = trained_episodes(dataset, run.data)
    match run.normalization.statistics:
        case "frames":
            stats = dataset_stats(dataset, episodes)
        case "published_windows":
            stats = window_stats(dataset, episodes, run.data)
        case "file":
            if released == NO_FILE:
                raise BadInput(
                    "normalization.statistics is file: name it, with `wamkit train ... --stats FILE`"
                )
            stats = read_statistics(released, run.data).fields
    return Normalizer.fit({dataset.robot_type: stats}, run.normalization.modes)


def encode(run: Run, datasets: Sequence[Path], cache_path: Path, device: torch.device) -> None:
    """Datasets -> latent cache. Raises BadInput where they do not fit the run, or the cache is another's."""
    dataset = open_datasets(datasets)
    clips = Clips(dataset, run.data, run.actions)
    policy = build_policy(run, fit_normalizer(run, dataset))
    policy.load_frozen_encoders()
    policy.to(device).eval()
    fill_cache(clips, policy, cache_path, fingerprint(run, policy, dataset), device=device)


def train(
    run: Run,
    datasets: Sequence[Path],
    cache_path: Path,
    run_dir: Path,
    device: torch.device,
    released: Path = NO_FILE,
) -> None:
    """Latent cache -> run directory. Raises BadInput where the cache or the directory belongs to another run.

    released: a file with the statistics of a released run, which then stand in for those of the dataset.
    """
    if released != NO_FILE:
        run = replace(run, normalization=replace(run.normalization, statistics="file"))
    dataset = open_datasets(datasets)
    Clips(dataset, run.data, run.actions)  # a dataset that does not fit is refused here, by name
    policy = build_policy(run, fit_normalizer(run, dataset, released))
    policy.load_frozen_encoders()
    source = Cache.open(cache_path, fingerprint(run, policy, dataset), policy.inputs_type)
    policy.load_frozen_backbone()
    policy.initialize()
    save_run(run, run_dir)
    save_normalizer(policy.normalizer, run_dir)
    if not (run_dir / PROVENANCE_FILE).exists():  # where a run began, not where it was looked at again
        facts = _provenance(run, policy, dataset, device)
        if released != NO_FILE:
            facts["statistics"] = read_statistics(released, run.data).origin
        replace_text(run_dir / PROVENANCE_FILE, json.dumps(facts, indent=1, allow_nan=False))
    fit(policy, source, run.train, run_dir, device)


def _provenance(run: Run, policy: WAM, dataset: AnyDataset, device: torch.device) -> dict[str, Any]:
    kept = {episode.index for episode in trained_episodes(dataset, run.data)}
    about = {
        "fingerprint": dataset.fingerprint(),
        "folders": [part.root.name for part in dataset.parts],
        "robot": dataset.robot_type,
        "episodes": len(dataset.episodes),
        "steps": dataset.total_steps,
        "fps": dataset.fps,
        "held_out": [dataset.label(e.index) for e in dataset.episodes if e.index not in kept],
    }
    parameters = {part.name: part.parameters for part in parts(policy)}
    return record(device_name(device), parameters, about, initial_states(dataset))


def initial_states(dataset: AnyDataset) -> list[dict[str, Any]]:
    """Where the demonstrations began, as our collector recorded it; none for datasets of other origin."""
    collected = [part for part in dataset.parts if (part.root / COLLECTION).exists()]
    return [json.loads(state) for part in collected for state in part.episode_column("initial_state")]


def evaluate(
    run_dir: Path, asked: Run, suite_name: str, episodes: int, out: Path, tasks: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Run directory -> results in `out`, on initial states that were not demonstrated.

    asked: the directory's run, or one that differs in what a trained policy can be asked for, else BadInput. episodes:
    per task; 0: as the suite says. tasks: names, numbers and ranges of the suite's; (): all.
    """
    suite = find_suite(suite_name)
    if tasks:
        suite = suite.only(tasks)
    if episodes:
        suite = replace(suite, episodes=episodes)
    device = best_device()
    facts = policy_facts(run_dir, asked, device)
    engine = load_engine_as(asked, run_dir, device)
    return measure(engine, suite, asked.eval, out, facts, _demonstrated(run_dir))


def repeat(run_dir: Path, asked: Run, earlier: Path, out: Path) -> tuple[dict[str, Any], list[str]]:
    """The evaluation of `earlier` (a results.json) again, and what came out differently."""
    suite, config = like(earlier)
    asked, device = replace(asked, eval=config), best_device()
    facts = policy_facts(run_dir, asked, device)
    engine = load_engine_as(asked, run_dir, device)
    results = measure(engine, suite, asked.eval, out, facts, _demonstrated(run_dir))
    before = read_results(earlier) | {
        "suite": suite.to_json()
    }  # every field, also those that it did not know yet
    return results, differences(before, results)


def policy_facts(run_dir: Path, asked: Run, device: torch.device) -> dict[str, Any]:
    """What identifies a policy in its results; `run` there is what it acts as. asked, BadInput: as of `evaluate`."""
    run, effective = load_run(run_dir), RUN.dump_python(asked, mode="json")
    changes = inference_overrides(run, asked)
    return ({"asked": changes} if changes else {}) | {
        "kind": run.policy.kind,
        "recipe": run.recipe,
        **run.policy.identity,
        "seed": run.train.seed,
        "steps": run.train.steps,
        "weights": sha256(run_dir / WEIGHTS),
        "precision": str(acting_precision(asked, run_dir)).removeprefix("torch."),
        "device": device_name(device),
        "run": {section: effective[section] for section in ("policy", "data", "actions", "normalization")},
    }


def _demonstrated(run_dir: Path) -> Sequence[InitialState]:
    return [InitialState.from_json(state) for state in load_provenance(run_dir)["initial_states"]]


def report(
    run_dir: Path, datasets: Sequence[Path], results_dir: Path, page: Path, stage_seconds: dict[str, float]
) -> None:
    """The page of a run and one of its evaluations."""
    # Imported here: matplotlib takes a second and no other stage draws.
    from wamkit.report.distributions import distributions_of
    from wamkit.report.facts import Facts
    from wamkit.report.run_page import ALL, RunPage, write_run_page

    run, facts = load_run(run_dir), load_provenance(run_dir)
    results = read_results(results_dir / RESULTS)
    policy = load_engine(run_dir, best_device()).policy
    sections = [name for name in ALL if name not in policy.unsupported_sections]
    shown = RunPage(
        title=run.recipe,
        results=results,
        results_folder=results_dir,
        run_dir=run_dir,
        policy=policy,
        distributions=distributions_of(open_datasets(datasets), policy.normalizer),
        facts=Facts(
            groups={
                "policy": {"parameters": facts["parameters"], **run.policy.identity},
                "training": {
                    "seed": run.train.seed,
                    "steps": run.train.steps,
                    "batch size": run.train.batch_size,
                },
                "dataset": facts["dataset"],
                "simulator": {**results["simulator"]["versions"], "OpenGL": results["simulator"]["opengl"]},
                "software": {"revision": facts["revision"], **facts["versions"]},
                "machine": facts["machine"],
            },
            folded={"run": json.loads(to_json(run))},
            stage_seconds=stage_seconds,
            command=command(
                *("wamkit", "eval", run_dir, "--like", results_dir / RESULTS),
                *("--out", run_dir / "eval" / "again"),
            ),
        ),
    )
    write_run_page(page, shown, sections)
