"""Feedback that people are giving, kept in a database: people, tasks and judgments come in, Records go out.

`Store` opens an SQLite file, or a PostgreSQL server that several people share. Nothing in it is changed or deleted.
To change the tables: `schema.py`, and a file in `migrations/versions/` that brings older stores there.
"""

from accordance.feedback.store.store import Annotator, Entry, Store, Written, task_key

__all__ = ["Annotator", "Entry", "Store", "Written", "task_key"]
