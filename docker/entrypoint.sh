#!/bin/bash
# Entry point of the Airflow images. Airflow's Helm chart calls it by the name that it has in the official image.
set -euo pipefail
# Volumes stay writable for other users of group 0, as in the official image.
umask 0002
exec "$@"
