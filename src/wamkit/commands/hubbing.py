"""wamkit hub: weights and datasets from the hub, and run directories to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg, subcommand
from wamkit_client.types import BadInput

from wamkit.commands.outputs import output_folder
from wamkit.commands.overrides import Overrides, refuse
from wamkit.io.progress import say
from wamkit.recipes.hub import KNOWN

NAMES = ", ".join(KNOWN)


@dataclass(frozen=True)
class Pull:
    """Download weights, a dataset or a run directory of the hub, and compare every file with the hub's hashes.

    Examples: wamkit hub pull wan2.1
              wamkit hub pull lerobot/metaworld_mt50 --out metaworld_mt50
              wamkit hub pull hf://datasets/lerobot/metaworld_mt50 --revision v3.0

    A download goes on where it was interrupted. HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE mean what they do for
    `hf`.
    """

    name: Positional[
        Annotated[str, arg(metavar="NAME", help=f"OWNER/NAME, hf://OWNER/NAME, or one of {NAMES}.")]
    ]
    revision: str = ""
    """A commit, tag or branch; by default the main branch."""
    out: Path = Path()
    """A folder; by default where recipes look for it, and the hub's cache for what recipes do not know."""

    def __call__(self, overrides: Overrides) -> int:
        refuse(overrides)
        from wamkit.io.hub import PREFIX, fetched, is_reference, located, parsed

        known = KNOWN.get(self.name)
        name = known.repository if known else self.name
        reference = parsed(name if is_reference(name) else f"{PREFIX}{name}")
        if self.revision:
            if reference.revision:
                raise BadInput(f"--revision {self.revision}: {self.name} names one already; omit one of them")
            reference = replace(reference, revision=self.revision)
        out = Path(known.folder) if known and self.out == Path() else self.out
        if out != Path():
            output_folder(out)
        pinned = located(reference)
        asked = replace(reference, kind=pinned.kind)
        place = fetched(asked, out, every=True, only=known.only if known else ())
        say(f"{place}: {pinned}, complete and as the hub says")
        return 0


@dataclass(frozen=True)
class Push:
    """Publish a run directory: weights, values, statistics, results, and a model card made of them.

    Example: wamkit hub push demo/run OWNER/NAME --private

    States of datasets, videos but for the imagined future, and paths of this machine are not published. A run with
    low-rank additions publishes these, not the model that it is built on. `hf auth login` comes first.
    """

    run: Positional[Annotated[Path, arg(metavar="RUN")]]
    name: Positional[Annotated[str, arg(metavar="OWNER/NAME")]]
    private: bool = False
    """Where the repository is made now: let only yourself see it."""
    license: str = "apache-2.0"
    """Of the weights, as the hub spells it."""
    message: str = "A run of wamkit"
    """Of the commit."""

    def __call__(self, overrides: Overrides) -> int:
        refuse(overrides)
        from wamkit.io.hub import PREFIX, parsed
        from wamkit.stages.sharing import push, upload_of

        reference = parsed(f"{PREFIX}{self.name}")
        if reference.kind or reference.revision or reference.inside:
            raise BadInput(f"{self.name}: expected OWNER/NAME")
        upload = upload_of(self.run, self.name, self.license)
        url = push(upload, self.name, self.private, self.message)
        say(f"{', '.join(sorted(upload.files))} and {upload.weights.name}: {url}")
        return 0


Command = Annotated[Pull, subcommand("pull")] | Annotated[Push, subcommand("push")]


@dataclass(frozen=True)
class Hub:
    """Weights, datasets and run directories from and to the hub."""

    command: Command

    def __call__(self, overrides: Overrides) -> int:
        return self.command(overrides)
