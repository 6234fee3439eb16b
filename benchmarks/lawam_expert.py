"""LaWAM's action expert beside a twin that does the official work: operations, multiply-adds, seconds at full size.

    python -m benchmarks.lawam_expert                  a few minutes on one core; writes benchmarks/results
    python -m benchmarks.lawam_expert --rounds 1 --out /tmp/results      a try

Operations and multiply-adds are counted on the meta device in bfloat16. Seconds are taken in float32 at full size; all
ways take turns in every round, so that other work on the machine hits all of them.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.fast_wam_sampler import count, in_turns, table
from wamkit.bench.reference.lawam import sample as official
from wamkit.io.provenance import machine, revision, versions
from wamkit.policies.lawam.action_expert import ActionExpert, Condition, ExpertSize
from wamkit.policies.lawam.features import DINOv3Config
from wamkit.policies.lawam.fused import FusedExpert
from wamkit.policies.lawam.latent_action import LatentSize
from wamkit.policies.lawam.physical_time import tokens_of, valid_tokens
from wamkit.policies.lawam.prior import Prior, PriorSize
from wamkit.policies.lawam.world_model import LatentWorldModel

STEPS, PATCHES, HIDDEN, FEATURES, ROBOTS = 10, 256, 2048, 768, 32
CPU, META = torch.device("cpu"), torch.device("meta")


@dataclass(frozen=True)
class Protocol:
    """A published evaluation: control rate, seconds of a chunk, views, tokens of the prior (spec 2.1, 2.8)."""

    hz: float
    seconds: float
    views: int
    prompt: int

    @property
    def actions(self) -> int:
        """In a chunk."""
        return tokens_of(self.seconds, self.hz)


PROTOCOLS = {"LIBERO": Protocol(20, 0.4, 2, 220), "RoboTwin": Protocol(30, 1.2, 3, 284)}


def expert_on(device: torch.device, dtype: torch.dtype, size: ExpertSize | None = None) -> ActionExpert:
    """Random weights."""
    with device:
        expert = ActionExpert(size or ExpertSize(), HIDDEN, FEATURES, PATCHES, ROBOTS)
    return expert.to(device, dtype).eval()


def asked(expert: ActionExpert, protocol: Protocol, batch: int = 1) -> tuple[Tensor, Condition]:
    """Noise and condition in the shapes of a protocol, padded as the official program pads."""
    device, tokens = expert.null_subgoal.device, expert.size.tokens
    hidden, now, subgoal = (
        torch.randn(batch, *shape, device=device)
        for shape in ((protocol.prompt, HIDDEN), (PATCHES, FEATURES), (PATCHES, FEATURES))
    )
    hz = torch.full((batch,), float(protocol.hz), device=device)
    condition = Condition(
        hidden=hidden,
        hidden_valid=torch.ones(batch, protocol.prompt, dtype=torch.bool, device=device),
        now=now,
        subgoal=subgoal,
        hz=hz,
        valid=valid_tokens(protocol.seconds, hz, tokens),
        robot=torch.ones(batch, dtype=torch.int64, device=device),
    )
    return torch.randn(batch, tokens, expert.size.action_dim, device=device), condition


def without_padding(condition: Condition, protocol: Protocol) -> Condition:
    """Of as many tokens as the chunk has actions."""
    return replace(condition, valid=condition.valid[:, : protocol.actions])


def ways(expert: ActionExpert, protocol: Protocol) -> dict[str, Callable[[], Tensor]]:
    """A query, by what answers it. Networks are made outside of it."""
    noise, condition = asked(expert, protocol)
    return {
        "official work": partial(official, expert, noise, condition, STEPS),
        "plain": partial(expert.sample, noise, condition, STEPS),
        "fast": partial(FusedExpert(expert, STEPS).sample, noise, without_padding(condition, protocol)),
    }


Counts = dict[tuple[str, str], tuple[int, int]]  # protocol, way -> operations, multiply-adds


def counted() -> Counts:
    """Of a whole query of one robot."""
    expert = expert_on(META, torch.bfloat16)
    return {
        (name, way): (count(do), multiply_adds(do))
        for name, protocol in PROTOCOLS.items()
        for way, do in ways(expert, protocol).items()
    }


def before_the_expert() -> dict[tuple[str, str], int]:
    """Multiply-adds of a query's other parts, by protocol and part."""
    dino = DINOv3Config()
    with META:
        prior, world = Prior(PriorSize()), LatentWorldModel(LatentSize(), FEATURES, (16, 16))
        features = dino.build()
        image, code = torch.empty(1, 256, 256, 3, dtype=torch.uint8), torch.empty(1, LatentSize().code)
        now = torch.empty(1, PATCHES, FEATURES)
    for network in (prior, world, features):
        network.to(META)  # tables of constants have values wherever a network is built
    shared = {
        f"DINOv3, {dino.size.blocks - 1} blocks": multiply_adds(lambda: features(image)),
        "LaWM": multiply_adds(lambda: world(now, code)),
    }
    counts = {}
    for name, protocol in PROTOCOLS.items():
        sizes = {"image_at": 64 * protocol.views, "latent_at": 8, "action_at": 8, "tokens": protocol.prompt}
        inputs = {key: torch.zeros(1, size, dtype=torch.int64, device=META) for key, size in sizes.items()}
        images = image[:, None].expand(-1, protocol.views, -1, -1, -1)
        vision = multiply_adds(partial(prior.visual, images[0]))
        whole = multiply_adds(partial(prior, inputs | {"images": images}))
        parts = {"vision tower": vision, "text layers": whole - vision} | shared
        counts |= {(name, part): products for part, products in parts.items()}
    return counts


