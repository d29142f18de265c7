"""A loopback hub with one model repository, which imitates the Hugging Face hub and its refusals.

Weights are at another address, like LFS files: the hub redirects there. Xet storage is not imitated.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support.http_server import running

#: Signature that the storage requires in the URL to which the hub redirects.
SIGNATURE = "X-Amz-Signature=5ec2e7"
LARGE = {".safetensors", ".bin"}
CONFIG = {"model_type": "bert", "max_position_embeddings": 64, "vocab_size": 100}


@dataclass
class Hub:
    """Repository `name` at `revision`, with the files of `directory`; `asked` lists the paths of all requests."""

    name: str
    directory: Path
    revision: str
    url: str = ""
    storage: str = ""
    asked: list[str] = field(default_factory=list)
    #: The only valid token, and whether its owner has accepted the model's terms.
    token: str = "hf_valid"
    granted: bool = False
    private: bool = False
    gated: bool = False
    disabled: bool = False
    #: Called after a request has arrived, before the response.
    meanwhile: Callable[[], object] = lambda: None
    #: Bytes after which a response of the storage is truncated, one entry per request; then none.
    cuts: list[int] = field(default_factory=list)
    #: Whether the signature of storage URLs has expired.
    expired: bool = False
    #: Ranges requested from the storage; None for a whole file.
    ranges: list[str | None] = field(default_factory=list)
    #: Error statuses for the next requests to the hub.
    failures: list[int] = field(default_factory=list)


class _RefusedError(Exception):
    """An error response: a status and the hub's headers."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        self.status = status
        self.headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        super().__init__(message)


class _HubHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self) -> None:
        try:
            self.answer(self.path.split("?")[0])
        except _RefusedError as refusal:
            self.send(json.dumps({"error": str(refusal)}).encode(), refusal.headers, status=refusal.status)

    do_HEAD = do_GET  # noqa: N815 - the name that http.server calls

    def answer(self, path: str) -> None:
        raise NotImplementedError

    def send(
        self, content: bytes, headers: dict[str, str] | None = None, *, status: int = 200, cut: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:cut])
        self.close_connection = self.close_connection or cut is not None

    def log_message(self, *_: object) -> None:
        pass


class _Front(_HubHandler):
    """The hub itself."""

    def answer(self, path: str) -> None:
        hub = self.hub
        hub.asked.append(path)
        hub.meanwhile()
        if hub.failures:
            raise _RefusedError(hub.failures.pop(0), "Internal Error")
        api, files = f"/api/models/{hub.name}", f"/{hub.name}/resolve/"
        known = self._signed_in()
        if hub.disabled:
            raise _RefusedError(403, "Access to this resource is disabled.")
        ours = path == api or path.startswith((f"{api}/", files))
        if not known and (hub.private or not ours):
            # Without a token, the hub does not reveal whether the model exists.
            raise _RefusedError(401, "Invalid username or password.", "RepoNotFound")
        if not ours:
            raise _RefusedError(404, "Repository not found", "RepoNotFound")
        if path == api or path == f"{api}/revision/{hub.revision}":
            siblings = [{"rfilename": item.name} for item in self._files()]
            self._json(
                {"id": hub.name, "sha": hub.revision or None, "siblings": siblings, "gated": hub.gated and "manual"}
            )
        elif path.startswith(f"{api}/tree/{hub.revision}"):
            self._json([_entry(item) for item in self._files()])
        elif path.startswith(f"{files}{hub.revision}/"):
            self._file(hub.directory / path.removeprefix(f"{files}{hub.revision}/"), known)
        else:
            raise _RefusedError(404, f"Invalid rev id: {path.split('/')[-1]}", "RevisionNotFound")

    def _signed_in(self) -> bool:
        given = self.headers.get("authorization")
        if given is not None and given != f"Bearer {self.hub.token}":
            raise _RefusedError(401, "Invalid credentials in Authorization header")
        return given is not None

    def _files(self) -> list[Path]:
        return sorted(self.hub.directory.iterdir())

    def _json(self, document: Any) -> None:
        self.send(json.dumps(document).encode(), {"Content-Type": "application/json"})

    def _file(self, file: Path, known: bool) -> None:
        hub = self.hub
        if hub.gated and not known:
            raise _RefusedError(401, f"Access to model {hub.name} is restricted. Please log in.", "GatedRepo")
        if hub.gated and not hub.granted:
            raise _RefusedError(403, f"Access to model {hub.name} is restricted; ask for access.", "GatedRepo")
        if not file.is_file():
            raise _RefusedError(404, "Entry not found", "EntryNotFound")
        headers = {"X-Repo-Commit": hub.revision, "Accept-Ranges": "bytes"}
        if file.suffix not in LARGE:
            self.send(file.read_bytes(), headers | {"ETag": f'"{_blob(file)}"'})
            return
        place = f"{hub.storage}/{_sha256(file)}?{SIGNATURE}"
        linked = {"X-Linked-Etag": f'"{_sha256(file)}"', "X-Linked-Size": str(file.stat().st_size)}
        self.send(b"Found.", headers | linked | {"Location": place}, status=302)


class _Storage(_HubHandler):
    """Target of the redirects: files by digest, whole or from an offset."""

    def answer(self, path: str) -> None:
        # Like S3, without the hub's headers.
        if "authorization" in self.headers:
            return self.send(b"Only one auth mechanism allowed", status=400)
        if self.hub.expired or not self.path.endswith(SIGNATURE):
            return self.send(b"Request has expired", status=403)
        content = next(
            file.read_bytes() for file in self.hub.directory.iterdir() if _sha256(file) == path.removeprefix("/")
        )
        wanted = self.headers.get("range")
        self.hub.ranges.append(wanted)
        first = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        headers = {"Content-Range": f"bytes {first}-{len(content) - 1}/{len(content)}"} if wanted else {}
        cut = self.hub.cuts.pop(0) if self.hub.cuts else None
        return self.send(content[first:], headers, status=206 if wanted else 200, cut=cut)


@contextmanager
def serve_hub(hub: Hub) -> Iterator[Hub]:
    """Yield the running hub."""
    with running(_server(_Front, hub)) as hub.url, running(_server(_Storage, hub)) as hub.storage:
        yield hub


def _server(kind: type[_HubHandler], hub: Hub) -> ThreadingHTTPServer:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type(kind.__name__, (kind,), {"hub": hub}))
    server.daemon_threads = True
    return server


def write_base(directory: Path) -> Path:
    """Create `directory` with the files of a base model that has the configuration `CONFIG`."""
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    (directory / "model.safetensors").write_bytes(b"weights")
    (directory / "tokenizer.json").write_text("{}", encoding="utf-8")
    return directory


def _entry(file: Path) -> dict[str, Any]:
    size = file.stat().st_size
    found = {"type": "file", "path": file.name, "size": size, "oid": _blob(file)}
    return found | ({"lfs": {"oid": _sha256(file), "size": size, "pointerSize": 134}} if file.suffix in LARGE else {})


def _blob(file: Path) -> str:
    """Return Git's digest of a file."""
    content = file.read_bytes()
    return hashlib.sha1(b"blob %d\0%b" % (len(content), content)).hexdigest()


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
