"""Migrations: how an installation that people have follows a change of tables.

An installation has two layouts, each with a version of its own:

- the **state database** (attempts, budgets, order ledger). Alembic's table `alembic_version` names its revision.
- the **lake**. Its table `meta.layout_steps` names the steps that were applied, oldest first.

`quantlytic migrate` brings both up to date, and every command that writes does so before anything else. Whoever opens
an older layout gets `OldLayout`, a newer one `NewLayout`. A database or lake without a version is either empty, and
gets the current layout at once, or it was made before there were versions (commit 5d84320) and gets all steps.

To change a table of the **state database**:

1. Change its declaration in `storage/state.py`.
2. Add `state_versions/versions/NNNN_what_it_does.py` with the next number, after the pattern of the one before. Its
   file name is what people read. `upgrade()` changes tables with Alembic's `op`, and with `op.batch_alter_table`
   where SQLite can't alter in place. Its docstring says why. A test compares what the revisions make with the
   declarations.

To change a table of the **lake**:

1. Change its declaration.
2. Add a module to `lake_steps/`. The first line of its docstring is what people read, the rest says why. It has
   `apply(connection, place)`: `connection` is a DuckDB connection with the lake in use, inside a transaction that
   also records the step, so that a kill leaves all of it or nothing. `tables.py` beside this file renames a table
   (and the name in views that read it), renames a column and adds one; each may be called again.
3. Append the module to `LAKE_STEPS` in `lake.py`. Never reorder, rename or remove one that is on main.

A table that is only added needs no step: `Lake` makes declared tables that are missing. Columns that are added to
dbt's models need none either (`range_table.sql` adds them). A step computes nothing that later code may compute
otherwise: rows that must be made anew are left to `quantlytic backfill`, and the step's docstring says so.

`quantlytic_tests/end_to_end/test_upgrade.py` upgrades an installation of commit 5d84320 with all steps: a new step
adds there what must be true afterwards.
"""
