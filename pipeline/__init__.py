"""Saebyeok's pipeline: validate, tokenize, train, evaluate, decide, export, deploy."""

__version__ = "0.1.0"
