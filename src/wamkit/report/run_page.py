"""The page of a trained run: which sections there are, and what each is made of.

A section is left out where there is nothing to show: no evaluation, no dataset, or a policy that cannot imagine (or was
not trained to), has no attention to show or predicts no subgoal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from wamkit_client.types import BadInput

from wamkit.foresight import WorldModel
from wamkit.infer.engine import Engine
from wamkit.io.progress import bar
from wamkit.report.attention import attention
from wamkit.report.distributions import Distribution, distributions
from wamkit.report.facts import Facts, facts
from wamkit.report.future import FutureConfig, future
from wamkit.report.latent_action import latent_action
from wamkit.report.open_loop import OpenLoop, open_loop, open_loop_header
from wamkit.report.page import Header, Section, write_page
from wamkit.report.recordings import NONE, Recording
from wamkit.report.results import RESULTS, Results
from wamkit.report.rollouts import first_of_tasks, rollouts, shown_recordings
from wamkit.report.subgoal import subgoal
from wamkit.report.success import header, success
from wamkit.report.training import History, trained_header, training
from wamkit.report.video import FilmConfig
from wamkit.report.warnings import warnings
from wamkit.report.watched import Watched

ROLLOUTS = "These are episodes of the evaluation above."
NOWHERE = Watched((), NONE)
"""No dataset was named."""


def no_world() -> WorldModel:
    """BadInput: none was named."""
    raise BadInput("the page was given no latent world model; name one")


@dataclass(frozen=True)
class Evaluation:
    """results: what evaluation returned. folder: where its recordings lie."""

    results: Mapping[str, Any]
    folder: Path


@dataclass(frozen=True)
class RunPage:
    """What the page is made of.

    title: e.g. "metaworld3". engines: the run's, one; none where it trains a model that does not act.
    evaluations, histories: one, or none where the run was not measured, and where its training left no curves.
    demonstrations: episodes of a dataset, shown where no rollout was recorded. distributions: of that dataset.
    open_loop: what the policy predicts there, by robot.
    world: reads the run's latent world model, where it has one.
    """

    title: str
    engines: Sequence[Engine[Any]]
    facts: Facts
    evaluations: Sequence[Evaluation] = ()
    histories: Sequence[History] = ()
    demonstrations: Watched = NOWHERE
    distributions: Sequence[Distribution] = ()
    open_loop: Sequence[OpenLoop] = ()
    film: FilmConfig = field(default_factory=FilmConfig)
    future: FutureConfig = field(default_factory=FutureConfig)
    world: Callable[[], WorldModel] = no_world

    @cached_property
    def results(self) -> Results:
        """Of the evaluation; there is one."""
        found: Results = RESULTS.validate_python(self.evaluations[0].results)
        return found

    @cached_property
    def recordings(self) -> Sequence[Recording]:
        """Of the evaluation's episodes, some. BadInput where one is missing, truncated or damaged."""
        return [r for own in self.evaluations for r in shown_recordings(self.results, own.folder)]

    @property
    def watched(self) -> Watched:
        """What the policy is asked about: an episode of each task where some were recorded, else demonstrations."""
        return Watched(first_of_tasks(self.recordings), ROLLOUTS) if self.recordings else self.demonstrations

    @property
    def engine(self) -> Engine[Any]:
        """The run's; it acts."""
        return self.engines[0]


def lacks_results(page: RunPage, section: str) -> str:
    """Why a section about an evaluation cannot be shown; "" where it can. So do the others below."""
    return "" if page.evaluations else "needs an evaluation (wamkit eval); name its folder with --results"


def lacks_warnings(page: RunPage, section: str) -> str:
    """Of a policy that was watched."""
    watched = any(episode.warnings for episode in page.results.episodes)
    return "" if watched else "needs an evaluation in which the policy warns (--eval.warn True)"


def lacks_episodes(page: RunPage, section: str) -> str:
    """Of recorded rollouts or demonstrations."""
    found = page.evaluations or page.demonstrations.episodes
    return "" if found else "needs episodes to look at; name a dataset with --dataset"


def lacks_data(page: RunPage, section: str) -> str:
    """Of a dataset."""
    return "" if page.distributions else "shows a dataset; name one with --dataset"


