"""Create `.venv`, install the versions of constraints.txt into it, and show the progress. Standard library only.

Run it as `python3.11 -m pipeline.stack.bootstrap [--up]`; with `--up` it first checks whether the stack can start.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.recipes.files import recipe_directories
from pipeline.stack import preflight
from pipeline.stack.terminal import Progress

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
STAMP = VENV / "installed.sha256"
EXTRAS = "airflow,celery,train,serve,dev"
#: Default addresses of the stack. They repeat those of `pipeline.settings`, which needs pydantic.
URLS = {"SAEBYEOK_AIRFLOW_URL": "http://127.0.0.1:8080", "SAEBYEOK_SERVICE_URL": "http://127.0.0.1:3000"}


def main(arguments: list[str]) -> int:
    """Check the conditions, then install unless already installed. Returns the exit code."""
    home = Path(preflight.text_setting("SAEBYEOK_HOME", str(ROOT / ".saebyeok"))).expanduser()
    installed = is_installed()
    problem = next(problems(home, starting="--up" in arguments, installed=installed), None)
    if problem:
        sys.stderr.write(f"saebyeok: {problem}\n")
        return 1
    if installed:
        return 0
    log = home / "logs" / "install.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        return install(log, Progress(sys.stdout))
    except KeyboardInterrupt:
        sys.stderr.write("\nsaebyeok: interrupted; installed packages are kept, rerun the command to continue\n")
        return 130


def problems(home: Path, *, starting: bool, installed: bool) -> Iterator[str]:
    """Yield the problems that would make the installation or the start fail, cheapest checks first."""
    data = os.environ.get("SAEBYEOK_DATA")
    checks: list[Callable[[], str | None]] = [
        lambda: preflight.writing_problem(ROOT),
        lambda: preflight.writing_problem(home),
        lambda: None if installed else preflight.room_problem(ROOT, preflight.INSTALL_BYTES),
    ]
    if starting and data:
        recipes = recipe_directories(preflight.text_setting("SAEBYEOK_RECIPES", ""))
        checks.append(lambda: preflight.data_problem(Path(data).expanduser(), recipes))
    # If a stack is recorded, it may itself hold the ports; `saebyeok up` checks that.
    if starting and not (home / "stack.json").exists():
        urls = {name: preflight.text_setting(name, default) for name, default in URLS.items()}
        for name, url in urls.items():
            checks.append(lambda url=url, name=name: preflight.port_problem(url, name))  # type: ignore[misc]
        checks.append(lambda: preflight.same_port_problem(*urls.values()))
    return (problem for problem in (check() for check in checks) if problem)


def stamp() -> str:
    """Return a digest of everything that decides which packages are installed."""
    digest = hashlib.sha256(f"{EXTRAS} {sys.version_info[:2]}".encode())
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def is_installed() -> bool:
    """Return whether `.venv` matches the current pyproject.toml and constraints.txt."""
    return STAMP.is_file() and STAMP.read_text() == stamp() and (VENV / "bin" / "python").exists()


def install(log: Path, progress: Progress) -> int:
    """Create the virtual environment and install into it; pip's output goes to `log`. Returns the exit code."""
    pins = sum(1 for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    progress.step(f"preparing {VENV} with Python {sys.version.split()[0]}")
    try:
        make_venv()
    except (OSError, subprocess.CalledProcessError) as error:
        sys.stderr.write(
            f"saebyeok: could not create the virtual environment ({error}): "
            "on Debian and Ubuntu, install the package python3.11-venv\n"
        )
        return 1
    progress.step(f"installing about {pins} packages from constraints.txt; pip's output: {log}")
    status = run_pip(log, progress)
    if status != 0:
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
        sys.stderr.write("\n".join(["", *tail, f"saebyeok: pip failed (exit code {status}); full log: {log}\n"]))
        return 1
    STAMP.write_text(stamp())
    progress.step("installed")
    return 0


def make_venv() -> None:
    """Create `.venv`, or keep it if its Python and pip still run."""
    python = str(VENV / "bin" / "python")
    if not Path(python).exists() or subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode:  # noqa: S603
        venv.EnvBuilder(clear=True, symlinks=True, with_pip=True).create(VENV)


def run_pip(log: Path, progress: Progress) -> int:
    """Install everything and show the progress. Returns pip's exit code."""
    command = [str(VENV / "bin" / "python"), "-m", "pip", "install", "--no-input", "--progress-bar=off"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "-c", "constraints.txt", "-e", f".[{EXTRAS}]"]
    temporary = log.parent.parent / "tmp"
    temporary.mkdir(exist_ok=True)
    # pip unpacks wheels in the temporary directory; the system's may be too small, and is outside HOME.
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1"}
    with log.open("w", encoding="utf-8") as file:
        pip = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT)  # noqa: S603
    try:
        while pip.poll() is None:
            progress.show(pip_progress(log.read_text(encoding="utf-8", errors="replace"), count_installed))
            time.sleep(0.5)
    except KeyboardInterrupt:
        # pip got the interrupt too, and undoes its unfinished step itself.
        pip.wait()
        raise
    return pip.returncode


def count_installed() -> int:
    """Return the number of packages in `.venv` so far."""
    return sum(1 for _ in VENV.glob("lib/python*/site-packages/*.dist-info"))


def pip_progress(log: str, installed: Callable[[], int]) -> str:
    """Return pip's progress as text, from its output so far."""
    if found := re.search(r"^Installing collected packages: (.+)", log, re.M):
        packages = found[1].count(",") + 1
        # pip itself is among the installed packages, but not in the list.
        return f"unpacked {min(installed(), packages)} of {packages} packages (the longest step)"
    lines = re.findall(
        r"^(?:Collecting |Processing \S*/| +Downloading )([A-Za-z0-9_]+(?:[.-][A-Za-z_][A-Za-z0-9_]*)*)(.*)", log, re.M
    )
    packages = {canonical(name) for name, _ in lines}
    if not packages:
        return "resolving the packages"
    name, rest = lines[-1]
    size = re.search(r"\(([\d.]+ [MG]B)\)", rest)
    return f"fetched {len(packages) - 1} packages, at {canonical(name)}{f' ({size[1]})' if size else ''}"


def canonical(name: str) -> str:
    """Return a package's normalised name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
