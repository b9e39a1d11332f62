#!/bin/sh
# Run once by the Postgres image, when its data directory is empty: the role that Quantlytic uses. It may make databases
# and is no superuser. The password comes from the environment and is quoted by psql.
set -eu
psql --set ON_ERROR_STOP=1 --set password="$QUANTLYTIC_POSTGRES_PASSWORD" --username postgres --dbname postgres <<'SQL'
CREATE ROLE quantlytic LOGIN CREATEDB PASSWORD :'password';
SQL
