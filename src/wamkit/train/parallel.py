"""A policy trained by several processes, each with its share of every batch. The policy does not know.

"ddp": every rank has all weights, and gradients of those that learn are averaged in buckets while the backward pass
goes on. "fsdp": what learns, with its gradients, optimizer and average, is divided among the ranks; each block is
gathered where it is needed (FSDP2). "hybrid": it is divided among the ranks of a machine, and machines are copies of
each other. Frozen weights are whole on every rank, and nobody sends them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from inspect import isfunction
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from wamkit.draws import Draws
from wamkit.io.weights import save_weights
from wamkit.nn.layers import Layers
from wamkit.train import checkpoint
from wamkit.train.checkpoint import State
from wamkit.train.halves import Learn, at_once
from wamkit.train.optim import trained_parameters
from wamkit.train.ranks import ALONE, Agreed, Ranks
from wamkit.train.sharded import Saving, ShardedSaving
from wamkit.types import Batch, Policy, Trainable

Forward = Callable[[Batch, Draws], dict[str, Tensor]]
Kind = Literal["ddp", "fsdp", "hybrid"]


class Parallel:
    """One process: nothing is done to the policy."""

    ranks: Ranks = ALONE

    def share(self, module: nn.Module) -> None:
        """Divide weights among the ranks, in place, before there is an optimizer of them."""

    def forward(self, module: nn.Module, call: Forward) -> Forward:
        """What computes the losses of this rank's samples. call: what does alone: `module`, or what is compiled."""
        return call

    def draws(self, draws: Draws) -> Draws:
        """What a policy draws from."""
        return draws

    def part(self, forward: Forward, last: bool) -> AbstractContextManager[object]:
        """One of the parts that a batch goes through the policy in. last: gradients are complete after it."""
        return nullcontext()

    def learn(self, alone: Learn) -> Learn:
        """How gradients of a part are computed. alone: how one process would."""
        return alone

    def saving(self, run_dir: Path, state: State, keep_last: int) -> Saving:
        """What writes checkpoints."""
        return Saving(run_dir, state, keep_last)

    def write_weights(self, run_dir: Path, state: State) -> None:
        """The weights of a finished run."""
        checkpoint.write_weights(run_dir, state)

    def divided(self, whole: Tensor, like: Tensor) -> Tensor:
        """What this rank has of a tensor, divided as `like` is."""
        return whole

    def whole(self, tensor: Tensor) -> Tensor:
        """Of what may be divided; all ranks ask for it."""
        return tensor

    def losses(self, policy: Trainable, batch: Batch, found: dict[str, Tensor]) -> dict[str, Tensor]:
        """A rank's losses such that their mean over the ranks is that of all their samples."""
        return found


