"""The order of an interview: first the comparisons whose answers are likely to teach the most (S064)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from accordance.analysis import PairTable, TextFeatures
from accordance.core.errors import ConfigError
from accordance.core.record import Record
from accordance.feedback.interview import Interview, Question
from accordance.feedback.queries import worth
from accordance.feedback.rational import Choice, fit
from accordance.feedback.store import Store

DRAWS = 40


def most_informative_first(
    store: Store, project: str, interview: Interview, seed: int = 0
) -> Callable[[list[Question]], list[Question]]:
    """A function that puts the questions ahead in order, given all that anybody has said so far.

    Responses are described by text features (length, rules, counts), scaled to one standard deviation; the reward
    is linear in them, its posterior is of all overall comparisons in the project. Questions about the same
    responses stay together, the overall one first.

    Raises:
        ConfigError: the questions are no comparisons.
    """
    if interview.kind != "comparison":
        raise ConfigError("only comparisons can be put in an informative order", found=interview.kind)
    asked = {(question.task, frozenset(question.shown)): question for question in interview.questions}
    gaps, scale = _gaps([(question.record, question.shown) for question in asked.values()])
    gap_of = dict(zip(asked, gaps))

    def arrange(ahead: list[Question]) -> list[Question]:
        places = {key: place for place, key in enumerate(asked)}
        said = _said(store, project, scale)
        draws = (
            fit(said).draws(DRAWS, seed)
            if said
            else np.random.default_rng(seed).normal(size=(DRAWS, gaps.shape[1]))
        )
        keys = list(dict.fromkeys((question.task, frozenset(question.shown)) for question in ahead))
        value = dict(zip(keys, worth(np.array([gap_of[key] for key in keys]), draws)))

        def place(question: Question) -> tuple[float, int]:
            key = question.task, frozenset(question.shown)
            return -value[key], places[key]

        return sorted(ahead, key=place)  # stable, so that criteria stay behind the overall question

    return arrange


def _gaps(items: Sequence[tuple[Record, Sequence[int]]], scale: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Features of the first shown less those of the second, in units of their scale; and that scale."""
    texts = [[record.responses[i].text for i in shown] for record, shown in items]
    table = PairTable.of(
        [record.prompt_text for record, _ in items],
        [first for first, _ in texts],
        [second for _, second in texts],
        np.full(len(items), 0.5),
    )
    raw = TextFeatures().differences(table).values
    size = np.sqrt((raw**2).mean(0)) if scale is None else scale
    return np.divide(raw, size, out=np.zeros_like(raw), where=size > 0), size


def _said(store: Store, project: str, scale: np.ndarray) -> list[Choice]:
    """Everybody's overall comparisons of two responses, ties left out: they choose neither."""
    items, won = [], []
    for record in store.records(project):
        for judgment in record.judgments:
            overall = judgment.kind == "comparison" and judgment.attribute is None
            if overall and len(judgment.responses) == 2 and not judgment.tie:
                items.append((record, judgment.responses))
                won.append(judgment.values[0] > judgment.values[1])
    if not items:
        return []
    gaps, _ = _gaps(items, scale)
    return [Choice(np.array([gap, np.zeros_like(gap)]), 0 if first else 1) for gap, first in zip(gaps, won)]
