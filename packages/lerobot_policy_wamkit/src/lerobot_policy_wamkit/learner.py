"""The learned half of a policy while LeRobot trains it, and in its place, while it only acts, the folder it lies in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from torch import Tensor, nn
from wamkit_client.types import BadInput

from lerobot_policy_wamkit.batches import Rows
from lerobot_policy_wamkit.folders import copy_run
from wamkit.config import (
    PROVENANCE_FILE,
    Run,
    build_encoder,
    build_policy,
    load_normalizer,
    load_provenance,
    save_normalizer,
    save_run,
)
from wamkit.data.samples import Fresh
from wamkit.draws import Draws
from wamkit.io.files import replace_text, sha256
from wamkit.io.weights import WEIGHTS, save_weights
from wamkit.nn.layers import recompute
from wamkit.stages.run import fit_normalizer, open_clips, provenance_of, store_text
from wamkit.train.checkpoint import read_weights, trained_tensors
from wamkit.train.optim import optimizer_groups
from wamkit.types import Encoder

NETWORK = "network."
"""How names of its weights begin among a learner's."""


class Stored:
    """A run directory, of which the policy acts. robot: the only one that it knows, or `asked` of several.

    BadInput where it knows none of that name, or several and none is asked for.
    """

    def __init__(self, directory: Path, asked: str) -> None:
        known = load_normalizer(directory).embodiments
        if asked not in known and (asked or len(known) > 1):
            raise BadInput(
                f"{directory}: knows the robots {', '.join(map(repr, known))}, asked as {asked!r}; give one of them "
                "as --policy.robot"
            )
        self.directory, self.robot = directory, asked or known[0]

    def __call__(self, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, float]]:
        """BadInput: it is not trained."""
        raise BadInput(
            f"{self.directory}: was loaded to act; a policy that is trained is given the dataset (dataset_meta)"
        )

    def groups(self) -> list[dict[str, Any]]:
        """Nothing to optimize."""
        return []

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """A run directory of the weights as they are."""
        yield self.directory

    def save(self, target: Path, state: Mapping[str, Tensor]) -> None:
        """The same run directory."""
        copy_run(self.directory, target)


class Learner(nn.Module):
    """A network with the frozen half that its samples go through, trained on one dataset.

    directory: the run directory whose weights and statistics it begins with; Path(): random weights, and statistics of
    the dataset. root: the dataset's folder. Raises BadInput where run, folder and dataset do not go together.
    """

    def __init__(self, run: Run, directory: Path, root: Path) -> None:
        super().__init__()
        _expect_trainable(run)
        self.run, self.directory = run, directory
        self._clips = open_clips(run, [root])
        self.robot = self._clips[0].dataset.robot_type
        begins = directory == Path()
        self._normalizer = fit_normalizer(run, self._clips) if begins else load_normalizer(directory)
        self._trained = build_policy(run, self._normalizer)
        self.network = cast(nn.Module, self._trained)
        self._trained.embodiment([self.robot])  # a robot without statistics is refused here
        if begins:
            self._trained.initialize()
        else:
            self._trained.load_frozen()
            read_weights(directory, self.network)
        recompute(self.network, run.train.checkpoint_blocks)
        self._encoders: list[Encoder] = []  # one, once it is needed: it may be large

    def forward(self, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, float]]:
        """The weighted sum of the losses of a LeRobot batch, and each of them. Noise follows from torch's generator.

        BadInput for what the batch lacks.
        """
        device = next(self.network.parameters()).device
        rows = Rows(batch, self.run.data, self.run.actions, self.robot)
        noise, *seeds = torch.randint(2**62, (1 + len(rows),)).tolist()
        samples = Fresh(rows, self._encoder(device), self.run.data.augmentation)
        encoded = samples.finish(samples.reader(range(len(rows)), seeds)).whole()
        draws = Draws.of_step(noise, 0, device, 0, len(rows), len(rows))
        losses = self.network(encoded.batch(self._trained.embodiment).to(device), draws)
        weights = self._trained.loss_weights
        total = torch.stack([weight * losses[name] for name, weight in weights.items()]).sum()
        return total, {name: losses[name].item() for name in weights}

    def groups(self) -> list[dict[str, Any]]:
        """Every trained parameter, in AdamW's groups with the rates and decays that the run gives them."""
        train = self.run.train
        wanted = self._trained.parameter_groups()
        found = optimizer_groups(
            self.network, wanted, train.weight_decay, train.decayed, train.undecayed_names
        )
        return [
            {key: group[key] for key in ("params", "weight_decay")}
            | {"lr": train.learning_rate * group["lr_scale"]}
            for group in found
        ]

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """A run directory of the weights as they are."""
        with TemporaryDirectory(prefix="wamkit") as folder:
            self.save(Path(folder), self.state_dict())
            yield Path(folder)

    def save(self, target: Path, state: Mapping[str, Tensor]) -> None:
        """Write a run directory. state: of this module, or gathered from the processes that share it."""
        save_run(self.run, target)
        save_normalizer(self._normalizer, target)
        replace_text(target / PROVENANCE_FILE, json.dumps(self._facts(), indent=1, allow_nan=False))
        save_weights(target, {name: state[NETWORK + name] for name in trained_tensors(self.network)})

    def _facts(self) -> dict[str, Any]:
        """Where the weights come from; what goes on with a dataset keeps what was written when that was begun."""
        device = next(self.network.parameters()).device
        facts = provenance_of(self.run, self._trained, self._clips, device)
        if self.directory == Path():
            return facts
        earlier = load_provenance(self.directory)
        if earlier["dataset"] == facts["dataset"]:
            return earlier
        about = {"run": str(self.directory), "recipe": self.run.recipe}
        return facts | {"init": about | {"weights": sha256(self.directory / WEIGHTS), "normalizer": "kept"}}

    def _encoder(self, device: torch.device) -> Encoder:
        if not self._encoders:
            encoder = build_encoder(self.run)
            encoder.to(device)
            store_text(self._clips, encoder)
            self._encoders.append(encoder)
        self._encoders[0].to(device)
        return self._encoders[0]


def _expect_trainable(run: Run) -> None:
    """BadInput for what LeRobot's batches cannot hold."""
    if run.sources:
        raise BadInput(
            f"run {run.recipe} is of {len(run.sources)} sources, and LeRobot trains on one dataset; use `wamkit train`"
        )
    own = [f"{name}={run.data.columns[name]}" for name in ("action", "proprio") if name in run.data.columns]
    if own:
        raise BadInput(
            f"run {run.recipe} reads {', '.join(own)}, and LeRobot's batches have action and observation.state whole; "
            "use `wamkit train`"
        )
