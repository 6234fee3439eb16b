"""The full-size Light-WAM, actually executed on a CPU: reading checkpoints, encoding, a training step, a query.

    python -m benchmarks.full_size          writes benchmarks/results; needs 20 GB of memory and 9 GB of disk

Weights are random, everything else is as on LIBERO: the recipe, its canvas, frames, text rows and precision. Every
stage is what the command of its name does (wamkit/stages/run.py, wamkit/convert/released.py) and runs in a process of
its own, so that its peak of memory is its own. Memory is told apart into anonymous (must stay in memory) and
file-backed (mapped weight files; the system takes it back when it needs it).
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import cast

import diffusers.models.autoencoders.autoencoder_kl_wan  # noqa: F401 - its seconds of importing belong to no stage
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from wamkit_client.types import Observation

from wamkit.bench.process import GIB, Cost, Steps, in_own_process
from wamkit.bench.results import table
from wamkit.config import Run, build_encoder, build_policy, load_engine, load_normalizer, to_json
from wamkit.convert.released import from_official
from wamkit.io.provenance import machine, revision, versions
from wamkit.policies.light_wam.convert import FORMAT
from wamkit.policies.light_wam.policy import LightWAMConfig, LoRATuning
from wamkit.recipes.libero import libero_spatial
from wamkit.stages.plan import meta_policy, parts
from wamkit.train.loop import initial_state, optimize
from wamkit.tree import Tree
from wamkit.types import Batch, Clip
from wamkit.types import encode as encode_clip
from wamkit.wan.encoders import StoredTextConfig, WanVAEConfig
from wamkit.wan.umt5 import StoredText
from wamkit.wan.vae import VAE_SIZES, WanVAE

CPU = torch.device("cpu")
ROBOT, INSTRUCTION = "panda", "pick up the black bowl and place it on the plate"
CAMERA = (256, 256)  # LIBERO's pictures
CHECKPOINT, BASE, VAE, TEXT = "checkpoint.pt", "wan.safetensors", "vae.safetensors", "text"
STATISTICS, RUN_DIR, LATENTS = "statistics.json", "run", "latents.safetensors"
PAGE_BYTES = 4096


# what lies on disk before: random weights under the published names


def with_files_in(run: Run, folder: Path) -> Run:
    """The recipe with its weights in `folder`, one sample per step."""
    policy = run.policy
    assert isinstance(policy, LightWAMConfig) and isinstance(policy.tuning, LoRATuning)
    policy = replace(
        policy,
        codec=WanVAEConfig(path=str(folder / VAE)),
        text=StoredTextConfig(path=str(folder / TEXT)),
        tuning=replace(policy.tuning, base=str(folder / BASE)),
    )
    return replace(run, policy=policy, train=replace(run.train, batch_size=1))


def prepare(run: Run, folder: Path, steps: Steps) -> None:
    """A released checkpoint, its video model alone, the VAE, text rows and statistics."""
    torch.manual_seed(0)
    with steps("write files of random weights"):
        official = FORMAT.write(meta_policy(run), step=1)
        for section in FORMAT.envelope.sections:
            official[section] = {name: random_bf16(tensor) for name, tensor in official[section].items()}
        official["torch_dtype"] = "torch.bfloat16"
        torch.save(official, folder / CHECKPOINT)
        ours = FORMAT.envelope.ours(official, CHECKPOINT)
        base = {name.removeprefix("dit."): x for name, x in ours.items() if name.startswith("dit.")}
        save_file(
            {name: x for name, x in base.items() if not re.match("adapters|.*lora_", name)}, folder / BASE
        )
        save_file(WanVAE(VAE_SIZES["2.1"]).module.state_dict(), folder / VAE)
        rows = torch.randn(run.policy.text.length, run.policy.size.text_dim)
        StoredText(folder / TEXT).write(INSTRUCTION, rows, torch.arange(len(rows)) < 30)
        dims = {"action": run.data.action_dim, "state": run.data.proprio_dim}
        (folder / STATISTICS).write_text(
            json.dumps(
                {"num_episodes": 1, "num_transition": 1}
                | {
                    field: {"default": {f"global_{of}": [value] * dim for of, value in MEASURES.items()}}
                    for field, dim in dims.items()
                }
            )
        )


MEASURES = {"min": -1.0, "max": 1.0, "mean": 0.0, "std": 0.5}


def random_bf16(tensor: Tensor) -> Tensor:
    """Normal numbers of deviation 0.02 in the shape of a tensor without memory."""
    return torch.empty(tensor.shape, dtype=torch.bfloat16).normal_(0, 0.02)


# the stages


def load(run: Run, folder: Path, steps: Steps) -> None:
    """A released checkpoint -> a policy without memory, which takes the file's tensors; then every page is read."""
    with steps("build and fill"):
        policy = meta_policy(run)
        FORMAT.load(policy, folder / CHECKPOINT)
    with steps("read every page"):
        for tensor in policy.state_dict().values():
            tensor.view(-1).view(torch.uint8)[::PAGE_BYTES].sum()


