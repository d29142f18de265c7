"""The shipped sample: synthetic reviews and sentence pairs for a first run."""

from pipeline.sample.generate import is_sample, write_sample

__all__ = ["is_sample", "write_sample"]
