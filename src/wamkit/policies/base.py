"""What every kind of policy shares: the base of its config and of its network. Plug-ins derive from these.

A config without fields of its own is complete but for `kind`, `encoder`, `example_inputs` and `build`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from wamkit_client.types import BadInput

from wamkit.data.normalize import Normalizer
from wamkit.foresight import WorldModel
from wamkit.taking import SHARED, Take
from wamkit.tree import Tree
from wamkit.types import (
    ActingEncoder,
    Actor,
    Batch,
    DataSpec,
    Encoder,
    Group,
    PartTable,
    Preprocessing,
    Query,
    Trainable,
)
from wamkit.wan.encoders import Codec
from wamkit.wan.prompts import Prompt

FORESIGHT = ("subgoal", "latent")
"""Sections of a run's page (report/run_page.py) for policies that predict a subgoal by a latent action."""


@runtime_checkable
class StagedActor(Protocol):
    """An Actor that says which of its work is the device's alone, so that it may be recorded (infer/graphs.py)."""

    def __call__(self, query: Query) -> Tensor:
        """`compute` of `prepare`."""

    def prepare(self, query: Query) -> Query:
        """With all that needs the host done, its results among `inputs` as tensors on the device, batched or not: noise
        is drawn, the instruction is looked up."""

    def compute(self, query: Query) -> Tensor:
        """Chunks of a prepared query, by the same operations for all of the same shapes; nothing is read on the host.

        Neither generators nor instructions are used.
        """


Function = Callable[[Tree], Tree]
"""Work on tensors, the same for all trees of the same shapes; it reads no numbers."""


@runtime_checkable
class PiecewiseActor(StagedActor, Protocol):
    """A StagedActor that does the same work several times in a query, which need be compiled only once."""

    def remade(self, remake: Callable[[Function], Function]) -> StagedActor:
        """The same, with what `remake` makes of each piece of the work in its place.

        BadInput where it does not consist of such pieces.
        """


@dataclass(frozen=True)
class EncoderFacts:
    """What `wamkit inspect` shows of an encoder on this machine.

    codecs: the video codec, or none, and in no_codec why. prompts: what becomes of instructions. no_tokens: why tokens
    are not known; "" where they are. missing: why the policy cannot be asked here; "" where it can.
    """

    prompts: tuple[Prompt, ...]
    codecs: tuple[Codec, ...] = ()
    no_codec: str = ""
    no_tokens: str = ""
    missing: str = ""


class PolicyConfig:
    """The base of a policy's config: a frozen dataclass with a field `kind: Literal["its_kind"] = "its_kind"`.

    It is saved in `run.json`. inference_overrides: paths below `policy.` that may differ between training and acting.
    about_losses: what a reader of a comparison should know about its losses, in a sentence; "" for nothing.
    continues: whether a chunk can continue the previous one (`Query.previous`), for the executor "guided".
    exported: passes of policy and encoder that are done for a program that is exported (infer/exported.py): none that
    keeps something from query to query.
    """

    inference_overrides: ClassVar[tuple[str, ...]] = ()
    about_losses: ClassVar[str] = ""
    continues: ClassVar[bool] = False
    exported: ClassVar[tuple[str, ...]] = ()
    kind: str

    @property
    def identity(self) -> Mapping[str, str]:
        """What tells policies of this kind apart in results."""
        return {}

    def encoder(self, data: DataSpec, preprocessing: Preprocessing = "training") -> Encoder:
        """The frozen half with its weights, on the CPU. Raises BadInput naming a missing file."""
        raise NotImplementedError

    def random_encoder(self, data: DataSpec, precision: torch.dtype) -> Encoder:
        """An encoder of the same sizes that needs no files: random weights, hashed text. For measurements of speed.

        precision: of the weights, where they may have another than float32.

        Without memory under `torch.device("meta")`. Raises BadInput where a policy has none.
        """
        raise BadInput(f"{self.kind}: has no encoder with random weights; measure a run directory of it")

    @property
    def known_robots(self) -> tuple[str, ...]:
        """Those that it has weights of their own for; (): it takes any robot of its normaliser."""
        return ()

    def example_inputs(self, data: DataSpec, batch: int) -> Tree:
        """Zeros in the shapes of what the encoder returns for a training batch."""
        raise NotImplementedError

    def build(self, data: DataSpec, normalizer: Normalizer) -> Trainable:
        """The learned half with random weights; without any under `torch.device("meta")`."""
        raise NotImplementedError

    def encoder_modules(self) -> Mapping[str, nn.Module]:
        """The encoder's networks without released weights, by row of the parameter table."""
        return {}

    def encoder_facts(
        self, data: DataSpec, instructions: Sequence[str], device: torch.device
    ) -> EncoderFacts:
        """What can be shown of its encoder on this machine."""
        prompts = tuple(Prompt(text, text, (), 0, 0, "") for text in instructions)
        return EncoderFacts(
            prompts, no_codec="this policy has no video codec", no_tokens="it has no tokenizer"
        )

    def validate(self, trained: Any) -> None:
        """BadInput where weights that were trained as `trained` cannot act as this."""

    def validate_together(self) -> None:
        """BadInput where values that a command line changed do not go together."""

    def expect_source(self, data: DataSpec, source: DataSpec) -> None:
        """BadInput where the policy of `data` cannot be trained on a source of a mixture."""

    def started_from(self, directory: Path) -> PolicyConfig:
        """The same, beginning with what an earlier stage learned. directory: its run directory, also a future one.

        Raises BadInput where this kind has no earlier stage.
        """
        raise BadInput(f"{self.kind}: has no earlier stage that it could start from; omit it")

    def world_model(self, directory: Path, data: DataSpec, device: torch.device) -> WorldModel:
        """The latent world model of a run directory that was trained with this config and `data`.

        Raises BadInput where this kind has none, naming a file where one is missing.
        """
        raise BadInput(
            f"{directory}: {self.kind} has no latent world model; name a run of a policy that has one"
        )


