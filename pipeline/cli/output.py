"""Output of the commands: progress while a run goes on, and results as text for people and JSON for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.cli.console import Session, say
from pipeline.cli.doctor import Diagnosis
from pipeline.deployment.retention import Outdated
from pipeline.errors import RefusedError
from pipeline.job import Job
from pipeline.nested import flatten
from pipeline.progress import format_duration
from pipeline.stages.stage import EXPORT, Step
from pipeline.store.artifacts import Artifact, Store
from pipeline.store.checks import check_document
from pipeline.store.decisions import Decision, decision_lines
from pipeline.store.deployments import Deployment, DeploymentLog
from pipeline.store.figures import EvaluationFigures
from pipeline.store.history import PastRun
from pipeline.store.releases import read_card, release_id
from pipeline.tracking.sync import Synced


@dataclass
class RunOutcome:
    """The completed steps of a run, its decision and its deployment."""

    job: Job
    steps: list[Step] = field(default_factory=list)
    decision: Decision | None = None
    deployment: Deployment | None = None
    deployed_now: bool = False

    @property
    def promoted(self) -> bool:
        """Whether the model passed the gate, or cannot be compared and was approved by a person."""
        return self.decision is not None and (self.decision.promote or EXPORT.kind in self.made)

    @property
    def made(self) -> dict[str, Artifact]:
        """Return the artifacts of the completed steps, by kind."""
        return {step.stage.kind: step.artifact for step in self.steps}


def say_start(name: str, number: int, total: int, recipe: str) -> None:
    """Print the start of a stage on standard error."""
    say(f"[{number}/{total}] {recipe} {name} ...")


def say_done(step: Step) -> None:
    """Print the result of a stage on standard error."""
    how = "reused" if step.reused else "built"
    say(f"      {how} in {format_duration(step.seconds)}: {step.artifact.ref}")


def step_document(step: Step) -> dict[str, Any]:
    """Return the document of a stage for `--json`."""
    return {
        "stage": step.stage.name,
        "ref": step.artifact.ref,
        "reused": step.reused,
        "seconds": round(step.seconds, 3),
    }


def run_document(outcome: RunOutcome) -> dict[str, Any]:
    """Return the document of a whole run for `--json`."""
    recipe, made, decision = outcome.job.recipe, outcome.made, outcome.decision
    release = made.get("release")
    return {
        "recipe": recipe.name,
        "run": outcome.job.run,
        "profile": recipe.profile,
        "sample": recipe.sample,
        "promoted": outcome.promoted,
        "reason": decision.reason if decision else None,
        "figures": figures_document(outcome),
        "checks": [check_document(check) for check in decision.checks] if decision else [],
        "notes": list(decision.notes) if decision else [],
        "champion": decision.champion if decision else None,
        "release": read_card(release).id if release else None,
        "deployment": outcome.deployment.number if outcome.deployment else None,
        "stages": [step_document(step) for step in outcome.steps],
        "report": report_address(outcome),
        "data_docs": f"{made['validate'].uri}/docs/index.html",
    }


def report_address(outcome: RunOutcome) -> str:
    """Return the URI of the run's report: the release's, which adds parity and latency, else the decision's."""
    made = outcome.made
    return f"{made.get('release', made['decide']).uri}/report.html"


def figures_document(outcome: RunOutcome) -> dict[str, dict[str, Any]]:
    """Return by metric the value and 95% interval on the test file, the same on its `new_texts`, and the threshold.

    The threshold (`floor`) applies to the new texts, the rows without a near copy in train.
    """
    recipe, figures = outcome.job.recipe, EvaluationFigures.read(outcome.made["evaluate"])
    return {
        metric: figures.test[metric].model_dump()
        | {"new_texts": figures.test_without_train_texts[metric].model_dump(), "floor": recipe.gate.floors.get(metric)}
        for metric in recipe.metrics
    }


