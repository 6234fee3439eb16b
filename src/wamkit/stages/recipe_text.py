"""A proposal as Python: the file that `wamkit init` prints, laid out as ruff and black do.

Lines are at most WIDTH wide, comments stand above what they are about, and every bracket that is too long for a line
has one item on each.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from textwrap import wrap
from typing import Any

from wamkit.config import Run
from wamkit.data.evidence import Verdict
from wamkit.data.joined import dataset_flags
from wamkit.io.progress import command
from wamkit.recipes.scales import Scale
from wamkit.stages.fit import Place, fit
from wamkit.stages.plan import meta_policy
from wamkit.stages.proposal import STRETCHED, UNNAMED, Proposal
from wamkit.stages.run import open_clips

WIDTH, INDENT = 88, "    "
RECIPE, WORLD = "recipe", "world"
"""Functions of the file: what `wamkit train FILE` calls, and the stage before."""
FILES = {RECIPE: "{}", WORLD: "{}:world"}
TITLES = {RECIPE: "", WORLD: "stage 1 "}
SUFFIXES = {RECIPE: "", WORLD: "_world"}


def recipe_text(proposal: Proposal, file: str) -> str:
    """The file. file: the name under which it will be saved, in the commands that it tells."""
    lines = [
        *_docstring(proposal, file),
        "",
        "from wamkit.config import Normalization, Run",
        "from wamkit.data.actions import ActionSpace",
        "from wamkit.eval.evaluate import EvalConfig",
        f"from wamkit.recipes.presets import {', '.join(proposal.scale.presets)}",
        f"from wamkit.types import {'Augmentation, ' if proposal.scale.augmentation else ''}DataSpec",
        "",
        f"HZ = {proposal.hz!r}",
        *_data(proposal),
        *_actions(proposal),
        "",
        "",
        *_recipe(proposal),
        *_world(proposal),
    ]
    return "\n".join([*lines, ""])


def functions(proposal: Proposal) -> tuple[str, ...]:
    """Those of the file, in the order of training."""
    return (WORLD, RECIPE) if proposal.scale.stage1 else (RECIPE,)


def commands(proposal: Proposal, file: str) -> list[str]:
    """What trains each of them."""
    flags = dataset_flags(proposal.datasets)
    return [
        command("wamkit", "train", FILES[function].format(file), *flags, "--out", _run(proposal, function))
        for function in functions(proposal)
    ]


def questions(proposal: Proposal) -> list[str]:
    """What the dataset does not tell."""
    guessed = [
        f"{field} is {column}: {proposal.reasons[field]}"
        for field, column in proposal.columns.items()
        if proposal.reasons.get(field, "").endswith("?")
    ]
    unclear = [
        f"{', '.join(names)}: {_reason(names, verdicts)}"
        for names, verdicts in _groups(proposal.names, proposal.verdicts)
        if verdicts[0].asks
    ]
    return [*guessed, *unclear]


def expect_fitting(text: str, proposal: Proposal) -> None:
    """BadInput where the datasets do not fit the file (an instruction is missing, for example)."""
    for run in runs(text, proposal).values():
        open_clips(run, proposal.datasets)


def fitted(proposal: Proposal, place: Place) -> Proposal:
    """The same, with a batch in as many parts as the memory of `place` needs, and what a step then takes."""
    parts, memory = {}, []
    for function, run in runs(recipe_text(proposal, ""), proposal).items():
        found = fit(run, meta_policy(run), place)
        if found.reduced_fits and divisible(proposal.scale, function):
            parts[function] = found.accumulation
            found = replace(found, need=found.reduced, fits=True)
        if function == RECIPE or not found.fits:
            memory.append(f"{TITLES[function]}fits {place.name}: {found.sentence()}")
    return replace(
        proposal,
        parts=parts.get(RECIPE, 1),
        stage1_parts=parts.get(WORLD, 1),
        memory=tuple(memory),
    )


def divisible(scale: Scale, function: str) -> bool:
    """Whether the file says in how many parts a batch goes through the policy."""
    return "{parts}" in (scale.training if function == RECIPE else scale.stage1)


def runs(text: str, proposal: Proposal) -> dict[str, Run]:
    """What the functions of the file return, in the order of training."""
    made: dict[str, Any] = {}
    exec(compile(text, "recipe", "exec", dont_inherit=True), made)
    return {function: made[function]() for function in functions(proposal)}


def _run(proposal: Proposal, function: str) -> str:
    """A run directory."""
    return f"runs/{proposal.name}{SUFFIXES[function]}"


def _docstring(proposal: Proposal, file: str) -> Iterator[str]:
    title = proposal.scale.title[0].upper() + proposal.scale.title[1:]
    yield f'"""{title} for {_plain(proposal.about)}. Yours to change.'
    yield ""
    for line in commands(proposal, file):
        yield line.replace("\\", "\\\\").replace('"', '\\"')
    yield '"""'


