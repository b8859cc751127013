"""An embedding that needs no model: hashed words and word pairs, weighed by rarity, reduced to a few directions."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import svds

_WORD = re.compile(r"\w+(?:['’]\w+)?")


@runtime_checkable
class Embedder(Protocol):
    """Texts into vectors."""

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of shape [texts, d]."""
        ...


@dataclass(frozen=True)
class HashedText:
    """Latent semantic analysis (Deerwester et al. 1990) of hashed words and word pairs, fitted on the texts given.

    Attributes:
        dimensions: of the vectors; fewer where there are fewer texts.
        buckets: that words are hashed into.
        pairs: whether pairs of neighbouring words count beside single words.
    """

    dimensions: int = 64
    buckets: int = 2**15
    pairs: bool = True

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of length at most 1 (0 for an empty text), shape [texts, dimensions]."""
        rows: list[int] = []
        columns: list[int] = []
        seen: dict[str, int] = {}
        for i, text in enumerate(texts):
            words = _WORD.findall(text.lower())
            terms = words + [f"{a} {b}" for a, b in pairwise(words)] if self.pairs else words
            for term in terms:
                bucket = seen.get(term)
                if bucket is None:
                    bucket = seen[term] = zlib.crc32(term.encode()) % self.buckets
                columns.append(bucket)
            rows += [i] * len(terms)
        counts = sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(texts), self.buckets))
        counts.sum_duplicates()
        counts.data = 1 + np.log(counts.data)
        rarity = np.log((1 + len(texts)) / (1 + np.bincount(counts.indices, minlength=self.buckets))) + 1
        weighed = sparse.csr_array(counts * rarity)
        size = np.sqrt(np.asarray(weighed.multiply(weighed).sum(1)).ravel())
        weighed = sparse.diags_array(1 / np.where(size > 0, size, 1)) @ weighed
        inner: Any = weighed @ weighed.T if len(texts) <= 1000 else None  # SciPy's stubs take it for dense
        if inner is not None:  # few enough for the exact decomposition of their inner products
            values, vectors = np.linalg.eigh(inner.toarray())
            return vectors[:, ::-1][:, : self.dimensions] * np.sqrt(
                np.maximum(values[::-1][: self.dimensions], 0)
            )
        left, values, _ = svds(weighed, k=min(self.dimensions, len(texts) - 1), rng=np.random.default_rng(0))
        return left[:, ::-1] * values[::-1]
