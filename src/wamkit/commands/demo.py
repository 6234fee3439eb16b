"""The whole way, from demonstrations to a page, in one command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from wamkit.commands.devices import Device, use_device
from wamkit.commands.outputs import output_folder
from wamkit.commands.overrides import Overrides, changed, refuse_seed, refuse_start
from wamkit.recipes import DEMOS, earlier, recipe

if TYPE_CHECKING:
    DemoPolicy = str
else:
    DemoPolicy = Literal[tuple(DEMOS)]


@dataclass(frozen=True)
class Demo:
    """Collect, check, encode, train, evaluate and report, on one machine; run it again to resume.

    Examples: wamkit demo --out demo
              wamkit demo --policy fast_wam --out fast_demo
              wamkit demo --policy lawam --out lawam_demo
    """

    policy: DemoPolicy = next(iter(DEMOS))
    smoke: bool = False
    """A few training steps only, to see that every stage works."""
    out: Path = Path("demo")
    """Where everything is written."""
    episodes: int = 40
    """Demonstrations per task."""
    seed: int = 0
    """Of training: initial weights, data order and noise."""
    device: Device = ""

    def __call__(self, overrides: Overrides) -> int:
        use_device(self.device)
        from wamkit.recipes.metaworld import smoke
        from wamkit.stages.demo import demo

        refuse_seed(overrides, "--seed")
        name, other = DEMOS[self.policy]
        refuse_start(name, overrides)
        seed = {"train.seed": self.seed}
        before = [changed(smoke(run) if self.smoke else run, seed) for run in earlier(name)]
        whole = recipe(name)
        run = changed(smoke(whole) if self.smoke else whole, overrides | seed)
        output_folder(self.out)
        return demo(run, whole.suite, other, self.out, self.episodes, before)
