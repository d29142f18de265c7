"""Answers of earlier models to gate rows, kept on this machine, because each run has only few new gate rows."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Collection
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.atomic_files import replace_file, warn_of_damage
from pipeline.job import Job
from pipeline.store.artifacts import Artifact
from pipeline.store.manifest import code_version, make_key

Numbers = np.ndarray[Any, Any]
#: Errors of reading a damaged file.
DAMAGE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


class AnswerCache:
    """One file per model with its answers, each found by the texts of its row."""

    def __init__(self, directory: Path) -> None:
        """`directory` holds the files; it is created when the first one is written."""
        self._directory = directory

    @classmethod
    def of(cls, job: Job) -> AnswerCache:
        """Return the answers of the earlier models of the job's recipe and store."""
        return cls(job.settings.home / "cache" / "answers" / job.store.digest / job.recipe.name)

    def answers(self, trained: Artifact, rows: pd.DataFrame, answer: Callable[[pd.DataFrame], Numbers]) -> Numbers:
        """Return the answers (n, ...) of a trained artifact to `rows`; `answer` is called for the rows not yet known.

        Afterwards the file has the answers to `rows` only. Raises the errors of `answer`.
        """
        keys = _keys(rows)
        known = self._read(trained)
        new = [key not in known for key in keys]
        if any(new):
            fresh = answer(rows[new].reset_index(drop=True))
            known |= dict(zip([key for key in keys if key not in known], fresh, strict=True))
            self._write(trained, {key: known[key] for key in keys})
        return np.array([known[key] for key in keys])

    def forget_others(self, kept: Collection[Artifact]) -> None:
        """Delete the answers of all models that are not in `kept` (trained artifacts)."""
        names = {self._file(trained).name for trained in kept}
        for path in self._directory.glob("*.npz"):
            if path.name not in names:
                path.unlink(missing_ok=True)

    def _file(self, trained: Artifact) -> Path:
        # Another version of the code may tokenize in another way.
        return self._directory / f"{make_key('answers', 1, {'code': code_version()}, {'trained': trained.ref})}.npz"

    def _read(self, trained: Artifact) -> dict[str, Numbers]:
        path = self._file(trained)
        try:
            # Not `np.load(path)`, which leaves a damaged file open.
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as content:
                return dict(zip(content["keys"].tolist(), content["answers"], strict=True))
        except FileNotFoundError:
            return {}
        except DAMAGE as error:
            warn_of_damage(path, str(error))
            return {}

    def _write(self, trained: Artifact, known: dict[str, Numbers]) -> None:
        content = io.BytesIO()
        np.savez(content, keys=np.array(list(known)), answers=np.array(list(known.values())))
        path = self._file(trained)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content.getvalue(), durable=False)


def _keys(rows: pd.DataFrame) -> list[str]:
    columns = [rows[name] for name in ("text", "text_pair") if name in rows]
    return [blake2b(repr(texts).encode(), digest_size=16).hexdigest() for texts in zip(*columns, strict=True)]
