"""Run a release: batches, ONNX Runtime sessions, CUDA graphs."""
