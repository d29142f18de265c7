"""Kinds of task: inputs, route and answers of each, for recipes, release cards and the service."""
