"""Base models, tokenizers, heads, and trained models."""
