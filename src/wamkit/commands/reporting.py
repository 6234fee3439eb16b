"""The page of a run: report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from wamkit.commands.columns import COLUMNS
from wamkit.commands.datasets import Datasets
from wamkit.commands.devices import Device, use_device
from wamkit.commands.outputs import output_file
from wamkit.commands.overrides import Overrides, refuse
from wamkit.io.progress import say


@dataclass(frozen=True)
class Report:
    """Write the report page of a run: success, videos, imagined futures or subgoals, attention, curves.

    What there is nothing for is left out: a run that was not evaluated has a page too. Open-loop errors are also
    written beside the page, as JSON. --data.columns names columns of a dataset that has other names than the one of
    the run.

    Examples: wamkit report demo/run
              wamkit report demo/run --dataset demo/dataset
              wamkit report demo/run --dataset demo/dataset --sections success future
    """

    run: Positional[Path]
    dataset: Datasets = ()
    results: Path = Path()
    """The results folder of an evaluation; by default RUN/eval/SUITE, or the only one in RUN/eval."""
    out: Path = Path()
    """The page; by default RUN/report.html."""
    sections: tuple[str, ...] = ()
    """Some of its sections: success, rollouts, future, ...; by default all that there is something for."""
    device: Device = ""

    def __call__(self, overrides: Overrides) -> int:
        use_device(self.device)
        refuse({path: value for path, value in overrides.items() if path != COLUMNS})
        from wamkit.stages.report import report

        page = self.run / "report.html" if self.out == Path() else self.out
        output_file(page)
        report(
            self.run,
            page,
            datasets=self.dataset,
            results_dir=self.results,
            columns=overrides.get(COLUMNS, {}),
            sections=self.sections,
        )
        say(f"page: {page}")
        return 0