def print_run(session: Session, outcome: RunOutcome) -> None:
    """Print a whole run on standard output, for people."""
    from rich.table import Table

    recipe, decision, made = outcome.job.recipe, outcome.decision, outcome.made
    if decision is None:
        return
    sample = ", sample data" if recipe.sample else ""
    session.line(f"{recipe.name} ({recipe.profile}{sample}): {'PROMOTED' if outcome.promoted else 'REFUSED'}")
    session.line(decision.why)
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for name in ("metric on the test file", "all texts", "new texts", "95% interval", "threshold"):
        table.add_column(name, justify="left" if name.startswith("metric") else "right")
    for metric, figure in figures_document(outcome).items():
        new = figure["new_texts"]
        interval = f"{new['low']:.4f} to {new['high']:.4f}"
        floor = "none" if figure["floor"] is None else f"{figure['floor']:.4f}"
        table.add_row(metric, *(f"{side['value']:.4f}" for side in (figure, new)), interval, floor)
    session.line()
    session.tables().print(table)
    session.line()
    for line in decision_lines(decision):
        session.line(line)
    session.line(f"report      {report_address(outcome)}")
    session.line(f"data docs   {made['validate'].uri}/docs/index.html")
    session.line(f"run         {outcome.job.run}")
    if outcome.deployment is not None:
        which = "now live as" if outcome.deployed_now else "already live as"
        session.line(f"release     {read_card(made['release']).id}, {which} deployment {outcome.deployment.number}")
    elif release := made.get("release"):
        session.line(f"release     {read_card(release).id}, not deployed; to deploy it: saebyeok deploy {recipe.name}")


def print_stage(session: Session, document: Mapping[str, Any]) -> None:
    """Print the result of one stage on standard output, for people."""
    if "deployment" in document:
        trained = ", trained on sample data" if document["sample"] else ""
        session.line(f"deployment {document['deployment']} is live{trained}")
        for name, release in document["ids"].items():
            session.line(f"  {name}: {release}")
        return
    how = "reused" if document["reused"] else "built"
    sample = ", on sample data" if document["sample"] else ""
    session.line(f"{document['stage']} {how} in {format_duration(document['seconds'])}{sample}")
    if "promoted" in document:
        session.line(document["reason"])
    for name, value in flatten(document["figures"]).items():
        # Curves and tables are too long for a line.
        if value is not None and not isinstance(value, list):
            session.line(f"  {name}: {value:.6g}" if isinstance(value, float) else f"  {name}: {value}")
    for warning in document["figures"].get("warnings", []):
        session.line(f"  warning: {warning}")
    if document["stage"] == "validate":
        session.line(f"data docs   {document['uri']}/docs/index.html")
    session.line(document["ref"])


def print_tuned(session: Session, document: Mapping[str, Any]) -> None:
    """Print the result of a hyperparameter search, for people."""
    best, own, metric = document["best"], document["own"], document["metric"]
    sample = ", sample data" if document["sample"] else ""
    itself = "failed" if own["value"] is None else f"{own['value']:.4f}"
    session.line(
        f"{document['recipe']} ({document['profile']}{sample}): {metric} {best['value']:.4f} on {document['rows']:,} "
        f"validation rows, trial {best['number']} of {len(document['trials'])}; recipe: {itself}"
    )
    for key, value in best["values"].items():
        session.line(f"  {key}: {value} (recipe: {own['values'][key]})")
    session.line(f"wrote {document['out']}")
    command = f"saebyeok run {document['recipe']} --profile {document['profile']} --overrides {document['out']}"
    session.line(f"to evaluate it on the test file: {command}")


def print_metrics(session: Session, document: Mapping[str, Any]) -> None:
    """Print the metrics on a labelled file, for people."""
    sample = ", trained on sample data" if document["sample"] else ""
    session.line(f"{document['release']}{sample}, on {document['rows']:,} rows of {document['file']}")
    for name, value in document["metrics"].items():
        session.line(f"  {name:<10} {value:.4f}")


def print_runs(session: Session, runs: list[PastRun]) -> None:
    """Print the newest runs, for people."""
    if not runs:
        session.line("no run has come to a decision yet; `saebyeok run nsmc` trains and deploys")
    for item in runs:
        day = f"{item.created:%Y-%m-%d %H:%M}" if item.created else f"{'':<16}"
        number = f" as deployment {item.deployment}" if item.deployment else ""
        session.line(f"{day}  {item.recipe}: {item.outcome}{number}")
        for name, text in (("reason", item.reason), ("run", item.run), ("report", item.page)):
            session.line(f"{'':<16}  {name:<7} {text}")


