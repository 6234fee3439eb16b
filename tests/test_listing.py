"""What wamkit says of its recipes and of itself."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest
from wamkit_client.envs.libero import plus
from wamkit_client.suites import SUITES

from wamkit import plugins, recipes
from wamkit.cli import main
from wamkit.commands import listing, versions
from wamkit.io.provenance import UNKNOWN, revision
from wamkit.recipes import RECIPES

TABLES = {
    "metaworld3_lawam": "wamkit.recipes.metaworld_lawam:metaworld3_lawam",
    "libero_goal": "wamkit.recipes.libero:libero_goal",
    "libero_goal_ours": "wamkit.recipes.ours:ours",
}


def test_every_recipe_is_listed_with_what_it_is(capsys):
    assert main(["recipes"]) == 0
    out = capsys.readouterr().out.splitlines()
    listed = {line.split()[0]: line.split()[1:] for line in out if line.startswith("  ")}
    assert tuple(listed) == RECIPES and all(listed.values())
    assert "wamkit init DATASET > my_recipe.py" in out[-1]


def test_a_plug_ins_recipe_says_where_it_is_from(capsys, monkeypatch):
    entry = plugins.EntryPoint("mine", "my_package.recipes:mine", plugins.RECIPES)
    for module in (recipes, listing):
        monkeypatch.setattr(module, "PLUG_INS", {"mine": entry})
    assert main(["recipes"]) == 0
    out = capsys.readouterr().out
    assert "Of installed plug-ins:" in out and "my_package.recipes:mine" in out


@pytest.mark.parametrize("name", TABLES)
def test_one_recipe_has_its_origin_and_its_values(capsys, name):
    assert main(["recipes", name]) == 0
    out = capsys.readouterr().out
    assert f"from: {TABLES[name]}" in out and "--train.steps INT (default: " in out
    assert ("starts from a run of: metaworld3_lawam_world" in out) == (name == "metaworld3_lawam")


def test_a_recipe_file_is_one_too(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("arm.py").write_text(
        "from dataclasses import replace\nfrom wamkit.recipes import recipe as built_in\n\n"
        "def recipe():\n    return replace(built_in('metaworld3'), recipe='arm')\n"
    )
    assert main(["recipes", "arm.py"]) == 0
    assert "arm.py: a recipe of your own\nfrom: arm.py" in capsys.readouterr().out
    assert main(["recipes", "arm.py:robot"]) == 2
    assert "has no function 'robot'; it has recipe" in " ".join(capsys.readouterr().err.split())


def test_an_unknown_recipe(capsys):
    assert main(["recipes", "metaword3"]) == 2
    found = capsys.readouterr()
    assert not found.out and "did you mean 'metaworld3'" in found.err


def test_every_suite_is_listed_with_what_can_go_wrong(capsys):
    assert main(["suites"]) == 0
    listed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    names = [line.split()[0] for line in listed]
    assert {*SUITES, *plus.SUITES} <= set(names)
    row = next(line for line in listed if line.startswith("  metaworld3 "))
    assert "3 tasks, 20 episodes each, at most 250 steps at 80 Hz" in row
    assert any("+camera_1 to _3" in line and "5, 10, 20 (degrees)" in line for line in listed)
    assert names.count("+layout_1") == 2 and names.count("+lights_off") == 1


def test_one_suite_has_its_tasks_and_what_can_go_wrong(capsys):
    assert main(["suites", "metaworld3"]) == 0
    out = capsys.readouterr().out
    assert "1   drawer-open-v3: Open a drawer" in out and "+noise_1 to _3" in out
    assert main(["suites", "metaworld3+camera_2"]) == 0
    out = capsys.readouterr().out
    assert "cameras outside the robot go round the scene: 10 (degrees)" in out and "+noise_1" not in out
    assert main(["suites", "metaworld3+camera_9"]) == 2


def test_versions(capsys, monkeypatch):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    first, *others = capsys.readouterr().out.splitlines()
    assert first.startswith("wamkit 0.") and revision() in (first + UNKNOWN)
    assert [line.split()[0] for line in others] == ["wamkit-client", "PyTorch", "Python"]
    assert others[-1] == f"Python {platform.python_version()}"
    monkeypatch.setattr(versions, "revision", lambda: UNKNOWN)
    versions.print_versions()
    assert "revision" not in capsys.readouterr().out


def test_an_environment_inside_another_checkout_has_no_revision(tmp_path: Path, monkeypatch):
    """Installed from a wheel, wamkit lies in nobody's checkout, wherever the environment is."""
    from wamkit.io import provenance

    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], [*author, "commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    installed = tmp_path / "venv" / "provenance.py"
    installed.parent.mkdir()
    installed.touch()
    monkeypatch.setattr(provenance, "__file__", str(installed))
    assert revision() == UNKNOWN
