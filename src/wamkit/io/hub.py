"""Weights, datasets and run directories of the hub, wherever a path of this machine is taken: hf://OWNER/NAME.

    hf://OWNER/NAME[@REVISION][/FILE OR FOLDER]    a model; else a dataset, where no model has that name
    hf://models/OWNER/NAME, hf://datasets/OWNER/NAME    one of them

Files come into huggingface_hub's cache, where later calls read them, also without a network (HF_HUB_OFFLINE=1). A
download goes on where it was interrupted. Sizes and hashes of what was downloaded are compared with those of the hub.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wamkit_client.types import BadInput

from wamkit.io.files import AGAIN, sha256

PREFIX = "hf://"
FORM = re.compile(
    r"hf:/{1,2}(?:(?P<kind>model|dataset)s/)?(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/@]+))?(?:/(?P<inside>.+))?"
)
COMMIT = re.compile(r"[0-9a-f]{40}")
KINDS = ("model", "dataset")
CACHED = re.compile(r"(?P<kind>model|dataset)s--(?P<owner>[\w.-]+?)--(?P<name>[\w.-]+)")


@dataclass(frozen=True)
class Reference:
    """name: "OWNER/NAME". kind: model or dataset; "": not said. revision: a commit, tag or branch; "": the main one.
    inside: a file or folder in it; "": all of it."""

    name: str
    kind: str = ""
    revision: str = ""
    inside: str = ""

    def __str__(self) -> str:
        kind = f"{self.kind}s/" if self.kind == "dataset" else ""
        revision = f"@{self.revision}" if self.revision else ""
        return f"{PREFIX}{kind}{self.name}{revision}" + (f"/{self.inside}" if self.inside else "")


def is_reference(path: str | Path) -> bool:
    """Whether it is of the hub. A Path has lost one of the two strokes."""
    return str(path).startswith("hf:/")


def parsed(path: str | Path) -> Reference:
    """BadInput where it begins as a reference and is none."""
    found = FORM.fullmatch(str(path))
    if not found:
        raise BadInput(
            f"{path}: expected {PREFIX}OWNER/NAME, {PREFIX}OWNER/NAME@REVISION or {PREFIX}datasets/OWNER/NAME"
        )
    return Reference(**{name: value or "" for name, value in found.groupdict().items()})


def local(path: str | Path) -> Path:
    """A path of this machine: itself, or where what it refers to lies after it was downloaded.

    Raises BadInput where the hub has nothing of that name, does not let us in, or sends something else than it says.
    """
    if not is_reference(path):
        return Path(path)
    reference = parsed(path)
    # by the revision's own name, so that the cache knows it by that too
    folder = fetched(replace(reference, kind=located(reference).kind))
    inside = folder / reference.inside
    if not inside.exists():
        raise BadInput(f"{reference}: has no {reference.inside!r}; look at its files on the hub")
    return inside


def pinned(path: str | Path) -> str:
    """A reference with the commit that it means now; anything else, and what names a commit, as it is."""
    if not is_reference(path) or COMMIT.fullmatch(parsed(path).revision):
        return str(path)
    return str(located(parsed(path)))


def reference_of(path: Path) -> str:
    """What records say of a path: the reference, with its commit, where it lies in the hub's cache; else the path."""
    for folder in (path, *path.parents):
        found = CACHED.fullmatch(folder.parent.parent.name)
        if found and folder.parent.name == "snapshots":
            inside = path.relative_to(folder).as_posix()
            name = f"{found['owner']}/{found['name']}"
            return str(Reference(name, found["kind"], folder.name, "" if inside == "." else inside))
    return str(path)


def located(reference: Reference) -> Reference:
    """With its kind, and the commit that its revision means now; by the cache where there is no network."""
    kinds = [reference.kind] if reference.kind else list(KINDS)
    found, refusal = [], None
    for kind in kinds:
        try:
            found.append(replace(reference, kind=kind, revision=_commit(replace(reference, kind=kind))))
        except BadInput as error:
            refusal = refusal or error
    if len(found) > 1:
        raise BadInput(
            f"{reference}: is both a model and a dataset; write {PREFIX}models/{reference.name} or "
            f"{PREFIX}datasets/{reference.name}"
        )
    if not found:
        assert refusal is not None
        raise refusal
    return found[0]


