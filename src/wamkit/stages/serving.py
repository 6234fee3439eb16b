"""Run directories behind a server: loaded, warmed up, and taken the place of while they are served."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from wamkit_client.types import BadInput, Observation

from wamkit.config import PROVENANCE_FILE, Run, load_acting, load_normalizer, load_provenance
from wamkit.data.colours import Colours, read_colours
from wamkit.data.statistics import Stats
from wamkit.infer.graphs import BUCKETS
from wamkit.infer.presets import PRESETS
from wamkit.io.interrupt import reload_request, stop_request
from wamkit.io.progress import say
from wamkit.io.provenance import revision
from wamkit.serve.dialects.base import Service
from wamkit.serve.dialects.gr00t import Gr00t
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
from wamkit.stages.warning import load_watched

log = logging.getLogger(__name__)
LISTENS_SECONDS = 0.2
"""Between two looks at what signals have asked for."""
IDENTITY = ("recipe", "seed", "steps", "weights", "precision", "device")


@dataclass(frozen=True)
class Source:
    """Where a policy comes from. load: it, as it is now. sizes: of batches, that it is warmed up with."""

    run_dir: Path
    load: Callable[[], Served]
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Asked:
    """How runs are served. names: of clients' keys (layouts.mapped). window: seconds (scheduler.Scheduler).

    proprio_factor, debug: of dialects.base.Service. gr00t_port: 0: GR00T's protocol is not served. gr00t_actions: of
    dialects.gr00t.Gr00t.
    """

    host: str
    port: int
    names: Mapping[str, str]
    window: float
    batch: int
    proprio_factor: float
    debug: bool
    gr00t_port: int
    gr00t_actions: Mapping[str, slice]


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
    greets = greeting(service.policies)
    server = Server(service, dialects(), doors(), asked.host, asked.port, greets, pages, _beside(asked))
    with stop_request("nothing is kept") as stop, reload_request() as reload, server:
        for source in sources.values():
            served = source.load()
            server.in_turn(partial(warm_up, served, source.sizes))
            service.policies.add(served)
        say(f"serving {', '.join(sources)} at {server.address}")
        while not stop.wait(LISTENS_SECONDS):
            if reload.is_set():
                reload.clear()
                _reload(sources, server, doors)
    say("every query was answered")


def _beside(asked: Asked) -> list[Callable[[Server], AbstractAsyncContextManager[None]]]:
    """Further ports."""
    if not asked.gr00t_port:
        return []
    from wamkit.serve.zeromq import Gr00tPort  # needs pyzmq

    return [Gr00tPort(Gr00t(asked.gr00t_actions), asked.host, asked.gr00t_port).beside]


def _reload(sources: Mapping[str, Source], server: Server, doors: Callable[[], Doors]) -> None:
    """Keys and run directories as they are now; those that cannot be used stay as they were, and it is said why."""
    policies, watch = server.service.policies, server.service.watch
    try:
        server.doors = doors()
    except BadInput as error:
        say(f"the keys stay as they were: {error}")
    for name, source in sources.items():
        try:
            fresh = reloaded(policies.find(name), source)
            server.in_turn(partial(warm_up, fresh, source.sizes))
            policies.add(fresh)
        except (BadInput, OSError, RuntimeError) as error:  # RuntimeError: no memory for both
            watch.reloaded(name, False)
            say(f"{name} stays as it was: {error}")
        else:
            watch.reloaded(name, True)
            say(f"{name} was loaded anew from {source.run_dir}")


def load_served(name: str, run_dir: Path, asked: Run) -> Served:
    """A run directory as something that is served, on the best device.

    asked: the directory's run, or one that differs in what a trained policy can be asked for. Raises BadInput naming a
    missing or damaged file, or what cannot be asked for.
    """
    if asked.eval.robot:
        raise BadInput(
            f"eval.robot {asked.eval.robot}: clients say by `embodiment` which robot it is; omit it"
        )
    facts = facts_of(run_dir, asked, asked.policy.kind)
    load = load_watched if asked.eval.warn else load_acting
    return Served(name, load(asked, run_dir, best_device()), facts)


def facts_of(run_dir: Path, asked: Run, kind: str) -> Facts:
    """What clients are told of a run that acts as `asked`. BadInput as of `load_served`."""
    known = policy_facts(run_dir, asked, best_device())
    stats, colours = load_normalizer(run_dir).stats, _colours(run_dir)
    return Facts(
        kind=kind,
        robots=tuple(
            _robot(name, asked, own["proprio"], colours.get(name, {})) for name, own in stats.items()
        ),
        action_names=asked.actions.names,
        view_height=asked.data.view_height,
        view_width=asked.data.view_width,
        replan_steps=asked.eval.replan_steps,
        absolute="absolute" in asked.actions.kinds,
        identity={name: str(known[name]) for name in IDENTITY}
        | {"git": revision(), "colours": "known" if colours else "not recorded"},
        about=about(run_dir, asked, known),
    )


def warm_up(served: Served, sizes: Sequence[int]) -> None:
    """Ask a policy about nothing, once for each size of batch: first queries are slow.

    In the thread that will call it, since nothing else may run on a GPU while work is recorded.
    """
    robot, facts = served.facts.robots[0], served.facts
    images = {view: np.zeros((facts.view_height, facts.view_width, 3), np.uint8) for view in robot.views}
    nothing = Observation(images, np.zeros(robot.proprio_dim, np.float32), "warm up", robot.name)
    for size in sizes:
        served.policy.act([nothing] * size)
    served.policy.reset()


def first_sizes(asked: Run, most: int) -> tuple[int, ...]:
    """Sizes of batches, for up to `most` observations, whose first query is slow: recorded or compiled ones."""
    preset = PRESETS[asked.eval.engine]
    if preset.compiled or (preset.graphs and best_device().type == "cuda"):
        return tuple(size for size in BUCKETS if size < 2 * most)
    return (1,)


def reloaded(served: Served, source: Source) -> Served:
    """A source as it is now, to take the place of what is served.

    Raises BadInput as of `load_served`, and where it is not what connected clients were told.
    """
    fresh = source.load()
    if fresh.facts.told != served.facts.told:
        raise BadInput(
            f"{source.run_dir}: its cameras, robots or actions are not those of the policy that is served as "
            f"{served.name!r}; clients were told of these when they connected. Start another server for it"
        )
    return fresh


def _colours(run_dir: Path) -> dict[str, dict[str, Colours]]:
    """Of the training images, by robot and camera; {} for a run that did not record them, which is said."""
    saved = load_provenance(run_dir)
    if "colours" not in saved:
        log.info("%s: the colours of its training are not recorded; RGB and BGR are not told apart", run_dir)
        return {}
    return read_colours(saved["colours"], f"{run_dir / PROVENANCE_FILE}: colours")


def _robot(name: str, asked: Run, proprio: Stats, colours: Mapping[str, Colours]) -> Robot:
    spec = asked.robots.get(name, asked.data)
    return Robot(
        name=name,
        views=spec.views,
        proprio_dim=spec.proprio_dim,
        action_dim=spec.action_dim,
        horizon=spec.horizon,
        hz=spec.hz,
        low=tuple(map(float, proprio.min)),
        high=tuple(map(float, proprio.max)),
        colours={view: colours[view] for view in spec.views if view in colours},
    )
