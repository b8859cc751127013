"""Where the store lies, and how writes outlive a server that goes away: the same transaction, tried again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from accordance.core.errors import DataError, MissingExtra
from accordance.feedback.store.schema import sqlalchemy

Result = TypeVar("Result")

#: Classes of SQLSTATE after which the same transaction may succeed: connection lost, too many connections,
#: a conflict with another transaction, the server stopping or starting.
_PASSING = ("08", "53300", "40", "57P")
#: What a server says to a connection that it will refuse the next time too.
_REFUSED = ("password", "does not exist", "pg_hba", "authentication", "could not translate host")


def url_of(place: str | Path) -> str:
    """A database URL from a URL or the path of an SQLite file; PostgreSQL goes through psycopg 3.

    Raises:
        DataError: the folder of the file does not exist.
    """
    text = str(place)
    for short in ("postgres://", "postgresql://"):
        if text.startswith(short):
            return "postgresql+psycopg://" + text.removeprefix(short)
    if "://" in text:
        return text
    path = Path(text).expanduser().absolute()
    if not path.parent.is_dir():
        raise DataError(
            "the store can't be made there",
            where=text,
            found=f"no folder {path.parent}",
            remedy="make it first",
        )
    return f"sqlite:///{path}"


def connect(place: str | Path) -> Any:
    """An SQLAlchemy engine.

    Raises:
        MissingExtra: SQLAlchemy or the database's driver is not installed.
        DataError: no such kind of database.
    """
    sa = sqlalchemy()
    url = url_of(place)
    try:
        engine = sa.create_engine(url, pool_pre_ping=not url.startswith("sqlite"))
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "psycopg", "store", "reaching a PostgreSQL store") from error
    except sa.exc.ArgumentError as error:
        raise DataError(
            "this names no database",
            where=str(place),
            found=str(error),
            expected="the path of an SQLite file, or postgresql://user@host/name",
        ) from error
    if engine.dialect.name == "sqlite":

        @sa.event.listens_for(engine, "connect")
        def _prepare(connection: Any, _: Any) -> None:
            for pragma in (
                "foreign_keys = ON",
                "journal_mode = WAL",
                "synchronous = FULL",
                "busy_timeout = 5000",
            ):
                connection.execute(f"PRAGMA {pragma}")

    return engine


def passing(error: Any) -> bool:
    """Whether the same work may succeed a little later: the server is away, restarting, busy or in conflict."""
    sa = sqlalchemy()
    if not isinstance(error, sa.exc.DBAPIError):
        return isinstance(error, sa.exc.TimeoutError)
    state = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return state.startswith(_PASSING)
    said = str(error.orig).lower()
    if type(error.orig).__module__.startswith("sqlite3"):
        return "locked" in said or "busy" in said
    lost = error.connection_invalidated or isinstance(error, (sa.exc.OperationalError, sa.exc.InterfaceError))
    return lost and not any(word in said for word in _REFUSED)


def persist(work: Callable[[], Result], *, patience: float, where: str, first: float = 0.05) -> Result:
    """Do a piece of work, and again while what stopped it may pass, waiting longer each time.

    The work must be idempotent: where the answer was lost, it may have been done already.

    Args:
        work: what to do; one transaction.
        patience: seconds after which no new attempt starts.
        where: the store, for messages.
        first: seconds of the first wait; it doubles up to two seconds, with jitter, so that clients who lost the
            server together don't all return together.

    Raises:
        DataError: the store can't be reached within `patience`, or it refuses the work for good.
    """
    sa = sqlalchemy()
    end, wait, tries = time.monotonic() + patience, first, 0
    while True:
        tries += 1
        try:
            return work()
        except sa.exc.IntegrityError:
            raise
        except (sa.exc.DBAPIError, sa.exc.TimeoutError) as error:
            cause = " ".join(str(getattr(error, "orig", None) or error).split())
            if not passing(error):
                raise DataError("the store refuses", where=where, found=cause) from error
            if time.monotonic() + wait > end:
                raise DataError(
                    "the store can't be reached",
                    where=where,
                    found=f"{cause} ({tries} attempts in {patience:g} s)",
                    remedy="start the server and do the same again: what was written is not written twice",
                ) from error
        time.sleep(wait * random.uniform(0.5, 1.5))
        wait = min(2 * wait, 2.0)