def _commit(reference: Reference) -> str:
    from huggingface_hub import HfApi, constants, snapshot_download

    revision = reference.revision or None
    with explained(reference):
        if constants.is_offline_mode():
            folder = snapshot_download(
                reference.name, repo_type=reference.kind, revision=revision, local_files_only=True
            )
            return Path(folder).name
        told = HfApi().repo_info(reference.name, repo_type=reference.kind, revision=revision)
        return str(told.sha)


def fetched(
    reference: Reference, folder: Path = Path(), every: bool = False, only: Sequence[str] = ()
) -> Path:
    """The folder with the files of a reference that has a kind.

    folder: where they are to be; Path(): in the hub's cache. every: compare all files with the hub's hashes, not only
    those that are downloaded now. only: patterns of names; (): all, or what the reference is about.
    """
    from huggingface_hub import constants, snapshot_download

    inside = reference.inside
    patterns = [*only] or ([inside, f"{inside}/*"] if inside else None)
    asked: dict[str, Any] = {
        "repo_type": reference.kind,
        "revision": reference.revision or None,
        "allow_patterns": patterns,
    }
    if folder != Path():
        asked["local_dir"] = folder
    with explained(reference):
        if constants.is_offline_mode():
            return Path(snapshot_download(reference.name, local_files_only=True, **asked))
        files: Any = snapshot_download(reference.name, dry_run=True, **asked)
        if not files:
            raise BadInput(f"{reference}: has none of the files {', '.join(patterns or ['at all'])}")
        place = Path(snapshot_download(reference.name, **asked))
        _verify(reference, place, [file.filename for file in files if every or file.will_download])
        return place


def _verify(reference: Reference, place: Path, names: Sequence[str]) -> None:
    """BadInput where a file is not as the hub says; it is removed, so that it is downloaded again."""
    from huggingface_hub import HfApi

    if not names:
        return
    told: Any = HfApi().get_paths_info(
        reference.name, list(names), revision=reference.revision or None, repo_type=reference.kind
    )
    for entry in told:
        path = place / entry.path
        size, expected = entry.size, entry.lfs.sha256 if entry.lfs else entry.blob_id
        if path.stat().st_size == size and (sha256(path) if entry.lfs else _git_hash(path)) == expected:
            continue
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise BadInput(
            f"{reference}: {entry.path} is damaged (expected {size} bytes with hash {expected[:12]}); it was removed: "
            f"{AGAIN}"
        )


def _git_hash(path: Path) -> str:
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextmanager
def explained(what: object) -> Iterator[None]:
    """BadInput in place of errors of the hub and of the network; those of the disk stay."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    hub = constants.ENDPOINT
    try:
        yield
    except GatedRepoError as error:
        raise BadInput(
            f"{what}: is gated; ask for access at its page on {hub}, then log in with `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise BadInput(
            f"{what}: has no such revision on {hub}; give a branch, tag or commit of it"
        ) from error
    except RepositoryNotFoundError as error:
        raise BadInput(
            f"{what}: {hub} has nothing of that name, or it is private; check the spelling, or log in with "
            "`hf auth login`"
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        if cause := _http(error):
            raise _refused(what, cause, hub) from error
        raise BadInput(
            f"{what}: is not in the cache of this machine, and {hub} is not reached; connect to the network (without "
            "HF_HUB_OFFLINE), or copy the cache from a machine that has it"
        ) from error
    except HfHubHTTPError as error:
        raise _refused(what, error, hub) from error
    except HTTPError as error:
        raise BadInput(f"{what}: the connection to {hub} broke ({type(error).__name__}); {AGAIN}") from error
    except OSError as error:
        if error.errno is None:  # of huggingface_hub: a file of another size than was told
            raise BadInput(f"{what}: {str(error).splitlines()[0]}; {AGAIN}") from error
        raise


REASONS = {
    401: "does not know who asks: log in with `hf auth login`",
    403: "does not allow it: log in with `hf auth login` as somebody who may",
    404: "has nothing of that name, or it is private: check the spelling, or log in with `hf auth login`",
    429: "answers no more requests for now: wait some minutes, or log in with `hf auth login` for a higher limit",
}


def _http(error: BaseException | None) -> Any:
    """The answer of the hub that an error was raised from."""
    from huggingface_hub.errors import HfHubHTTPError

    while error is not None and not isinstance(error, HfHubHTTPError):
        error = error.__cause__
    return error


def _refused(what: object, error: Any, hub: str) -> BadInput:
    status = error.response.status_code
    reason = REASONS.get(status, f"answers with status {status}: try again later")
    return BadInput(f"{what}: {hub} {reason}; what was downloaded is kept")
