"""The tables of the store. Rows are only ever added: a correction is a new row that names the one it replaces.

SQLAlchemy belongs to the extra `store`, so the tables are built when a store is opened, not on import.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from accordance.core.errors import MissingExtra

if TYPE_CHECKING:
    from sqlalchemy import MetaData, Table


class Tables(NamedTuple):
    """The tables: who judged, what was judged, what was said; and under which metadata."""

    people: Table
    tasks: Table
    judgments: Table
    metadata: MetaData


def sqlalchemy() -> Any:
    """The library.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import sqlalchemy as library
    except ImportError as error:
        raise MissingExtra("sqlalchemy", "store", "keeping judgments in a store") from error
    return library


@cache
def tables() -> Tables:
    """The tables as they are now; `migrations/` brings older stores up to them.

    Every table has `number` (the order in which rows came), `key` (given by the client, so that a write that is
    tried again is one write), `said` (when, UTC) and `supersedes` (the key of the row that this one replaces; no
    row is replaced twice, so corrections form a line, never a fork).
    """
    sa = sqlalchemy()
    metadata = sa.MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "ix": "ix_%(table_name)s_%(column_0_name)s",
        }
    )

    def table(name: str, *columns: Any) -> Table:
        return sa.Table(
            name,
            metadata,
            # SQLite counts up only in a column of exactly this type.
            sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
            sa.Column("key", sa.Text, nullable=False, unique=True),
            sa.Column("said", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
            sa.Column("supersedes", sa.Text, sa.ForeignKey(f"{name}.key"), nullable=True, unique=True),
            *columns,
        )

    people = table(
        "people",
        sa.Column("name", sa.Text, nullable=False, index=True),
        sa.Column("group", sa.Text, nullable=True),
        sa.Column("profile", sa.Text, nullable=False),  # JSON
    )
    tasks = table(
        "tasks",
        sa.Column("project", sa.Text, nullable=False, index=True),
        sa.Column("responses", sa.Integer, nullable=False),  # how many there are to judge
        sa.Column("record", sa.Text, nullable=False),  # JSON: a row of our own format, without judgments
    )
    judgments = table(
        "judgments",
        sa.Column("task", sa.Text, sa.ForeignKey("tasks.key"), nullable=False, index=True),
        sa.Column("annotator", sa.Text, nullable=True, index=True),
        sa.Column("kind", sa.Text, nullable=False),  # of the judgment, or "withdrawn"
        sa.Column("judgment", sa.Text, nullable=False),  # JSON: the fields of a Judgment, or {} where withdrawn
    )
    return Tables(people, tasks, judgments, metadata)