class Replicated(Parallel):
    """See the module docstring."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks

    def forward(self, module: nn.Module, call: Forward) -> Forward:
        """See Parallel. All ranks have the same weights already (stages/alike.py); frozen ones are not looked at."""
        whole = call if isinstance(call, nn.Module) else module
        with warnings.catch_warnings():
            # `broadcast_buffers` has a new name, by which buffers of frozen parts would be sent too.
            warnings.simplefilter("ignore", FutureWarning)
            return nn.parallel.DistributedDataParallel(
                whole,
                broadcast_buffers=False,
                init_sync=False,
                find_unused_parameters=True,  # which of them have no gradient may differ from step to step
                gradient_as_bucket_view=True,
            )

    def saving(self, run_dir: Path, state: State, keep_last: int) -> Saving:
        """See Parallel."""
        return ShardedSaving(self.ranks, run_dir, state, keep_last)

    def write_weights(self, run_dir: Path, state: State) -> None:
        """See Parallel."""
        if self.ranks.writes:
            super().write_weights(run_dir, state)

    def part(self, forward: Any, last: bool) -> AbstractContextManager[object]:
        """See Parallel. Gradients are averaged once, after the last part."""
        return nullcontext() if last else forward.no_sync()

    def learn(self, alone: Learn) -> Learn:
        """See Parallel. Gradients are averaged where backward() leaves them."""
        return at_once

    def losses(self, policy: Trainable, batch: Batch, found: dict[str, Tensor]) -> dict[str, Tensor]:
        """See Parallel."""
        counts = policy.targets(batch)
        if not counts:
            return found
        own = torch.stack([count.float() for count in counts.values()])
        total = self.ranks.sum(own).clamp(min=1)
        shares = dict(zip(counts, own * self.ranks.share.count / total, strict=True))
        return {name: loss * shares.get(name, 1.0) for name, loss in found.items()}


class Sharded(Replicated):
    """See the module docstring. sizes: of the mesh of ranks: (ranks,), or (machines, ranks of each)."""

    def __init__(self, ranks: Ranks, sizes: tuple[int, ...]) -> None:
        super().__init__(ranks)
        self.sizes = sizes

    def share(self, module: nn.Module) -> None:
        """See Parallel."""
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

        # Policies change nothing in place that a layer returns; their tests say so.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
        names = ("copy", "part")[-len(self.sizes) :]
        mesh = init_device_mesh(next(module.parameters()).device.type, self.sizes, mesh_dim_names=names)
        frozen = {parameter for parameter in module.parameters() if not parameter.requires_grad}
        for unit in units(module):
            more = entries(unit)
            # What is entered by several functions is gathered once for all of them, until its backward pass.
            fully_shard(unit, mesh=mesh, reshard_after_forward=not more, ignored_params=frozen)
            for name in more:
                register_fsdp_forward_method(unit, name)
        fully_shard(module, mesh=mesh, ignored_params=frozen)
        if isinstance(module, Policy):
            register_fsdp_forward_method(module, "act")

    def forward(self, module: nn.Module, call: Forward) -> Forward:
        """See Parallel."""
        return call

    def draws(self, draws: Draws) -> Draws:
        """See Parallel. All ranks must ask each other for the same weights."""
        return Undecided(**vars(draws))

    @contextmanager
    def part(self, forward: Any, last: bool) -> Iterator[None]:
        """See Parallel."""
        forward.set_requires_gradient_sync(last)
        yield

    def divided(self, whole: Tensor, like: Tensor) -> Tensor:
        """See Parallel. Every rank has all of it already, so that nothing is sent."""
        from torch.distributed.tensor import DTensor, distribute_tensor

        if not isinstance(like, DTensor):
            return whole
        return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements, src_data_rank=None)

    def whole(self, tensor: Tensor) -> Tensor:
        """See Parallel."""
        from torch.distributed.tensor import DTensor

        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

    def write_weights(self, run_dir: Path, state: State) -> None:
        """See Parallel."""
        weights = {name: self.whole(x).cpu() for name, x in checkpoint.weights_of(state).items()}
        if self.ranks.writes:
            save_weights(run_dir, weights)


class Undecided(Draws):
    """Draws by which nothing may be decided."""

    def decisions(self) -> list[float]:
        """Agreed: what a rank computes would depend on its samples."""
        raise Agreed(
            "train.parallel: this policy decides for every sample what it computes of it, so ranks would wait for "
            "weights that others do not send; give --train.parallel ddp"
        )


def units(module: nn.Module) -> list[nn.Module]:
    """The Layers of a policy that learn, each of which is gathered by itself; all else is gathered once in a step."""
    stacks = [part for part in module.modules() if isinstance(part, Layers)]
    return [layer for stack in stacks for layer in stack if trained_parameters(layer)]


def entries(module: nn.Module) -> list[str]:
    """The functions besides `forward` by which others enter a module."""
    return [
        name
        for name, found in vars(type(module)).items()
        if isfunction(found) and name != "forward" and not name.startswith("_")
    ]


SINGLE = Parallel()
KINDS: Mapping[Kind, Callable[[Ranks], Parallel]] = {
    "ddp": Replicated,
    "fsdp": lambda ranks: Sharded(ranks, (ranks.share.count,)),
    "hybrid": lambda ranks: Sharded(ranks, (ranks.share.count // ranks.of_machine, ranks.of_machine)),
}


def parallel(kind: Kind, ranks: Ranks) -> Parallel:
    """What a rank does."""
    return KINDS[kind](ranks) if ranks.share.count > 1 else SINGLE
