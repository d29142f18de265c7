"""Encoders, heads and tokenizers."""
