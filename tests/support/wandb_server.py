"""A small Weights & Biases server on loopback: runs, files, artifacts and aliases in memory, and failures.

Multipart uploads, which W&B's client uses for files of 2 GiB or more, are not imitated.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from tests.support.http_server import running
from tests.support.wandb_http import WandbHttpServer

ENTITY = "team"
ORGANIZATION = "company"
REGISTRY = "wandb-registry-"
KEY = "0" * 40
CREATED = "2026-11-21T03:00:00Z"

Variables = dict[str, Any]


@dataclass
class HostedRun:
    """A run on the server; `files` are uploaded files, `uses` and `makes` are artifact ids."""

    name: str
    project: str
    fields: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: dict[int, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    uses: list[str] = field(default_factory=list)
    makes: list[str] = field(default_factory=list)
    exit_code: int | None = None


@dataclass
class Version:
    """A version of an artifact; aliases move within its collection, after it is committed."""

    id: str
    type: str
    collection: str
    project: str
    index: int
    digest: str
    metadata: str
    aliases: list[str] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)
    state: str = "PENDING"
    manifest: bytes = b""
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.collection}:v{self.index}"


@dataclass
class WandbServer:
    """The server; `fail` maps an operation (a GraphQL name, `file_stream`, `upload`) and its body to a failure."""

    url: str = ""
    runs: dict[str, HostedRun] = field(default_factory=dict)
    versions: dict[str, Version] = field(default_factory=dict)
    #: Linked versions of each collection of a registry (`wandb-registry-model/nsmc`), each with its aliases there.
    links: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    uploads: dict[str, tuple[dict[str, bytes], str]] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    #: Operations with an incomplete body.
    torn: list[str] = field(default_factory=list)
    fail: Callable[[str, bytes], int | None] = lambda operation, body: None
    #: Whether the server knows the owner of the key.
    accounts: bool = True
    #: Called with the operation before the response; it may wait to simulate a slow server.
    meanwhile: Callable[[str], object] = lambda operation: None
    released: threading.Event = field(default_factory=threading.Event)
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def counts(self) -> Counter[str]:
        """Number of requests by operation."""
        return Counter(self.asked)

    def find_run(self, name: str) -> HostedRun:
        """Return the only run with this display name."""
        (found,) = [run for run in self.runs.values() if run.fields.get("displayName") == name]
        return found

    def find_version(self, collection: str, alias: str) -> Version | None:
        """Return the committed version with `alias` (`v0` too), or None."""
        return next(
            (item for item in self._committed(collection) if alias in (*item.aliases, f"v{item.index}")),
            None,
        )

    def _committed(self, collection: str) -> list[Version]:
        return [item for item in self.versions.values() if (item.collection, item.state) == (collection, "COMMITTED")]

    def names(self, ids: list[str]) -> set[str]:
        """Return the collections of the artifacts with these ids."""
        return {self.versions[item].collection for item in ids}

    def state(self) -> tuple[Any, ...]:
        """Return the complete state that a client can change."""
        with self.lock:
            return deepcopy((self.runs, self.versions, self.links))

    def everything(self) -> str:
        """Return everything that was ever sent, with JSON escapes decoded."""
        text = b"\n".join(self.bodies).decode("utf-8", errors="replace")
        return re.sub(r"(?:\\\\?u[0-9a-fA-F]{4})+", lambda found: _unescaped(found[0]), text)

    # GraphQL, one method per operation.

    def viewer(self, _: Variables) -> Any:
        if not self.accounts:
            return {"viewer": None}
        return {
            "viewer": {
                "id": "user",
                "entity": ENTITY,
                "username": ENTITY,
                "email": "a@b.c",
                "flags": "{}",
                "admin": False,
                "deletedAt": None,
                "name": ENTITY,
                "apiKeys": {"edges": []},
                "teams": {"edges": [{"node": {"name": ENTITY}}]},
            }
        }

    def server_features_query(self, _: Variables) -> Any:
        return {"serverInfo": {"features": []}}

    def upsert_bucket(self, variables: Variables) -> Any:
        name = variables["name"]
        inserted = name not in self.runs
        run = self.runs.setdefault(name, HostedRun(name, variables["project"]))
        run.fields |= {key: value for key, value in variables.items() if value is not None}
        if variables.get("config"):
            run.config = {key: item.get("value") for key, item in json.loads(variables["config"]).items()}
        if variables.get("summaryMetrics"):
            run.summary |= json.loads(variables["summaryMetrics"])
        return {"upsertBucket": {"bucket": self._bucket(run), "inserted": inserted}}

    def run_resume_status(self, variables: Variables) -> Any:
        run = self.runs.get(variables["name"])
        bucket = self._bucket(run) if run else None
        return {"model": {"id": "project", "name": variables["project"], "entity": _entity(), "bucket": bucket}}

    def _bucket(self, run: HostedRun) -> Any:
        lines = len(run.history)
        return {
            "id": f"id-{run.name}",
            "name": run.name,
            "displayName": run.fields.get("displayName"),
            "description": None,
            "notes": None,
            "tags": run.fields.get("tags", []),
            "config": json.dumps({key: {"value": value} for key, value in run.config.items()}),
            "summaryMetrics": json.dumps(run.summary),
            "sweepName": None,
            "historyLineCount": lines,
            "eventsLineCount": 0,
            "logLineCount": 0,
            "historyTail": json.dumps([json.dumps(run.history[max(run.history)])] if lines else []),
            "eventsTail": "[]",
            "wandbConfig": json.dumps({"t": 1}),
            "project": _project(run.project),
        }

    def run(self, variables: Variables) -> Any:
        run = self.runs.get(variables["name"])
        bucket = None
        if run is not None:
            extra = {"state": "finished", "group": run.fields.get("groupName"), "jobType": run.fields.get("jobType")}
            extra |= {"commit": None, "readOnly": False, "createdAt": CREATED, "heartbeatAt": CREATED}
            extra |= {"systemMetrics": "{}", "historyKeys": None, "user": {"name": ENTITY, "username": ENTITY}}
            bucket = self._bucket(run) | extra | {"projectId": "1", "readOnly": False}
        return {"project": {"internalId": "1", "run": bucket}}

    def get_default_entity(self, _: Variables) -> Any:
        return {"viewer": {"id": "user", "entity": ENTITY}}

    def create_run_files(self, variables: Variables) -> Any:
        run = self.runs[variables["run"]]
        files = [{"name": name, "uploadUrl": self._upload(run.files, name)} for name in variables["files"]]
        return {"createRunFiles": {"runID": f"id-{run.name}", "uploadHeaders": [], "files": files}}

    def mark_run_files_uploaded(self, _: Variables) -> Any:
        return {"markRunFilesUploaded": {"success": True}}

    def create_artifact(self, variables: Variables) -> Any:
        given = variables.get("input", variables)
        collection, run = given["artifactCollectionName"], self.runs[given["runName"]]
        siblings = [item for item in self.versions.values() if item.collection == collection]
        latest = next(reversed(self._committed(collection)), None)
        version = next((item for item in siblings if item.digest == given["digest"]), None)
        if version is None:
            version = Version(
                id=base64.b64encode(f"Artifact:{len(self.versions)}".encode()).decode(),
                type=given["artifactTypeName"],
                collection=collection,
                project=given["projectName"],
                index=len(siblings),
                digest=given["digest"],
                metadata=given.get("metadata") or "{}",
            )
            self.versions[version.id] = version
        version.pending += [item["alias"] for item in given.get("aliases") or []]
        if version.state == "COMMITTED":
            self._take_aliases(version)
        if version.id not in run.makes:
            run.makes.append(version.id)
        sequence = {"id": f"sequence-{collection}", "latestArtifact": self._node(latest) if latest else None}
        return {"createArtifact": {"artifact": {**self._node(version), "artifactSequence": sequence}}}

    def create_artifact_manifest(self, variables: Variables) -> Any:
        version = self.versions[variables["artifactID"]]
        holder: dict[str, bytes] = {}
        url = self._upload(holder, "manifest", done=lambda content: setattr(version, "manifest", content))
        return {"createArtifactManifest": {"artifactManifest": _manifest(version, url)}}

    def update_artifact_manifest(self, variables: Variables) -> Any:
        version = self.versions[variables["artifactManifestID"].removeprefix("manifest-")]
        url = self._upload({}, "manifest", done=lambda content: setattr(version, "manifest", content))
        return {"updateArtifactManifest": {"artifactManifest": _manifest(version, url)}}

    def create_artifact_files(self, variables: Variables) -> Any:
        edges = []
        for item in variables["input"]["artifactFiles"]:
            version = self.versions[item["artifactID"]]
            node = {
                "id": "file",
                "name": item["name"],
                "displayName": item["name"],
                "storagePath": f"storage/{item['name']}",
                "uploadUrl": self._upload(version.files, item["name"]),
                "uploadHeaders": [],
                "uploadMultipartUrls": None,
                "artifact": {"id": version.id},
            }
            edges.append({"node": node})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def commit_artifact(self, variables: Variables) -> Any:
        version = self.versions[variables["artifactID"]]
        contents = json.loads(version.manifest)["contents"]
        for name, entry in contents.items():
            assert "ref" in entry or _md5(version.files[name]) == entry["digest"], f"{name} is not what was announced"
        version.state = "COMMITTED"
        self._take_aliases(version)
        return {"commitArtifact": {"artifact": {"id": version.id, "digest": version.digest}}}

    def use_artifact(self, variables: Variables) -> Any:
        given = variables.get("input", variables)
        run, version = self.runs[given["runName"]], self.versions[given["artifactID"]]
        if version.id not in run.uses:
            run.uses.append(version.id)
        return {"useArtifact": {"artifact": self._node(version)}}

    def artifact_membership_by_name(self, variables: Variables) -> Any:
        collection, alias = variables["name"].split(":")
        if variables["project"].startswith(REGISTRY):
            return self._linked(variables["project"], collection, alias)
        version = self.find_version(collection, alias)
        membership = None
        if version is not None:
            membership = {
                "__typename": "ArtifactCollectionMembership",
                "id": f"membership-{version.id}",
                "versionIndex": version.index,
                "createdAt": CREATED,
                "aliases": _aliases(version),
                "artifactCollection": _collection(version),
                "artifact": self._node(version),
            }
        return {"project": {"artifactCollectionMembership": membership}}

    def _linked(self, registry: str, collection: str, alias: str) -> Any:
        links = self.links.get(f"{registry}/{collection}", {})
        found = next((item for item, aliases in enumerate(links.items()) if alias in (*aliases[1], f"v{item}")), None)
        if found is None:
            return {"project": {"artifactCollectionMembership": None}}
        version, aliases = list(links.items())[found]
        place = {"__typename": "ArtifactPortfolio", "name": collection, "project": _project(registry, ORGANIZATION)}
        names = [
            {"__typename": "ArtifactAlias", "id": item, "alias": item, "artifactCollection": place} for item in aliases
        ]
        membership = {
            "__typename": "ArtifactCollectionMembership",
            "id": f"link-{found}",
            "versionIndex": found,
            "createdAt": CREATED,
            "aliases": names,
            "artifactCollection": place,
            "artifact": self._node(self.versions[version]) | {"aliases": names},
        }
        return {"project": {"artifactCollectionMembership": membership}}

    def fetch_org_info_from_entity(self, _: Variables) -> Any:
        organization = {"name": ORGANIZATION, "orgEntity": {"name": ORGANIZATION}}
        return {"entity": {"__typename": "Entity", "organization": organization, "user": None}}

    def is_project_read_only(self, _: Variables) -> Any:
        return {"project": {"readOnly": False}}

    def link_artifact(self, variables: Variables) -> Any:
        given = variables["input"]
        links = self.links.setdefault(f"{given['projectName']}/{given['artifactPortfolioName']}", {})
        aliases = links.setdefault(given["artifactID"], [])
        for item in given["aliases"]:
            for others in links.values():
                if item["alias"] in others:
                    others.remove(item["alias"])
            aliases.append(item["alias"])
        return {"result": {"versionIndex": list(links).index(given["artifactID"])}}

    def artifact_by_id(self, variables: Variables) -> Any:
        version = self.versions.get(variables["id"])
        return {"artifact": self._node(version) if version else None}

    def project_artifacts(self, variables: Variables) -> Any:
        items = self._committed(variables["collection"])
        if not items:
            return {"project": None}
        start, size = int(variables.get("cursor") or 0), variables["perPage"]
        connection = {
            "totalCount": len(items),
            "pageInfo": {
                "__typename": "PageInfo",
                "endCursor": str(start + size),
                "hasNextPage": len(items) > start + size,
            },
            "edges": [{"version": item.name, "node": self._node(item)} for item in items[start : start + size]],
        }
        collection = {"__typename": "ArtifactSequence", "artifacts": connection}
        return {"project": {"artifactType": {"artifactCollection": collection}}}

    def add_aliases(self, variables: Variables) -> Any:
        given = variables["input"]
        for item in given["aliases"]:
            self._alias(self.versions[given["artifactID"]], item["alias"])
        return {"result": {"success": True}}

    def delete_aliases(self, variables: Variables) -> Any:
        given = variables["input"]
        for item in given["aliases"]:
            links = self.links.get(f"{item.get('projectName')}/{item.get('artifactCollectionName')}", {})
            holder = links.get(given["artifactID"], self.versions[given["artifactID"]].aliases)
            holder.remove(item["alias"])
        return {"result": {"success": True}}

    def update_artifact(self, variables: Variables) -> Any:
        version = self.versions[variables.get("input", variables)["artifactID"]]
        return {"result": {"artifact": self._node(version)}, "updateArtifact": {"artifact": self._node(version)}}

    def _take_aliases(self, version: Version) -> None:
        for alias in version.pending:
            self._alias(version, alias)
        version.pending.clear()

    def _alias(self, version: Version, alias: str) -> None:
        for item in self.versions.values():
            if item.collection == version.collection and alias in item.aliases:
                item.aliases.remove(alias)
        version.aliases.append(alias)

    def _node(self, version: Version) -> Any:
        return {
            "__typename": "Artifact",
            "id": version.id,
            "artifactSequence": _collection(version) | {"id": f"sequence-{version.collection}", "latestArtifact": None},
            "versionIndex": version.index,
            "artifactType": {"name": version.type},
            "description": None,
            "metadata": version.metadata,
            "ttlDurationSeconds": -2,
            "ttlIsInherited": True,
            "tags": [],
            "historyStep": None,
            "state": version.state,
            "size": 1,
            "digest": version.digest,
            "digestAlgorithm": "MANIFEST_MD5",
            "commitHash": "",
            "fileCount": len(version.files),
            "createdAt": CREATED,
            "updatedAt": CREATED,
            "aliases": _aliases(version),
        }

    def _upload(self, place: dict[str, bytes], name: str, done: Callable[[bytes], None] | None = None) -> str:
        number = len(self.uploads)
        self.uploads[str(number)] = (_Calling(done) if done else place, name)
        return f"{self.url}/upload/{number}"

    # Requests outside GraphQL.

    def store(self, number: str, content: bytes) -> None:
        """Handle an upload to its own URL."""
        place, name = self.uploads[number]
        place[name] = content

    def stream(self, path: str, document: Variables) -> Any:
        """Handle a part of a run: lines of files at an offset, and its end."""
        run = self.runs[path.split("/")[-2]]
        for name, part in (document.get("files") or {}).items():
            lines = [json.loads(line) for line in part["content"]] if name.endswith(("json", "jsonl")) else []
            if name == "wandb-summary.json":
                run.summary |= lines[-1]
            elif name == "wandb-history.jsonl":
                run.history |= {part["offset"] + place: line for place, line in enumerate(lines)}
        if document.get("complete"):
            run.exit_code = document.get("exitcode")
        return {}


class _Calling(dict[str, bytes]):
    def __init__(self, done: Callable[[bytes], None]) -> None:
        super().__init__()
        self.done = done

    def __setitem__(self, name: str, content: bytes) -> None:
        self.done(content)


def _md5(content: bytes) -> str:
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()


def _unescaped(text: str) -> str:
    return "".join(chr(int(code, 16)) for code in re.findall(r"u([0-9a-fA-F]{4})", text))


def _entity() -> Any:
    return {"id": "entity", "name": ENTITY}


def _project(name: str, entity: str = ENTITY) -> Any:
    owner = {"id": "entity", "name": entity}
    return {"__typename": "Project", "id": "project", "internalId": "1", "name": name, "entity": owner}


def _collection(version: Version) -> Any:
    return {"__typename": "ArtifactSequence", "name": version.collection, "project": _project(version.project)}


def _aliases(version: Version) -> Any:
    return [
        {"__typename": "ArtifactAlias", "id": alias, "alias": alias, "artifactCollection": _collection(version)}
        for alias in version.aliases
    ]


def _manifest(version: Version, url: str) -> Any:
    file = {"id": "file", "name": "manifest", "displayName": "manifest", "uploadUrl": url, "uploadHeaders": []}
    return {"id": f"manifest-{version.id}", "file": file}


@contextmanager
def wandb_server() -> Iterator[WandbServer]:
    """Yield a server on a free port."""
    place = WandbServer()
    with running(WandbHttpServer(place, KEY)) as place.url:
        try:
            yield place
        finally:
            place.released.set()
    assert place.broken == []