class FrozenEncoder:
    """The base of an encoder (types.Encoder) that augments nothing and encodes no instructions.

    A subclass has at least `fingerprint` and `frames`, which takes views from the CPU to `device`.
    """

    device = torch.device("cpu")

    @property
    def augments(self) -> bool:
        """Whether `prepare` draws from its generator: it does not."""
        return False

    @property
    def passes(self) -> tuple[str, ...]:
        """None."""
        return ()

    def acting(self, passes: Collection[str], precision: torch.dtype | None = None) -> ActingEncoder:
        """Itself."""
        return self

    @property
    def prepare(self) -> Callable[[Tree, torch.Generator], Tree]:
        """Views as they are."""
        return unchanged

    def frames(self, prepared: Tree) -> Tree:
        """Latents of the present frame and of those after it."""
        raise NotImplementedError

    def text(self, instructions: Sequence[str]) -> Tree:
        """Nothing: the policy is not told what to do."""
        return {}

    def store_text(self, instructions: Sequence[str]) -> None:
        """No-op: no network encodes text."""

    def to(self, device: torch.device) -> FrozenEncoder:
        """On `device`, in place."""
        self.device = device
        return self


def unchanged(views: Tree, generator: torch.Generator) -> Tree:
    """What an encoder without preparation is given."""
    return views


class TrainedModule(nn.Module):
    """The base of a network that is trained: what most do alike.

    data: what it asks of a dataset. normalizer: its own; what it takes and returns is in physical units.
    """

    def __init__(self, data: DataSpec, normalizer: Normalizer) -> None:
        super().__init__()
        self.data, self.normalizer = data, normalizer

    def separable(self, batch: Batch) -> bool:
        """Whether its losses are means over samples (types.Trainable): it is not known to be so."""
        return False

    def targets(self, batch: Batch) -> Mapping[str, Tensor]:
        """See types.Trainable: none of its losses is known to be another mean."""
        return {}

    @property
    def parts(self) -> PartTable:
        """The rows of its parameter table."""
        return (("network", lambda name: True),)

    def embodiment(self, names: Sequence[str]) -> Int[Tensor, " b"]:
        """Rows of the normaliser. BadInput for a robot it was not trained for."""
        return self.normalizer.index(names)

    def parameter_groups(self) -> list[Group]:
        """All trained parameters alike."""
        return [Group({name: p for name, p in self.named_parameters() if p.requires_grad})]

    def initialize(self) -> None:
        """No-op: training starts from random weights."""

    def load_frozen(self) -> None:
        """No-op: a run directory holds all of its weights."""


class PolicyModule(TrainedModule):
    """The base of a network that acts too."""

    @property
    def unsupported_sections(self) -> tuple[str, ...]:
        """Sections of a run's page that it has nothing to show in."""
        return ("future", "attention", *FORESIGHT)

    def act(self, query: Query) -> Float[Tensor, "b k a"]:
        """Action chunks in physical units."""
        raise NotImplementedError

    @property
    def passes(self) -> tuple[str, ...]:
        """None."""
        return ()

    def actor(self, passes: Collection[str], take: Take = SHARED) -> Actor:
        """`act`."""
        return take.network(self).act


def expect_passes(passes: Collection[str], needs: Mapping[str, Sequence[str]]) -> None:
    """BadInput for a pass that there is not, or without those that it builds on. needs: these, by pass."""
    for name in passes:
        if name not in needs:
            raise BadInput(f"passes: {name!r} is none of {', '.join(needs)}")
        missing = [need for need in needs[name] if need not in passes]
        if missing:
            raise BadInput(f"passes: {name} builds on {', '.join(missing)}; give that too, or omit {name}")
