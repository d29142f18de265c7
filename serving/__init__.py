"""The service: what was deployed, answering over HTTP."""

import os

# A Bento is started by `bentoml serve` alone, with nobody to set these: ONNX Runtime reads its own once,
# while it is imported, so it must be set before any module of this package.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
