"""The local stack: Airflow and the service as detached processes on loopback, recorded so that they can be stopped."""
