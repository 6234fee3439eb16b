"""Fast-WAM's sampler beside a twin that does the official work: operations at full size, seconds on this processor.

    python -m benchmarks.fast_wam_sampler                  about ten minutes on two cores; writes benchmarks/results
    python -m benchmarks.fast_wam_sampler --rounds 1 --layers 1 2 --out /tmp/results      a try

Operations are counted on the meta device in bfloat16, at full depth. Seconds are taken in float32 at full width but
two small depths, since the weights at full depth are 24 GB: the time of one more layer, times the layers that are
missing, gives full depth. Both samplers take turns in every round, so that other work on the machine hits both.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from wamkit.bench.counting import Operations
from wamkit.bench.reference import fast_wam as official_sampler
from wamkit.data.normalize import Normalizer
from wamkit.data.statistics import Stats
from wamkit.flow import Grid, Shift
from wamkit.infer.engine import Engine
from wamkit.io.provenance import machine, revision, versions
from wamkit.nn.wavefront import walked
from wamkit.policies.fast_wam.action_dit import ActionDiT
from wamkit.policies.fast_wam.fused import FusedSampler
from wamkit.policies.fast_wam.policy import FastWAM, FastWAMConfig
from wamkit.policies.fast_wam.sampling import Noise
from wamkit.policies.fast_wam.variants import VARIANTS, Variant
from wamkit.recipes.metaworld import metaworld3_fast_wam
from wamkit.types import Actor, Clip, Query
from wamkit.wan.dit import NO_ADAPTERS, SIZES, WanDiT

Asked = tuple[Tensor, Tensor, Noise]  # present, context, noise
STEPS, BATCHES = 10, (1, 4)


@dataclass(frozen=True)
class Networks:
    """What sampling needs of a policy (policies/fast_wam/sampling.py): no codec, no text encoder."""

    dit: WanDiT
    action: ActionDiT
    acting: Variant

    def grid(self, network: Literal["video", "action"], steps: int) -> Grid:
        """The published times."""
        return Shift().times("float32").grid(steps)

    @classmethod
    def build(cls, config: FastWAMConfig, layers: int, device: torch.device, dtype: torch.dtype) -> Networks:
        """Random weights for LIBERO's seven action dimensions."""
        config = replace(config, size=replace(config.size, layers=layers))
        with device:
            dit, action = WanDiT(config.size, NO_ADAPTERS), ActionDiT(config.action_size, 7)
        # rotary tables have values wherever a network is built; here they follow its weights
        return cls(dit.to(device, dtype), action.to(device, dtype), VARIANTS[config.variant])


def libero(networks: Networks, batch: int) -> Asked:
    """A query in the shapes of LIBERO: canvas 224x448, 128 rows of text and one of proprio, 32 actions."""
    device, frames = networks.action.head.weight.device, 0 if networks.acting.imagines == "nothing" else 2
    shapes = [(48, 1, 14, 28), (129, networks.dit.size.text_dim), (32, 7), (48, frames, 14, 28)]
    present, context, action, video = (torch.randn(batch, *shape, device=device) for shape in shapes)
    return present, context, Noise(action, video)


# operations


def operations() -> dict[str, dict[str, int]]:
    """Of a whole query and of its action steps, batch 1, for the twin and for every variant of ours."""
    meta = Networks.build(FastWAMConfig(), SIZES["5B"].layers, torch.device("meta"), torch.bfloat16)
    asked = libero(meta, batch=1)
    memory = official_sampler.prefill(meta.dit, *asked[:2])
    counts = {
        "official, Fast-WAM": {
            "query": count(lambda: official_sampler.sample(meta, *asked, STEPS)),
            "action steps": count(
                lambda: official_sampler.act(
                    meta.action, memory, asked[1], asked[2].action, meta.grid("action", STEPS)
                )
            ),
        }
    }
    for name in ("fast", "joint", "idm"):  # acting without video training is acting with it
        variant = VARIANTS[name]
        counts[f"ours, {variant.title}"] = _ours(replace(meta, acting=variant))
    return counts


def _ours(networks: Networks) -> dict[str, int]:
    sampler, asked = FusedSampler(networks, STEPS), libero(networks, batch=1)
    # positions are laid out at the first query of a shape
    kept = sampler.begin(asked[0], sampler.look(asked[1]), asked[2])
    whole = count(lambda: sampler.sample(*asked))
    steps = count(lambda: [walked(sampler.act(asked[2].action, step, kept)) for step in range(STEPS)])
    return {"query": whole, "action steps": steps}


