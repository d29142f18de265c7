"""Metrics of labels and scores, their intervals, and comparisons of two models; independent of recipes."""
