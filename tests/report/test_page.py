"""The whole page: complete, self-contained, the same every time."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import av
import numpy as np
import pytest
from wamkit_client.types import BadInput

from tests import tiny_dataset
from tests.policies.tiny_policy import engine_of, tiny_config, tiny_policy
from tests.report.slider import evaluation
from wamkit.data.clips import Clips
from wamkit.data.lerobot.dataset import Dataset
from wamkit.policies.base import FORESIGHT
from wamkit.report.distributions import Distribution
from wamkit.report.facts import Facts
from wamkit.report.future import FutureConfig
from wamkit.report.open_loop import measure
from wamkit.report.page import Header, Section, write_page
from wamkit.report.run_page import ALL, Evaluation, RunPage, write_run_page
from wamkit.report.training import read_history
from wamkit.report.video import FilmConfig
from wamkit.wan.encoders import HashedTextConfig

VOID = {"meta", "link", "img", "br", "source", "path", "use"}


class Outline(HTMLParser):
    """Refuses tags that do not nest; keeps ids and addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "poster", "xlink:href"):
                self.addresses.append(value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> RunPage:
    folder = tmp_path_factory.mktemp("run")
    rows = [{"step": s, "loss": 1 / s, "loss/action": 1 / s, "lr": 1e-4} for s in (10, 20)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    engine = engine_of(tiny_policy(tiny_config(text=HashedTextConfig(width=16, length=8))))
    dataset = Dataset.open(tiny_dataset.write(folder / "dataset", (9, 12)))
    clips = Clips(dataset, tiny_dataset.RUN.data, tiny_dataset.RUN.actions)
    values = np.random.default_rng(0).normal(size=(50, 2))
    return RunPage(
        title="a tiny run",
        engines=[engine],
        evaluations=[Evaluation(evaluation(folder, "slide", "stuck"), folder)],
        histories=[read_history(folder)],
        open_loop=measure(engine, engine.policy.normalizer, [(clips, "Episodes of noise.")]),
        distributions=[
            Distribution(
                "robot",
                "action",
                ("right", "grip"),
                values,
                values.min(axis=0),
                values.max(axis=0),
                "min_max",
            )
        ],
        facts=Facts({"Policy": {"recipe": "tiny"}}, {"Config": {"seed": 0}}, {"train": 1.0}, "wamkit demo"),
        film=FilmConfig(width=128, strip_height=48),
        future=FutureConfig(steps=2),
    )


@pytest.fixture(scope="module")
def html(page: RunPage, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("page") / "sub" / "report.html"
    write_run_page(out, page)
    return out.read_text()


def test_the_page_is_well_formed_and_whole(html: str) -> None:
    outline = Outline()
    outline.feed(html)
    assert outline.open == []
    assert len(set(outline.ids)) == len(outline.ids)
    anchors = [address[1:] for address in outline.addresses if re.fullmatch(r"#[a-z_]+", address)]
    assert anchors == [name for name in ALL if name not in (*FORESIGHT, "warnings")] and set(anchors) <= set(
        outline.ids
    )
    assert "2 of 4 episodes solved (50 %)" in html


def test_the_page_needs_nothing_else(html: str) -> None:
    outline = Outline()
    outline.feed(html)
    assert all(address.startswith(("data:", "#")) for address in outline.addresses)
    assert (
        not re.search(r"url\((?!#)", html)
        and "@import" not in html
        and "http://" not in html
        and "https://" not in html
    )
    assert len(html) < 2_000_000


def test_films_play(html: str) -> None:
    """Two rollouts, an image a step, and the same two imagined, an image every fourth step."""
    films = re.findall(r"data:video/mp4;base64,([^\"]+)", html)
    assert len(films) == 4 and html.count("<video") == 4 and html.count('poster="data:image/jpeg') == 4
    frames = []
    for film in films:
        with av.open(io.BytesIO(base64.b64decode(film))) as container:
            assert container.streams.video[0].codec_context.name == "h264"
            frames.append(sum(1 for _ in container.decode(video=0)))
    assert min(frames[:2]) > 24 >= frames[2] >= 7 and frames[3] >= 11
    assert "solved after 24 steps" in html and "not solved in 40 steps" in html


def test_the_same_run_gives_the_same_page(page: RunPage, html: str, tmp_path: Path) -> None:
    write_run_page(tmp_path / "again.html", page)
    assert (tmp_path / "again.html").read_text() == html


def test_a_page_has_the_sections_it_is_asked_for(page: RunPage, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    engine = engine_of(tiny_policy(tiny_config()))
    engine.policy.imagine = engine.policy.attention_maps = None
    write_run_page(out, replace(page, engines=[engine]), ("facts", "success"))
    assert re.findall(r'<section id="(\w+)"', out.read_text()) == ["facts", "success"]
    with pytest.raises(BadInput, match="no section 'futur'; expected some of success, warnings, rollouts"):
        write_run_page(out, page, ("futur",))


def test_a_section_that_the_policy_has_nothing_for(page: RunPage, tmp_path: Path) -> None:
    blind = replace(page, engines=[engine_of(tiny_policy(tiny_config(objective="action_only")))])
    with pytest.raises(BadInput, match=r"section 'future': this policy .* imagines no video"):
        write_run_page(tmp_path / "page.html", blind, ("success", "future"))
    with pytest.raises(BadInput, match=r"'subgoal': this policy .* predicts no subgoal"):
        write_run_page(tmp_path / "page.html", blind, ("subgoal",))


def test_a_damaged_recording_stops_the_page(page: RunPage, tmp_path: Path) -> None:
    for name in ("slide_0", "slide_1", "stuck_0", "stuck_1"):
        (tmp_path / "episodes").mkdir(exist_ok=True)
        whole = (page.evaluations[0].folder / f"episodes/{name}.npz").read_bytes()
        (tmp_path / f"episodes/{name}.npz").write_bytes(whole[:-200] if name == "stuck_0" else whole)
    moved = Evaluation(page.evaluations[0].results, tmp_path)
    with pytest.raises(BadInput, match=r"stuck_0\.npz: the recording is truncated"):
        write_run_page(tmp_path / "page.html", replace(page, evaluations=[moved]))
    assert not (tmp_path / "page.html").exists()


def test_titles_are_escaped(tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    write_page(out, Header("a < b", "<b>", "&"), [Section("one", "x > y", "paragraphs", ["a <i>word</i>"])])
    text = out.read_text()
    assert "a &lt; b" in text and "&lt;b&gt;" in text and "x &gt; y" in text
    assert "<p>a &lt;i&gt;word&lt;/i&gt;</p>" in text


def test_a_page_without_recordings_says_so(page: RunPage, tmp_path: Path) -> None:
    results = page.evaluations[0].results
    rows = [{**row, "recording": ""} for row in results["episodes"]]
    out = tmp_path / "page.html"
    write_run_page(out, replace(page, evaluations=[Evaluation({**results, "episodes": rows}, tmp_path)]))
    assert out.read_text().count("No episode was recorded.") == 3 and "<video" not in out.read_text()
