"""Hosts: each runs the project of some compose files, and publishes its ports on an address of the private network."""

from __future__ import annotations

import hashlib
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from pipeline.config_file import ROOT
from tests.support.composed import DOCKER, project, source, target
from tests.topology.runner.containers import Container, Mount
from tests.topology.runner.images import Image, build_image
from tests.topology.runner.networks import attach, inside, plug

#: Images that no Dockerfile of the project builds.
STANDING_IN = Path(__file__).parent.parent / "images"
#: Seconds for a service that others depend on; generous, because the machine may be busy.
PATIENCE = 900.0
DEFAULTS = """\
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
"""


@cache
def torch_backend() -> str:
    """Return the build argument of the worker's image: empty if PyTorch's own index is out of reach."""
    try:
        with urlopen("https://download.pytorch.org/whl/cpu/torch/", timeout=5):
            return "cpu"
    except (URLError, TimeoutError):
        return ""


def image_of(service: Mapping[str, Any], checkout: Path) -> Image:
    """Return the image of a service, built if it is not in the cache."""
    if "build" not in service:
        return build_image(STANDING_IN / f"{service['image'].partition(':')[0]}.Dockerfile", {})
    arguments = {"TORCH_BACKEND": torch_backend()} | service["build"].get("args", {})
    return build_image(checkout / service["build"]["dockerfile"], arguments, checkout)


