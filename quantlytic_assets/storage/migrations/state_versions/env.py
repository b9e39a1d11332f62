"""Alembic's environment: revisions run on the connection, and in the transaction, of whoever upgrades."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
context.run_migrations()
