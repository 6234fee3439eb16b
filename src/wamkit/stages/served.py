"""A policy that a server has, measured as if it were in this process (wamkit_client/client.py).

What a result says of a policy, its server tells: the run that it acts as, what identifies it, and the initial states
that it was trained on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wamkit_client.client import RemotePolicy
from wamkit_client.envs.base import InitialState
from wamkit_client.suites import Suite
from wamkit_client.types import BadInput

from wamkit.config import RUN, Run, diff, from_json, load_normalizer
from wamkit.eval.evaluate import RESULTS
from wamkit.eval.evaluate import evaluate as measure
from wamkit.io.provenance import machine, revision, versions
from wamkit.stages.evaluation import asked_as, demonstrated, expect_fit

SERVERS = ("eval.engine", "eval.precision", "eval.preprocessing", "eval.warn")
"""Values of how a run is measured that are the server's."""


def about(run_dir: Path, asked: Run, facts: Mapping[str, Any]) -> str:
    """What a server says of a run directory that acts as `asked`; `Told.by` reads it. facts: policy_facts."""
    served = {"revision": revision(), "versions": versions(), "machine": machine()}
    said = {
        "run": RUN.dump_python(asked, mode="json"),
        "facts": {**facts, "served": served},
        "robots": load_normalizer(run_dir).embodiments,
        "demonstrated": [state.to_json() for state in demonstrated(run_dir)],
    }
    return json.dumps(said)


@dataclass(frozen=True)
class Told:
    """run: as the policy acts. facts: what identifies it. robots: that it knows. demonstrated: initial states."""

    run: Run
    facts: Mapping[str, Any]
    robots: Sequence[str]
    demonstrated: Sequence[InitialState]

    @classmethod
    def by(cls, remote: RemotePolicy) -> Told:
        """What a server says. BadInput where it is of another version."""
        said = remote.about()
        try:
            return cls(
                from_json(json.dumps(said["run"]), remote.url),
                said["facts"],
                said["robots"],
                [InitialState.from_json(state) for state in said["demonstrated"]],
            )
        except KeyError as error:
            raise BadInput(
                f"{remote.url} does not say {error} of its policy; what it serves cannot be measured"
            ) from None

    def expect_known(self, robots: Sequence[str]) -> None:
        """BadInput for robots that the policy was not trained for."""
        for robot in robots:
            if robot not in self.robots:
                raise BadInput(
                    f"the server's policy does not know robot {robot!r}; it knows {', '.join(self.robots)}"
                )


def measured(remote: RemotePolicy, told: Told, asked: Run, suite: Suite, out: Path) -> dict[str, Any]:
    """Results of the server's policy, asked as `asked` says, on the suite.

    BadInput where that differs from what the server told in what is the server's, and where the server has another
    policy at the end.
    """
    for path in (change.partition(":")[0] for change in diff(told.run, asked)):
        if path in SERVERS or not path.startswith("eval."):
            raise BadInput(f"--{path.replace('_', '-')}: the server decides that; give it to `wamkit serve`")
    expect_fit(asked, suite, told.expect_known)
    results = measure(asked_as(remote, asked), suite, asked.eval, out, told.facts, told.demonstrated)
    if Told.by(remote).facts != told.facts:
        (out / RESULTS).unlink()
        raise BadInput(
            f"{remote.url} has served another policy since the evaluation began; evaluate again in another folder"
        )
    return results
