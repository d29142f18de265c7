"""Types of arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

#: Labels, classes, scores or other numbers; the docstrings say which, with the shape.
Numbers = np.ndarray[Any, Any]
