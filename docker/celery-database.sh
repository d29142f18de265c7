#!/bin/bash
# Create the database of Celery's results, with a user of its own. The image of Postgres runs it once, in an empty volume.
# Workers sign in as this user, who cannot read Airflow's database.
set -euo pipefail
psql --set ON_ERROR_STOP=1 --set password="$CELERY_PASSWORD" --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
CREATE USER celery PASSWORD :'password';
CREATE DATABASE celery OWNER celery;
REVOKE CONNECT ON DATABASE airflow FROM PUBLIC;
SQL