def deployments_document(store: Store) -> dict[str, Any]:
    """Return all deployments, newest first, for `--json`; see `deployment_document`.

    `live` is the number of the live one, `rollback` that of the one that `saebyeok rollback` serves, or null.
    """
    records = DeploymentLog(store)
    deployments = [deployment_document(store, records.get(number)) for number in reversed(records.numbers())]
    try:
        target: int | None = records.one_back().number
    except RefusedError:
        target = None
    return {
        "live": deployments[0]["number"] if deployments else None,
        "rollback": target,
        "deployments": deployments,
    }


def deployment_document(store: Store, deployment: Deployment) -> dict[str, Any]:
    """Return a deployment for `--json`.

    `releases` are the refs of its releases, `ids` the names by which the service knows them. A release that was
    deleted has its ref in both, and is listed in `deleted`: the deployment cannot be served again.
    """
    ids = {recipe: release_id(store, ref) for recipe, ref in sorted(deployment.releases.items())}
    deleted = [recipe for recipe, name in ids.items() if name == deployment.releases[recipe]]
    return deployment.document() | {"ids": ids, "deleted": deleted}


def print_deployments(session: Session, document: Mapping[str, Any]) -> None:
    """Print all deployments, for people."""
    if document["live"] is None:
        session.line("nothing is deployed yet; `saebyeok run nsmc` trains and deploys")
        return
    for item in document["deployments"]:
        mark = _mark(document, item)
        session.line(f"{item['number']:>4} {mark:<7}  {item['created'][:19].replace('T', ' ')}  {item['reason']}")
        for name, release in item["ids"].items():
            session.line(f"              {name}: {release}{' (deleted)' if name in item['deleted'] else ''}")
        by = f", by {item['by']}" if item["by"] else ""
        session.line(f"              run {item['run']}{by}")
    session.line("to serve one again: saebyeok rollback NUMBER. Default: the one marked `back`")


def _mark(document: Mapping[str, Any], item: Mapping[str, Any]) -> str:
    """Return the state of a deployment in a word: live, the target of a rollback, deleted, or empty."""
    if item["number"] == document["live"]:
        return "live"
    if item["deleted"]:
        return "deleted"
    return "back" if item["number"] == document["rollback"] else ""


def kept_document(outdated: Outdated) -> list[dict[str, Any]]:
    """Return for `--json`, by the reason why artifacts are kept, their number and their size in bytes."""
    return [
        {"reason": reason, "artifacts": len(items), "bytes": sum(item.size for item in items)}
        for reason, items in outdated.kept.items()
    ]


def print_outdated(session: Session, outdated: Outdated, *, dry_run: bool) -> None:
    """Print the deleted artifacts, and the kept ones with reason and size, for people."""
    for artifact in outdated.artifacts:
        session.line(f"{'would delete' if dry_run else 'deleted'} {artifact.ref} ({_size(artifact.size)})")
    for item in kept_document(outdated) if dry_run else ():
        if item["artifacts"]:
            session.line(f"would keep {item['artifacts']:,} artifacts ({_size(item['bytes'])}): {item['reason']}")
    session.line(f"{len(outdated.artifacts):,} artifacts, {_size(outdated.size)}")


def _size(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"


def print_synced(session: Session, synced: Synced) -> None:
    """Print the result of `saebyeok sync`, for people."""
    for run in synced.runs:
        session.line(f"{run.state:<10} {run.run}{f': {run.message}' if run.message else ''}")
    for recipe, ref in synced.champions.items():
        session.line(f"champion   {recipe}: {ref or 'none'}")
    for problem in synced.problems:
        session.line(f"failed     {problem}")
    done = sum(run.state == "uploaded" for run in synced.runs)
    state = f"{synced.failed} failed; rerun the command to continue" if synced.failed else "nothing left to upload"
    session.line(f"{done} runs uploaded to {synced.project} at {synced.address}, {state}")


def print_findings(session: Session, findings: list[Diagnosis]) -> None:
    """Print all findings of `saebyeok doctor`, for people."""
    for finding in findings:
        session.line(f"{finding.state:<8} {finding.check:<12} {finding.text}")
        if finding.do:
            session.line(f"{'':<21} do: {finding.do}")
