"""Policies for robots and simulators that ask over a network: serve."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg
from wamkit_client.types import BadInput

from wamkit.commands.devices import Device, use_device
from wamkit.commands.overrides import BEFORE_LISTS, Overrides, changed
from wamkit.serve.limits import Limits

if TYPE_CHECKING:
    from wamkit.config import Run
    from wamkit.serve.doors import Doors
    from wamkit.stages.serving import Source

RUN_NAME = re.compile(r"(?:(?P<name>[\w.-]+)=)?(?P<path>.+)")


@dataclass(frozen=True)
class Serve:
    """Answer robots and simulators over websockets: openpi's protocol and those of XPolicyLab, RoboArena and starVLA.

    Examples: wamkit serve runs/arm
              wamkit serve old=runs/arm new=runs/arm2 --port 8001
              wamkit serve runs/arm --host 0.0.0.0 --keys keys.txt --tls-cert cert.pem --tls-key key.pem
              wamkit serve runs/arm --map front=observation/image proprio=observation/state[0:7]+observation/gripper
              wamkit serve runs/arm --replay arm/dataset --episode 3

    SIGHUP reads keys and run directories anew; SIGTERM and Ctrl-C answer what was asked, and end.
    """

    runs: Positional[
        Annotated[
            tuple[str, ...],
            arg(
                metavar="RUN|NAME=RUN",
                help=f"Run directories; a client's key `policy` chooses. {BEFORE_LISTS}",
            ),
        ]
    ]
    host: str = "127.0.0.1"
    """The address to listen at. Others than this machine's own need --keys, or --insecure."""
    port: int = 8000
    """0: a free one, which is printed."""
    keys: Path = Path()
    """A file with the API keys of those who may ask, one a line: NAME KEY."""
    insecure: bool = False
    """Answer whoever reaches the address."""
    tls_cert: Path = Path()
    """A certificate (PEM); clients then connect to wss://."""
    tls_key: Path = Path()
    """Its private key (PEM)."""
    map: Mapping[str, str] = field(default_factory=dict)
    """Keys of the clients' observations where no layout fits: VIEW=KEY, proprio=KEY+KEY[0:3], instruction=KEY."""
    window_ms: float = 2.0
    """How long a query waits for those of other robots, so that one call answers all."""
    batch: int = 16
    """Observations that one call answers, at most."""
    proprio_factor: float = 1.5
    """A proprio further from the middle of its training range than this times half the range is warned of."""
    dummy: tuple[float, ...] = ()
    """To bring up a robot, without weights: answer everything with this action."""
    replay: Path = Path()
    """To bring up a robot, without weights: a dataset, of which one episode is played from every reset on."""
    episode: int = 0
    """Which, of --replay."""
    debug: bool = False
    """Send tracebacks to clients."""
    gr00t_port: int = 0
    """A port at which GR00T's clients are answered too, usually 5555; 0: none."""
    gr00t_actions: Mapping[str, str] = field(default_factory=dict)
    """How those name parts of an action, NAME=FIRST:END; by default every dimension has its own name."""
    limits: Limits = Limits()
    device: Device = ""

    def __call__(self, overrides: Overrides) -> int:
        use_device(self.device)
        logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
        logging.getLogger("websockets").setLevel(logging.WARNING)
        from wamkit.serve.doors import expect_guarded

        folders = named(self.runs)
        expect_guarded(self.host, self._doors(), self.insecure)
        self._expect_gr00t_guarded()
        try:
            import prometheus_client  # noqa: F401 - stands for the extra

            if self.gr00t_port:
                import zmq  # noqa: F401 - likewise

            from wamkit.serve.dialects.gr00t import parsed_groups
            from wamkit.stages import serving
        except ModuleNotFoundError as error:
            extra = "zmq" if error.name == "zmq" else "serve"
            raise BadInput(f"{error.name} is not installed: pip install 'wamkit[{extra}]'") from None
        asked = serving.Asked(
            host=self.host,
            port=self.port,
            names=self.map,
            window=self.window_ms / 1000,
            batch=self.batch,
            proprio_factor=self.proprio_factor,
            debug=self.debug,
            gr00t_port=self.gr00t_port,
            gr00t_actions=parsed_groups(self.gr00t_actions),
        )
        sources = {name: self._source(name, path, overrides) for name, path in folders.items()}
        serving.serve(sources, asked, self.limits, self._doors)
        return 0

    def _source(self, name: str, run_dir: Path, overrides: Overrides) -> Source:
        """The policy of a run directory, or what stands in for it."""
        from wamkit.stages import bring_up, serving

        run = partial(_asked, run_dir, overrides)
        if self.dummy and self.replay != Path():
            raise BadInput("--dummy and --replay: one of them answers; omit the other")
        if self.dummy:
            return serving.Source(run_dir, lambda: bring_up.dummy(name, run_dir, run(), self.dummy), (1,))
        if self.replay != Path():
            played = partial(bring_up.replay, dataset=self.replay, episode=self.episode)
            return serving.Source(run_dir, lambda: played(name, run_dir, run()), (1,))
        sizes = serving.first_sizes(run(), self.batch)
        return serving.Source(run_dir, lambda: serving.load_served(name, run_dir, run()), sizes)

    def _expect_gr00t_guarded(self) -> None:
        """BadInput for GR00T's port at an address that others reach, unless that is asked for."""
        from wamkit.serve.doors import is_loopback

        if self.gr00t_port and not self.insecure and not is_loopback(self.host):
            raise BadInput(
                f"--gr00t-port at --host {self.host}: GR00T's clients send keys and images unencrypted, whatever "
                "--tls-cert says; give --insecure (beside --keys) in a network that you trust, or serve at 127.0.0.1"
            )

    def _doors(self) -> Doors:
        """As the files say now."""
        from wamkit.serve.doors import Doors, read_keys, tls_context

        doors = Doors()
        if self.keys != Path():
            doors = replace(doors, keys=read_keys(self.keys))
        if (self.tls_cert == Path()) != (self.tls_key == Path()):
            raise BadInput("--tls-cert and --tls-key: give both, or omit both")
        if self.tls_cert != Path():
            doors = replace(doors, tls=tls_context(self.tls_cert, self.tls_key))
        return doors


def _asked(run_dir: Path, overrides: Overrides) -> Run:
    """The run of a directory as it is now, as it is to act."""
    from wamkit.config import load_run

    return changed(load_run(run_dir), overrides)


def named(runs: tuple[str, ...]) -> dict[str, Path]:
    """Run directories by the name they are served as, the directory's own where none is given.

    BadInput for a name that is given twice.
    """
    found: dict[str, Path] = {}
    for word in runs:
        parts = RUN_NAME.fullmatch(word)
        if not parts:
            raise BadInput(f"{word!r}: expected RUN or NAME=RUN")
        path = Path(parts["path"])
        name = parts["name"] or path.resolve().name
        if name in found:
            raise BadInput(
                f"{name!r} names both {found[name]} and {path}; give names: a={found[name]} b={path}"
            )
        found[name] = path
    if not found:
        raise BadInput("no run directory; give at least one: wamkit serve RUN")
    return found
