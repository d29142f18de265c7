"""Create a virtual environment with the pinned packages, and start the stack in it. Standard library only.

`python3 -m pipeline.stack.bootstrap` installs into `.venv`. With `--up` it first checks whether the stack can start,
then installs, then becomes `saebyeok up`.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.recipes.files import recipe_directories
from pipeline.stack import preflight
from pipeline.stack.installer import EXTRAS, Installer, InstallError
from pipeline.stack.terminal import Progress

ROOT = Path(__file__).resolve().parents[2]
#: Default addresses of the stack. They repeat those of `pipeline.settings`, which needs pydantic.
URLS = {"SAEBYEOK_AIRFLOW_URL": "http://127.0.0.1:8080", "SAEBYEOK_SERVICE_URL": "http://127.0.0.1:3000"}
#: Files that decide which packages are installed.
FILES = ("pyproject.toml", "constraints.txt", "constraints.lock")


def main(arguments: list[str]) -> int:
    """Check the conditions, install unless installed, and with `--up` start the stack. Returns the exit code."""
    begun = time.monotonic()
    options = parser().parse_args(arguments)
    home = Path(preflight.text_setting("SAEBYEOK_HOME", str(ROOT / ".saebyeok"))).expanduser()
    progress = Progress(sys.stdout)
    installer = Installer(ROOT, options.venv, home / "logs" / "install.log", progress, torch=not options.without_torch)
    installed = is_installed(installer)
    problem = next(problems(home, starting=options.up is not None, installed=installed), None)
    if problem:
        sys.stderr.write(f"saebyeok: {problem}\n")
        return 1
    if not installed and (status := install(installer, starting=options.up is not None)):
        return status
    if options.up is not None:
        command = [str(options.venv / "bin" / "saebyeok"), "up", "--begun", str(begun), *options.up]
        os.execv(command[0], command)  # noqa: S606
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    parser = argparse.ArgumentParser(prog="python3 -m pipeline.stack.bootstrap", allow_abbrev=False)
    parser.add_argument("--venv", type=lambda text: Path(text).absolute(), default=ROOT / ".venv", help="directory")
    parser.add_argument("--without-torch", action="store_true", help="leave out torch, which plain tests do not need")
    parser.add_argument("--up", nargs=argparse.REMAINDER, help="then run `saebyeok up` with the rest of the arguments")
    return parser


def install(installer: Installer, *, starting: bool) -> int:
    """Install and record what was installed. Returns the exit code."""
    stamp_file(installer).unlink(missing_ok=True)
    installer.progress.say(expectation(starting=starting))
    try:
        installer.install()
    except InstallError as error:
        sys.stderr.write(f"\nsaebyeok: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nsaebyeok: interrupted; downloads are kept, rerun the command to resume\n")
        return 130
    stamp_file(installer).write_text(stamp(installer))
    installer.progress.step(f"installed; the output of uv and pip is in {installer.log}")
    return 0


def expectation(*, starting: bool) -> str:
    """Return how long an installation takes, and a start after it."""
    text = (
        "Installing takes 1 to 3 minutes on a fast network: it downloads 0.9 GB of packages (3.5 GB with CUDA), once."
    )
    later = (
        "Then Airflow and the service start (1 minute), and the first run trains both recipes (3 to 6 on two cores)."
    )
    return f"{text}\n{later}" if starting else text


def problems(home: Path, *, starting: bool, installed: bool) -> Iterator[str]:
    """Yield the problems that would make the installation or the start fail, cheapest checks first."""
    data = preflight.text_setting("SAEBYEOK_DATA", "")
    checks: list[Callable[[], str | None]] = [
        lambda: preflight.platform_problem(platform.system(), platform.machine(), platform.libc_ver()),
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


def stamp(installer: Installer) -> str:
    """Return a digest of everything that decides which packages are installed."""
    digest = hashlib.sha256(f"{EXTRAS} {sys.version_info[:2]} {installer.torch}".encode())
    for name in FILES:
        digest.update((installer.root / name).read_bytes())
    return digest.hexdigest()


def stamp_file(installer: Installer) -> Path:
    """Return the path of the stamp, which exists only after a complete installation."""
    return installer.venv / "installed.sha256"


def is_installed(installer: Installer) -> bool:
    """Return whether the environment matches this Python and the current files."""
    file = stamp_file(installer)
    return file.is_file() and file.read_text() == stamp(installer) and Path(installer.python).exists()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
