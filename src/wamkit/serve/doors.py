"""Who may connect to a server, and how much of it each may use.

A key is sent as openpi's clients send it (`Authorization: Api-Key KEY`) or, where a client knows URLs alone, as the
path (ws://host:port/KEY). Web pages, which name their origin, are let in by nobody.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from wamkit_client.types import BadInput
from websockets.http11 import Request

from wamkit.serve.refusals import Refused

HERE = "127.0.0.1"
KEY = re.compile(r"[A-Za-z0-9_-]{16,}")
SCHEME = "Api-Key "
ANYONE = "anyone"
"""The name of clients where no key is asked for."""


@dataclass(frozen=True)
class Doors:
    """keys: by the name of their owner; {}: whoever reaches the address may connect. tls: None: not encrypted."""

    keys: Mapping[str, str] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        for name, key in self.keys.items():
            if not KEY.fullmatch(key):
                raise BadInput(
                    f"the key of {name!r} must have at least 16 letters, digits, - or _; expected a random one, as "
                    "`openssl rand -hex 16` makes it"
                )

    def owner(self, request: Request) -> str:
        """Whose key a request has; "" where it has none that is known."""
        given = request.headers.get_all("Authorization")
        key = request.path.removeprefix("/")
        if given:
            key = given[0].removeprefix(SCHEME) if given[0].startswith(SCHEME) else ""
        return self.owner_of(key)

    def owner_of(self, key: str) -> str:
        """Whose key that is; "" where it is unknown."""
        known = "" if self.keys else ANYONE
        for name, own in self.keys.items():  # all of them: how long it takes says nothing
            if hmac.compare_digest(own.encode(), key.encode(errors="replace")):
                known = name
        return known


def read_keys(path: Path) -> dict[str, str]:
    """The keys in a file, one line for each, "NAME KEY"; empty lines and those that begin with # are skipped.

    Raises BadInput naming the file and the line, never a key.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: the API keys cannot be read ({error}); expected a text file") from None
    keys: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2 or words[0] in keys or not KEY.fullmatch(words[1]):
            raise BadInput(
                f"{path}:{number}: expected NAME KEY, each name once, the key of at least 16 letters, digits, - or _"
            )
        keys[words[0]] = words[1]
    if not keys:
        raise BadInput(f"{path}: no API key; expected lines of NAME KEY")
    return keys


def expect_guarded(host: str, doors: Doors, insecure: bool) -> None:
    """BadInput for an address that others reach, without keys, unless that is asked for."""
    if not doors.keys and not insecure and not is_loopback(host):
        raise BadInput(
            f"--host {host}: whoever reaches this address could move the robot; give --keys FILE (and --tls-cert and "
            "--tls-key), or --insecure in a network that you trust"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS with these PEM files. BadInput where they cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise BadInput(f"--tls-cert {certificate} --tls-key {key}: cannot be used ({error})") from None
    return context


WHOEVER_IS_HERE = Doors()
"""Without keys, for an address that only this machine reaches."""


class Meter:
    """How fast one key asks: `rate` messages per second on average, and as many at once."""

    def __init__(self, rate: float) -> None:
        self._rate = self._left = rate
        self._since = time.monotonic()

    def count(self) -> None:
        """One more. Refused where it is too many."""
        now = time.monotonic()
        self._left = min(self._rate, self._left + (now - self._since) * self._rate)
        self._since = now
        if self._left < 1:
            raise Refused("rate", f"more than {self._rate:g} messages per second; ask less often")
        self._left -= 1
