"""A run directory as it is published: what acting needs, its results, and a card made of them; nothing of this machine.

States of datasets and of episodes are left out, paths become the hub's names or lose their folders. A run with low-rank
additions has only these and what is trained beside them, as its directory does.
"""

from __future__ import annotations

import base64
import getpass
import json
import re
import socket
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wamkit_client.types import BadInput

from wamkit.config import NORMALIZER_FILE, PROVENANCE_FILE, RUN_FILE, Run, load_provenance, load_run, read
from wamkit.eval.evaluate import RESULTS
from wamkit.io.differences import flatten
from wamkit.io.hub import explained, is_reference, reference_of
from wamkit.io.progress import say
from wamkit.io.weights import WEIGHTS, WEIGHTS_RECORD, run_weights
from wamkit.recipes.hub import KNOWN

CARD, FILM, METRICS, PAGE = "README.md", "imagined.mp4", "metrics.jsonl", "report.html"
STATES = ("initial_states", "vector", "query_call", "query_ms", "query_batch", "recording")
"""Of records and results: states of demonstrations and episodes, and what refers to files that are not published."""
FUTURE = re.compile(r'<section id="future".*?</section>', re.DOTALL)
MP4 = re.compile(r"data:video/mp4;base64,([A-Za-z0-9+/=]+)")
BASES = {Path(known.folder).name: known.repository for known in (KNOWN["wan2.1"], KNOWN["wan2.2"])}
"""Released models that runs are built on, by the name of their folder."""


@dataclass(frozen=True)
class Upload:
    """files: content by name in the repository, but for the weights, which are read from `weights`."""

    files: Mapping[str, bytes]
    weights: Path


def upload_of(run_dir: Path, name: str, license: str) -> Upload:
    """What is published of a run directory as `name`. BadInput where it is not whole, or would tell of this machine."""
    run = load_run(run_dir)
    run_weights(run_dir)  # whole, and as it was written
    texts = {
        RUN_FILE: _json(json.loads(read(run_dir, RUN_FILE)), RUN_FILE),
        PROVENANCE_FILE: _json(load_provenance(run_dir), PROVENANCE_FILE),
        NORMALIZER_FILE: read(run_dir, NORMALIZER_FILE),
    }
    for optional in (WEIGHTS_RECORD, METRICS):
        if (run_dir / optional).is_file():
            texts[optional] = read(run_dir, optional)
    results = {
        path.parent.name: json.loads(path.read_text()) for path in sorted(run_dir.glob(f"eval/*/{RESULTS}"))
    }
    texts |= {f"eval/{suite}/{RESULTS}": _json(found, f"eval/{suite}") for suite, found in results.items()}
    films = _films(run_dir)
    texts[CARD] = card(run, json.loads(texts[PROVENANCE_FILE]), results, name, license, bool(films))
    _expect_nothing_local(run_dir, texts)
    return Upload({file: text.encode() for file, text in texts.items()} | films, run_dir / WEIGHTS)


def push(upload: Upload, name: str, private: bool, message: str) -> str:
    """Publish it as one commit, and return where it is. BadInput where the hub refuses."""
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    files: dict[str, Any] = {**upload.files, WEIGHTS: upload.weights}
    with explained(name):
        api.create_repo(name, private=private, exist_ok=True)
        added = [CommitOperationAdd(file, content) for file, content in files.items()]
        return str(api.create_commit(name, added, commit_message=message).commit_url)


def _json(values: Any, where: str) -> str:
    return json.dumps(_published(values, where), indent=1, allow_nan=False) + "\n"


def _published(values: Any, where: str) -> Any:
    """Without states, and with paths as others may read them."""
    if isinstance(values, dict):
        kept = {name: value for name, value in values.items() if name not in STATES}
        left_out = {name: type(value)() for name, value in values.items() if name in STATES}
        return {name: _published(value, f"{where}: {name}") for name, value in kept.items()} | left_out
    if isinstance(values, list):
        return [_published(value, where) for value in values]
    return _place(values, where) if isinstance(values, str) else values


def _place(text: str, where: str) -> str:
    if not text.startswith(("/", "~/")) or "\n" in text:
        return text
    told = reference_of(Path(text))
    shown = told if is_reference(told) else f"weights/{Path(text).name}"
    say(f"{where}: {text} is published as {shown}")
    return shown


def _films(run_dir: Path) -> dict[str, bytes]:
    """The imagined future beside what happened, as the page of the run shows it; nothing without a page."""
    page = run_dir / PAGE
    section = FUTURE.search(page.read_text("utf-8")) if page.is_file() else None
    film = MP4.search(section[0]) if section else None
    if not film:
        say(
            f"{run_dir}: has no page with an imagined future, so no video is published; `wamkit report` makes one"
        )
    return {FILM: base64.b64decode(film[1])} if film else {}


