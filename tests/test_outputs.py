"""Where a command writes: looked at before the work, never inside data, and whole or untouched when a disk refuses."""

from __future__ import annotations

import json
import os
import resource
import shlex
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import unescape
from pathlib import Path

import pytest

from tests.convert import robot_hdf5
from tests.test_bad_input import SMALL, record, where
from wamkit.cli import main
from wamkit.io.files import replace_text
from wamkit.stages import demo
from wamkit.stages import run as stages

ROOT = Path(__file__).parents[1]
PRETRAINED = ROOT / "pretrained" / "metaworld3"
NOBODY = 65534

# Every command that writes; OUT is the place. Nothing else that is named exists, so only OUT can be what is refused.
COMMANDS = [
    "demo --out OUT",
    "collect metaworld3 --out OUT",
    "encode metaworld3 --dataset no --cache OUT",
    "train metaworld3 --dataset no --cache no --out OUT",
    f"eval {PRETRAINED} --out OUT",
    f"eval {PRETRAINED} --like no.json --out OUT",
    f"report {PRETRAINED} --dataset no --out OUT/page.html",
    f"analyse rollout {PRETRAINED} --dataset no --out OUT",
    f"analyse heatmap {PRETRAINED} --dataset no --out OUT",
    "compare metaworld3 --dataset no --cache no --out OUT",
    f"inspect {PRETRAINED} --dataset no --out OUT/page.html",
    "convert fast-wam no.pt OUT --recipe libero_fast_wam",
    "convert light-wam no mine.pt/OUT --to official",
    "convert latents no OUT --recipe libero_spatial --dataset no",
    "convert hdf5 no OUT",
    "convert libero-hdf5 no OUT --suite libero_object",
    f"export {PRETRAINED} OUT/policy.onnx --instructions go",
    "hub pull lab/model --out OUT",
]
each_command = pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words.split()[:2]))


def words_of(command: str, out: Path) -> list[str]:
    return [word.replace("mine.pt/OUT", str(out)).replace("OUT", str(out)) for word in shlex.split(command)]


def refused(capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    capsys.readouterr()
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


@each_command
def test_a_file_where_a_folder_is_needed(tmp_path, capsys, words):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for place in (tmp_path / "file" / "new", Path("/dev/null/new")):
        assert "it is a file where a folder is needed" in refused(capsys, words_of(words, place))
    assert "a symbolic link points to itself" in refused(capsys, words_of(words, tmp_path / "loop" / "new"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "loop"]
    assert (tmp_path / "file").read_text() == "mine" and stat.S_ISCHR(Path("/dev/null").stat().st_mode)


@each_command
def test_a_dataset_or_a_cache_holds_only_its_own_files(tmp_path, capsys, words):
    for kind, marker in (("dataset", "meta/info.json"), ("latent cache", "fingerprint.json")):
        data = tmp_path / kind
        (data / marker).parent.mkdir(parents=True)
        (data / marker).write_text("{}")
        inside = data / "deep" / "new"
        error = refused(capsys, words_of(words, inside))
        assert (
            str(inside.parent) in error
            and f"lies in the {kind} {data}" in error
            and "choose a folder beside it" in error
        )
        assert not (data / "deep").exists()


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("train metaworld3 --out OUT", "dataset"),
        ("train metaworld3 --out OUT", "latent cache"),
        ("encode metaworld3 --dataset OUT --cache OUT", "dataset"),
        ("collect metaworld3 --out OUT", "latent cache"),
    ],
)
def test_a_place_that_is_data_of_another_kind(tmp_path, capsys, command, kind):
    (tmp_path / "meta").mkdir()
    (tmp_path / {"dataset": "meta/info.json", "latent cache": "fingerprint.json"}[kind]).write_text("{}")
    (link := tmp_path.with_name(f"{tmp_path.name} link")).symlink_to(tmp_path)
    assert f"lies in the {kind} {tmp_path}" in refused(capsys, words_of(command, link))


