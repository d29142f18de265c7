#!/bin/bash
# Prepare Airflow's database: its tables, the pool of the GPU tasks, and the first user. Safe to repeat: it keeps an
# existing pool and an existing user as they are.
set -euo pipefail
airflow db migrate
pool="${SAEBYEOK_GPU_POOL:-gpu}"
pools="$(airflow pools list --output plain)"
# A task in a missing pool waits forever.
if ! grep --quiet "^$pool " <<<"$pools"; then
  airflow pools set "$pool" 1 "Slots: the number of GPU workers"
fi
if [[ -n "${AIRFLOW_ADMIN_PASSWORD:-}" ]]; then
  # With "=", because a password may begin with "-".
  airflow users create --role Admin --username admin --password="$AIRFLOW_ADMIN_PASSWORD" \
    --firstname Admin --lastname User --email admin@saebyeok.invalid
fi
