"""The page of a comparison: what it says, how it draws differences, which curves share a panel."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from wamkit_client.stats import paired, wilson
from wamkit_client.types import BadInput

from wamkit.report.comparison import cost, differences, header, success, training, write_comparison_page
from wamkit.report.plots import BLUE, ORANGE, VARIABLES, Curve, curves
from wamkit.report.results import COMPARED, RATE, Compared, EarlierStage, Elsewhere

TASKS = {"push": "push it", "pull": "pull it"}
KINDS = {"light": "light_wam", "light<2>": "light_wam", "fast": "fast_wam"}
SOLVED = {"light": (9, 10), "light<2>": (10, 10), "fast": (2, 1)}  # of ten, by task
LOSSES = {"light": ("action", "video"), "light<2>": ("action",), "fast": ("action", "video")}


def rate(successes: int, trials: int, errors: int = 0) -> dict[str, Any]:
    return {
        "successes": successes,
        "trials": trials,
        "errors": errors,
        "rate": successes / trials if trials else None,
        "interval": list(wilson(successes, trials)),
    }


def arm(name: str, number: int) -> dict[str, Any]:
    return {
        "name": name,
        "kind": KINDS[name],
        "identity": {"variant": "no_video"},
        "parameters": {"total": 3_800_000, "trained": 1_900_000},
        "total": rate(sum(SOLVED[name]), 20),
        "tasks": {
            task: rate(count, 10)
            | {"instruction": "", "group": "", "mean_steps": 50.0 if count > 1 else None, "expert_steps": 0}
            for task, count in zip(TASKS, SOLVED[name], strict=True)
        },
        "seeds": {"0": rate(2, 10), "1": rate(8, 10)},
        "query_ms": 10.0 * (1 + number),
        "step_seconds": 0.5 * (1 + number),
        "about_losses": "what they are",
    }


def episodes(name: str) -> dict[Any, bool]:
    return {
        (task, seed): seed < count
        for task, count in zip(TASKS, SOLVED[name], strict=True)
        for seed in range(10)
    }


@pytest.fixture
def comparison(tmp_path: Path) -> Compared:
    """Three policies, two seeds, whose curves lie in `tmp_path`."""
    origin = {"revision": "abc", "versions": {}, "machine": {"cpu": "a processor"}}
    rows = [
        {
            "name": f"row{n}{seed}",
            "recipe": name,
            "seed": seed,
            "run": {"recipe": name, "train": {"seed": seed}},
            "trained": origin,
            "measured": origin,
            "weights": "w",
            "total": {},
            "tasks": {},
            "latency": {},
        }
        for seed in (0, 1)
        for n, name in enumerate(SOLVED)
    ]
    for row in rows:
        (tmp_path / row["name"]).mkdir()
        lines = [
            {"step": step} | {f"loss/{loss}": 1 / step for loss in LOSSES[row["recipe"]]} for step in (5, 10)
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / row["name"] / "metrics.jsonl").write_text(text)
    against = [("light", "light<2>"), ("light", "fast")]
    tree = {
        "format": "wamkit-comparison-1",
        "command": "wamkit compare light fast",
        "suite": {
            "name": "toys",
            "tasks": [{"name": name, "instruction": text} for name, text in TASKS.items()],
            "episodes": 5,
            "max_steps": 40,
        },
        "seeds": [0, 1],
        "steps": 100,
        "batch_size": 8,
        "dataset": {"episodes": 30, "fingerprint": "f"},
        "demonstrated": 30,
        "simulator": {"versions": {"mujoco": "3"}, "opengl": "none"},
        "revision": "abc",
        "versions": {"torch": "2"},
        "cost": {"machine": {"cpu": "a processor", "device": "cpu", "threads": 1}, "batch_size": 8},
        "arms": [arm(name, number) for number, name in enumerate(SOLVED)],
        "pairs": [
            {"first": first, "second": second} | asdict(paired(episodes(first), episodes(second)))
            for first, second in against
        ],
        "rows": rows,
    }
    return COMPARED.validate_python(tree)


def table_rows(body: str) -> list[str]:
    rows = re.findall(r"<tr><th scope=\"row\">(.*?)</tr>", body, re.DOTALL)
    return [" ".join(re.sub(r"<[^>]+>", " ", row).split()) for row in rows]


def test_the_page_is_whole_and_repeats(comparison: Compared, tmp_path: Path) -> None:
    page = tmp_path / "comparison.html"
    write_comparison_page(page, comparison)
    html = page.read_text()
    assert [re.sub("<.*?>", "", title) for title in re.findall("<h2>(.*?)</h2>", html)] == [
        "Success",
        "Differences",
        "Cost",
        "Training",
        "Run facts",
    ]
    assert "light&lt;2&gt;" in html and "light<2>" not in html
    assert "src=" not in html and "@import" not in html and "http" not in html.replace("data:", "")
    assert "wamkit compare light fast" in html and "a processor" in html
    write_comparison_page(page, comparison)
    assert page.read_text() == html


def test_the_headline(comparison: Compared) -> None:
    said = header(comparison)
    assert said.title == "toys: which of 3 policies learns most from the same data in the same steps?"
    assert said.headline == "From 15 % to 100 % of the episodes solved"
    assert "seeds 0 and 1 on 30 demonstrations: 100 steps of 8 samples" in said.subline
    assert "2 tasks with 5 episodes per seed. No episode begins from one of the 30" in said.subline
    assert "1 of 2 paired tests find a difference (p below 0.05 / 2)" in said.subline
    said = header(replace(all_arms(comparison, rate(3, 4)), pairs=[]))
    assert said.headline == "75 % of the episodes solved by every policy" and "paired" not in said.subline
    assert "every episode crashed" in header(all_arms(comparison, rate(0, 0, errors=4))).headline


def all_arms(comparison: Compared, total: dict[str, Any]) -> Compared:
    """With this score for every policy."""
    return replace(
        comparison, arms=[replace(arm, total=RATE.validate_python(total)) for arm in comparison.arms]
    )


def test_success_of_all_and_of_each_task(comparison: Compared) -> None:
    tasks = comparison.arms[2].tasks
    tasks["pull"] = replace(tasks["pull"], errors=7)
    rows = table_rows(success(comparison).body)
    assert len(rows) == 9
    assert "19 / 20" in rows[0] and "2, 8" in rows[0] and "76–99 %" in rows[0]
    assert "9 / 10" in rows[0] and "10 / 10" in rows[0] and "light wam, variant no video" in rows[0]
    fast_pull = rows[8].split()
    assert fast_pull[0] == "fast" and "none" in fast_pull and "7" in fast_pull


def test_differences_are_drawn_around_zero(comparison: Compared) -> None:
    section = " ".join(differences(comparison).body.split())
    same, worse = table_rows(section)
    assert "against light" in same and "+5.0" in same and "1, 0" in same
    pair = comparison.pairs[1]
    assert "−80.0" in worse and "0, 16" in worse and "&lt; 0.0001" in worse
    low, high = pair.interval
    edge = max(abs(bound) for other in comparison.pairs for bound in other.interval)
    drawn = [tuple(map(float, found)) for found in re.findall(r"left:([\d.]+)%;width:([\d.]+)%", section)]
    assert drawn[1] == pytest.approx((50 + 50 * low / edge, 50 * (high - low) / edge), abs=0.06)
    marks = [float(found) for found in re.findall(r'<b style="left:([\d.]+)%"', section)]
    assert marks == pytest.approx([50 + 50 * other.difference / edge for other in comparison.pairs], abs=0.06)
    assert "2 tests are made" in section and "0.05 / 2 = 0.025" in section
    assert "not quite independent" in section


def test_one_policy_has_nothing_to_be_compared_with(comparison: Compared) -> None:
    assert "nothing to compare" in differences(replace(comparison, pairs=[])).body


def test_costs_beside_the_first(comparison: Compared) -> None:
    rows = table_rows(cost(comparison).body)
    assert rows[0] == "light 3.80 M 1.90 M 3.80 M 10.0 × 1.00 0.500 × 1.00 not counted 50 s"
    assert rows[2] == "fast 3.80 M 1.90 M 3.80 M 30.0 × 3.00 1.500 × 3.00 not counted 2 min 30 s"


def test_what_a_policy_starts_from_is_counted_too(comparison: Compared, tmp_path: Path) -> None:
    stage = EarlierStage(
        "world", {"total": 2_000_000, "trained": 1_000_000}, 400, 16, 0.25, 90_000_000, {"a": 1}
    )
    fast = replace(
        comparison.arms[2],
        parameters={"total": 9, "trained": 8, "deployed": 2_500_000},
        step_bytes=120_000_000,
        shown={"canvas": '"separate"'},
        earlier=[stage],
    )
    shown = replace(comparison, arms=[*comparison.arms[:2], fast])
    body = cost(shown).body
    rows = table_rows(body)
    assert rows[2] == "fast 0.00 M 0.00 M 2.50 M 30.0 × 3.00 1.500 × 3.00 120 MB 2 min 30 s"
    assert rows[3] == "before: world 2.00 M 1.00 M 0.250 × 0.50 90 MB 1 min 40 s"
    text = " ".join(re.sub(r"<[^>]+>", "", body).split())
    assert "400 steps of 16 samples" in text and "the whole training takes 4 min 10 s" in text
    assert "fast is shown the same moments otherwise than light: canvas" in text
    write_comparison_page(tmp_path / "comparison.html", shown)


def test_equal_time_names_the_steps_of_each(comparison: Compared) -> None:
    fast = replace(comparison.arms[2], steps=60)
    shown = replace(comparison, arms=[*comparison.arms[:2], fast])
    said = header(shown)
    assert said.title == "toys: which of 3 policies learns most from the same data in equal time?"
    assert "30 demonstrations: light, light<2> 100 steps; fast 60 steps of 8 samples" in said.subline
    assert table_rows(cost(shown).body)[2].endswith("1 min 30 s")


def test_further_suites_count_among_the_tests(comparison: Compared) -> None:
    """Fails where a p-value is read as if the tests of the other suite had not been made."""
    rates = {arm.name: arm.seeds["1"] for arm in comparison.arms}
    other = Elsewhere(comparison.suite | {"name": "toys+fog"}, rates, comparison.pairs)
    shown = replace(comparison, also=[other])
    section = " ".join(differences(shown).body.split())
    assert "<h3>toys</h3>" in section and "<h3>toys+fog</h3>" in section
    assert len(table_rows(section)) == 4 and "4 tests are made" in section and "0.05 / 4 = 0.013" in section
    assert "2 of 4 paired tests find a difference (p below 0.05 / 4)" in header(shown).subline
    assert [row.split(" ", 1)[1] for row in table_rows(success(shown).body)[-3:]] == [
        f"{arm.total.successes} / 20 8 / 10" for arm in comparison.arms
    ]


def test_losses_of_different_kinds_have_panels_of_their_own(comparison: Compared, tmp_path: Path) -> None:
    body = training(comparison, tmp_path).body
    panels = {
        name: svg for svg, name in re.findall(r'(<svg[^>]*aria-label="([^"]*)".*?</svg>)', body, re.DOTALL)
    }
    assert list(panels) == [
        "action loss, light wam",
        "video loss, light wam",
        "action loss, fast wam",
        "video loss, fast wam",
    ]
    counts = {
        name: [len(re.findall(rf"stroke: var\({colour}\)", svg)) for colour in ("--blue", "--orange")]
        for name, svg in panels.items()
    }
    assert list(counts.values()) == [[2, 2], [2, 0], [2, 0], [2, 0]]  # a line per seed
    assert "different quantities" in body and body.count('class="key"') == 3
    assert body.count("what they are") == 2
    (tmp_path / "row00" / "metrics.jsonl").unlink()
    with pytest.raises(BadInput, match=r"row00/metrics\.jsonl: missing"):
        training(comparison, tmp_path)


@pytest.mark.parametrize("y", [[3.0, 2.0, 1.0], [0.0, 0.0, 0.0], [2.0]], ids=str)
def test_curves_are_well_formed_and_take_the_pages_colours(y: list[float]) -> None:
    x = list(range(1, len(y) + 1))
    svg = curves("a < b", [Curve(x, y, BLUE), Curve(x, y, ORANGE)], "step", log=min(y) > 0)
    ElementTree.fromstring(svg.replace("xlink:href", "href"))
    assert "var(--blue)" in svg and "var(--orange)" in svg
    assert not any(stand_in in svg for stand_in in VARIABLES)
    assert re.findall(r"(?:stroke|fill|color): (#\w+)", svg) == []
