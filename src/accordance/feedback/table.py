"""Records into one Arrow table: in memory while small, else in a file; never as Python objects all at once."""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable
from functools import cache
from itertools import islice
from pathlib import Path

import pyarrow as pa
from datasets import Dataset, config
from datasets.fingerprint import generate_random_fingerprint
from datasets.table import InMemoryTable

from accordance.core import record as record_module
from accordance.core.errors import DataError
from accordance.core.record import FEATURES, Account, Record
from accordance.feedback.formats import FORMATS

#: Records are held in memory up to so many bytes, beyond that in a memory-mapped file.
MEMORY = 64 * 2**20
_BATCH = 1000


def build(records: Iterable[Record], account: Account, key: str | None = None) -> Dataset:
    """A table of records.

    Args:
        records: read once, a batch at a time.
        account: filled by whoever makes the records; stored beside a file, so that both are found again.
        key: names the content (see `key_of`); a file is kept under it and found by `find`. None: the file goes
            when the process ends.

    Raises:
        DataError: the file can't be written.
    """
    schema = FEATURES.arrow_schema
    rest = iter(records)
    batches: list[pa.RecordBatch] = []
    size = 0
    while size <= MEMORY:
        batch = _batch(rest, schema)
        if batch is None:
            table = InMemoryTable(pa.Table.from_batches(batches, schema=schema))
            # Left to itself, `Dataset` pickles the whole table to name it.
            return Dataset(table, fingerprint=key or generate_random_fingerprint())
        batches.append(batch)
        size += batch.nbytes
    try:
        return _spill(batches, rest, schema, account, key)
    except OSError as problem:
        raise DataError(
            "the records can't be written to the cache",
            where=str(_home()),
            found=str(problem),
            remedy="free space there, set HF_DATASETS_CACHE to another folder, or load with streaming=True",
        ) from problem


def find(key: str) -> tuple[Dataset, Account] | None:
    """What `build` kept under this key."""
    folder = _home() / key
    try:
        account = _read_account(folder / "account.json")
        return Dataset.from_file(str(folder / "records.arrow")), account
    except (OSError, ValueError, KeyError, pa.ArrowInvalid):
        return None


def key_of(files: Iterable[tuple[Path, str]], *options: object) -> str | None:
    """A key of what the files hold, how they are read, and the code that reads them.

    None where a format was registered from outside the package, whose code is not in the key.
    """
    if not all(form.read.__module__.startswith("accordance.feedback.") for form in FORMATS.values()):
        return None
    digest = hashlib.blake2b(_code().encode(), digest_size=16)
    digest.update(repr(options).encode())
    for path, label in files:
        digest.update(repr((str(path), label)).encode())
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "blake2b").digest())
    return digest.hexdigest()


def _batch(records: Iterable[Record], schema: pa.Schema) -> pa.RecordBatch | None:
    rows = [record.to_row() for record in islice(records, _BATCH)]
    return pa.RecordBatch.from_pylist(rows, schema=schema) if rows else None


def _spill(
    batches: list[pa.RecordBatch], rest: Iterable[Record], schema: pa.Schema, account: Account, key: str | None
) -> Dataset:
    home = _home()
    home.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="new-", dir=home))
    try:
        with pa.OSFile(str(folder / "records.arrow"), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
            batches.clear()
            while (batch := _batch(rest, schema)) is not None:
                writer.write_batch(batch)
        _write_account(account, folder / "account.json")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if key is None:
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return Dataset.from_file(str(folder / "records.arrow"))
    try:
        os.replace(folder, home / key)
    except OSError:  # another process was first with the same content
        shutil.rmtree(folder, ignore_errors=True)
    return Dataset.from_file(str(home / key / "records.arrow"))


def _home() -> Path:
    return Path(config.HF_DATASETS_CACHE) / "accordance"


def _write_account(account: Account, path: Path) -> None:
    held = {
        "read": account.read,
        "dropped": dict(account.dropped),
        "rows": account.rows,
        "notes": dict(account.notes),
    }
    path.write_text(json.dumps(held, ensure_ascii=False), encoding="utf-8")


def _read_account(path: Path) -> Account:
    held = json.loads(path.read_text(encoding="utf-8"))
    return Account(held["read"], Counter(held["dropped"]), held["rows"], Counter(held["notes"]))


@cache
def _code() -> str:
    """A hash of the code that makes records, so that a cache doesn't outlive it."""
    digest = hashlib.blake2b(digest_size=16)
    for path in [*sorted(Path(__file__).parent.rglob("*.py")), Path(str(record_module.__file__))]:
        digest.update(path.read_bytes())
    return digest.hexdigest()