def _expect_nothing_local(run_dir: Path, texts: Mapping[str, str]) -> None:
    """BadInput where a text tells of this machine. Short names of users and hosts occur by chance."""
    places = [Path.home(), Path.cwd(), run_dir.resolve(), Path(tempfile.gettempdir())]
    folders = [str(place) + "/" for place in places if len(place.parts) > 1]
    names = [name for name in (socket.gethostname(), getpass.getuser()) if len(name) > 5]
    for file, text in texts.items():
        for local in (*folders, *names):
            if re.search(rf"(?<!\w){re.escape(local)}", text):
                raise BadInput(f"{run_dir / file}: tells of this machine ({local}); remove it and push again")


def card(
    run: Run, origin: Mapping[str, Any], results: Mapping[str, Any], name: str, license: str, film: bool
) -> str:
    """The model card: metadata, what the run is, its results with their intervals and commands, its origin."""
    return "\n".join(
        [
            *_metadata(run, results, name, license),
            f"# {name.partition('/')[2]}",
            "",
            f"Policy `{run.policy.kind}` of recipe `{run.recipe}`, trained with wamkit.",
            "",
            *([f"The future that it imagines beside what happened: [{FILM}]({FILM})", ""] if film else []),
            *_results(results, name),
            "## Use",
            "",
            "```python",
            "import wamkit",
            "",
            f'policy = wamkit.load_policy("hf://{name}")',
            "```",
            "",
            *_origin(run, origin),
        ]
    )


def _metadata(run: Run, results: Mapping[str, Any], name: str, license: str) -> list[str]:
    from huggingface_hub import EvalResult, ModelCardData

    rows = [
        EvalResult(
            task_type="robotics",
            dataset_type=suite,
            dataset_name=found["suite"]["name"],
            metric_type="success_rate",
            metric_value=found["total"]["rate"],
        )
        for suite, found in results.items()
    ]
    base = next((BASES[part] for part in _bases(run) if part in BASES), None)
    about: dict[str, Any] = {"base_model": base} if base else {}
    data = ModelCardData(
        license=license,
        library_name="wamkit",
        pipeline_tag="robotics",
        tags=["robotics", "world-action-model", run.policy.kind],
        model_name=name.partition("/")[2],
        eval_results=rows or None,
        **about,
    )
    return ["---", data.to_yaml(), "---", ""]


def _bases(run: Run) -> Iterator[str]:
    """Names of the folders that its values name."""
    for value in flatten(asdict(run)).values():
        if isinstance(value, str) and "/" in value:
            yield Path(value.partition("@")[0]).name


def _results(results: Mapping[str, Any], name: str) -> list[str]:
    if not results:
        return ["It has not been measured in closed loop.", ""]
    lines = ["## Results", "", "Success rates with 95 % Wilson intervals.", ""]
    for found in results.values():
        suite, total = found["suite"], found["total"]
        lines += ["| task | solved | rate | interval |", "|---|---|---|---|"]
        rows = {**found["tasks"], f"**{suite['name']}**": total}
        for task, row in rows.items():
            low, high = row["interval"]
            lines.append(
                f"| {task} | {row['successes']} of {row['trials']} | {row['rate']:.1%} | {low:.1%} to {high:.1%} |"
            )
        words = f"wamkit eval hf://{name} --suite {suite['name']} --episodes {suite['episodes']}"
        versions = ", ".join(f"{lib} {v}" for lib, v in found["simulator"].get("versions", {}).items())
        lines += [
            "",
            f"`{words}`; seeds from {suite['first_seed']}, at most {suite['max_steps']} steps; {versions}; on "
            f"{found['machine']['cpu']}, {found['policy'].get('device', 'cpu')}; revision {found['revision']}.",
            "",
        ]
    return lines


def _origin(run: Run, origin: Mapping[str, Any]) -> list[str]:
    data, machine = origin["dataset"], origin["machine"]
    command = f"wamkit train {run.recipe} --train.seed {run.train.seed} --train.steps {run.train.steps}"
    return [
        "## Training",
        "",
        f"`{command}` on {data['episodes']} episodes ({data['steps']} steps) of {data['robot']}; "
        f"{sum(origin['parameters'].values()):,} parameters; on {machine['cpu']}, {machine.get('device', 'cpu')}; "
        f"revision {origin['revision']}.",
        "",
        *_additions(run),
    ]


def _additions(run: Run) -> list[str]:
    if flatten(asdict(run)).get("policy.tuning.kind") != "lora":
        return []
    return [
        "The weights are low-rank additions and what is trained beside them; the base model has its own place.",
        "",
    ]
