"""A loopback hub that accepts uploads: repositories, large files by LFS, and commits. Xet storage is not imitated."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.http_server import running

#: Files with these ends are stored by LFS, as the hub's `.gitattributes` says.
LARGE = (".safetensors", ".onnx")


@dataclass
class UploadHub:
    """The hub; `files` are those of its repositories after the last commit, `commits` the titles of all commits."""

    url: str = ""
    token: str = "hf_writes"
    #: The repositories that exist, with whether each is private.
    private: dict[str, bool] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)
    stored: dict[str, bytes] = field(default_factory=dict)
    #: Status of the answer to every commit, if not success.
    failure: int | None = None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: UploadHub

    def do_GET(self) -> None:
        repository = self.path.split("?")[0].removeprefix("/api/models/").split("/tree/")[0].split("/revision/")[0]
        if repository not in self.hub.private:
            return self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        files = self.hub.files[repository]
        if "/tree/" in self.path:
            return self._send(200, [_entry(name, content) for name, content in files.items()])
        return self._send(200, {"id": repository, "sha": "0" * 40, "siblings": [{"rfilename": name} for name in files]})

    def do_POST(self) -> None:
        body = self._body()
        if self.headers.get("authorization") != f"Bearer {self.hub.token}":
            return self._send(401, {"error": "Invalid credentials"}, {"X-Error-Message": "Invalid credentials"})
        if self.path == "/api/repos/create":
            return self._create(json.loads(body))
        if self.path == "/api/validate-yaml":
            return self._send(200, {"errors": [], "warnings": []})
        repository, _, action = self.path.removeprefix("/api/models/").partition("/preupload/")
        if action:
            return self._preupload(json.loads(body))
        if self.path.endswith("/info/lfs/objects/batch"):
            return self._batch(json.loads(body))
        repository = repository.partition("/commit/")[0]
        if self.hub.failure:
            return self._send(self.hub.failure, {"error": "it is broken"})
        return self._commit(repository, [json.loads(line) for line in body.splitlines()])

    def do_PUT(self) -> None:
        content = self._body()
        self.hub.stored[hashlib.sha256(content).hexdigest()] = content
        self._send(200, {})

    def _create(self, given: Any) -> None:
        repository = f"{given['organization']}/{given['name']}" if given.get("organization") else given["name"]
        known = repository in self.hub.private
        self.hub.private.setdefault(repository, given.get("visibility") == "private")
        self.hub.files.setdefault(repository, {})
        self._send(409 if known else 200, {"url": f"{self.hub.url}/{repository}"})

    def _preupload(self, given: Any) -> None:
        modes = {item["path"]: "lfs" if item["path"].endswith(LARGE) else "regular" for item in given["files"]}
        files = [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes.items()]
        self._send(200, {"files": files})

    def _batch(self, given: Any) -> None:
        upload = {"upload": {"href": f"{self.hub.url}/storage"}}
        self._send(200, {"transfer": "basic", "objects": [{**item, "actions": upload} for item in given["objects"]]})

    def _commit(self, repository: str, lines: list[Any]) -> None:
        files = self.hub.files[repository]
        for line in lines:
            value = line["value"]
            match line["key"]:
                case "header":
                    self.hub.commits.append(value["summary"])
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.hub.stored[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        commit = {"commitUrl": f"{self.hub.url}/{repository}/commit/{'1' * 40}", "commitOid": "1" * 40}
        self._send(200, {**commit, "success": True})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            return b"".join(iter(self._chunk, b""))
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _chunk(self) -> bytes:
        content = self.rfile.read(int(self.rfile.readline(), 16))
        self.rfile.readline()
        return content

    def _send(self, status: int, document: Any, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        sent = {"Content-Type": "application/json", "Content-Length": str(len(content)), **(headers or {})}
        for name, value in sent.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def _entry(path: str, content: bytes) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}


@contextmanager
def upload_hub() -> Iterator[UploadHub]:
    """Yield the running hub."""
    hub = UploadHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    with running(server) as hub.url:
        yield hub
