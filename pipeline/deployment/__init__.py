"""Deploy a release, build its Bento, and delete what nothing can need any more."""