@torch.inference_mode()
def multiply_adds(do: Callable[[], object]) -> int:
    """Of the matrix products of one call."""
    with FlopCounterMode(display=False) as flops:
        do()
    return flops.get_total_flops() // 2


PAGE = """# LaWAM's action expert beside the official work

{cpu}, {threads} of {cores} cores; torch {torch}; revision {revision}; {date}. `{command}`

"Official work" is our twin of it (bench/reference/lawam.py), not the official program: 50 tokens whatever the chunk
has, and keys and values of both contexts in every step. "Plain" makes the contexts once per query. "Fast" is
policies/lawam/fused.py. All three give the same chunks in float32 (tests/policies/test_lawam_fused.py).

## Operations and multiply-adds per chunk

Full size, bfloat16, one robot, {steps} steps; what is dispatched and is not a view, and 10^9 multiply-adds of matrix
products. LIBERO: {libero} actions, {libero_prompt} tokens of the prior; RoboTwin: {robotwin} and {robotwin_prompt}.

{counts}

## The rest of a query

10^9 multiply-adds of what comes before the expert, each once per query. The official program runs the twelfth block of
DINOv3 too.

{rest}

## Seconds per query

The same in float32; medians of {rounds} rounds in which all take turns; every round is in the JSON file beside this.
A processor is bound by arithmetic and by reading weights; fewer operations show where launching them is the limit. It
was not measured on a GPU.

{seconds}
"""


def page(
    facts: Mapping[str, object],
    counts: Counts,
    rest: Mapping[tuple[str, str], int],
    times: Mapping[tuple[str, int, int], list[float]],
) -> str:
    """The result as Markdown."""
    rows = []
    for (name, way), (operations, products) in counts.items():
        most = counts[name, "official work"]
        ratios = f"{most[0] / operations:.2f}", f"{most[1] / products:.2f}"
        rows.append([f"{name}, {way}", f"{operations:,}", ratios[0], f"{products / 1e9:.1f}", ratios[1]])
    seconds = {key: median(each) for (key, _, _), each in times.items()}
    timed = [
        [key, f"{each:.2f}", f"{seconds[key.split(', ')[0] + ', official work'] / each:.2f}"]
        for key, each in seconds.items()
    ]
    chunks = {name.lower(): protocol.actions for name, protocol in PROTOCOLS.items()}
    prompts = {f"{name.lower()}_prompt": protocol.prompt for name, protocol in PROTOCOLS.items()}
    return PAGE.format(
        counts=table(("", "operations", "official / this", "10^9 multiply-adds", "official / this"), rows),
        rest=table(
            ("", "10^9 multiply-adds"),
            [[f"{name}, {part}", f"{products / 1e9:.1f}"] for (name, part), products in rest.items()],
        ),
        seconds=table(("", "seconds", "official / this"), timed),
        steps=STEPS,
        **chunks,
        **prompts,
        **facts,
    )


def main() -> None:
    """See the module docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    torch.manual_seed(0)
    where, libraries = machine(), versions()
    facts = {
        "date": f"{datetime.date.today()}",
        "command": f"python -m benchmarks.lawam_expert --rounds {args.rounds}",
        "revision": revision(),
        "threads": torch.get_num_threads(),
        "rounds": args.rounds,
    }
    counts, rest = counted(), before_the_expert()
    expert = expert_on(CPU, torch.float32)
    things = {
        (f"{name}, {way}", expert.size.layers, 1): do
        for name, protocol in PROTOCOLS.items()
        for way, do in ways(expert, protocol).items()
    }
    times = in_turns(things, args.rounds)
    hardware = re.sub(r"[^a-z0-9]+", "-", str(where["cpu"]).lower()).strip("-")
    path = args.out / f"lawam_expert_{hardware}_{facts['date']}"
    args.out.mkdir(parents=True, exist_ok=True)
    everything = facts | {
        "machine": where,
        "versions": libraries,
        "counts": [
            {"protocol": name, "way": way, "operations": operations, "multiply_adds": products}
            for (name, way), (operations, products) in counts.items()
        ],
        "rest": [
            {"protocol": name, "part": part, "multiply_adds": products}
            for (name, part), products in rest.items()
        ],
        "seconds": {what: each for (what, _, _), each in times.items()},
    }
    Path(f"{path}.json").write_text(json.dumps(everything, indent=1) + "\n")
    text = page(
        facts | {key: where[key] for key in ("cpu", "cores")} | {"torch": libraries["torch"]},
        counts,
        rest,
        times,
    )
    Path(f"{path}.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