def _data(proposal: Proposal) -> Iterator[str]:
    views, timing, hz = proposal.views, proposal.timing, "HZ"
    pair = proposal.scale.pair
    steps = "i" if timing.stride == 1 else f"{timing.stride} * i"
    times = (
        f"(0.0, {timing.horizon - 1} / {hz})"
        if pair
        else f"tuple({steps} / {hz} for i in range({proposal.scale.frames + 1}))"
    )
    yield "DATA = DataSpec("
    yield from _comments(_view_remarks(proposal))
    yield from _bracket("views=", [_quoted(name) for name in views.names], 1)
    reasons = (reason for name, reason in proposal.reasons.items() if name in proposal.columns)
    yield from _comments([*dict.fromkeys(reasons)])
    if proposal.columns:
        yield from _mapping("columns=", proposal.columns, 1)
    yield f'{INDENT}canvas="{views.canvas}",'
    yield f"{INDENT}view_height={views.height},"
    yield f"{INDENT}view_width={views.width},"
    yield f"{INDENT}hz={hz},"
    yield f"{INDENT}frame_times={times},"
    yield f"{INDENT}chunk_seconds={timing.horizon} / {hz},"
    yield f"{INDENT}proprio_dim={0 if pair else proposal.proprio_dim},"
    yield f"{INDENT}action_dim={len(proposal.names)},"
    yield f"{INDENT}held_out={proposal.held_out},"
    if proposal.scale.augmentation:
        yield f"{INDENT}augmentation={proposal.scale.augmentation},"
    if pair:
        yield f'{INDENT}past_end="supervised",'
    yield ")"


def _actions(proposal: Proposal) -> Iterator[str]:
    groups = list(_groups(proposal.names, proposal.verdicts))
    yield "ACTIONS = ActionSpace("
    if proposal.names == tuple(map(UNNAMED.format, range(len(proposal.names)))):
        yield f'{INDENT}names=tuple(f"{UNNAMED.format("{i}")}" for i in range({len(proposal.names)})),'
    else:
        yield from _names([_quoted(name) for name in proposal.names])
    yield f"{INDENT}kinds=("
    for names, verdicts in groups:
        yield from _comments([_reason(names, verdicts)], 2)
        kind = _quoted(verdicts[0].kind)
        yield f"{INDENT * 2}*({kind},) * {len(names)}," if len(names) > 1 else f"{INDENT * 2}{kind},"
    yield f"{INDENT}),"
    yield ")"


def _groups(
    names: Sequence[str], verdicts: Sequence[Verdict]
) -> Iterator[tuple[tuple[str, ...], tuple[Verdict, ...]]]:
    """Dimensions in a row of one kind, as clear or unclear as each other."""
    pairs = zip(names, verdicts, strict=True)
    for _, group in groupby(pairs, key=lambda pair: (pair[1].kind, pair[1].asks)):
        own_names, own_verdicts = zip(*group, strict=True)
        yield own_names, own_verdicts


def _reason(names: Sequence[str], verdicts: Sequence[Verdict]) -> str:
    """The evidence on the least clear of them."""
    least = max(range(len(names)), key=lambda dim: verdicts[dim].doubt)
    mark = "? " if verdicts[least].asks else ""
    which = f"at worst {names[least]}: " if len({each.reason for each in verdicts}) > 1 else ""
    return f"{mark}{which}{verdicts[least].reason}"


