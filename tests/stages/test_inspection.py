"""wamkit inspect: planted wrong conventions are found, a sound dataset is not accused, the page has the numbers."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from wamkit_client.types import BadInput

from tests import tiny_dataset
from tests.policies.tiny_policy import shaken, tiny_config
from tests.report.test_page import Outline
from tests.wan.test_umt5 import save_tokenizer
from wamkit.config import Run, build_policy, load_engine, load_normalizer, save_normalizer, save_run
from wamkit.data.actions import ActionSpace
from wamkit.data.clips import Clips
from wamkit.data.lerobot.dataset import Dataset, Episode
from wamkit.data.lerobot.writer import Writer
from wamkit.data.windows import window
from wamkit.io.weights import WEIGHTS
from wamkit.stages.findings import findings, warn_of_kinds
from wamkit.stages.inspection import inspect, padded_share, see
from wamkit.stages.run import fit_normalizer, open_clips
from wamkit.stages.tables import dataset_table
from wamkit.train.checkpoint import trained_tensors
from wamkit.types import DataSpec
from wamkit.wan.encoders import HashedTextConfig, StoredTextConfig, UMT5Config, WanVAEConfig
from wamkit.wan.prompts import prompts_of
from wamkit.wan.text import HashedText
from wamkit.wan.umt5 import StoredText

LENGTHS = (14, 9, 20)
TASKS = ("push the button", "open the drawer", "push the button")
RECIPE = Run(
    recipe="tiny",
    suite="none",
    policy=tiny_config(text=HashedTextConfig(width=16, length=8)),
    data=DataSpec(
        views=("top", "wrist"),
        canvas="horizontal",
        view_height=32,
        view_width=32,
        hz=10.0,
        frame_times=(0.0, 0.1, 0.2, 0.3, 0.4),
        chunk_seconds=0.6,
        proprio_dim=2,
        action_dim=3,
    ),
    actions=ActionSpace(("dx", "dy", "grip"), ("delta", "delta", "gripper")),
)

Column = Callable[[np.ndarray], np.ndarray]


def same(column: np.ndarray) -> np.ndarray:
    return column


def write(
    root: Path,
    action: Column = same,
    state: Column = same,
    pictures: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]] = lambda top, wrist: (
        top,
        wrist,
    ),
    names: tuple[str, ...] = ("x", "y", "gripper"),
    robot: str = "testbot",
    fps: int = 10,
    tasks: tuple[str, ...] = TASKS,
) -> Path:
    """A dataset of three episodes with sound conventions, changed as asked."""
    picture = {"dtype": "video", "shape": [32, 48, 3]}
    features = {
        "action": {"dtype": "float32", "shape": [3], "names": list(names)},
        "observation.state": {"dtype": "float32", "shape": [2], "names": ["x", "gripper"]},
        "observation.images.top": picture,
        "observation.images.wrist": picture,
    }
    writer = Writer.create(root, fps, robot, features)
    for episode, (length, task) in enumerate(zip(LENGTHS, tasks, strict=True)):
        random = np.random.default_rng(episode)
        closed = np.where(np.arange(length) > length // 2, 1.0, -1.0)
        moves = random.uniform(-0.05, 0.05, (length, 2))
        place = 0.3 + 0.1 * random.normal() + np.cumsum(moves[:, 0])
        t, y, x = np.mgrid[0:length, 0:32, 0:48]
        top = np.stack([40 + 3 * x + 4 * t, 60 + 3 * y + 30 * episode, 30 + x + y + 2 * t], axis=-1)
        wrist = np.stack([200 - 5 * y - 2 * t, 30 + 2 * y + 2 * x, 180 - 2 * x + t], axis=-1)
        top, wrist = pictures(*(p.clip(0, 255).astype(np.uint8) for p in (top, wrist)))
        columns = {
            "action": action(np.column_stack([moves, closed])).astype(np.float32),
            "observation.state": state(np.column_stack([place, (1 - closed) / 2])).astype(np.float32),
        }
        writer.add_episode(columns, {"top": top, "wrist": wrist}, task)
    writer.finalize()
    return root


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("sound") / "dataset")


@pytest.fixture(scope="module")
def run_dir(sound: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose policy has random weights."""
    folder = tmp_path_factory.mktemp("run")
    normalizer = fit_normalizer(RECIPE, open_clips(RECIPE, [sound]))
    policy = shaken(build_policy(RECIPE, normalizer))
    save_run(RECIPE, folder)
    save_normalizer(normalizer, folder)
    save_file({name: x.contiguous() for name, x in trained_tensors(policy).items()}, folder / WEIGHTS)
    return folder


