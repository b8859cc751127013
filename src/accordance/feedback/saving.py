"""`save_records`: Records to a file that `load_records` gives back exactly."""

from __future__ import annotations

import contextlib
import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

from accordance.core.errors import DataError
from accordance.core.record import Records
from accordance.feedback.formats.own import as_json


def save_records(records: Records, path: str | Path) -> Path:
    """Write records as JSON lines, one record each; `load_records` reads back equal ones.

    The file appears whole or not at all: it is written beside its place and then moved there.

    Args:
        records: a table, or a stream that is read to its end.
        path: a name that ends in ``.jsonl`` or ``.jsonl.gz``; an existing file is replaced.

    Returns:
        The path.

    Raises:
        DataError: the name ends otherwise, or the file can't be written.
    """
    path = Path(path)
    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        raise DataError(
            "records are saved as JSON lines",
            where=str(path),
            found=path.suffix or "no suffix",
            expected="a name that ends in .jsonl or .jsonl.gz",
        )
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        opener: Callable[..., IO[str]] = gzip.open if path.suffix == ".gz" else open  # type: ignore[assignment]
        with opener(new, "wt", encoding="utf-8") as file:
            for record in records:
                file.write(as_json(record) + "\n")
        os.replace(new, path)
    except OSError as problem:
        raise DataError(
            "the file can't be written",
            where=str(path),
            found=str(problem),
            remedy="choose a folder that can be written to and has space left",
        ) from problem
    finally:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
    return path