def _recipe(proposal: Proposal) -> Iterator[str]:
    scale, (action, proprio) = proposal.scale, proposal.normalization
    policy = scale.policy.format(
        words=proposal.words, executed=proposal.timing.executed, world=_quoted(_run(proposal, WORLD))
    )
    yield f"def {RECIPE}() -> Run:"
    yield f"{INDENT}return Run("
    yield f"{INDENT * 2}recipe={_quoted(proposal.name)},"
    yield f'{INDENT * 2}suite="",'
    yield f"{INDENT * 2}policy={policy},"
    yield f"{INDENT * 2}data=DATA,"
    yield f"{INDENT * 2}actions=ACTIONS,"
    yield from _comments(proposal.remarks, 2)
    yield f'{INDENT * 2}normalization=Normalization("{action}", "{proprio}"),'
    yield from _comments(proposal.memory, 2)
    yield f"{INDENT * 2}train={scale.training.format(steps=proposal.steps, parts=proposal.parts)},"
    yield f"{INDENT * 2}eval=EvalConfig(replan_steps={proposal.timing.executed}),"
    yield f"{INDENT})"


def _world(proposal: Proposal) -> Iterator[str]:
    """The run before, where there is one."""
    if proposal.scale.stage1:
        run = proposal.scale.stage1.format(
            proprio=proposal.proprio_dim, steps=proposal.stage1_steps, parts=proposal.stage1_parts
        )
        yield from ("", "")
        yield f"def {WORLD}() -> Run:"
        yield f"{INDENT}return {run}"


def _view_remarks(proposal: Proposal) -> Iterator[str]:
    """How views are recorded, where their shape is changed, and which cameras are not used."""
    views = proposal.views
    for (height, width), group in groupby(zip(views.recorded, views.names, strict=True), key=itemgetter(0)):
        change = (views.width / views.height) / (width / height)
        how = f", which makes it {100 * abs(change - 1):.0f} % {'wider' if change > 1 else 'narrower'}"
        names = ", ".join(name for _, name in group)
        yield f"{names}: recorded in {height}x{width}{how if abs(change - 1) > STRETCHED else ''}"
    if views.omitted:
        yield f"not used: {', '.join(views.omitted)}"


# layout


def _bracket(before: str, items: Sequence[str], depth: int) -> Iterator[str]:
    """`before(a, b),` on one line, or with an item on each."""
    single = "," if len(items) == 1 and before.endswith("=") else ""
    yield from _enclosed(before, items, depth, "(", f"{single})")


def _mapping(before: str, pairs: Mapping[str, str], depth: int) -> Iterator[str]:
    items = [f"{_quoted(name)}: {_quoted(value)}" for name, value in pairs.items()]
    yield from _enclosed(before, items, depth, "{", "}")


def _enclosed(before: str, items: Sequence[str], depth: int, opening: str, closing: str) -> Iterator[str]:
    line = f"{INDENT * depth}{before}{opening}{', '.join(items)}{closing},"
    if len(line) <= WIDTH:
        yield line
        return
    yield f"{INDENT * depth}{before}{opening}"
    yield from (f"{INDENT * (depth + 1)}{item}," for item in items)
    yield f"{INDENT * depth}{closing[-1]},"


def _names(names: Sequence[str]) -> Iterator[str]:
    """All in one line, or as many to a line as it takes, each line a tuple of its own."""
    line = next(_bracket("names=", names, 1))
    if line.endswith(","):
        yield line
        return
    yield f"{INDENT}names=("
    row: list[str] = []
    for name in names:
        if row and len(_star([*row, name])) > WIDTH:
            yield _star(row)
            row = []
        row.append(name)
    yield _star(row)
    yield f"{INDENT}),"


def _star(row: Sequence[str]) -> str:
    return f"{INDENT * 2}*({', '.join(row)})," if len(row) > 1 else f"{INDENT * 2}{row[0]},"


def _comments(texts: Iterator[str] | Sequence[str], depth: int = 1) -> Iterator[str]:
    for text in texts:
        yield from (f"{INDENT * depth}# {line}" for line in wrap(_plain(text), WIDTH - 2 - 4 * depth))


def _plain(text: str) -> str:
    """One line that ends no string and no comment."""
    return " ".join(text.split()).replace("\\", "/").replace('"', "'")


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
