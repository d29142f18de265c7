#!/bin/bash
# Create the databases in an empty volume and run the scripts, on the socket only; then become the command.
set -euo pipefail
if [[ "$(id -u)" == 0 ]]; then
  chown postgres "$PGDATA"
  chmod 700 "$PGDATA"
  exec setpriv --reuid postgres --regid postgres --init-groups --pdeathsig KILL "$0" "$@"
fi
if [[ ! -s "$PGDATA/PG_VERSION" ]]; then
  initdb --username "$POSTGRES_USER" --pwfile <(echo "$POSTGRES_PASSWORD") --auth-local trust --auth-host scram-sha-256
  echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
  echo "listen_addresses = '*'" >>"$PGDATA/postgresql.conf"
  pg_ctl start --wait --options "-c listen_addresses=''"
  psql --username "$POSTGRES_USER" --dbname postgres --command "CREATE DATABASE \"$POSTGRES_DB\""
  for script in /docker-entrypoint-initdb.d/*; do "$script"; done
  pg_ctl stop --wait --mode fast
fi
exec "$@"
