"""Publish a release for others: a model directory for transformers or sentence-transformers, here or on the hub."""