@torch.inference_mode()
def count(do: Callable[[], object]) -> int:
    """Operations of one call."""
    with Operations() as counted:
        do()
    return counted.total()


# seconds

Key = tuple[str, int, int]  # what, layers, batch


def in_turns(things: Mapping[Key, Callable[[], object]], rounds: int) -> dict[Key, list[float]]:
    """Seconds of everything, once per round, after a round that does not count."""
    seconds: dict[Key, list[float]] = {key: [] for key in things}
    for number in range(rounds + 1):
        for key, do in things.items():
            begin = time.perf_counter()
            do()
            if number:
                seconds[key].append(time.perf_counter() - begin)
    return seconds


def full_width(depths: Sequence[int]) -> dict[Key, Callable[[], object]]:
    """Fast-WAM at full width: the official way (one robot after the other) and ours (all at once)."""
    things: dict[Key, Callable[[], object]] = {}
    for layers in depths:
        networks = Networks.build(FastWAMConfig(), layers, torch.device("cpu"), torch.float32)
        sampler = FusedSampler(networks, STEPS)
        for batch in BATCHES:
            asked = libero(networks, batch)
            things["official", layers, batch] = partial(_one_by_one, networks, asked)
            things["ours", layers, batch] = partial(sampler.sample, *asked)
    return things


def _one_by_one(networks: Networks, asked: Asked) -> None:
    present, context, noise = asked
    for i in range(len(present)):
        row = slice(i, i + 1)
        alone = Noise(noise.action[row], noise.video[row])
        official_sampler.sample(networks, present[row], context[row], alone, STEPS)


def small_preset() -> dict[Key, Callable[[], object]]:
    """The demo's policies, everything after the encoder: the presets "plain" and "exact"."""
    things: dict[Key, Callable[[], object]] = {}
    for name in VARIANTS:
        policy = demo_policy(name)
        engine = Engine(policy.config.encoder(policy.data), policy, torch.device("cpu"))
        for batch in BATCHES:
            query = engine.query(clip(policy, batch))
            for way, passes in (("plain", ()), ("ours", policy.passes)):
                things[f"{name}, {way}", policy.config.size.layers, batch] = partial(
                    _act, policy.actor(passes), query
                )
    return things


@torch.inference_mode()
def _act(actor: Actor, query: Query) -> None:
    generators = [torch.Generator().manual_seed(i) for i in range(len(query.embodiment))]
    actor(replace(query, generators=generators))


def demo_policy(variant: str) -> FastWAM:
    """The small preset with random weights."""
    run = metaworld3_fast_wam()
    dims = {"action": run.data.action_dim, "proprio": run.data.proprio_dim}
    stats = {"robot": {name: Stats.of(np.eye(dim)) for name, dim in dims.items()}}
    normalizer = Normalizer.fit(stats, dict.fromkeys(dims, "min_max"))
    return FastWAM(replace(run.policy, variant=variant), run.data, normalizer).eval()


def clip(policy: FastWAM, batch: int) -> Clip:
    """Black pictures."""
    data = policy.data
    picture = torch.zeros(batch, 1, data.view_height, data.view_width, 3, dtype=torch.uint8)
    return Clip(
        views=dict.fromkeys(data.views, picture),
        proprio=torch.zeros(batch, data.proprio_dim),
        instructions=("push the button",) * batch,
        embodiments=("robot",) * batch,
    )


# the page

PAGE = """# Fast-WAM's sampler beside the official work

{cpu}, {threads} of {cores} cores; torch {torch}; revision {revision}; {date}. `{command}`

"Official" is our twin of the official work (src/wamkit/bench/reference/fast_wam.py), not the official program. Both
give the same chunks in float32 (tests/policies/test_fast_wam_fused.py).

## Operations per chunk

Full size, bfloat16, LIBERO shapes, one robot, ten steps; what is dispatched and is not a view. In the official program
the ten action steps were counted at 22,430.

{operations}

## Seconds per query at full width

Float32, LIBERO shapes, ten steps, everything after the encoders; medians of {rounds} rounds in which all take turns.
The official way answers one robot after the other. Our last video layer stops at its keys and values, which weighs
more in a shallow model: the honest row is one more layer, and full depth follows from it.

A processor is bound by arithmetic, so what shows here is what is not computed at all. Fewer operations show where
launching them is the limit, as it is on every GPU that was reported on (spec 6.3).

{full_width}

## Milliseconds per query, small preset of the demo

{small}
"""


