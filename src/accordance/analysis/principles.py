"""Principles: propose them from comparisons, have a judge vote on every comparison, keep those the labels bear out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from accordance.analysis.table import PairTable
from accordance.core.errors import DataError

#: A principle, a prompt, and two texts.
Question = tuple[str, str, str]


@runtime_checkable
class PrincipleJudge(Protocol):
    """Proposes principles and votes on them. A language model, or a scripted stand-in."""

    def propose(self, prompt: str, preferred: str, other: str, many: int) -> Sequence[str]:
        """At most `many` principles that would explain why `preferred` was preferred."""
        ...

    def vote(self, principles: Sequence[str], questions: Sequence[Question]) -> np.ndarray:
        """Which text each principle favours; the judge is not told the label.

        Args:
            principles: m of them.
            questions: (prompt, first text, second text), n of them.

        Returns:
            Shape [n, m]: 1 the first text, -1 the second, 0 neither, NaN where the answer can't be read.
        """
        ...


@dataclass(frozen=True)
class ScriptedJudge:
    """A judge from functions of (prompt, text): a principle favours the text in which its function is larger.

    Attributes:
        measures: principle -> function; the sign is in the principle, so give "more" and "less" separately.
        seed: of the order in which `propose` names what differs.
    """

    measures: Mapping[str, Callable[[str, str], float]]
    seed: int = 0

    def propose(self, prompt: str, preferred: str, other: str, many: int) -> Sequence[str]:
        """Principles whose measure is larger for the preferred text, in an order that depends on the texts only."""
        import zlib

        true = [name for name, f in self.measures.items() if f(prompt, preferred) > f(prompt, other)]
        generator = np.random.default_rng([self.seed, zlib.crc32(f"{prompt}\0{preferred}\0{other}".encode())])
        return [true[i] for i in generator.permutation(len(true))[:many]]

    def vote(self, principles: Sequence[str], questions: Sequence[Question]) -> np.ndarray:
        """See `PrincipleJudge.vote`; a principle that is not in `measures` gets NaN."""
        votes = np.full((len(questions), len(principles)), np.nan)
        for j, principle in enumerate(principles):
            if (f := self.measures.get(principle)) is not None:
                votes[:, j] = [np.sign(f(p, a) - f(p, b)) for p, a, b in questions]
        return votes


def blind_votes(
    judge: PrincipleJudge, principles: Sequence[str], table: PairTable, *, batch: int = 40, seed: int = 0
) -> np.ndarray:
    """Votes with the sides shown in random order, turned back, shape [n, m]; at most `batch` principles at once.

    Raises:
        DataError: the judge answers with another shape, or with something that is no vote.
    """
    texts, prompts = table.texts, table.prompts
    turned = np.random.default_rng(seed).random(len(table)) < 0.5
    questions = []
    for a, b, turn in zip(table.first.tolist(), table.second.tolist(), turned.tolist()):
        left, right = (b, a) if turn else (a, b)
        questions.append(
            (prompts[int(table.text_prompt[a])].as_py(), texts[left].as_py(), texts[right].as_py())
        )
    columns = []
    for start in range(0, len(principles), batch):
        some = list(principles[start : start + batch])
        votes = np.asarray(judge.vote(some, questions), dtype=np.float64)
        if (
            votes.shape != (len(questions), len(some))
            or not (np.isnan(votes) | np.isin(votes, (-1, 0, 1))).all()
        ):
            raise DataError(
                "a judge votes 1, 0, -1 or NaN on each comparison and principle",
                found=f"shape {votes.shape}",
                expected=f"shape {(len(questions), len(some))}",
            )
        columns.append(votes * np.where(turned, -1.0, 1.0)[:, None])
    return np.concatenate(columns, axis=1) if columns else np.zeros((len(table), 0))


def cluster(vectors: np.ndarray, many: int, seed: int = 0) -> np.ndarray:
    """A cluster for each vector (k-means++), as codes, shape [n]; each its own where there are no more than `many`."""
    from scipy.cluster.vq import kmeans2

    distinct = np.unique(vectors, axis=0, return_inverse=True)[1].ravel()
    if distinct.max(initial=-1) + 1 <= many:
        return distinct
    generator: Any = np.random.default_rng(seed)  # SciPy's own stubs lag behind its argument
    return kmeans2(vectors, many, minit="++", rng=generator, missing="warn")[1]
