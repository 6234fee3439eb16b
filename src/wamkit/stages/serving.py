"""Run directories behind a server: loaded, warmed up, and taken the place of while they are served."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from wamkit_client.types import BadInput, Observation

from wamkit.config import Run, load_engine_as, load_normalizer
from wamkit.infer.engine import Engine
from wamkit.infer.graphs import BUCKETS
from wamkit.io.interrupt import reload_request, stop_request
from wamkit.io.progress import say
from wamkit.io.provenance import revision
from wamkit.serve.dialects.base import Service
from wamkit.serve.dialects.openpi import metadata
from wamkit.serve.dialects.spoken import dialects, greeting
from wamkit.serve.doors import Doors
from wamkit.serve.layouts import LAYOUTS, mapped
from wamkit.serve.limits import Limits
from wamkit.serve.scheduler import Scheduler
from wamkit.serve.served import Facts, Policies, Robot, Served
from wamkit.serve.server import Server, json_page
from wamkit.stages.evaluation import policy_facts
from wamkit.stages.run import best_device
from wamkit.stages.served import about
from wamkit.types import Policy

LISTENS_SECONDS = 0.2
"""Between two looks at what signals have asked for."""
IDENTITY = ("recipe", "seed", "steps", "weights", "precision", "device")


@dataclass(frozen=True)
class Source:
    """Where a policy comes from. asked: its run as it is now, with what is asked of it otherwise."""

    run_dir: Path
    asked: Callable[[], Run]


@dataclass(frozen=True)
class Asked:
    """How runs are served. names: of clients' keys (layouts.mapped). window: seconds (scheduler.Scheduler).

    proprio_factor, debug: of dialects.base.Service.
    """

    host: str
    port: int
    names: Mapping[str, str]
    window: float
    batch: int
    proprio_factor: float
    debug: bool


def serve(sources: Mapping[str, Source], asked: Asked, limits: Limits, doors: Callable[[], Doors]) -> None:
    """Serve until Ctrl-C or SIGTERM; SIGHUP loads run directories and `doors` anew, and connections go on.

    The port is open, and not ready, while policies are loaded. Raises BadInput as of `load_served` and Server.
    """
    from wamkit.serve.metrics import Metrics  # needs prometheus-client, as nothing else here does

    metrics = Metrics()
    service = Service(
        Policies(),
        Scheduler(asked.window, asked.batch, limits.queries, metrics),
        mapped(LAYOUTS, asked.names),
        limits,
        metrics,
        asked.proprio_factor,
        asked.debug,
    )
    pages = {"/metrics": metrics.page, "/": json_page(lambda: metadata(service.policies))}
    server = Server(service, dialects(), doors(), asked.host, asked.port, greeting(service.policies), pages)
    with stop_request("nothing is kept") as stop, reload_request() as reload, server:
        for name, source in sources.items():
            served = load_served(name, source.run_dir, source.asked())
            server.in_turn(partial(warm_up, served, best_device()))
            service.policies.add(served)
        say(f"serving {', '.join(sources)} at {server.address}")
        while not stop.wait(LISTENS_SECONDS):
            if reload.is_set():
                reload.clear()
                _reload(sources, server, doors)
    say("every query was answered")


def _reload(sources: Mapping[str, Source], server: Server, doors: Callable[[], Doors]) -> None:
    """Keys and run directories as they are now; those that cannot be used stay as they were, and it is said why."""
    policies, watch = server.service.policies, server.service.watch
    try:
        server.doors = doors()
    except BadInput as error:
        say(f"the keys stay as they were: {error}")
    for name, source in sources.items():
        try:
            fresh = reloaded(policies.find(name), source.run_dir, source.asked())
            server.in_turn(partial(warm_up, fresh, best_device()))
            policies.add(fresh)
        except (BadInput, OSError, RuntimeError) as error:  # RuntimeError: no memory for both
            watch.reloaded(name, False)
            say(f"{name} stays as it was: {error}")
        else:
            watch.reloaded(name, True)
            say(f"{name} was loaded anew from {source.run_dir}")


def load_served(name: str, run_dir: Path, asked: Run) -> Served:
    """A run directory as something that is served, on the best device.

    asked: the directory's run, or one that differs in what a trained policy can be asked for. Raises BadInput
    naming a missing or damaged file, or what cannot be asked for.
    """
    device = best_device()
    known = policy_facts(run_dir, asked, device)
    engine = load_engine_as(asked, run_dir, device)
    engine.release()
    data = asked.data
    facts = Facts(
        kind=asked.policy.kind,
        robots=_robots(run_dir, engine),
        action_names=asked.actions.names,
        view_height=data.view_height,
        view_width=data.view_width,
        replan_steps=asked.eval.replan_steps,
        absolute="absolute" in asked.actions.kinds,
        identity={name: str(known[name]) for name in IDENTITY} | {"git": revision()},
        about=about(run_dir, asked, known),
    )
    return Served(name, engine, facts)


def warm_up(served: Served, device: torch.device) -> None:
    """Ask a policy about nothing, once for each size of batch that is recorded for: first queries are slow.

    In the thread that will call it, since nothing else may run on a GPU while work is recorded.
    """
    robot, facts = served.facts.robots[0], served.facts
    images = {view: np.zeros((facts.view_height, facts.view_width, 3), np.uint8) for view in robot.views}
    nothing = Observation(images, np.zeros(robot.proprio_dim, np.float32), "warm up", robot.name)
    for size in BUCKETS if device.type == "cuda" else BUCKETS[:1]:
        served.policy.act([nothing] * size)


def reloaded(served: Served, run_dir: Path, asked: Run) -> Served:
    """The run directory as it is now, to take the place of what is served.

    Raises BadInput as of `load_served`, and where it is not what connected clients were told.
    """
    fresh = load_served(served.name, run_dir, asked)
    if fresh.facts.told != served.facts.told:
        raise BadInput(
            f"{run_dir}: its cameras, robots or actions are not those of the policy that is served as {served.name!r}; "
            "clients were told of these when they connected. Start another server for it"
        )
    return fresh


def _robots(run_dir: Path, engine: Engine[Policy]) -> tuple[Robot, ...]:
    stats = load_normalizer(run_dir).stats
    return tuple(_robot(name, engine, own["proprio"].min, own["proprio"].max) for name, own in stats.items())


def _robot(name: str, engine: Engine[Policy], low: np.ndarray, high: np.ndarray) -> Robot:
    spec = engine.spec(name)
    return Robot(
        name=name,
        views=spec.views,
        proprio_dim=spec.proprio_dim,
        action_dim=spec.action_dim,
        horizon=spec.horizon,
        hz=spec.hz,
        low=tuple(map(float, low)),
        high=tuple(map(float, high)),
    )
