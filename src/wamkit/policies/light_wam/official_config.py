"""The resolved `config.yaml` of a released Light-WAM run -> a Run of ours (Light-WAM spec 1-4.1).

official_config.yaml has a rule for every field; a field without one is refused by name, since nobody can tell what it
means for the policy. Here are the rules' meanings, and the fields that make a value of ours together. What the file
does not say (control rate, names of the action dimensions, replan steps, number of processes, where frozen weights lie)
is taken from the nearest recipe.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import yaml
from pydantic import Field, StrictBool, StrictInt, StrictStr, TypeAdapter
from wamkit_client.types import BadInput

from wamkit.data.canvas import canvas_size
from wamkit.io.differences import replaced
from wamkit.policies.light_wam.policy import LORA_LAYERS, StepWeights
from wamkit.wan.dit import SIZES


class Kind(NamedTuple):
    """What a field holds. read: a value of the file -> ours; raises ValueError, TypeError or KeyError for others."""

    expected: str
    read: Callable[[Any], Any]


def one_of(known: Mapping[str, Any]) -> Kind:
    """A name, which becomes what it means."""
    return Kind(f"one of {list(known)}", known.__getitem__)


FLAG = Kind("true or false", TypeAdapter(StrictBool).validate_python)
TEXT = Kind("text", TypeAdapter(StrictStr).validate_python)
TEXTS = Kind("a list of str", TypeAdapter(tuple[StrictStr, ...]).validate_python)
COUNT = Kind("a whole number from 1", TypeAdapter(Annotated[StrictInt, Field(ge=1)]).validate_python)
NATURAL = Kind("a whole number from 0", TypeAdapter(Annotated[StrictInt, Field(ge=0)]).validate_python)
COUNTS = Kind("a list of int", TypeAdapter(tuple[StrictInt, ...]).validate_python)
LAYERS = Kind("a list of int", lambda value: tuple(sorted(COUNTS.read(value))))
NUMBER = Kind("a number", float)  # YAML reads 1e-4 as text

# The released code takes the sizes of a video model from its own table, whatever stands in `video_dit_config`.
PRESETS = {"wan2_1_t2v": SIZES["1.3B"]}
KINDS = {
    "text": TEXT,
    "number": NUMBER,
    "count": COUNT,
    "natural": NATURAL,
    "layers": LAYERS,
    "size": one_of(PRESETS),
    "mode": one_of({"min/max": "min_max", "z-score": "z_score"}),
}
# What fields repeat besides values of our run by their path.
REPEATED: dict[str, Callable[[Any], Any]] = {
    "canvas": lambda run: list(canvas_size(run.data)),
    "view": lambda run: [run.data.view_height, run.data.view_width],
    "cameras": lambda run: len(run.data.views),
    "observations": lambda run: run.data.horizon + 1,
    "layers": lambda run: list(range(run.policy.size.layers)),
    "lora_layers": lambda run: list(LORA_LAYERS),
}
PRECISIONS = {
    "bf16": {"policy.time_precision": "bfloat16", "train.precision": "bf16"},
    "no": {"policy.time_precision": "float32", "train.precision": "fp32"},
}
PROCESSES = 4  # of the published launchers; no field says it
# class of the dataset, canvas -> the recipe that says what the file does not (of LIBERO's four one, they say the same)
NEAREST = {
    ("RobotVideoDataset", "horizontal"): "libero_spatial",
    ("RobotVideoDataset", "robotwin"): "robotwin",
    ("HDF5RobotVideoDataset", "robotwin"): "real_robot",
}
LIBERO = ("libero_spatial", "libero_object", "libero_goal", "libero_10")

TRAIN, IMAGES = "data.train", "data.train.shape_meta.images"
MASK = f"{TRAIN}.processor.delta_action_dim_mask.default"
WEIGHTING = "model.loss.action_temporal_weighting"
MISSING: Any = object()


@dataclass(frozen=True)
class Rule:
    """What becomes of a field. how: a word that official_config.yaml explains. absent: its value in older files."""

    how: str
    value: Any = None
    absent: Any = MISSING


def read_config(path: Path, recipe: Callable[[str], Any]) -> Any:
    """The run that a released `config.yaml` describes; its name is `released_` and the nearest recipe's.

    recipe: name -> Run. Raises BadInput naming a field that is unknown, missing, of the wrong type, beyond what a
    Light-WAM of ours can be, or contradicts another one.
    """
    rules = _rules(yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text("utf-8")))
    file = _Fields(str(path), _leaves(_load(path)), rules)
    near = _nearest(file, recipe)
    changes = {"recipe": f"released_{near.recipe}", "normalization.statistics": "published_windows"}
    for name, rule in rules.items():
        if rule.how in ("must", "may"):
            file.agree(name, rule.value)
        elif rule.how in KINDS:
            ours = rule.value if isinstance(rule.value, list) else [rule.value]
            changes |= dict.fromkeys(ours, file.get(name, KINDS[rule.how]))
    changes |= _views(file) | _window(file, near.data.hz) | _training(file, near.train.steps)
    run = replaced(near, changes)
    run = replaced(run, {"policy.step_weights": _step_weights(file, run.data.horizon)})
    file.agree(f"{TRAIN}.shape_meta.action.0.shape", len(run.actions))
    file.leaves.setdefault(MASK, [False] * run.data.action_dim)
    file.agree(MASK, [kind == "delta" for kind in run.actions.kinds])
    for name, rule in rules.items():
        if rule.how == "repeats":
            file.agree(name, REPEATED.get(rule.value, attrgetter(rule.value))(run))
        elif rule.how == "same":
            for leaf in file.below(name):
                file.agree(leaf, file.leaves.get(rule.value + leaf.removeprefix(name)))
    file.expect_known()
    return run


def _nearest(file: _Fields, recipe: Callable[[str], Any]) -> Any:
    """The recipe that says what the file does not; LIBERO's suite is read off the folders of its datasets."""
    dataset = file.get(f"{TRAIN}._target_", TEXT).rpartition(".")[2]
    canvas = file.get(f"{TRAIN}.concat_multi_camera", TEXT)
    folders = file.get(f"{TRAIN}.dataset_dirs", TEXTS)
    if (dataset, canvas) not in NEAREST:
        found = f"{canvas!r} of a {dataset}"
        raise file.wrong(f"{TRAIN}.concat_multi_camera", found, f"one of {list(NEAREST)}")
    near = recipe(NEAREST[dataset, canvas])
    if near.suite not in LIBERO:
        return near
    named = [suite for suite in LIBERO if any(re.search(rf"{suite}(?![0-9a-z])", f) for f in folders)]
    suite = named[0] if len(named) == 1 else "libero"  # on several, or not said on which: measured on all
    return replace(near, recipe=suite, suite=suite)


