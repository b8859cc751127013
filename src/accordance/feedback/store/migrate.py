"""Bringing a store's tables up to date: alembic's migrations, which are shipped in `migrations/`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from accordance.core.errors import DataError, MissingExtra
from accordance.feedback.store.schema import sqlalchemy

#: Any number that is ours: clients that open an empty PostgreSQL store at once make the tables one after another.
_LOCK = 20_161_004


def migrate(engine: Any, where: str, revision: str = "head") -> str:
    """Bring the tables to a revision, the newest by default; a store that is there already is left alone.

    Args:
        engine: of the store.
        where: the store, for messages.
        revision: another one to go to, forward or back.

    Returns:
        The revision that the store is at.

    Raises:
        DataError: the store was made by a newer version of the package, or is no store of ours.
        MissingExtra: alembic is not installed.
    """
    try:
        from alembic import command
        from alembic.config import Config
        from alembic.runtime.migration import MigrationContext
        from alembic.script import ScriptDirectory
    except ImportError as error:
        raise MissingExtra("alembic", "store", "making the tables of a store") from error
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    script = ScriptDirectory.from_config(config)
    known = [each.revision for each in script.walk_revisions()][::-1]
    wanted = known[-1] if revision == "head" else revision

    with engine.connect() as connection:
        if MigrationContext.configure(connection).get_current_revision() == wanted:
            return wanted
    with _alone(engine) as connection:
        now = MigrationContext.configure(connection).get_current_revision()
        if now is not None and now not in known:
            raise DataError(
                "the store was made by a newer version",
                where=where,
                found=f"revision {now}",
                expected=f"at most {known[-1]}",
                remedy="upgrade accordance",
            )
        names = set(sqlalchemy().inspect(connection).get_table_names())
        if now is None and names & {"people", "tasks", "judgments"}:
            raise DataError(
                "the database holds tables of somebody else's under the names of ours",
                where=where,
                found=", ".join(sorted(names)[:8]),
                remedy="give the store a database of its own",
            )
        config.attributes["connection"] = connection
        forward = now is None or known.index(now) <= known.index(wanted)
        (command.upgrade if forward else command.downgrade)(config, wanted)
    return wanted


@contextlib.contextmanager
def _alone(engine: Any) -> Any:
    """A transaction while nobody else changes the tables."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        elif engine.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        yield connection
        connection.commit()
