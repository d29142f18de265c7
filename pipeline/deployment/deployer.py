"""Deploy a release: stage it, check its golden sentences, record it, wait until all replicas serve it, check again."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.deployment.bento import ensure_bento, forget_outdated
from pipeline.deployment.replicas import Look, Replicas, Watch, open_replicas
from pipeline.deployment.service_client import ServiceClient, service_answers
from pipeline.errors import ArtifactError, ConflictError, RefusedError, SaebyeokError, ServiceError
from pipeline.settings import Settings
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.deployments import Deployment, DeploymentLog, Intent
from pipeline.store.releases import read_card
from pipeline.store.verdicts import find_verdict, model_of, record_verdict
from pipeline.tracking.runs import Subject, recorded
from serving.client.responses import ReleasesResponse, WorkerState
from serving.engine.engine import Engine, EngineOptions
from serving.engine.golden import check_golden, engine_answers

log = logging.getLogger(__name__)


def rollback(
    settings: Settings, store: Store, run: str, number: int | None = None, *, by: str | None = None
) -> Deployment:
    """Deploy the releases of deployment `number` again, as a new deployment, and return it; `by` names the person.

    Without a number, roll back to the previous deployment. A second rollback goes one step further back, and never to a
    deployment that was rolled back from. The releases are staged and checked as in `deploy`. Raises RefusedError if
    there is no such deployment or it is live already, and the errors of `deploy`.
    """
    records = DeploymentLog(store)
    latest = records.latest()
    if latest is None:
        raise RefusedError("nothing is deployed yet, so there is nothing to roll back to")
    if interrupted := _interrupted(records, run):
        # Do not go back another step.
        with open_deployer(settings, store, run, by, require_service=False) as deployer:
            return deployer.finish_restore(interrupted, records.get(interrupted.number - 1), latest)
    target = records.get(number) if number is not None else records.one_back()
    if target.releases == latest.releases:
        raise RefusedError(f"deployment {latest.number} already serves the releases of deployment {target.number}")
    changed = _changed(store, target, latest)
    subject = Subject(settings, store, run, "rollback", "rollback", tuple(changed), crowns=True)
    with (
        recorded(subject, {"target": target.number}, changed) as tracker,
        open_deployer(settings, store, run, by, require_service=False) as deployer,
    ):
        record = deployer.restore(target, latest, list(changed.values()))
        tracker.summary({"deployment": record.number, "reason": record.reason})
    return record


@dataclass(frozen=True)
class Deployer:
    """Switches the service, on all its replicas, from one deployment to another.

    `by` is the person who asked for it, None for a scheduled run; `replicas` is None if no service answers.
    """

    settings: Settings
    store: Store
    run: str
    by: str | None
    replicas: Replicas | None

    @property
    def records(self) -> DeploymentLog:
        """Return the deployment log."""
        return DeploymentLog(self.store)

    def replace(
        self, recipe: str, release: Artifact, champion: str | None, reason: str, check: Callable[[], None]
    ) -> Deployment:
        """Deploy `release` in place of `champion`, and return the deployment.

        `check` raises an error if the release may not be deployed. It is called once the release is staged, which may
        take minutes in which a person may reject the model.
        """
        with self._staged([release]):
            check()
            record = self._append(recipe, release.ref, champion, reason)
            with self._undone_on_error(lambda: self._put_back(recipe, release.ref, champion, record.number)):
                self._verify_live(record, [release])
        return self._finish(record)

    def complete(self, recipe: str, record: Deployment, release: Artifact, champion: str | None) -> Deployment:
        """Complete the deployment `record` of a run that was killed after it had recorded it."""
        self._unstage([release])
        if champion != release.ref:
            # The decision was made against another champion, so the killed run may not have checked the live release.
            promotion = self.records.promotion(recipe, release.ref) or record
            with self._undone_on_error(lambda: self._put_back(recipe, release.ref, champion, promotion.number)):
                self._verify_live(record, [release])
        return self._finish(record)

    def restore(self, target: Deployment, latest: Deployment, releases: Sequence[Artifact]) -> Deployment:
        """Deploy the releases of `target` in place of those of `latest`; `releases` are the ones that change."""
        reason = f"rollback to deployment {target.number}"
        with self._staged(releases):
            # Before the record: a rollback that is killed in between must not leave its model free to come back.
            self._judge(target, latest, releases)
            record = self._record(target.releases, latest.number, reason, "rollback", target.number)
            self._check_restored(record, latest, releases)
        return self._finish(record)

    def _judge(self, target: Deployment, latest: Deployment, releases: Sequence[Artifact]) -> None:
        """Approve the models that a rollback restores although they were barred, and reject the ones that it leaves.

        The rejection comes last and counts if both deployments have releases of the same model: no later run may deploy
        the release that was left.
        """
        for model in self._models([release.ref for release in releases]):
            verdict = find_verdict(model)
            if verdict and verdict.bars:
                why = f"rolled back to deployment {target.number}"
                record_verdict(model, "approved", by=self.by, run=self.run, why=why)
        left = [ref for recipe, ref in latest.releases.items() if target.releases.get(recipe) != ref]
        for model in self._models(left):
            why = f"rolled back from deployment {latest.number} to {target.number}"
            record_verdict(model, "rejected", by=self.by, run=self.run, why=why)

    def _models(self, refs: Sequence[str]) -> Iterator[Artifact]:
        """Yield the trained artifacts of releases; skip unreadable releases, which may be the reason of a rollback."""
        for ref in refs:
            try:
                yield model_of(self.store.open(ref))
            except ArtifactError as error:
                log.warning("no verdict is recorded about %s: %s", ref, error)

    def finish_restore(self, record: Deployment, previous: Deployment, latest: Deployment) -> Deployment:
        """Complete the rollback `record` from `previous` of a killed run; check what `latest` still serves of it."""
        changed = _changed(self.store, record, previous)
        releases = [release for recipe, release in changed.items() if latest.releases.get(recipe) == release.ref]
        self._unstage(releases)
        self._check_restored(record, previous, releases)
        return self._finish(record)

    def _check_restored(self, record: Deployment, previous: Deployment, releases: Sequence[Artifact]) -> None:
        with self._undone_on_error(lambda: self._put_map_back(record, previous)):
            self._verify_live(record, releases)

    @contextmanager
    def _staged(self, releases: Sequence[Artifact]) -> Iterator[None]:
        """Stage the releases and check their golden sentences before the block runs; unstage them afterwards."""
        if self.replicas is None:
            for release in releases:
                engine = Engine(release.path, EngineOptions(device="cpu"))
                check_golden(engine.card, engine_answers(engine))
            yield
            return
        with self.replicas.staged([release.ref for release in releases]):
            for release in releases:
                self.replicas.wait(f"load {release.ref}", _holds(release))
            yield

    def _unstage(self, releases: Sequence[Artifact]) -> None:
        if self.replicas is not None:
            self.replicas.unstage([release.ref for release in releases])

    def _append(self, recipe: str, ref: str, champion: str | None, reason: str) -> Deployment:
        """Record the next deployment. A simultaneous deployment of another recipe is not a conflict.

        Raises ConflictError if the champion of `recipe` is no longer `champion`.
        """
        while True:
            latest = self.records.latest()
            releases = latest.releases if latest else {}
            if releases.get(recipe) != champion:
                raise ConflictError(
                    f"the champion of {recipe} became {releases.get(recipe)} in the meantime; run again"
                )
            try:
                after = latest.number if latest else 0
                return self._record({**releases, recipe: ref}, after, reason, "promotion")
            except ConflictError:
                log.info("deployment %d was recorded by another run; trying the next number", after + 1)

    def _record(
        self, releases: dict[str, str], after: int, reason: str, intent: Intent, of: int | None = None
    ) -> Deployment:
        return self.records.append(releases, after=after, run=self.run, reason=reason, intent=intent, of=of, by=self.by)

    def _verify_live(self, record: Deployment, releases: Sequence[Artifact]) -> None:
        """Wait until every replica serves `record`, then check the golden sentences through the public routes.

        Raises PrunedError if retention deleted one of the releases while it was staged.
        """
        for release in releases:
            # From the record on, retention keeps it.
            self.store.open(release.ref)
        if self.replicas is None:
            log.info("no service answers; it will serve deployment %d when it starts", record.number)
            return
        self.replicas.wait(f"move to deployment {record.number}", _serves(record.number, releases))

    @contextmanager
    def _undone_on_error(self, undo: Callable[[], Deployment | None]) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            log.error("the new deployment failed, undoing it: %s", error)
            record = undo()
            if record is not None and self.replicas is not None:
                number = record.number
                try:
                    self.replicas.wait(f"move back, to deployment {number}", _serves(number))
                except SaebyeokError as second:
                    log.warning(
                        "deployment %d restores the releases, but not every replica serves it yet: %s", number, second
                    )
            raise

    def _put_back(self, recipe: str, failed: str, champion: str | None, number: int) -> Deployment | None:
        """Undo deployment `number`, which made release `failed` live, unless another run has replaced it already."""
        while (latest := self.records.latest()) is not None and latest.releases.get(recipe) == failed:
            releases = {name: ref for name, ref in latest.releases.items() if name != recipe}
            if champion is not None:
                releases[recipe] = champion
            try:
                reason = f"undoes deployment {number}: {failed} failed once it was live"
                return self._record(releases, latest.number, reason, "undo", number)
            except ConflictError:
                continue
        return None

    def _put_map_back(self, record: Deployment, previous: Deployment) -> Deployment | None:
        """Record the releases of `previous` again, except for recipes that another run deployed since `record`."""
        while (latest := self.records.latest()) is not None:
            releases = dict(latest.releases)
            for recipe in record.releases.keys() | previous.releases.keys():
                if releases.get(recipe) == record.releases.get(recipe):
                    releases.pop(recipe, None)
                    releases |= {recipe: previous.releases[recipe]} if recipe in previous.releases else {}
            if releases == latest.releases:
                return None
            with contextlib.suppress(ConflictError):
                reason = f"undoes deployment {record.number}, which failed once it was live"
                return self._record(releases, latest.number, reason, "undo", record.number)
        return None

    def _finish(self, record: Deployment) -> Deployment:
        log.info("deployment %d: %s", record.number, record.releases)
        ensure_bento(self.settings, self.store, record)
        # Retention cleans only the host that it runs on.
        forget_outdated(self.settings, self.store)
        return record


@contextmanager
def open_deployer(
    settings: Settings, store: Store, run: str, by: str | None, *, require_service: bool
) -> Iterator[Deployer]:
    """Yield a deployer for the live replicas of the service, or for none if there is none.

    Raises ServiceError if there is none and `require_service` is set.
    """
    with open_replicas(settings, store) as replicas:
        if require_service and replicas is None:
            raise ServiceError(
                f"no service answers for {store.uri} at {settings.service_url}, and no replica has a record there; "
                "start the service, or set SAEBYEOK_SERVICE_URL"
            )
        yield Deployer(settings, store, run, by, replicas)


def _holds(release: Artifact) -> Watch:
    """Return a watch that is done once all workers of a replica hold `release` and its golden answers are right."""
    card, checked = read_card(release), set[str]()

    def watch(client: ServiceClient, found: ReleasesResponse) -> Look:
        for worker in found.workers:
            for problem in worker.problems:
                if problem.release == release.ref:
                    text = f"worker {worker.pid} cannot load {release.ref} at {client.url}: {problem.message}"
                    return Look(error=ServiceError(text) if problem.retryable else ArtifactError(text))
        if late := _late(client.url, found, lambda worker: release.ref in (*worker.staged, *worker.live.values())):
            return late
        if client.url not in checked:
            check_golden(card, service_answers(client, card, release.ref))
            checked.add(client.url)
        return Look()

    return watch


def _serves(number: int, releases: Sequence[Artifact] = ()) -> Watch:
    """Return a watch that is done once all workers of a replica serve deployment `number` or a newer one.

    The golden answers of `releases` must then be right, too.
    """
    cards, checked = [read_card(release) for release in releases], set[str]()

    def watch(client: ServiceClient, found: ReleasesResponse) -> Look:
        if late := _late(client.url, found, lambda worker: worker.deployment >= number):
            return late
        if client.url not in checked:
            for card in cards:
                check_golden(card, service_answers(client, card))
            checked.add(client.url)
        return Look()

    return watch


def _late(url: str, found: ReleasesResponse, done: Callable[[WorkerState], bool]) -> Look | None:
    """Return the state of a replica some of whose workers are not `done`; None if all are."""
    late = [_named(worker) for worker in found.workers if not done(worker)]
    return Look(late=f"workers {', '.join(late) or 'all'} of {url}") if late or not found.workers else None


def _named(worker: WorkerState) -> str:
    return f"{worker.pid} ({worker.problem})" if worker.problem else str(worker.pid)


def _interrupted(records: DeploymentLog, run: str) -> Deployment | None:
    """Return the rollback that an earlier try of `run` recorded and did not undo; None if none is found."""
    # Damaged records do not prevent a rollback.
    with contextlib.suppress(ArtifactError):
        for record in map(records.get, reversed(records.numbers())):
            if record.run == run:
                return record if record.intent == "rollback" else None
    return None


def _changed(store: Store, target: Deployment, latest: Deployment) -> dict[str, Artifact]:
    """Return the releases of `target` that differ from those of `latest`, by recipe."""
    return {
        recipe: store.open(ref) for recipe, ref in sorted(target.releases.items()) if latest.releases.get(recipe) != ref
    }
