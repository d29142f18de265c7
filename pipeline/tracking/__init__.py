"""Record runs in Weights & Biases."""
