"""Export a trained model to ONNX and check that it answers alike."""
