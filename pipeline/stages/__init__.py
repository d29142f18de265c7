"""The seven stages: each computes its key, and reuses or builds its artifact."""
