"""Evaluation of a trained model: metrics, behavioural tests, the promotion decision and the report."""
