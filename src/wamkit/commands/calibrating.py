"""A world model that warns: calibrate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg
from wamkit_client.types import BadInput

from wamkit.commands.datasets import Datasets
from wamkit.commands.devices import Device, use_device
from wamkit.commands.overrides import BEFORE_LISTS, Overrides, changed, words
from wamkit.io.progress import command, say


@dataclass(frozen=True)
class Calibrate:
    """Let the world model of a run warn when the cameras show what it did not expect: say what is usual, and from where
    on it is an alarm (RUN/warning.json), by episodes that the run was not trained on.

    Examples: wamkit calibrate demo/run --dataset demo/unseen
              wamkit calibrate runs/arm --dataset arm/dataset --false-alarms 0.1 --ahead 0.4

    Then --eval.warn True lets it warn, in wamkit eval and wamkit serve. Of a dataset that the run was trained on, the
    episodes are taken that it held out (--data.held-out 0.2); others are recorded by wamkit collect --skip.
    """

    run: Positional[Annotated[Path, arg(metavar="RUN", help=f"A run directory. {BEFORE_LISTS}")]]
    dataset: Datasets
    false_alarms: float = 0.05
    """The share of usual episodes that may raise an alarm; 1 / share episodes are needed twice."""
    ahead: float = 0.0
    """Seconds: what is seen is compared with what was expected so long before, or earlier. 0: with the latest."""
    device: Device = ""

    def __call__(self, overrides: Overrides) -> int:
        use_device(self.device)
        if not self.dataset:
            raise BadInput("--dataset: expected episodes that the run was not trained on")
        from wamkit.config import load_run
        from wamkit.data.joined import dataset_flags
        from wamkit.stages.calibrate import CalibrationConfig, calibrate
        from wamkit.stages.run import best_device
        from wamkit.stages.warning import WARNING

        run = changed(load_run(self.run), overrides)
        flags = (
            *dataset_flags(self.dataset),
            "--false-alarms",
            str(self.false_alarms),
            "--ahead",
            str(self.ahead),
        )
        again = command("wamkit", "calibrate", self.run, *flags, *words(overrides))
        config = CalibrationConfig(self.false_alarms, self.ahead)
        made = calibrate(self.run, run, self.dataset, config, best_device(), again)
        for robot, usual in made.robots.items():
            highest = made.origins[robot].highest.values()
            say(
                f"{robot}: an alarm from {usual.threshold:.3g} times the usual error on; of {len(highest)} usual "
                f"episodes, {sum(score > usual.threshold for score in highest)} raise one"
            )
        say(f"{self.run / WARNING}: done. Next: {command('wamkit', 'eval', self.run, '--eval.warn', 'True')}")
        return 0