def page(
    facts: Mapping[str, object],
    counts: Mapping[str, Mapping[str, int]],
    wide: Mapping[Key, list[float]],
    small: Mapping[Key, list[float]],
) -> str:
    """The result as Markdown."""
    return PAGE.format(
        operations=table(("", "query", "its action steps", "official / this"), _operation_rows(counts)),
        full_width=table(("robots", "layers", "official", "ours", "official / ours"), _wide_rows(wide)),
        small=table(("variant", "robots", "plain", "ours", "plain / ours"), _small_rows(small)),
        **facts,
    )


def _operation_rows(counts: Mapping[str, Mapping[str, int]]) -> list[list[str]]:
    official = counts["official, Fast-WAM"]["query"]
    return [
        [name, f"{row['query']:,}", f"{row['action steps']:,}", f"{official / row['query']:.2f}"]
        for name, row in counts.items()
    ]


def _wide_rows(times: Mapping[Key, list[float]]) -> list[list[str]]:
    depths = sorted({layers for _, layers, _ in times})
    first, last, full = depths[0], depths[-1], SIZES["5B"].layers
    rows = []
    for batch in BATCHES:
        at = {
            layers: [median(times[what, layers, batch]) for what in ("official", "ours")] for layers in depths
        }
        more = [(b - a) / (last - first) for a, b in zip(at[first], at[last], strict=True)]
        deep = [a + (full - first) * each for a, each in zip(at[first], more, strict=True)]
        for name, pair in ({str(depth): at[depth] for depth in depths} | {"one more": more}).items():
            rows.append([str(batch), name, *(f"{each:.3f}" for each in pair), f"{pair[0] / pair[1]:.2f}"])
        rows.append(
            [
                str(batch),
                f"{full} (from these)",
                *(f"{each:.1f}" for each in deep),
                f"{deep[0] / deep[1]:.2f}",
            ]
        )
    return rows


def _small_rows(times: Mapping[Key, list[float]]) -> list[list[str]]:
    rows = []
    for (what, layers, batch), seconds in times.items():
        variant, way = what.split(", ")
        if way == "plain":
            pair = [1000 * median(seconds), 1000 * median(times[f"{variant}, ours", layers, batch])]
            rows.append([variant, str(batch), *(f"{each:.1f}" for each in pair), f"{pair[0] / pair[1]:.2f}"])
    return rows


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown; all but the first column to the right."""
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows))


def main() -> None:
    """See the module docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--layers", type=int, nargs=2, default=(2, 4), help="two depths")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    torch.manual_seed(0)
    where, libraries = machine(), versions()
    facts = {
        "date": f"{datetime.date.today()}",
        "command": "python -m benchmarks.fast_wam_sampler "
        f"--rounds {args.rounds} --layers {args.layers[0]} {args.layers[1]}",
        "revision": revision(),
        "threads": torch.get_num_threads(),
        "rounds": args.rounds,
    }
    counts = operations()
    wide, small = in_turns(full_width(args.layers), args.rounds), in_turns(small_preset(), args.rounds)
    hardware = re.sub(r"[^a-z0-9]+", "-", str(where["cpu"]).lower()).strip("-")
    path = args.out / f"fast_wam_sampler_{hardware}_{facts['date']}"
    args.out.mkdir(parents=True, exist_ok=True)
    seconds = {
        name: [{"what": w, "layers": n, "batch": b, "seconds": s} for (w, n, b), s in times.items()]
        for name, times in (("full width", wide), ("small preset", small))
    }
    everything = facts | {"machine": where, "versions": libraries, "operations": counts, "seconds": seconds}
    Path(f"{path}.json").write_text(json.dumps(everything, indent=1) + "\n")
    text = page(
        facts | {key: where[key] for key in ("cpu", "cores")} | {"torch": libraries["torch"]},
        counts,
        wide,
        small,
    )
    Path(f"{path}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
