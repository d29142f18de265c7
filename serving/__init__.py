"""The service: serve the deployed releases over HTTP."""

import os

# `bentoml serve` starts a Bento without Saebyeok's environment. ONNX Runtime reads its variable on import,
# so set both before any module of this package is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