def lacks_samples(page: RunPage, section: str) -> str:
    """Of measured predictions."""
    return "" if page.open_loop else "needs an episode with at least two samples, and the dataset has none"


def lacks_history(page: RunPage, section: str) -> str:
    """Of a training run."""
    return (
        "" if page.histories else "shows how a run was trained, and these weights were released without that"
    )


def lacks_policy(page: RunPage, section: str) -> str:
    """Of a model that acts."""
    return "" if page.engines else f"needs a policy, and {page.title} is a model that does not act"


def lacks_ability(page: RunPage, section: str) -> str:
    """Of what the policy can do."""
    lacking = section in page.engine.policy.unsupported_sections
    return f"this policy ({page.title}) {LACKS[section]}" if lacking else ""


LACKS = {
    "future": "imagines no video: it has no video model, or was not trained with one",
    "attention": "has no learned queries whose attention could be shown",
    **dict.fromkeys(("subgoal", "latent"), "predicts no subgoal by a latent action"),
}
"""Why a policy has nothing for a section."""


@dataclass(frozen=True)
class Part:
    """How a section is made, and why it may be lacking."""

    make: Callable[[RunPage], Section]
    lacks: tuple[Callable[[RunPage, str], str], ...] = ()

    def lacking(self, page: RunPage, section: str) -> str:
        """The first reason; "" where there is something to show."""
        return next(filter(None, (lacks(page, section) for lacks in self.lacks)), "")


FORESIGHT = (lacks_policy, lacks_ability, lacks_episodes)
SECTIONS: dict[str, Part] = {
    "success": Part(lambda page: success(page.results), (lacks_results,)),
    "warnings": Part(lambda page: warnings(page.results), (lacks_results, lacks_warnings)),
    "rollouts": Part(
        lambda page: rollouts(
            page.recordings, page.engine.policy.data.views, page.engine.policy.data.hz, page.film
        ),
        (lacks_results,),
    ),
    "open_loop": Part(lambda page: open_loop(page.open_loop), (lacks_policy, lacks_data, lacks_samples)),
    "future": Part(lambda page: future(page.engine, page.watched, page.future, page.film), FORESIGHT),
    "attention": Part(lambda page: attention(page.engine, page.watched), FORESIGHT),
    "subgoal": Part(lambda page: subgoal(page.engine, page.world(), page.watched), FORESIGHT),
    "latent": Part(lambda page: latent_action(page.engine, page.world(), page.watched), FORESIGHT),
    "training": Part(lambda page: training(page.histories[0]), (lacks_history,)),
    "data": Part(lambda page: distributions(page.distributions), (lacks_data,)),
    "facts": Part(lambda page: facts(page.facts)),
}
ALL = tuple(SECTIONS)


def chosen(page: RunPage, sections: Sequence[str]) -> list[str]:
    """sections: (): all that there is something for. Raises BadInput for an unknown one and one that is lacking."""
    lacking = {name: part.lacking(page, name) for name, part in SECTIONS.items()}
    supported = [name for name in ALL if not lacking[name]]
    for name in sections:
        if name not in ALL:
            raise BadInput(f"a page has no section {name!r}; expected some of {', '.join(ALL)}")
        if lacking[name]:
            raise BadInput(f"section {name!r}: {lacking[name]}; there is {', '.join(supported)}")
    return list(sections) or supported


def write_run_page(out: Path, page: RunPage, sections: Sequence[str] = ()) -> None:
    """Write the page to `out`; the same arguments give the same page.

    Raises BadInput as `chosen`, and, naming the file, where a recording is missing, truncated or damaged.
    """
    names = chosen(page, sections)
    made = []
    with bar("report", len(names), unit="sections") as advance:
        for name in names:
            made.append(SECTIONS[name].make(page))
            advance(1, note=name)
    write_page(out, _header(page), made)


def _header(page: RunPage) -> Header:
    """What was measured, the most telling first."""
    if page.evaluations:
        return header(page.title, page.results)
    if page.open_loop:
        return open_loop_header(page.title, page.open_loop)
    return trained_header(page.title, page.histories)