@pytest.fixture(scope="module")
def page(sound: Path, run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("page") / "page.html"
    inspect(RECIPE, [sound], run_dir, out)
    return out.read_text()


def suspicions(path: Path, run_dir: Path = Path()) -> list[str]:
    """What `inspect` returns, without drawing."""
    clips = Clips(Dataset.open(path), RECIPE.data, RECIPE.actions)
    normalizer = fit_normalizer(RECIPE, [clips]) if run_dir == Path() else load_normalizer(run_dir)
    return findings(see(RECIPE, clips, normalizer, run_dir))


def text_of(html: str) -> str:
    """What a reader reads."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))


def set_column(i: int, change: Column) -> Column:
    def changed(rows: np.ndarray) -> np.ndarray:
        rows = rows.copy()
        rows[:, i] = change(rows[:, i])
        return rows

    return changed


# what is suspicious


PLANTED = {
    "view 'wrist' is nearly black": {"pictures": lambda top, wrist: (top, wrist // 30)},
    "view 'top' is nearly one colour everywhere": {
        "pictures": lambda top, wrist: (np.full_like(top, 90), wrist)
    },
    "view 'top' has no colour": {"pictures": lambda top, wrist: (top[..., :1].repeat(3, axis=3), wrist)},
    "view 'top' is the same as 'wrist'": {"pictures": lambda top, wrist: (top, top)},
    "view 'top' is rotated by 180 degrees, otherwise the same as": {
        "pictures": lambda top, wrist: (top, top[:, ::-1, ::-1])
    },
    "view 'top' is mirrored, otherwise the same as": {"pictures": lambda top, wrist: (top, top[:, :, ::-1])},
    "action 2 (grip) is always 1: leave it out": {"action": set_column(2, np.ones_like)},
    "proprio 0 (x) is always 0: is it recorded?": {"state": set_column(0, np.zeros_like)},
    "action 1 (dy) is called a delta and is never negative": {"action": set_column(1, lambda y: y + 0.5)},
    "action 0 (dx) is called a delta and is nearly equal to the state's x": {
        "action": set_column(0, lambda x: np.sin(np.arange(len(x)))),
        "state": set_column(0, lambda x: np.sin(np.arange(len(x)))),
    },
    "proprio 0 (x) reaches": {"state": set_column(0, lambda x: 1000 * x)},
    "the dataset calls it 'gripper': is the order": {"names": ("gripper", "x", "y")},
    "action 2 (grip) is called 'gripper_closing' in the dataset: does a high command open": {
        "names": ("x", "y", "gripper_closing")
    },
    "instruction 'open_drawer' looks like a name": {
        "tasks": ("push the button", "open_drawer", "push the button")
    },
}


@pytest.mark.parametrize("sentence", PLANTED)
def test_a_planted_convention_is_found(sentence: str, tmp_path: Path) -> None:
    dataset = write(tmp_path / "dataset", **PLANTED[sentence])
    found = suspicions(dataset)
    assert [one for one in found if sentence in one], found


def test_training_warns_of_kinds_that_the_numbers_speak_against(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = "action 1 (dy) is called a delta and is never negative"
    dataset = Dataset.open(write(tmp_path / "dataset", **PLANTED[sentence]))
    warn_of_kinds([Clips(dataset, RECIPE.data, RECIPE.actions)])
    assert f"warning: {tmp_path / 'dataset'}: {sentence} (0." in capsys.readouterr().out


FOREIGN = {
    "proprio 0 (x): 100 % of the steps are clamped at ±5": {"state": set_column(0, lambda x: 10 + 3 * x)},
    "proprio 0 (x) uses only": {"state": set_column(0, lambda x: 0.3 + x / 1000)},
    "action 0 (dx): ": {"action": set_column(0, lambda x: 3 * x)},
    "action 2 (grip) is never below the run's middle": {"action": set_column(2, lambda grip: (grip + 1) / 2)},
    "robot is 'arm', the run knows 'testbot'": {"robot": "arm"},
}


@pytest.mark.parametrize("sentence", FOREIGN)
def test_data_foreign_to_a_run_is_found(sentence: str, run_dir: Path, tmp_path: Path) -> None:
    dataset = write(tmp_path / "dataset", **FOREIGN[sentence])
    found = suspicions(dataset, run_dir)
    assert [one for one in found if sentence in one], found


def test_a_sound_dataset_is_foreign_to_no_run(sound: Path, run_dir: Path) -> None:
    """All there is to say concerns the policy, whose weights are random."""
    found = suspicions(sound, run_dir)
    assert all("policy predicts" in one or "predictions run against" in one for one in found), found


def changed_weights(run_dir: Path, out: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> Path:
    """The run with another weight of the action head."""
    shutil.copytree(run_dir, out)
    tensors = load_file(out / WEIGHTS)
    save_file(tensors | {HEAD: change(tensors[HEAD])}, out / WEIGHTS)
    return out


HEAD = "expert.output.2.weight"


def test_weights_that_are_not_finite_are_found_and_the_data_is_compared_all_the_same(
    run_dir: Path, tmp_path: Path
) -> None:
    broken = changed_weights(run_dir, tmp_path / "run", lambda x: x.index_fill(0, torch.tensor(0), torch.nan))
    sentence, change = next(iter(FOREIGN.items()))
    found = inspect(RECIPE, [write(tmp_path / "dataset", **change)], broken, tmp_path / "page.html")
    assert [one for one in found if f"1 of the weights are not finite ({HEAD})" in one], found
    assert [one for one in found if sentence in one], found
    seen = text_of((tmp_path / "page.html").read_text())
    assert f"Nothing is predicted: 1 of the weights are not finite ({HEAD})" in seen
    with pytest.raises(
        BadInput, match=rf"run/weights.safetensors: 1 of the weights are not finite \({HEAD}\)"
    ):
        load_engine(broken, torch.device("cpu"))


def test_predictions_that_are_not_finite_are_found(sound: Path, run_dir: Path, tmp_path: Path) -> None:
    huge = changed_weights(run_dir, tmp_path / "run", lambda x: torch.full_like(x, 3e38))
    found = suspicions(sound, huge)
    assert [one for one in found if "predictions are not finite numbers" in one], found


# the page


def test_the_page_is_whole_and_needs_nothing_else(page: str) -> None:
    outline = Outline()
    outline.feed(page)
    assert outline.open == [] and len(set(outline.ids)) == len(outline.ids)
    assert all(address.startswith(("data:", "#")) for address in outline.addresses)
    sections = ["findings", "canvas", "action", "proprio", "instructions", "chunks", "facts"]
    assert re.findall(r'<section id="(\w+)"', page) == sections


def test_the_page_says_what_was_found(tmp_path: Path) -> None:
    dataset = write(tmp_path / "dataset", **PLANTED["proprio 0 (x) is always 0: is it recorded?"])
    found = inspect(RECIPE, [dataset], Path(), tmp_path / "page.html")
    seen = text_of((tmp_path / "page.html").read_text())
    assert found == ["proprio 0 (x) is always 0: is it recorded?"]
    assert "1 thing to look at" in seen and found[0] in seen and "0 still" in seen


def test_a_policy_without_proprio_looks_at_data_with_and_without(sound: Path, tmp_path: Path) -> None:
    blind = replace(RECIPE, data=replace(RECIPE.data, proprio_dim=0))
    inspect(blind, [sound], Path(), tmp_path / "with.html")
    page = text_of((tmp_path / "with.html").read_text())
    assert "43 steps. The policy is not given them." in " ".join(page.split())
    stateless = tiny_dataset.write(
        tmp_path / "stateless", (14, 9, 20), spec=replace(tiny_dataset.SPEC, proprio_dim=0)
    )
    run = replace(tiny_dataset.RUN, data=replace(tiny_dataset.SPEC, proprio_dim=0))
    inspect(run, [stateless], Path(), tmp_path / "without.html")
    assert 'id="proprio"' not in (tmp_path / "without.html").read_text()


def test_the_page_shows_every_look_and_the_codecs(page: str) -> None:
    """Three steps of three episodes, five frames each, the canvas and what the codec gives back."""
    assert page.count('alt="canvas ') == 3 * 3 * 5 + 1 and page.count('alt="decoded ') == 3 * 3 * 5
    assert page.count("PSNR in dB") == 9
    seen = text_of(page)
    assert "top 32×48 32×32 at row 0, column 0 0.67 times as wide" in seen
    assert "wrist 32×48 32×32 at row 0, column 32" in seen
    assert seen.count("+0.4 s padding") == 3, "the last step of each episode"


def test_the_page_has_the_numbers(page: str, sound: Path) -> None:
    dataset, seen = Dataset.open(sound), text_of(page)
    for column, i, name in (("action", 0, "0 dx delta recorded as x"), ("observation.state", 0, "0 x")):
        values = np.concatenate([dataset.column(column, e.index)[:, i] for e in dataset.episodes]).astype(
            float
        )
        low, high = values.min(), values.max()
        shown = [low, *np.quantile(values, (0.01, 0.99)), high]
        row = " ".join(f"{value:.4g}" for value in shown)
        assert re.search(rf"{name} +{row} +{low:.4g} and {high:.4g}", seen), row
    assert "2 grip gripper recorded as gripper" in seen
    assert (
        "goes with a small gripper in the state (correlation -1.00): if that is an opening, high closes."
        in seen
    )


def test_the_page_shows_chunks_and_their_error(page: str, run_dir: Path, sound: Path) -> None:
    engine = load_engine(run_dir, torch.device("cpu"))
    clips = Clips(Dataset.open(sound), RECIPE.data, RECIPE.actions)
    errors = []
    for i in np.unique(np.linspace(0, len(clips) - 1, 24).round()).astype(int).tolist():
        sample = clips.sample(i)
        clip = replace(sample.clip, views={name: view[:, :1] for name, view in sample.clip.views.items()})
        predicted = engine.policy.act(engine.query(clip, [torch.Generator()]))
        errors.append((predicted - sample.actions)[~sample.action_is_pad].abs())
    seen = text_of(page)
    assert "Open-loop error is not success." in seen and "Nothing is predicted" not in seen
    shown = float(re.search(r"0 dx +(\S+) ", seen[seen.index("of always the median") :])[1])
    assert shown == pytest.approx(float(torch.cat(errors)[:, 0].mean()), rel=0.1), (
        "two more samples are shown"
    )
    assert page.count('aria-label="dx of ') == 3


def test_a_recipe_predicts_nothing(sound: Path, tmp_path: Path) -> None:
    assert inspect(RECIPE, [sound], Path(), tmp_path / "page.html") == [], "a sound dataset is not accused"
    seen = text_of((tmp_path / "page.html").read_text())
    assert "Nothing is predicted: this is a recipe that has not been trained" in seen
    assert (
        "Nothing looks suspicious" in seen
        and "Open-loop error" not in seen
        and "fitted on this dataset, as training would" in seen
    )


def test_the_same_arguments_give_the_same_page(page: str, sound: Path, run_dir: Path, tmp_path: Path) -> None:
    inspect(RECIPE, [sound], run_dir, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text() == page


# what is not there


def test_weights_that_are_absent_are_named(sound: Path, tmp_path: Path) -> None:
    policy = replace(
        RECIPE.policy, codec=WanVAEConfig(path=str(tmp_path / "vae")), text=UMT5Config(str(tmp_path))
    )
    assert inspect(replace(RECIPE, policy=policy), [sound], Path(), tmp_path / "page.html") == []
    seen = text_of((tmp_path / "page.html").read_text())
    assert f"What the codec gives back is not shown: {tmp_path / 'vae'}: no Wan2.1 VAE" in seen
    assert "there is no tokenizer in" in seen
    assert "executing the following instruction: open the drawer" in seen


def test_a_dataset_that_does_not_fit_is_refused(sound: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    for data, message in (
        (replace(RECIPE.data, views=("top", "left")), "camera 'left' is missing"),
        (replace(RECIPE.data, hz=20.0), "10 frames per second, the recipe asks for 20 Hz"),
        (replace(RECIPE.data, proprio_dim=7), "observation.state has 2 dimension"),
    ):
        with pytest.raises(BadInput, match=message):
            inspect(replace(RECIPE, data=data), [sound], Path(), page)
    assert not page.exists()


def test_a_damaged_run_is_refused(sound: Path, run_dir: Path, tmp_path: Path) -> None:
    for file in run_dir.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / WEIGHTS).unlink()
    with pytest.raises(BadInput, match=r"weights\.safetensors is missing"):
        inspect(RECIPE, [sound], tmp_path, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


# words


def test_hashed_words_are_those_of_the_encoder() -> None:
    """Each shown token, encoded alone, gives the row it has in the sentence but for its place."""
    text = "Don't push_it: open the 2nd drawer!"
    (prompt,) = prompts_of(HashedTextConfig(width=512, length=16), [text])
    rows = HashedText(512, 16).encode([text])[0]
    assert prompt.used == len(prompt.tokens) == int(rows.any(dim=1).sum()) and prompt.rows == 16
    for row, token in zip(rows, prompt.tokens[:-1], strict=False):
        alone = HashedText(512, 16).encode([token])[0, 0]
        assert torch.cosine_similarity(row, alone, dim=0) > 0.9, token


def test_instructions_that_cannot_be_encoded_are_listed(tmp_path: Path) -> None:
    (fine, long) = prompts_of(HashedTextConfig(width=8, length=4), ["open it", "open the drawer now"])
    assert fine.problem == "" and "has 4 words: this text encoding takes 1 to 3" in long.problem
    StoredText(tmp_path, length=128).write("open it", torch.ones(128, 4096), torch.arange(128) < 20)
    texts = [*(f"do thing {i}" for i in range(20)), "open it"]
    shown = prompts_of(StoredTextConfig(str(tmp_path)), texts)
    assert len(shown) == 12 and all("no stored text" in prompt.problem for prompt in shown)
    (stored,) = prompts_of(StoredTextConfig(str(tmp_path)), ["open it"])
    assert (stored.used, stored.rows, stored.tokens, stored.problem) == (20, 128, (), "")


def test_umt5_tokens_need_the_tokenizer_alone(tmp_path: Path) -> None:
    config = UMT5Config(str(tmp_path), stored=str(tmp_path / "text"), length=16)
    (prompt,) = prompts_of(config, ["view the robot"])
    assert (prompt.used, prompt.tokens) == (0, ())
    save_tokenizer(tmp_path / "tokenizer")
    (prompt,) = prompts_of(config, ["view the robot"])
    assert prompt.tokens[:3] == ("A", "video", "recorded") and prompt.tokens[-4:] == (
        "view",
        "the",
        "robot",
        "</s>",
    )
    assert (
        prompt.used == 16 and f"{len(prompt.tokens)} tokens, of which the encoder takes 16" in prompt.problem
    )


# small parts


def test_padded_share_counts_what_windows_pad() -> None:
    lengths, horizon = (3, 8, 12), 5
    pads = [window(n, n, step, (0,), horizon).action_is_pad for n in lengths for step in range(n)]
    episodes = [Episode(i, n, n, (), "file", {}) for i, n in enumerate(lengths)]
    spec = replace(RECIPE.data, chunk_seconds=horizon / RECIPE.data.hz)
    assert padded_share(episodes, spec) == pytest.approx(np.mean(pads))
    assert padded_share(episodes, replace(spec, whole_windows=True)) == 0


def test_whole_windows_are_looked_at_as_they_are_trained_on(sound: Path, tmp_path: Path) -> None:
    """Chunks of 1.2 s end inside the episodes of 14 and 20 steps; the one of 9 begins no sample."""
    run = replace(RECIPE, data=replace(RECIPE.data, whole_windows=True, chunk_seconds=1.2))
    clips = Clips(Dataset.open(sound), run.data, run.actions)
    seen = see(run, clips, fit_normalizer(run, [clips]), Path())
    assert {look.id for look in seen.looks} == {"0:0", "0:1", "0:2", "2:0", "2:4", "2:8"}
    assert not any(chunk.is_pad.any() for chunk in seen.chunks) and seen.padded_actions == 0
    inspect(run, [sound], Path(), tmp_path / "page.html")


def test_a_dataset_shows_how_fast_it_was_moved(tmp_path: Path) -> None:
    """The largest change between two steps of an episode; between two episodes the robot was carried back."""
    root = tiny_dataset.write(tmp_path / "dataset", [4, 1, 6])
    dataset = Dataset.open(root)
    actions = [dataset.rows("action", [episode]) for episode in dataset.episodes]
    largest = np.max([np.abs(np.diff(rows, axis=0)).max(axis=0, initial=0) for rows in actions], axis=0)
    rows = dict(zip(*(column.cells for column in dataset_table(root).columns), strict=True))
    assert rows["action change"] == "   ".join(f"{most:.3g}" for most in largest) + " per step at most"