def _views(file: _Fields) -> dict[str, Any]:
    images = range(len({leaf.removeprefix(IMAGES).split(".")[1] for leaf in file.below(IMAGES)}))
    shapes = {file.get(f"{IMAGES}.{i}.shape", COUNTS) for i in images}
    if len(shapes) != 1:
        raise file.wrong(IMAGES, f"shapes {sorted(shapes)}", "one shape for all cameras")
    _, height, width = shapes.pop()
    views = tuple(file.get(f"{IMAGES}.{i}.key", TEXT) for i in images)
    return {"data.views": views, "data.view_height": height, "data.view_width": width}


def _window(file: _Fields, hz: float) -> dict[str, Any]:
    steps = file.get(f"{TRAIN}.num_frames", COUNT) - 1
    ratio = file.get(f"{TRAIN}.action_video_freq_ratio", COUNT)
    times = tuple(ratio * i / hz for i in range(steps // ratio + 1))
    return {"data.frame_times": times, "data.chunk_seconds": steps / hz}


def _training(file: _Fields, recipes_steps: int) -> dict[str, Any]:
    # Without max_steps the released code counts from its dataset, which is not here; a checkpoint has its own step.
    steps = file.nullable("max_steps", COUNT) or recipes_steps
    share = int(steps * file.get("warmup_ratio", NUMBER))
    given = file.nullable("warmup_steps", NATURAL)
    warmup = min(share if given is None else given, steps - 1)
    parts = file.get("gradient_accumulation_steps", COUNT)
    precision: dict[str, Any] = file.get("mixed_precision", one_of(PRECISIONS))
    return precision | {
        "train.steps": steps,
        "train.warmup_steps": warmup,
        "train.warmup_start": 1 / max(warmup, 1),
        "train.batch_size": file.get("batch_size", COUNT) * parts * PROCESSES,
    }


def _step_weights(file: _Fields, horizon: int) -> StepWeights:
    steps = file.nullable(f"{WEIGHTING}.num_prefix_steps", COUNT)
    prefix, tail = (file.get(f"{WEIGHTING}.{name}_weight", NUMBER) for name in ("prefix", "tail"))
    if not file.get(f"{WEIGHTING}.enabled", FLAG):
        return StepWeights(prefix=horizon)
    if steps is None:
        expected = "a number where the weighting is enabled"
        raise file.wrong(f"{WEIGHTING}.num_prefix_steps", "null", expected)
    return StepWeights(steps, prefix, tail)


class _Fields:
    """The fields of a file by dotted path."""

    def __init__(self, source: str, leaves: Mapping[str, Any], rules: Mapping[str, Rule]) -> None:
        absent = {name: rule.absent for name, rule in rules.items() if rule.absent is not MISSING}
        self.source, self.leaves, self.rules = source, {**absent, **leaves}, rules

    def get(self, path: str, kind: Kind) -> Any:
        """A field as `kind` reads it. BadInput where it is missing or of another kind."""
        value = self._leaf(path)
        try:
            return kind.read(value)
        except (ValueError, TypeError, KeyError):
            raise self.wrong(path, repr(value), kind.expected) from None

    def nullable(self, path: str, kind: Kind) -> Any:
        """`get`, or None where the field is null."""
        return None if self._leaf(path) is None else self.get(path, kind)

    def agree(self, path: str, value: Any) -> None:
        """BadInput unless the field is `value`."""
        found = self._leaf(path)
        if found != value or isinstance(found, bool) != isinstance(value, bool):
            raise self.wrong(path, repr(found), repr(value))

    def below(self, section: str) -> list[str]:
        """The fields of a section."""
        return [path for path in self.leaves if path.startswith(f"{section}.")]

    def expect_known(self) -> None:
        """BadInput where a field has no rule."""
        known = "|".join(
            re.escape(name).replace(r"\*", "[^.]*") + (r"(\..*)?" if rule.how in ("ignored", "same") else "")
            for name, rule in self.rules.items()
        )
        unknown = [path for path in self.leaves if not re.fullmatch(known, path)]
        if unknown:
            raise BadInput(
                f"{self.source}: unknown field {unknown[0]} = {self.leaves[unknown[0]]!r}"
                f"{f' (and {len(unknown) - 1} more)' if unknown[1:] else ''}; it may change what the policy is. "
                "Convert with --recipe if you know that it does not"
            )

    def wrong(self, path: str, found: str, expected: str) -> BadInput:
        """The error for a value."""
        return BadInput(
            f"{self.source}: {path} is {found}; expected {expected} (what a Light-WAM of this version can be, or what "
            "the other fields say). Use the config.yaml of the checkpoint's own run folder"
        )

    def _leaf(self, path: str) -> Any:
        if path not in self.leaves:
            raise BadInput(
                f"{self.source}: {path} is missing; expected the resolved config.yaml of a released Light-WAM run"
            )
        return self.leaves[path]


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise BadInput(f"{path}: no such file; expected the config.yaml that lies in the run's folder")
    try:
        found = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not a YAML file ({str(error).splitlines()[0]}); copy it again") from error
    if not isinstance(found, dict):
        raise BadInput(f"{path}: expected the fields of a run, got {type(found).__name__}; copy it again")
    return found


def _leaves(tree: Any, path: str = "") -> dict[str, Any]:
    """Values by dotted path; entries of a list of mappings by number; names of the code's former package renewed."""
    if isinstance(tree, dict) and tree:
        below = {f"{path}.{name}".lstrip("."): value for name, value in tree.items()}
    elif isinstance(tree, list) and any(isinstance(entry, dict) for entry in tree):
        below = {f"{path}.{number}": entry for number, entry in enumerate(tree)}
    else:
        return {path: _renamed(tree) if path.endswith("._target_") else tree}
    return {leaf: value for name, entry in below.items() for leaf, value in _leaves(entry, name).items()}


def _renamed(target: Any) -> Any:
    """`fastwam.` was the package before it was `lightwam.`."""
    if not isinstance(target, str) or not target.startswith("fastwam."):
        return target
    return target.replace("fastwam", "lightwam").replace("FastWAM", "LightWAM")


def _rules(tree: Any, path: str = "") -> dict[str, Rule]:
    """The rules of official_config.yaml by dotted path; `*` in a path is any name."""
    words = {"must", "may", "repeats", "same", "code", *KINDS}
    if isinstance(tree, str):
        return {path: Rule(tree)}
    if isinstance(tree, dict) and (word := next(iter(tree))) in words:
        absent = tree[word] if word in ("may", "code") else tree.get("default", MISSING)
        return {path: Rule(word, tree[word], absent)}
    below = tree.items() if isinstance(tree, dict) else enumerate(tree)
    return {
        leaf: rule
        for name, entry in below
        for leaf, rule in _rules(entry, f"{path}.{name}".lstrip(".")).items()
    }
