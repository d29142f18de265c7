"""Export a trained model to ONNX and check its parity with the original."""
