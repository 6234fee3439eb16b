"""A training step leaves its numbers on the device, and takes nothing there: the host waits for it only where a row of
the log or a checkpoint is due.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.policies import tiny_fast_wam as fast
from tests.policies import tiny_policy as light
from tests.policies.test_no_host_work import OnTheDevice
from tests.policies.tiny_lawam import batch as lawam_batch
from tests.policies.tiny_lawam import tiny_lawam
from tests.policies.tiny_lawam_world import PAIR_RUN, tiny_world
from tests.policies.tiny_policy import batch_of
from wamkit.draws import Draws
from wamkit.policies.light_wam.policy import LoRATuning
from wamkit.stages.plan import meta_batch
from wamkit.train.loop import TrainConfig, initial_state, optimize
from wamkit.train.metrics import Window
from wamkit.types import Batch

META, CPU, ATEN = torch.device("meta"), torch.device("cpu"), torch.ops.aten
READING = {ATEN._local_scalar_dense, ATEN.nonzero, ATEN.is_nonzero, ATEN.equal, ATEN.masked_select}
HIDING = replace(light.tiny_config().expert, reads_proprio=True, proprio_hidden=0.5)
POLICIES: dict[str, Callable[[], Any]] = {
    "light_wam": lambda: light.tiny_policy(light.tiny_config()),
    "light_wam, LoRA, pooled": lambda: light.tiny_policy(light.tiny_config(LoRATuning(rank=2), video_pool=2)),
    "light_wam, hidden proprio": lambda: light.tiny_policy(light.tiny_config(expert=HIDING)),
    "fast_wam": lambda: fast.tiny_policy(fast.tiny_config()),
    "fast_wam, IDM": lambda: fast.tiny_policy(fast.tiny_config(variant="idm")),
    "fast_wam, Optional-IDM": lambda: fast.tiny_policy(fast.tiny_config(variant="optional_idm")),
    "lawam": tiny_lawam,
    "lawam, stage 1": tiny_world,
}


def batch_for(name: str, policy: Any) -> Batch:
    if name == "lawam":
        return lawam_batch(3)
    return meta_batch(PAIR_RUN).map(zeros, ("",) * 4) if name == "lawam, stage 1" else batch_of(policy)


def zeros(x: Tensor) -> Tensor:
    return torch.zeros_like(x, device=CPU)


class Read(TorchDispatchMode):
    """found: the operations that give a number or a shape to the host."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if operation.overloadpacket in READING:
            self.found.append(str(operation))
        return operation(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """A mode sees what its own thread does."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_number_that_is_read_is_seen() -> None:
    with Read() as read:
        torch.ones(1).item()
    assert read.found


@pytest.mark.parametrize("name", POLICIES)
def test_nothing_is_read_between_rows(name: str) -> None:
    policy = POLICIES[name]()
    batch, window = batch_for(name, policy), Window({})
    config = TrainConfig(steps=9, batch_size=len(batch.ids), warmup_steps=1, clip_norm=1.0, average_decay=0.5)
    state = initial_state(policy, config)
    with Read() as read:
        for step in range(3):
            window.add(step + 1, batch.ids, optimize(state.module, batch, step, state, config))
    assert not read.found
    assert window.close()["loss"] > 0


class MetaDraws(Draws):
    """Draws on the meta device, which has no generators."""

    def uniform(self, device: torch.device) -> Tensor:
        return torch.empty(self.count, device=META)

    def normal(self, like: Tensor) -> Tensor:
        return torch.empty_like(like)

    uniform_like = normal

    def decisions(self) -> list[float]:
        return [0.0, *[1.0] * (self.count - 1)]


@pytest.mark.parametrize(
    "name", sorted(POLICIES.keys() - {"fast_wam, Optional-IDM"})
)  # whose rows the host has drawn
def test_losses_and_gradients_are_the_devices_alone(name: str) -> None:
    policy = POLICIES[name]()
    batch = batch_for(name, policy).to(META)
    policy = policy.to(META).train()
    with OnTheDevice() as found:
        losses = policy(batch, MetaDraws((), 0, len(batch.ids), len(batch.ids)))
        torch.stack(list(losses.values())).sum().backward()
    assert not found.elsewhere
