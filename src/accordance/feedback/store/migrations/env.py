"""What alembic runs: migrations on the connection that `accordance.feedback.store.migrate` hands over."""

from alembic import context

from accordance.feedback.store.schema import tables

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=tables().metadata,
    render_as_batch=True,  # SQLite changes a table by making it anew
)
with context.begin_transaction():
    context.run_migrations()