@pytest.mark.parametrize(
    "command", [f"report {PRETRAINED} --dataset no", f"inspect {PRETRAINED} --dataset no"]
)
@pytest.mark.parametrize("page", ["/dev/null", "folder"])
def test_a_page_is_a_file(tmp_path, capsys, monkeypatch, command, page):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    assert f"{page}: is a folder or a device" in refused(capsys, [*command.split(), "--out", page])
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may enter, unlike pytest's."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def as_nobody(work: Callable[[], int]) -> int:
    """What `work` returns in a process that may not do everything, as root may."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            status = work()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("words", [COMMANDS[1], COMMANDS[3], COMMANDS[6]], ids=lambda words: words.split()[0])
def test_a_folder_without_permission(open_folder, capfd, words):
    locked = open_folder / "locked"
    locked.mkdir(mode=0o555)
    assert as_nobody(lambda: main(words_of(words, locked / "new"))) == 2
    error = capfd.readouterr().err
    assert (
        error.startswith(f"error: {locked}: permission denied; choose another folder")
        and error.count("\n") == 1
    )


@pytest.mark.parametrize("pattern", ["data/**/*.parquet", "videos/**/*.mp4", "meta/info.json"])
def test_a_file_that_may_not_be_read_is_not_called_damaged(open_folder, capfd, pattern):
    dataset = record(open_folder / "dataset")
    for path in dataset.glob(pattern):
        path.chmod(0)
    encode = ["encode", "metaworld3", "--dataset", str(dataset), "--cache", str(open_folder / "cache")]
    (open_folder / "cache").mkdir(mode=0o777)
    (open_folder / "cache").chmod(0o777)
    assert as_nobody(lambda: main(encode)) == 2
    error = capfd.readouterr().err
    assert "permission denied" in error and "truncated" not in error and "Traceback" not in error


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """The system refuses to write behind byte `size` of any file."""
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))


def test_a_page_that_the_disk_refuses(tmp_path, capsys):
    dataset, page = record(tmp_path / "dataset"), tmp_path / "page.html"
    page.write_text("old")
    words = ["inspect", str(dataset), "--recipe", "metaworld3", "--out", str(page)]
    with files_up_to(10_000):
        error = refused(capsys, words)
    assert error.startswith(f"error: {page}: file too large; raise the limit of file sizes")
    assert page.read_text() == "old" and sorted(path.name for path in tmp_path.iterdir()) == [
        "dataset",
        "page.html",
    ]
    assert main(words) == 0 and page.stat().st_size > 10_000


def test_a_conversion_that_the_disk_refuses_goes_on_later(tmp_path, capsys):
    for number in range(2):
        robot_hdf5.write(tmp_path / "recordings", number)
    words = ["convert", "hdf5", str(tmp_path / "recordings"), str(tmp_path / "dataset")]
    with files_up_to(600):
        assert "file too large" in refused(capsys, words)
    assert main(words) == 0
    assert main(["data", "check", str(tmp_path / "dataset")]) == 0


def test_a_small_file_that_the_disk_refuses_stays_as_it_was(tmp_path):
    path = tmp_path / "run.json"
    replace_text(path, "old")
    with files_up_to(0), pytest.raises(OSError, match="too large"):
        replace_text(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_repeating_a_finished_run_writes_nothing_even_where_nothing_can_be_written(tmp_path):
    record(tmp_path / "dataset")
    assert main(["encode", "metaworld3", *where(tmp_path)[:4]]) == 0
    train = ["train", "metaworld3", *where(tmp_path), *SMALL]
    assert main(train) == 0
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in (tmp_path / "run").glob("*.*")}
    assert {"run.json", "normalizer.json", "provenance.json"} < {path.name for path in before}
    with files_up_to(0):
        main(train)
    small = [path for path in before if path.suffix == ".json"]
    assert [path.read_bytes() for path in before] == [content for _, content in before.values()]
    assert [path.stat().st_mtime_ns for path in small] == [before[path][0] for path in small]
    assert not list((tmp_path / "run").glob("*.tmp"))


def test_the_times_of_a_demo_survive_a_disk_that_refuses(tmp_path):
    demo._timed(tmp_path, "collect", lambda: None)
    before = (tmp_path / demo.TIMES).read_text()
    with files_up_to(0), pytest.raises(OSError, match="too large"):
        demo._timed(tmp_path, "encode", lambda: None)
    assert (tmp_path / demo.TIMES).read_text() == before and json.loads(before).keys() == {"collect"}


def test_small_files_have_one_writer():
    """In place of `write_text`, which leaves half a file where a disk refuses the rest."""
    drafts = {
        "data/lerobot/writer.py",
        "robotwin/checkout.py",
    }  # folders that take their name when complete; a file for one call
    source = ROOT / "src" / "wamkit"
    writers = {
        str(path.relative_to(source)) for path in source.rglob("*.py") if ".write_text(" in path.read_text()
    }
    assert writers == drafts


def test_suggested_commands_can_be_pasted(tmp_path, capsys, monkeypatch):
    place = tmp_path / "my runs"
    record(place / "dataset")
    assert main(["encode", "metaworld3", *where(place)[:4]]) == 0
    capsys.readouterr()
    assert main(["train", "metaworld3", *where(place), *SMALL]) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    assert shlex.split(said.partition("Next: ")[2]) == ["wamkit", "eval", str(place / "run")]
    page = place / "run" / "inspection.html"
    assert main(["inspect", str(place / "run"), "--dataset", str(place / "dataset")]) == 0
    assert f"wamkit inspect '{place}/run'" in unescape(page.read_text())
    monkeypatch.setattr(demo, "results_table", lambda results: "")
    monkeypatch.setattr(demo, "read_results", lambda path: {})
    for place_of, names in ((stages, ("encode", "train")), (demo, ("collect", "evaluate", "report"))):
        for name in names:
            monkeypatch.setattr(place_of, name, lambda *arguments, **named: None)
    monkeypatch.setattr(demo, "check", lambda *arguments: [])
    assert main(["demo", "--smoke", "--out", str(place)]) == 0
    suggested = [
        shlex.split(line) for line in capsys.readouterr().out.partition("next:")[2].splitlines() if line
    ]
    assert [words[:2] for words in suggested] == [
        ["wamkit", "eval"],
        ["wamkit", "compare"],
        ["wamkit", "train"],
    ]
    assert suggested[0][2] == str(place / "run") and str(place / "cache") in suggested[1]