class Host:
    """A machine with Docker Compose; `number` gives its addresses: 10.99.NUMBER.1, and its containers from .10 on."""

    def __init__(
        self,
        name: str,
        number: int,
        files: tuple[str, ...],
        variables: Mapping[str, str],
        state: Path,
        only: tuple[str, ...] = (),
    ) -> None:
        """`only` names the services to start, if not all."""
        self.name, self.state = name, state / name
        self.address = address_of(number)
        whole = project(*files, variables={**variables, "PRIVATE_ADDRESS": self.address})
        self.services = {key: part for key, part in whole["services"].items() if _is_wanted(key, part, only)}
        self.images = self.images_from(ROOT)
        self.addresses = {key: f"10.99.{number}.{10 + place}" for place, key in enumerate(self.services)}
        self.containers: dict[str, Container] = {}
        self._forwarder: subprocess.Popen[bytes] | None = None

    def images_from(self, checkout: Path) -> dict[str, Image]:
        """Return the image of each service with the project as in `checkout`."""
        return {name: image_of(service, checkout) for name, service in self.services.items()}

    def connect(self, names: Mapping[str, str]) -> None:
        """Attach the host and its containers to the network; `names` are the addresses of other machines."""
        attach(self.name, self.address)
        hosts = self.state / "hosts"
        hosts.parent.mkdir(parents=True, exist_ok=True)
        for name, service in self.services.items():
            attach(f"{self.name}-{name}", self.addresses[name])
            self.containers[name] = self._container(name, service, hosts)
        lines = [f"{container.address} {container.hostname} {name}" for name, container in self.containers.items()]
        lines += [f"{address} {name}" for name, address in names.items()]
        hosts.write_text("\n".join(["127.0.0.1 localhost", *lines, ""]), encoding="utf-8")
        self._publish()

    def up(self) -> None:
        """Start the services that are stopped, each when its conditions hold."""
        waiting = {name for name, container in self.containers.items() if container.is_stopped}
        deadline = time.monotonic() + PATIENCE
        while waiting:
            for name in [name for name in waiting if self._may_start(name)]:
                self.containers[name].start()
                waiting.remove(name)
            if time.monotonic() > deadline:
                raise TimeoutError(f"never ready to start: {', '.join(waiting)}\n{self.report()}")
            time.sleep(0.1)

    def down(self) -> None:
        """Kill everything on the host."""
        for container in self.containers.values():
            container.kill()
        if self._forwarder:
            self._forwarder.kill()
            self._forwarder.wait()

    def plug(self, *, on: bool) -> None:
        """Connect the host with the network, or cut it off. Its containers lose each other, too."""
        for address in (self.address, *self.addresses.values()):
            plug(address, on=on)

    @contextmanager
    def changed(self, images: Mapping[str, Image] | None = None, **variables: str) -> Iterator[None]:
        """Give the containers other images or further environment variables, and take them away after the block."""
        self._recreate(variables, images or self.images)
        try:
            yield
        finally:
            self._recreate({}, self.images)

    def install(self, images: Mapping[str, Image]) -> None:
        """Replace the containers by ones of these images."""
        self._recreate({}, images)

    def _recreate(self, further: Mapping[str, str], images: Mapping[str, Image]) -> None:
        """Replace the containers whose variables or images change, as `docker compose up` does."""
        for name, container in self.containers.items():
            if (container.further, container.image) != (further, images[name]):
                container.remove()
                container.further, container.image = further, images[name]
        self.up()
        self.wait_healthy()

    def wait_healthy(self, limit: float = PATIENCE) -> None:
        """Wait until the health check of each running container passes."""
        eventually(
            "all containers healthy",
            lambda: all(part.healthy or not part.check for part in self.containers.values()),
            limit,
            self.report,
        )

    def report(self) -> str:
        """Return the state and the end of the log of each container that is not healthy."""
        ill = [part for part in self.containers.values() if not part.healthy]
        return "\n".join(
            f"--- {self.name}/{part.name}: status {part.status}, {part.restarts} restarts\n{part.log[-1500:]}"
            for part in ill
            if (part.state / "log").exists()
        )

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command on the host itself, outside its containers."""
        return subprocess.run(inside(self.name, *command), capture_output=True, text=True, check=False)

    def _may_start(self, name: str) -> bool:
        conditions = self.services[name].get("depends_on", {})
        return all(self._holds(other, needed["condition"]) for other, needed in conditions.items())

    def _holds(self, name: str, condition: str) -> bool:
        container = self.containers[name]
        if condition == "service_completed_successfully":
            if container.status:
                raise RuntimeError(f"{name} failed:\n{self.report()}")
            return container.status == 0
        return container.healthy if condition == "service_healthy" else container.process is not None

    def _container(self, name: str, service: dict[str, Any], hosts: Path) -> Container:
        return Container(
            name,
            self.images[name],
            service,
            namespace=f"{self.name}-{name}",
            address=self.addresses[name],
            hostname=service.get("hostname") or hashlib.sha256(f"{self.name} {name}".encode()).hexdigest()[:12],
            hosts=hosts,
            mounts=[self._mount(volume) for volume in service.get("volumes", [])],
            state=self.state / "containers" / name,
        )

    def _mount(self, volume: str) -> Mount:
        path = source(volume)
        named = not path.startswith((".", "/"))
        here = self.state / "volumes" / path if named else (DOCKER / path).resolve()
        if named:
            here.mkdir(parents=True, exist_ok=True)
        return Mount(here, target(volume), read_only=volume.endswith(":ro"), volume=named)

    def _publish(self) -> None:
        """Forward the published ports to the containers, as Docker's proxy does."""
        sections = [DEFAULTS]
        for name, service in self.services.items():
            for port in service.get("ports", []):
                outer, _, inner = port.rpartition(":")
                server = f"server container {self.addresses[name]}:{inner}"
                sections.append(f"listen {len(sections)}\n    bind {outer}\n    {server}\n")
        file = self.state / "ports.cfg"
        file.write_text("\n".join(sections), encoding="utf-8")
        if len(sections) > 1:
            self._forwarder = subprocess.Popen(inside(self.name, "haproxy", "-q", "-f", str(file)))


def _is_wanted(name: str, service: Mapping[str, Any], only: tuple[str, ...]) -> bool:
    return name in only if only else "profiles" not in service


def address_of(number: int) -> str:
    """Return the address of host `number` in the private network."""
    return f"10.99.{number}.1"


def eventually(
    what: str, done: Callable[[], object], limit: float, report: Callable[[], str] = str, pause: float = 0.2
) -> float:
    """Wait until `done()` is true and return the seconds; TimeoutError after `limit` seconds. `pause` is in seconds."""
    begun = time.monotonic()
    while not done():
        if time.monotonic() - begun > limit:
            raise TimeoutError(f"never happened in {limit:.0f} s: {what}\n{report()}")
        time.sleep(pause)
    return time.monotonic() - begun