def convert(run: Run, folder: Path, steps: Steps) -> None:
    """A released checkpoint -> a run directory (`wamkit convert light-wam`)."""
    with steps("convert"):
        from_official("light_wam", folder / CHECKPOINT, run, folder / STATISTICS, ROBOT, folder / RUN_DIR)


def encode(run: Run, folder: Path, steps: Steps) -> None:
    """Frames and words of one training sample -> latents and context (`wamkit encode`)."""
    with steps("load the VAE"):
        encoder = build_encoder(run)
    with steps(f"encode {len(run.data.frame_times)} frames"):
        inputs = encode_clip(encoder, clip(run))
    save_file({name: tensor.contiguous() for name, tensor in inputs.items()}, folder / LATENTS)


def train(run: Run, folder: Path, steps: Steps) -> None:
    """Optimizer steps on that sample, both losses (`wamkit train`); the first one also allocates."""
    with steps("build with random weights"):
        policy = build_policy(run, load_normalizer(folder / RUN_DIR))
    with steps("load the video model"):
        policy.initialize()
    state, batch = initial_state(policy, run.train), sample(run, load_file(folder / LATENTS))
    for number, name in enumerate(("first step", "second step")):
        with steps(name):
            scalars = optimize(state.module, batch, number, state, run.train)
        assert all(value.isfinite() for value in scalars.values()), scalars


def act(run: Run, folder: Path, steps: Steps) -> None:
    """A run directory -> chunks of actions (`wamkit eval`, `wamkit serve`)."""
    with steps("load the run directory"):
        engine = load_engine(folder / RUN_DIR, CPU)
    observation = Observation(
        images={view: frames(run, 1)[0, 0].numpy() for view in run.data.views},
        proprio=np.zeros(run.data.proprio_dim, np.float32),
        instruction=INSTRUCTION,
        embodiment=ROBOT,
    )
    for name in ("first query", "second query"):
        with steps(name):
            chunk = engine.act([observation])[0].actions
        assert chunk.shape == (run.data.horizon, run.data.action_dim) and np.isfinite(chunk).all()
    with steps("of which encoding"), torch.inference_mode():
        encode_clip(engine.encoder, engine.clip([observation]))


Stage = Callable[[Run, Path, Steps], None]
STAGES: dict[str, Stage] = {"load": load, "convert": convert, "encode": encode, "train": train, "act": act}


def frames(run: Run, number: int) -> Tensor:
    """Random pictures of one camera, uint8 [1, t, h, w, 3]."""
    return torch.randint(256, (1, number, *CAMERA, 3), dtype=torch.uint8)


def clip(run: Run) -> Clip:
    """One training sample before encoding."""
    return Clip(
        views={view: frames(run, len(run.data.frame_times)) for view in run.data.views},
        proprio=torch.zeros(1, run.data.proprio_dim),
        instructions=(INSTRUCTION,),
        embodiments=(ROBOT,),
    )


def sample(run: Run, inputs: Tree) -> Batch:
    """The batch of that sample."""
    actions = torch.zeros(1, run.data.horizon, run.data.action_dim)
    return Batch(
        inputs=inputs | {"frame_is_pad": torch.zeros(1, len(run.data.frame_times), dtype=torch.bool)},
        actions=actions,
        valid=torch.ones_like(actions, dtype=torch.bool),
        embodiment=torch.zeros(1, dtype=torch.int64),
        hz=torch.full((1,), run.data.hz),
        ids=("random",),
    )


# the page

