"""The whole topology: a control host, two workers, three replicas of the service behind HAProxy, and a bucket."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from base64 import urlsafe_b64encode
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from pipeline.deployment.service_client import ServiceClient
from pipeline.stack.airflow_api import AirflowApi
from pipeline.store.artifacts import Store
from tests.support.bucket import CREDENTIALS, Bucket, BucketServer, s3_server
from tests.support.composed import REQUIRED
from tests.topology.runner.hosts import Host, address_of
from tests.topology.runner.images import CACHE, Image
from tests.topology.runner.networks import GATEWAY, S3, isolate

#: Number, files and services (all if empty) of each host.
HOSTS: Mapping[str, tuple[int, tuple[str, ...], tuple[str, ...]]] = {
    "control": (1, ("compose.yaml", "compose.control.yaml"), ()),
    "worker-1": (2, ("compose.worker.yaml",), ()),
    "worker-2": (3, ("compose.worker.yaml",), ("worker-gpu",)),
    "service-1": (4, ("compose.service.yaml",), ()),
    "service-2": (5, ("compose.service.yaml",), ()),
    "service-3": (6, ("compose.service.yaml",), ()),
}
#: Addresses by the names in hosts files. In a name with a dot, moto takes the first part for a bucket.
NAMES = {f"{name}.internal": address_of(number) for name, (number, _, _) in HOSTS.items()} | {"s3": S3}
S3_PORT, BALANCER_PORT = 9000, 8000
BUCKET = "topology"
REPLICAS = tuple(name for name in HOSTS if name.startswith("service-"))
WORKERS = tuple(name for name in HOSTS if name.startswith("worker-"))
BALANCER = f"""\
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend public
    bind {GATEWAY}:{BALANCER_PORT}
    default_backend replicas
backend replicas
    balance roundrobin
    option redispatch
    retries 2
    option httpchk GET /readyz
    default-server check inter 1s fall 2 rise 1
"""


@dataclass
class Cluster:
    """All hosts, connected but not started."""

    hosts: dict[str, Host]
    bucket: Bucket
    secrets: dict[str, str]
    #: Images of an older version of the project, by host and service.
    older: dict[str, dict[str, Image]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Return the URL of the balancer."""
        return f"http://{GATEWAY}:{BALANCER_PORT}"

    def store(self) -> Store:
        """Return the store of all hosts, for this process."""
        return Store(self.bucket.uri, CACHE / "run" / "store")

    def deployments(self) -> set[int]:
        """Return the deployments that the replicas serve; 0 stands for one that does not answer."""
        return {int(_json(f"{url}/readyz").get("deployment", 0)) for url in self._replicas()}

    def staged(self) -> set[str]:
        """Return the refs of the releases that are staged at a replica."""
        clients = [ServiceClient(url, self.secrets["SAEBYEOK_DEPLOY_TOKEN"]) for url in self._replicas()]
        return {ref for client in clients for worker in client.releases().workers for ref in worker.staged}

    @staticmethod
    def _replicas() -> list[str]:
        """Return the URL of each replica."""
        return [f"http://{NAMES[f'{name}.internal']}:3000" for name in REPLICAS]

    def airflow(self) -> AirflowApi:
        """Return a client of the control host's API, as the first user."""
        url = f"http://{self.hosts['control'].address}:8080"
        return AirflowApi(url, "admin", self.secrets["AIRFLOW_ADMIN_PASSWORD"])


def _json(url: str) -> dict[str, Any]:
    try:
        document: dict[str, Any] = httpx.get(url, timeout=5, trust_env=False).json()
    except (httpx.HTTPError, ValueError):
        return {}
    return document


@contextmanager
def cluster(names: Collection[str], older: Path | None = None) -> Iterator[Cluster]:
    """Build the images, then connect the hosts in namespaces of this process. OSError: it cannot be done.

    `older` is a checkout of an older version, whose images are built, too.
    """
    state = CACHE / "run"
    shutil.rmtree(state, ignore_errors=True)
    # The command in docker/env.example creates one of 64 secrets with this first character.
    private = {name: f"-{secrets.token_urlsafe(64)}" for name in REQUIRED}
    private["AIRFLOW_FERNET_KEY"] = urlsafe_b64encode(secrets.token_bytes(32)).decode()
    hosts = {name: _host(name, private, state) for name in names}
    older_images = {name: host.images_from(older) for name, host in hosts.items()} if older else {}
    isolate()
    with ExitStack() as stack:
        url, server = stack.enter_context(s3_server(S3, S3_PORT))
        os.environ.update(CREDENTIALS, AWS_ENDPOINT_URL=url)
        stack.enter_context(_balancer(state))
        for host in hosts.values():
            stack.callback(host.down)
            host.connect(NAMES)
        yield Cluster(hosts, _made_bucket(server, url), private, older_images)


def _host(name: str, private: Mapping[str, str], state: Path) -> Host:
    number, files, only = HOSTS[name]
    return Host(name, number, files, {**private, **_variables(name)}, state, only)


def _variables(host: str) -> dict[str, str]:
    """Return docker/.env of a host, without the secrets."""
    return {
        **CREDENTIALS,
        "AWS_ENDPOINT_URL": f"http://s3:{S3_PORT}",
        "SAEBYEOK_STORE": f"s3://{BUCKET}/{Bucket.prefix}",
        "SAEBYEOK_SERVICE_URL": "http://service-1.internal:3000",
        "SAEBYEOK_WORKERS": "1",
        "SAEBYEOK_THREADS": "1",
        # Each epoch of a short training.
        "SAEBYEOK_CHECKPOINT_SECONDS": "1",
        "CONTROL_HOST": "" if host == "control" else "control.internal",
        "WORKER_HOST": f"{host}.internal",
    }


def _made_bucket(server: BucketServer, url: str) -> Bucket:
    bucket = Bucket(server, url, BUCKET)
    bucket.client.create_bucket(Bucket=BUCKET)
    return bucket


@contextmanager
def _balancer(state: Path) -> Iterator[None]:
    servers = [f"    server {name} {NAMES[f'{name}.internal']}:3000\n" for name in REPLICAS]
    file = state / "balancer.cfg"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(BALANCER + "".join(servers), encoding="utf-8")
    with subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "haproxy", "-q", "-f", str(file)]) as process:
        try:
            yield
        finally:
            process.kill()
