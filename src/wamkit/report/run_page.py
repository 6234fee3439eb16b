"""The page of a trained and evaluated run: which sections there are, and what each is made of.

A policy that cannot imagine (or was not trained to), has no attention to show or predicts no subgoal is shown without
that section.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wamkit_client.types import BadInput

from wamkit.infer.engine import Engine
from wamkit.io.progress import bar
from wamkit.report.attention import attention
from wamkit.report.distributions import Distribution, distributions
from wamkit.report.facts import Facts, facts
from wamkit.report.future import FutureConfig, future
from wamkit.report.latent_action import latent_action
from wamkit.report.page import Section, write_page
from wamkit.report.recordings import Recording
from wamkit.report.results import RESULTS, Results
from wamkit.report.rollouts import first_of_tasks, rollouts, shown_recordings
from wamkit.report.subgoal import subgoal
from wamkit.report.success import header, success
from wamkit.report.training import training
from wamkit.report.video import FilmConfig
from wamkit.types import WorldModel


def no_world() -> WorldModel:
    """BadInput: none was named."""
    raise BadInput("the page was given no latent world model; name one")


@dataclass(frozen=True)
class RunPage:
    """What the page is made of.

    title: e.g. "metaworld3".  results: what evaluation returned.  results_folder: where its recordings lie.
    run_dir: its metrics.jsonl is read.  engine: of that run.  world: reads its latent world model, where it has one.
    """

    title: str
    results: Mapping[str, Any]
    results_folder: Path
    run_dir: Path
    engine: Engine[Any]
    distributions: Sequence[Distribution]
    facts: Facts
    film: FilmConfig = field(default_factory=FilmConfig)
    future: FutureConfig = field(default_factory=FutureConfig)
    world: Callable[[], WorldModel] = no_world


SECTIONS: dict[str, Callable[[RunPage, Results, Sequence[Recording]], Section]] = {
    "success": lambda page, results, recordings: success(results),
    "rollouts": lambda page, results, recordings: rollouts(
        recordings, page.engine.policy.data.views, page.engine.policy.data.hz, page.film
    ),
    "future": lambda page, results, recordings: future(page.engine, first_of_tasks(recordings), page.future),
    "attention": lambda page, results, recordings: attention(page.engine, first_of_tasks(recordings)),
    "subgoal": lambda page, results, recordings: subgoal(
        page.engine, page.world(), first_of_tasks(recordings)
    ),
    "latent": lambda page, results, recordings: latent_action(
        page.engine, page.world(), first_of_tasks(recordings)
    ),
    "training": lambda page, results, recordings: training(page.run_dir),
    "data": lambda page, results, recordings: distributions(page.distributions),
    "facts": lambda page, results, recordings: facts(page.facts),
}
ALL = tuple(SECTIONS)
LACKS = {
    "future": "imagines no video: it has no video model, or was not trained with one",
    "attention": "has no learned queries whose attention could be shown",
    **dict.fromkeys(("subgoal", "latent"), "predicts no subgoal by a latent action"),
}
"""Why a policy has nothing for a section."""


def write_run_page(out: Path, page: RunPage, sections: Sequence[str] = ()) -> None:
    """Write the page to `out`; the same arguments give the same page.

    sections: (): all that the policy has something for. Raises BadInput for an unknown one, for one that the policy has
    nothing for, and, naming the file, where a recording or metrics.jsonl is missing, truncated or damaged. Where
    nothing was recorded, the sections that show recordings say so.
    """
    supported = [name for name in ALL if name not in page.engine.policy.unsupported_sections]
    for name in sections:
        if name not in ALL:
            raise BadInput(f"a page has no section {name!r}; expected some of {', '.join(ALL)}")
        if name not in supported:
            raise BadInput(
                f"section {name!r}: this policy ({page.title}) {LACKS[name]}; it has {', '.join(supported)}"
            )
    sections = sections or supported
    results = RESULTS.validate_python(page.results)
    recordings = shown_recordings(results, page.results_folder)
    made = []
    with bar("report", len(sections), unit="sections") as advance:
        for name in sections:
            made.append(SECTIONS[name](page, results, recordings))
            advance(1, note=name)
    write_page(out, header(page.title, results), made)