PAGE = """# The full-size Light-WAM on a CPU

{cpu}, {threads} of {cores} cores, {memory_gb} GB; torch {torch}; revision {revision}; {date}. `{command}`

Recipe {recipe}: {parameters:,} parameters, {trainable:,} of them trained; canvas, frames, text rows and precision as
there, one sample per step, random weights. The checkpoint is {checkpoint:.2f} GB (bfloat16, the released layout). Each
stage runs in a process of its own.

- load: the checkpoint into a policy without memory, which takes its tensors as they lie there; every page is read.
- convert: the checkpoint into a run directory.
- encode reads the frozen encoders alone.
- train builds the policy with random weights in float32 first ({float32:.1f} GiB) and then fills it. It computes both
  losses, backward and AdamW under autocast; the frozen Linears lie in memory in bfloat16 (nn/frozen.py).
- act computes in float32; a query is one robot's two pictures to 32 actions.

## Memory

GiB; "before" is Python with torch and what is imported. Anonymous memory must stay; file-backed memory is mapped weight
files, which the system takes back when it needs it. The last column is the peak over the checkpoint's size.

{memory}

## Seconds

Wall time, and processor time summed over {threads} threads, which other work on the machine hardly changes. Its load
(five-minute average, {cores} cores) was {load[0]} before the first stage and {load[1]} after the last.

{seconds}
"""


def page(facts: Mapping[str, object], costs: Mapping[str, Cost], checkpoint: int) -> str:
    """The result as Markdown."""
    memory = [
        [
            name,
            *(f"{size / GIB:.2f}" for size in (of.before, of.peak_anonymous, of.peak_file, of.peak)),
            f"{of.peak / checkpoint:.2f}",
        ]
        for name, of in costs.items()
    ]
    seconds = [
        [f"{name}: {step}", f"{wall:.1f}", f"{of.cpu_seconds[step]:.1f}"]
        for name, of in costs.items()
        for step, wall in of.seconds.items()
    ]
    head = ("stage", "before", "peak anonymous", "peak file-backed", "peak, both", "/ checkpoint")
    float32 = 4 * cast(int, facts["built"]) / GIB
    return PAGE.format(
        float32=float32,
        memory=table(head, memory),
        seconds=table(("", "wall", "processor"), seconds),
        **facts,
    )


def measure(run: Run, out: Path) -> Path:
    """All stages one after the other; writes `full_size_<hardware>_<date>.json` and `.md` and returns the page."""
    where, libraries, load_before = machine(), versions(), os.getloadavg()[1]
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".full_size_") as temporary:
        folder = Path(temporary)
        run = with_files_in(run, folder)
        in_own_process(prepare, run, folder)
        checkpoint = (folder / CHECKPOINT).stat().st_size
        costs = {}
        for name, stage in STAGES.items():
            costs[name] = in_own_process(stage, run, folder)
            print(f"{name}: {costs[name]}", flush=True)
    policy = meta_policy(run)
    rows = parts(run, policy)
    facts: dict[str, object] = {
        "date": f"{datetime.date.today()}",
        "command": "python -m benchmarks.full_size",
        "revision": revision(),
        "threads": torch.get_num_threads(),
        "load": [round(load_before, 1), round(os.getloadavg()[1], 1)],
        "recipe": run.recipe,
        "parameters": sum(row.parameters for row in rows),
        "built": sum(x.numel() for x in cast(nn.Module, policy).parameters()),
        "trainable": sum(row.trainable for row in rows),
    }
    everything = facts | {
        "checkpoint_bytes": checkpoint,
        "machine": where,
        "versions": libraries,
        "stages": {name: asdict(of) for name, of in costs.items()},
        "run": json.loads(to_json(run).replace(f"{temporary}/", "")),
    }
    shown = {key: where[key] for key in ("cpu", "cores", "memory_gb")} | {"torch": libraries["torch"]}
    hardware = re.sub(r"[^a-z0-9]+", "-", str(where["cpu"]).lower()).strip("-")
    path = out / f"full_size_{hardware}_{facts['date']}.md"
    out.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").write_text(json.dumps(everything, indent=1) + "\n")
    path.write_text(page(facts | shown | {"checkpoint": checkpoint / 1e9}, costs, checkpoint))
    return path


def main() -> None:
    """See the module docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    print(measure(libero_spatial(), parser.parse_args().out).read_text())


if __name__ == "__main__":
    main()
