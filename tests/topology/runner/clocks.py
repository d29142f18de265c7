"""Images whose processes see a late clock; a namespace cannot change the time of day."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

from tests.topology.runner.hosts import STANDING_IN
from tests.topology.runner.images import Image, cached_layer

SOURCE = STANDING_IN / "late_clock.c"
LIBRARY = Path("usr/lib/late_clock.so")


def with_late_clock(image: Image) -> Image:
    """Return the image with a clock that is an hour late."""
    layer = cached_layer(SOURCE.read_text(encoding="utf-8"), _compile)
    return replace(image.and_layer(layer), environment=image.environment | {"LD_PRELOAD": f"/{LIBRARY}"})


def _compile(draft: Path) -> None:
    library = draft / "upper" / LIBRARY
    library.parent.mkdir(parents=True)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, SOURCE], check=True)
