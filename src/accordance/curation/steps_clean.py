"""Steps that take out what teaches nothing or contradicts itself: ties, duplicates, circles, odd lengths."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import Literal

from pydantic import Field, model_validator

from accordance.core.record import Record, Records
from accordance.core.weights import keeping
from accordance.curation.pipeline import Plan, Step, Tools, step


def drop_judgments(plan: Plan, row: int, record: Record, gone: Iterable[int], reason: str) -> None:
    """Plan to take judgments out of a record, and the record itself where none is left."""
    without = set(gone)
    if not without:
        return
    left = [number for number in range(len(record.judgments)) if number not in without]
    if left:
        plan.change(
            row, keeping(record, left), reason, judgments_dropped=len(without), judgments_left=len(left)
        )
    else:
        plan.drop(row, reason, judgments_dropped=len(without))


@step("drop_ties")
class DropTies(Step):
    """Drop comparisons that found no difference, and records that nothing else was said about."""

    def plan(self, records: Records, tools: Tools) -> Plan:
        """See `Step.plan`."""
        plan = Plan()
        for row, record in enumerate(records):
            drop_judgments(plan, row, record, (n for n, j in enumerate(record.judgments) if j.tie), "tie")
        return plan


@step("drop_duplicates")
class DropDuplicates(Step):
    """Drop records that repeat an earlier one, and records whose responses are all the same.

    Attributes:
        of: what has to be equal: ``judged`` (prompt, responses and who said what), ``record`` (prompt and
            responses, in any order) or ``prompt``.
        loose: whether case, punctuation and white space are passed over.
        identical: whether records whose responses are all equal are dropped too.
    """

    of: Literal["judged", "record", "prompt"] = "judged"
    loose: bool = False
    identical: bool = True

    def plan(self, records: Records, tools: Tools) -> Plan:
        """See `Step.plan`."""
        plan, first = Plan(), {}
        for row, record in enumerate(records):
            texts = [self._key(response.text) for response in record.responses]
            if self.identical and len(texts) > 1 and len(set(texts)) == 1:
                plan.drop(row, "identical responses")
                continue
            prompt = tuple((m.role, self._key(m.content)) for m in record.prompt)
            key: tuple[object, ...] = (prompt,)
            if self.of == "record":
                key = (prompt, tuple(sorted(texts)))
            elif self.of == "judged":
                key = (prompt, tuple(texts), record.judgments)
            earlier = first.setdefault(hash(key), row)
            if earlier != row:
                plan.drop(row, f"{self.of} stood there before", first=earlier)
        return plan

    def _key(self, text: str) -> str:
        return re.sub(r"\W+", " ", text.casefold()).strip() if self.loose else text


@step("drop_cycles")
class DropCycles(Step):
    """Drop the comparisons in which one annotator runs in a circle over the answers to a prompt (a > b > c > a).

    A contradiction (a > b and b > a) is the shortest circle. Answers are known by their text, so that a circle
    may lead over several records with one prompt (ChatGLM-RLHF, arXiv:2404.00934, drops them).

    Attributes:
        unnamed: whether judgments without an annotator are taken as one person's.
    """

    unnamed: bool = False

    def plan(self, records: Records, tools: Tools) -> Plan:
        """See `Step.plan`."""
        edges: dict[object, list[tuple[str, str, int, int]]] = defaultdict(list)
        for row, record in enumerate(records):
            prompt = hash(record.prompt)
            for number, judgment in enumerate(record.judgments):
                if judgment.kind != "comparison" or (judgment.annotator is None and not self.unnamed):
                    continue
                who = prompt, judgment.annotator, judgment.attribute
                for a, b in combinations(range(len(judgment.values)), 2):
                    high, low = (a, b) if judgment.values[a] > judgment.values[b] else (b, a)
                    if judgment.values[high] > judgment.values[low]:
                        better, worse = (record.responses[judgment.responses[i]].text for i in (high, low))
                        edges[who].append((better, worse, row, number))
        gone: dict[int, set[int]] = defaultdict(set)
        for known in edges.values():
            if len(known) > 1:
                ring = circles((better, worse) for better, worse, *_ in known)
                for better, worse, row, number in known:
                    if ring[better] == ring[worse]:
                        gone[row].add(number)
        plan, rows = Plan(), sorted(gone)
        for row, record in zip(rows, records.select(rows)):
            drop_judgments(plan, row, record, gone[row], "the annotator runs in a circle")
        return plan


def circles(edges: Iterable[tuple[str, str]]) -> dict[str, int]:
    """The strongly connected component of each node, as a number: two nodes share one if each leads to the other.

    Tarjan's algorithm (1972), without recursion.
    """
    follows: dict[str, list[str]] = defaultdict(list)
    nodes: dict[str, None] = {}
    for a, b in edges:
        follows[a].append(b)
        nodes |= {a: None, b: None}
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    found: dict[str, int] = {}
    trail: list[str] = []
    for root in nodes:
        if root in index:
            continue
        index[root] = low[root] = len(index)
        trail.append(root)
        work: list[tuple[str, Iterator[str]]] = [(root, iter(follows[root]))]
        while work:
            node, rest = work[-1]
            after = next(rest, None)
            if after is None:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    number = len(found)
                    while node not in found:
                        found[trail.pop()] = number
            elif after not in index:
                index[after] = low[after] = len(index)
                trail.append(after)
                work.append((after, iter(follows[after])))
            elif after not in found:
                low[node] = min(low[node], index[after])
    return found


@step("limit_length")
class LimitLength(Step):
    """Drop records with a response (or a prompt) that is too short or too long, in words.

    Attributes:
        least, most: words of a response.
        prompt_least, prompt_most: words of the prompt's last turn.
    """

    least: int = Field(0, ge=0)
    most: int | None = Field(None, ge=1)
    prompt_least: int = Field(0, ge=0)
    prompt_most: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _has_effect(self) -> LimitLength:
        if not (self.least or self.most or self.prompt_least or self.prompt_most):
            raise ValueError("no limit is given: least, most, prompt_least or prompt_most")
        return self

    def plan(self, records: Records, tools: Tools) -> Plan:
        """See `Step.plan`."""
        plan = Plan()
        for row, record in enumerate(records):
            asked = len(record.prompt_text.split())
            words = [len(response.text.split()) for response in record.responses]
            if asked < self.prompt_least or asked > (self.prompt_most or asked):
                short = asked < self.prompt_least
                plan.drop(row, "prompt too short" if short else "prompt too long", words=asked)
            elif words and min(words) < self.least:
                plan.drop(row, "response too short", words=min(words))
            elif words and max(words) > (self.most or max(words)):
                plan.drop(row, "response too long", words=max(words))
        return plan
