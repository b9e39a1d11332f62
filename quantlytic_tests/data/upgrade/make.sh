# Run in an empty directory beside acme.csv, actions.csv and universe.yaml; QUANTLYTIC is the command of commit 5d84320.
set -eux
export QUANTLYTIC_HOME=$PWD/home QUANTLYTIC_UNIVERSE=$PWD/universe.yaml
$QUANTLYTIC import acme.csv --dataset mine_1d --symbol ACME
$QUANTLYTIC import-actions actions.csv --dataset mine_1d
$QUANTLYTIC backfill mine_1d
$QUANTLYTIC backfill equities_1d --to 2018-01-31
$QUANTLYTIC backfill crypto_1m --to 2025-05-10
tar --exclude=home/lake/extensions --exclude=home/dbt --exclude=home/logs --exclude='*.lock' \
    -cJf installation.tar.xz universe.yaml home
