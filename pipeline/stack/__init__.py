"""The local stack: Airflow and the service as detached processes on loopback, started and stopped by record."""
