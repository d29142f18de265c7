"""Encoders of our own: how each is pretrained."""
