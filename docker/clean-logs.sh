#!/bin/bash
# Delete old task logs now and then, forever. Airflow's Helm chart runs it beside each of its containers, and passes these
# variables.
set -euo pipefail
directory="${AIRFLOW_HOME:?}/logs"
days="${AIRFLOW__LOG_RETENTION_DAYS:-15}"
minutes="${AIRFLOW__LOG_CLEANUP_FREQUENCY_MINUTES:-15}"
trap 'exit 0' INT TERM
while true; do
  # A task may write or delete files at the same time.
  find "$directory" -type f -name '*.log' -mmin "+$((days * 1440))" -delete || true
  find "$directory" -mindepth 1 -type d -empty -mmin +60 -delete || true
  sleep "$((minutes * 60))" &
  wait $!
done
