"""Accept an unusual daily file: find the file and its last check, and record a person's decision to use it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from itertools import chain, islice

from pipeline.data.arrival_checks import Arrival
from pipeline.data.input_files import InputFile, find_files
from pipeline.errors import ArtifactError, DataError, RefusedError
from pipeline.job import Job, data_directory
from pipeline.recipes.files import recipe_directories
from pipeline.store.acceptances import Acceptance, record_acceptance
from pipeline.store.artifacts import Artifact

#: Number of validations, newest first, in which to look for the last check of a file.
CHECKS_SEARCHED = 20


@dataclass(frozen=True)
class Day:
    """A daily file and its last check; None if no run has checked this content yet."""

    file: InputFile
    checked: Arrival | None

    @property
    def lines(self) -> list[str]:
        """Return one line for each measure, with its level and its usual value, for the person who decides."""
        if self.checked is None:
            return [f"{self.file.name} has not been checked yet"]
        return [f"{item.level:<8} {item.name}: {item.found} (usual: {item.usual})" for item in self.checked.measures]


def find_day(job: Job, day: date) -> Day:
    """Return the file of `day` and its last check.

    Raises DataError if the recipe has no arrivals or there is no such file.
    """
    if job.recipe.data.arrivals is None:
        raise DataError(
            f"recipe {job.recipe.name} has no daily arrivals; name another recipe, or add [data.arrivals] to this one"
        )
    directory, _ = data_directory(job.settings)
    inputs = find_files(job.recipe, directory, date.max, recipe_directories(job.settings.recipes))
    files = inputs.arrivals
    file = next((item for item in files if item.date == day), None)
    if file is None and any(str(day) in name for name in inputs.unfinished):
        raise DataError(f"the file of {day} is still being written; accept it when the upload has ended")
    if file is None:
        newest = f"the newest file is {files[-1].name}" if files else "there is no file at all"
        raise DataError(f"{directory / job.recipe.data.arrivals.directory} has no file of {day}; {newest}")
    return Day(file, _last_check(job, file))


def accept_day(job: Job, day: Day, given: Acceptance) -> Artifact:
    """Record that the file is to be used although it is unusual, and return the record.

    The record belongs to the content of the file: a corrected file is checked again. Raises RefusedError if the last
    check found nothing unusual, or a fault that must be corrected in the file.
    """
    checked = day.checked
    if checked is not None and checked.level != "critical":
        raise RefusedError(f"{day.file.name} passed its last check, so there is nothing to accept")
    if checked is not None and not checked.acceptable:
        raise RefusedError(
            f"{checked.sentence('critical')}; only deviations from the usual values can be accepted: correct the file"
        )
    return record_acceptance(job.store, job.recipe.name, day.file.name, day.file.digest, given, job.run)


def _last_check(job: Job, file: InputFile) -> Arrival | None:
    refs = [job.store.refs(kind, job.recipe.name) for kind in ("validate", "rejected-data")]
    for ref in islice(sorted(chain(*refs), key=lambda item: item.rsplit("/", 1)[1], reverse=True), CHECKS_SEARCHED):
        try:
            arrivals = job.store.open(ref).read_json("validation.json")["arrivals"]
        except ArtifactError:
            continue
        of_day = (item for item in arrivals if item["date"] == str(file.date))
        found = next((item for item in of_day if item["sha256"] == file.digest), None)
        if found is not None:
            return Arrival.model_validate(found)
    return None
