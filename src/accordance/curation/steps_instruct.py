"""Steps for instructions: new ones by ROUGE-L, bootstrapped from a few, the best answer of k, sets mixed in ratios."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import Field

from accordance.core.errors import ConfigError, DataError
from accordance.core.record import Judgment, Records
from accordance.curation.curry import response_ratings
from accordance.curation.pipeline import Plan, Step, Tools, step
from accordance.curation.steps_people import response_scores


def rouge_l(a: Sequence[str], b: Sequence[str]) -> float:
    """ROUGE-L of two lists of words: F1 of their longest common subsequence (Lin 2004)."""
    if not a or not b:
        return 0.0
    row = np.zeros(len(b) + 1, dtype=np.int64)
    other = np.array([hash(word) for word in b])
    for word in a:
        match = np.where(other == hash(word), row[:-1] + 1, 0)
        row[1:] = np.maximum.accumulate(np.maximum(match, row[1:]))
    return float(2 * row[-1] / (len(a) + len(b)))


class Novel:
    """Remembers texts, and says which earlier one a new text is too much like.

    Only texts that share enough words can be alike, so that few of the earlier ones are looked at closely.

    Args:
        limit: ROUGE-L from which two texts are alike.
    """

    def __init__(self, limit: float = 0.7) -> None:
        if not 0 < limit <= 1:
            raise ConfigError("a limit of likeness lies above 0 and at most 1", found=limit)
        self.limit = limit
        self.texts: list[list[str]] = []
        self._holders: dict[str, list[int]] = defaultdict(list)

    def like(self, text: str) -> tuple[int, float] | None:
        """(which earlier text, ROUGE-L) of the likest one at or above the limit; None where the text is new."""
        words = re.findall(r"\w+", text.casefold())
        shared: dict[int, int] = defaultdict(int)
        for word in dict.fromkeys(words):
            for place in self._holders[word]:
                shared[place] += min(words.count(word), self.texts[place].count(word))
        best: tuple[int, float] | None = None
        for place, many in shared.items():
            other = self.texts[place]
            if 2 * many < self.limit * (len(words) + len(other)):
                continue
            score = rouge_l(words, other)
            if score >= self.limit and (best is None or score > best[1]):
                best = place, score
        return best

    def add(self, text: str) -> None:
        """Remember a text."""
        words = re.findall(r"\w+", text.casefold())
        for word in set(words):
            self._holders[word].append(len(self.texts))
        self.texts.append(words)


def self_instruct(
    seeds: Sequence[str],
    propose: Callable[[Sequence[str], int], Iterable[str]],
    wanted: int,
    *,
    limit: float = 0.7,
    examples: int = 8,
    rounds: int = 100,
    seed: int = 0,
) -> list[str]:
    """Instructions bootstrapped from a few: a model is shown some and proposes more, and only new ones are kept.

    Args:
        seeds: instructions to start from; kept where they differ from each other.
        propose: given some instructions and the number of the round, proposes new ones.
        wanted: how many instructions in all.
        limit: ROUGE-L at which a proposal is too much like one that is there.
        examples: instructions shown each round, drawn at random from all so far.
        rounds: at most so many.
        seed: of the draw.

    Returns:
        The instructions, seeds first; fewer than `wanted` where the rounds did not bring more.

    Raises:
        DataError: no seeds.
    """
    if not seeds:
        raise DataError("self-instruction needs instructions to start from")
    known, kept, generator = Novel(limit), [], np.random.default_rng(seed)

    def take(text: str) -> None:
        if len(kept) < wanted and text.strip() and known.like(text) is None:
            known.add(text)
            kept.append(text)

    for text in seeds:
        take(text)
    for number in range(rounds):
        if len(kept) >= wanted:
            break
        shown = generator.choice(len(kept), min(examples, len(kept)), replace=False)
        for text in propose([kept[i] for i in shown], number):
            take(text)
    return kept


@step("drop_similar")
class DropSimilar(Step):
    """Drop records whose prompt is too much like an earlier one's, by ROUGE-L over words (S026).

    Attributes:
        limit: ROUGE-L from which two prompts are alike.
    """

    limit: float = Field(0.7, gt=0, le=1)

    def plan(self, records: Records, tools: Tools) -> Plan:
        """See `Step.plan`."""
        plan, known, rows = Plan(), Novel(self.limit), []
        for row, record in enumerate(records):
            found = known.like(record.prompt_text)
            if found is None:
                known.add(record.prompt_text)
                rows.append(row)
            else:
                plan.drop(row, "prompt much like an earlier one", first=rows[found[0]], rouge_l=found[1])
        return plan


@step("keep_best")
class KeepBest(Step):
    """Keep the best response of each prompt, as a demonstration to imitate: a round of best-of-k (RAFT).

    Attributes:
        scorer: says which is best; by default ratings, or values in rankings, do.
        least: score below which even the best is not kept.
    """

    scorer: Any = None
    least: float | None = None

    def plan(self, records: Records, tools: Tools) -> Plan:
        """See `Step.plan`."""
        plan = Plan()
        if self.scorer is None:
            scored = [response_ratings(record) for record in records]
        else:
            scored = response_scores(records, tools.scorer(self.scorer, "keep_best"), tools)
        for row, (record, given) in enumerate(zip(records, scored)):
            known = [(score, -i) for i, score in enumerate(given) if score is not None]
            best, place = max(known, default=(float("nan"), 0))
            if not known or (self.least is not None and best < self.least):
                plan.drop(
                    row, "no response was rated" if not known else "even the best is not good enough", best=best
                )
                continue
            shown = replace(
                record,
                responses=(record.responses[-place],),
                judgments=(Judgment("demonstration", (0,)),),
                extras={key: value for key, value in record.extras.items() if key != "weights"},
            )
            plan.change(row, shown, "the best response, to imitate", best=best, of=len(known))
        return plan


def mix(parts: Mapping[str, Records], shares: Mapping[str, float], size: int, seed: int = 0) -> Records:
    """Records of several sources in given ratios, shuffled; `extras["source_set"]` names the source of each.

    Args:
        parts: records by name.
        shares: how much of each; scaled to add up to 1.
        size: how many in all.
        seed: of the draw and of the order.

    Raises:
        ConfigError: names that do not match, or shares that are not positive.
        DataError: a source has fewer records than its share.
    """
    if set(parts) != set(shares) or min(shares.values(), default=0) <= 0:
        raise ConfigError("shares are positive, one per source", found=dict(shares), expected=", ".join(parts))
    generator, made = np.random.default_rng(seed), []
    total = sum(shares.values())
    ends = np.round(np.cumsum([shares[name] / total * size for name in parts])).astype(int)
    for (name, records), many in zip(parts.items(), np.diff(ends, prepend=0).tolist()):
        if many > len(records):
            raise DataError(
                "a source has too few records for its share", where=name, found=len(records), expected=str(many)
            )
        chosen = records.select(np.sort(generator.choice(len(records), many, replace=False)).tolist())
        made += [replace(record, extras={**record.extras, "source_set": name}) for record in chosen]
    order = generator.permutation(len(made))
    return Records.of([made[i] for i in order], source=" + ".join(parts))
