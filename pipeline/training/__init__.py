"""Fine-tuning: trainer, batches, checkpoints and several processes."""
