"""Drafts for a new data set: a recipe with its suite from a look at the data, and thresholds from trainings."""
