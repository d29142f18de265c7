"""Pretrain an encoder on raw text."""
