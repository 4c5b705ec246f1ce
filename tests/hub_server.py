"""A small local server that speaks the Hub's protocol: tests say what it holds and how it fails."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import unquote, urlsplit

LARGE = (".pt", ".bin", ".safetensors")  # kept in large-file storage, to which the Hub redirects


@dataclass
class Repository:
    """Commits with their files, the newest last; main is the newest unless it is said."""

    commits: dict[str, dict[str, bytes]]
    token: str | None = None  # who reads it must send this one
    gated: bool = False  # with a token needed: 403 in place of 401

    def commit(self, revision: str) -> str | None:
        """The full commit of a revision; short ones and main are resolved."""
        if revision == "main":
            return list(self.commits)[-1]
        return next((full for full in self.commits if full.startswith(revision)), None)


@dataclass
class Hub:
    """The server. `with Hub() as hub:` starts and ends it."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    cut_after: int | None = None  # bytes of a large file after which the connection is closed
    silent: bool = False  # connections are taken, and never answered
    stall_after: int | None = None  # bytes of a large file after which nothing more comes
    over: threading.Event = field(default_factory=threading.Event)  # ends the waiting of silent answers
    requests: list[str] = field(default_factory=list)  # "METHOD path", in order
    tokens: list[str | None] = field(default_factory=list)

    def __enter__(self) -> Self:
        handler = type("BoundHandler", (Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """The network is gone: connections are refused from now on."""
        self.over.set()
        self.server.shutdown()
        self.server.server_close()

    def clear(self) -> None:
        """As it was at first, for the next test."""
        self.repositories.clear()
        self.requests.clear()
        self.tokens.clear()
        self.cut_after = self.stall_after = None
        self.silent = False
        self.over.set()
        self.over = threading.Event()

    def downloads(self) -> int:
        """How many requests for the content of a large file there were."""
        return sum(request.startswith("GET /storage/") for request in self.requests)


class Handler(BaseHTTPRequestHandler):
    """One request."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        self.hub.tokens.append(self.headers.get("Authorization"))
        if self.hub.silent:
            self.hang()
            return
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+?)(?:/(revision|tree)/([^/]+))?", path):
            self.api(match[1], match[2], match[3] or "main")
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self.resolve(*match.groups())
        elif match := re.fullmatch(r"/storage/([^/]+/[^/]+)/([^/]+)/(.+)", path):
            self.content(self.hub.repositories[match[1]].commits[match[2]][match[3]], {}, large=True)
        else:
            self.fail(404, "RepoNotFound")

    def api(self, name: str, kind: str | None, revision: str) -> None:
        commit = self.allowed(name, revision)
        if commit is None:
            return
        files = self.hub.repositories[name].commits[commit]
        if kind == "tree":
            listing: Any = [
                {"type": "file", "path": path, "size": len(data), "oid": blob_id(data)} for path, data in files.items()
            ]
        else:
            siblings = [{"rfilename": path} for path in files]
            listing = {"_id": "1", "id": name, "modelId": name, "sha": commit, "private": False, "tags": [],
                       "downloads": 0, "likes": 0, "siblings": siblings}  # fmt: skip
        self.content(json.dumps(listing).encode(), {"Content-Type": "application/json"})

    def resolve(self, name: str, revision: str, file: str) -> None:
        commit = self.allowed(name, revision)
        if commit is None:
            return
        data = self.hub.repositories[name].commits[commit].get(file)
        if data is None:
            self.fail(404, "EntryNotFound", {"X-Repo-Commit": commit})
        elif file.endswith(LARGE):
            sha256 = hashlib.sha256(data).hexdigest()
            linked = {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(data)), "X-Repo-Commit": commit}
            # Another host, as with the Hub's storage: the client stops at such a redirect to read the linked headers.
            storage = self.hub.endpoint.replace("127.0.0.1", "localhost")
            location = f"{storage}/storage/{name}/{commit}/{file}"
            self.send(302, b"", linked | {"Location": location, "ETag": f'"{blob_id(data)}"'})
        else:
            self.content(data, {"X-Repo-Commit": commit, "ETag": f'"{blob_id(data)}"'})

    def allowed(self, name: str, revision: str) -> str | None:
        """The commit, or None after an error was sent."""
        repository = self.hub.repositories.get(name)
        if repository is None:
            return self.fail(401, "RepoNotFound")  # what the Hub says to those who may not know
        if repository.token and self.headers.get("Authorization") != f"Bearer {repository.token}":
            return self.fail(403, "GatedRepo") if repository.gated else self.fail(401, "RepoNotFound")
        commit = repository.commit(revision)
        return commit or self.fail(404, "RevisionNotFound")

    def fail(self, status: int, code: str, more: dict[str, str] | None = None) -> None:
        self.send(status, b"", {"X-Error-Code": code, "X-Error-Message": code} | (more or {}))

    def content(self, data: bytes, headers: dict[str, str], large: bool = False) -> None:
        start = 0
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start = int(wanted[1])
            headers = headers | {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        headers = {"Accept-Ranges": "bytes"} | headers
        stops = [stop for stop in (self.hub.cut_after, self.hub.stall_after) if large and stop is not None]
        self.send(206 if wanted else 200, data[start:], headers, max(0, min(stops) - start) if stops else None)

    def hang(self) -> None:
        """Say nothing more, until the test is over."""
        self.hub.over.wait(120)
        self.close_connection = True

    def send(self, status: int, body: bytes, headers: dict[str, str], cut: int | None = None) -> None:
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body if cut is None else body[:cut])
            if cut is not None and self.hub.stall_after is not None:
                self.hang()
            elif cut is not None:
                self.close_connection = True  # less than was promised, then nothing


def blob_id(data: bytes) -> str:
    """git's name for a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
