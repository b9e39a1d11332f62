"""Alembic's scripts for the state database; see `quantlytic_assets.storage.migrations` for how to add a revision."""
