"""The sample that ships with Saebyeok: made-up reviews and sentence pairs for a first run."""

from pipeline.sample.generate import is_sample, write_sample

__all__ = ["is_sample", "write_sample"]
