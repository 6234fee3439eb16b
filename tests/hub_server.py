"""A stand-in for the hub: the part of its API that downloads and uploads use, on loopback, with faults on demand."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + 34 * "0"
LARGE = 512
"""Bytes from which on a file is stored by its sha256, as large ones of the hub are."""


@dataclass
class Repository:
    """files: content by path. gated: only who has a token reads it."""

    files: dict[str, bytes]
    kind: str = "model"
    gated: bool = False


@dataclass
class Hub:
    """What is stored, and what goes wrong.

    status: the answer to every request, if not 200. breaks: how many downloads end after half of the file. damaged:
    paths whose bytes differ from their hash. asked: requests by method and path. ranges: of downloads that went on.
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    status: int = 200
    breaks: int = 0
    damaged: set[str] = field(default_factory=set)
    asked: Counter[str] = field(default_factory=Counter)
    ranges: list[str] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    url: str = ""


def entry(path: str, data: bytes) -> dict[str, Any]:
    """A file as listings describe it."""
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    large = {"lfs": {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}}
    return {"type": "file", "path": path, "size": len(data), "oid": blob} | (
        large if len(data) >= LARGE else {}
    )


@contextmanager
def serving() -> Iterator[Hub]:
    """The hub, and where it is."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is printed."""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.asked[f"{self.command} {path}"] += 1
        if self.hub.status != 200:
            return self._send(self.hub.status, {"error": "no"}, {"Retry-After": "0"})
        for pattern, method in ROUTES:
            if found := re.fullmatch(pattern, path):
                return getattr(self, method)(body, **found.groupdict())
        return self._send(404, {"error": path})

    def _repository(self, kind: str | None, name: str) -> Repository | None:
        """None where it may not be read, which has been answered then."""
        found = self.hub.repositories.get(name)
        if found is None or found.kind != (kind or "models").rstrip("s/"):
            self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return None
        if found.gated and "Authorization" not in self.headers:
            self._send(403, {"error": "gated"}, {"X-Error-Code": "GatedRepo"})
            return None
        return found

    def about(self, body: bytes, kind: str, name: str, revision: str | None = None) -> None:
        if not (found := self._repository(kind, name)):
            return
        if revision not in (None, "main", COMMIT):
            return self._send(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
        siblings = [{"rfilename": path} for path in found.files]
        self._send(200, {"id": name, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []})

    def tree(self, body: bytes, kind: str, name: str, revision: str) -> None:
        if found := self._repository(kind, name):
            self._send(200, [entry(path, data) for path, data in found.files.items()])

    def paths(self, body: bytes, kind: str, name: str, revision: str) -> None:
        if found := self._repository(kind, name):
            from urllib.parse import parse_qs

            sent = body.decode()
            asked = json.loads(sent)["paths"] if sent.startswith("{") else parse_qs(sent)["paths"]
            self._send(200, [entry(path, found.files[path]) for path in asked])

    def file(self, body: bytes, kind: str | None, name: str, revision: str, path: str) -> None:
        if not (found := self._repository(kind, name)):
            return
        if path not in found.files:
            return self._send(404, {}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        data = found.files[path]
        told = entry(path, data)
        if path in self.hub.damaged:
            data = data[:-1] + bytes([data[-1] ^ 1])
        etag = told.get("lfs", {}).get("oid", told["oid"])
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        start = 0
        if given := self.headers.get("Range"):
            start = int(given.removeprefix("bytes=").partition("-")[0])
            self.hub.ranges.append(f"{path} {start}")
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._raw(206 if given else 200, data[start:], headers)

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        self.hub.repositories.setdefault(name, Repository({}))
        if asked.get("visibility") == "private" or asked.get("private"):
            self.hub.private.add(name)
        self._send(200, {"url": f"{self.hub.url}/{name}", "id": name})

    def yaml(self, body: bytes) -> None:
        self._send(200, {"errors": [], "warnings": []})

    def preupload(self, body: bytes, kind: str, name: str, revision: str) -> None:
        files = json.loads(body)["files"]
        self._send(
            200,
            {
                "files": [
                    {
                        "path": each["path"],
                        "uploadMode": "lfs" if each["size"] >= LARGE else "regular",
                        "shouldIgnore": False,
                    }
                    for each in files
                ]
            },
        )

    def batch(self, body: bytes, name: str) -> None:
        objects = [
            {**each, "actions": {"upload": {"href": f"{self.hub.url}/objects/{each['oid']}"}}}
            for each in json.loads(body)["objects"]
        ]
        self._send(200, {"transfer": "basic", "objects": objects})

    def store(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.objects[oid] = body
        self._send(200, {})

    def commit(self, body: bytes, kind: str, name: str, revision: str) -> None:
        files = self.hub.repositories[name].files
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            if line["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
        url = f"{self.hub.url}/{name}/commit/{COMMIT}"
        self._send(200, {"success": True, "commitOid": COMMIT, "commitUrl": url})

    def _send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        self._raw(
            status, json.dumps(content).encode(), {"Content-Type": "application/json"} | (headers or {})
        )

    def _raw(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.hub.breaks and "resolve" in self.path and len(data) >= LARGE:
            self.hub.breaks -= 1
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(2)
            return
        self.wfile.write(data)


NAME, KIND = r"(?P<name>[^/]+/[^/]+)", r"(?P<kind>models|datasets)"
ROUTES = (
    (rf"/api/{KIND}/{NAME}", "about"),
    (rf"/api/{KIND}/{NAME}/revision/(?P<revision>.+)", "about"),
    (rf"/api/{KIND}/{NAME}/tree/(?P<revision>[^/]+)", "tree"),
    (rf"/api/{KIND}/{NAME}/paths-info/(?P<revision>[^/]+)", "paths"),
    (rf"/(?P<kind>datasets/)?{NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "file"),
    (r"/api/repos/create", "create"),
    (r"/api/validate-yaml", "yaml"),
    (rf"/api/{KIND}/{NAME}/preupload/(?P<revision>[^/]+)", "preupload"),
    (rf"/{NAME}\.git/info/lfs/objects/batch", "batch"),
    (r"/objects/(?P<oid>\w+)", "store"),
    (rf"/api/{KIND}/{NAME}/commit/(?P<revision>[^/]+)", "commit"),
)
