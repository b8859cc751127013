"""Datasets of the hub and of the `datasets` library, as rows; with honest errors when there is no network."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from datasets import Dataset, DatasetDict, Image, IterableDataset, IterableDatasetDict, load_dataset
from datasets import List as ListOf

from accordance.core.errors import DataError
from accordance.feedback.files import Item
from accordance.feedback.row import Place

_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+)?")


def load(name: str, split: str | None, streaming: bool) -> Dataset | IterableDataset:
    """A dataset of the hub, or of its cache.

    Args:
        name: ``owner/name`` or ``owner/name:config``.
        split: which part; may be left out where there is only one.
        streaming: read over the network while iterating.

    Raises:
        DataError: it is neither there nor a path here; says what the hub answered.
    """
    if not _NAME.fullmatch(name) or name.endswith((".json", ".jsonl", ".csv", ".parquet", ".gz")):
        raise DataError(
            "no such file or folder",
            where=name,
            expected="a path that exists, or the name of a dataset on the hub (owner/name)",
            remedy="check the path; it is relative to the folder in which the command runs",
        )
    repository, _, config = name.partition(":")
    try:
        held: Any = load_dataset(repository, config or None, split=split, streaming=streaming)
    except Exception as problem:
        # The library raises many kinds, from a refused connection to a missing configuration.
        raise DataError(
            "this dataset can't be had",
            where=name,
            found=f"no file or folder of that name here; from the hub: {type(problem).__name__}: {problem}",
            expected="a path, or a dataset that the hub or its cache can give",
            remedy="check spelling, network, HF_TOKEN and HF_HUB_OFFLINE; or download it and pass the path",
        ) from problem
    return choose(held, None) if isinstance(held, (DatasetDict, IterableDatasetDict)) else held


def choose(parts: Mapping[Any, Any], split: str | None) -> Dataset | IterableDataset:
    """The split that is asked for, or the only one.

    Raises:
        DataError: there are several and none is named, or there is none of that name.
    """
    if split is None and len(parts) == 1:
        return next(iter(parts.values()))
    if split is None or split not in parts:
        names = sorted(map(str, parts))
        raise DataError(
            "which split?" if split is None else f"no split {split!r}",
            found=f"splits {names}",
            expected="one of them",
            remedy=f"pass split={'train' if 'train' in names else (names or ['...'])[0]!r}",
        )
    return parts[split]


def rows(dataset: Dataset | IterableDataset, name: str) -> Callable[[], Iterator[Item]]:
    """The rows of a `datasets` table, pictures as the bytes they are."""
    for column, feature in (dataset.features or {}).items():
        if isinstance(feature, Image):
            dataset = dataset.cast_column(column, Image(decode=False))
        elif isinstance(feature, ListOf) and isinstance(feature.feature, Image):
            dataset = dataset.cast_column(column, ListOf(Image(decode=False)))
    plain = dataset.with_format(None)

    def items() -> Iterator[Item]:
        for number, row in enumerate(plain, 1):
            yield Place(name, name, number), row

    return items
