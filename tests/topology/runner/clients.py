"""A client that asks through the balancer all the time, and what its answers say."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread

import httpx

TEXTS = ("정말 재미있게 봤어요.", "시간이 아까운 영화였다.", "배우들의 연기가 훌륭하다.")
#: Seconds between questions.
PAUSE = 0.2


@dataclass(frozen=True)
class Asked:
    """One question: when it was asked and answered (monotonic), and release and labels; "" if there was no answer."""

    asked: float
    came: float
    release: str
    labels: tuple[str, ...]


@dataclass
class Client:
    """Asks the service at `url` for the labels of TEXTS, without retries."""

    url: str
    answers: list[Asked] = field(default_factory=list)

    @property
    def failed(self) -> int:
        """Return the number of questions without an answer."""
        return sum(not answer.release for answer in self.answers)

    def wrong(self, deployed: set[str]) -> int:
        """Return the number of answers by a release that was not deployed, or other than its first answer."""
        first: dict[str, tuple[str, ...]] = {}
        answers = [answer for answer in self.answers if answer.release]
        return sum(
            answer.release not in deployed or answer.labels != first.setdefault(answer.release, answer.labels)
            for answer in answers
        )

    def ask(self, http: httpx.Client) -> None:
        asked = time.monotonic()
        try:
            body = http.post("/classify", json={"texts": TEXTS}).raise_for_status().json()
            release, labels = body["release"], tuple(result["label"] for result in body["results"])
        except httpx.HTTPError:
            release, labels = "", ()
        self.answers.append(Asked(asked, time.monotonic(), release, labels))

    @contextmanager
    def asking(self) -> Iterator[Client]:
        """Ask from a thread until the block ends."""
        over = Event()

        def ask_on() -> None:
            with httpx.Client(base_url=self.url, timeout=30, trust_env=False) as http:
                while not over.wait(PAUSE):
                    self.ask(http)

        thread = Thread(target=ask_on)
        thread.start()
        try:
            yield self
        finally:
            over.set()
            thread.join()
