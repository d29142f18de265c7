"""The command line: every stage and the whole pipeline without Airflow, and the served models."""
