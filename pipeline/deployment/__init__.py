"""Deploy a release, build its Bento, and delete outdated artifacts."""
