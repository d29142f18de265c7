"""The command line: single stages or the whole pipeline without Airflow, and queries to the served models."""
