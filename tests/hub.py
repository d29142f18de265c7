"""A hub on loopback: one model repository, served as huggingface_hub's client asks for it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Hub:
    """Repository `name` at `revision`, with the files of `directory`; `asked` are the paths of all requests."""

    name: str
    directory: Path
    revision: str
    url: str = ""
    asked: list[str] = field(default_factory=list)


@contextmanager
def serve_hub(hub: Hub) -> Iterator[Hub]:
    """The hub, while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self, *, body: bool) -> None:
            path = self.path.split("?")[0]
            hub.asked.append(path)
            api, files = f"/api/models/{hub.name}", f"/{hub.name}/resolve/{hub.revision}/"
            if path == api or path == f"{api}/revision/{hub.revision}":
                siblings = [{"rfilename": item.name} for item in sorted(hub.directory.iterdir())]
                self._send(json.dumps({"id": hub.name, "sha": hub.revision, "siblings": siblings}).encode(), body)
            elif path.startswith(f"{api}/tree/{hub.revision}"):
                tree = [
                    {"type": "file", "path": item.name, "size": item.stat().st_size, "oid": _digest(item)}
                    for item in sorted(hub.directory.iterdir())
                ]
                self._send(json.dumps(tree).encode(), body)
            elif path.startswith(files) and (hub.directory / path.removeprefix(files)).is_file():
                file = hub.directory / path.removeprefix(files)
                self._send(file.read_bytes(), body, {"ETag": f'"{_digest(file)}"', "X-Repo-Commit": hub.revision})
            else:
                known = path.startswith(f"{api}/") or path.startswith(f"/{hub.name}/")
                code = "RevisionNotFound" if known else "RepoNotFound"
                self._send(b"{}", body, {"X-Error-Code": code}, status=404)

        def _send(self, content: bytes, body: bool, headers: dict[str, str] | None = None, status: int = 200) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _digest(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()
