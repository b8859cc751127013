"""Answers with a form: fields that can be checked, steps that can be compared, one reward for all of it (S114)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from accordance.core.catalogue import system
from accordance.core.errors import ConfigError, DataError
from accordance.core.policy import Prompt

Strictness = Literal["strict", "loose", "none"]
_NUMBER = r"[-+]?\d+(?:\.\d+)?"


@dataclass(frozen=True)
class Field:
    """One line of a structured answer: ``Label: value``.

    Attributes:
        label: what stands before the colon.
        column: the column of the data that holds the true value.
        kind: ``class``: one of `values`; ``number``: a number, with ``>`` before it where it is a lower bound
            (a censored time).
        values: the classes.
        weight: what a right value is worth.
        floor: numbers are compared relative to the true one, or to this where it is larger.
    """

    label: str
    column: str
    kind: Literal["class", "number"] = "class"
    values: tuple[str, ...] = ()
    weight: float = 1.0
    floor: float = 12.0

    def __post_init__(self) -> None:
        if (self.kind == "class") != bool(self.values) or self.weight < 0 or self.floor <= 0:
            raise ConfigError(
                "a field of classes has values, one of numbers has none; weight >= 0 and floor > 0",
                where=f"field {self.label}",
                found=(self.kind, self.values, self.weight, self.floor),
            )

    def read(self, text: str) -> str | float | None:
        """The value after the last mention of the label, or None where there is none of its kind."""
        found = re.findall(rf"{re.escape(self.label)}\s*:([^\n]*)", text, flags=re.IGNORECASE)
        return self.value(found[-1]) if found else None

    def value(self, said: object) -> str | float | None:
        """A value from how it is written, or None."""
        text = str(said).strip().strip('".')
        if self.kind == "class":
            return next((v for v in self.values if v.lower() == text.lower()), None)
        number = re.match(rf">?\s*({_NUMBER})", text)
        return float(number.group(1)) if number else None

    def credit(self, said: str | float | None, true: object) -> float:
        """How right a value is, from 0 to 1.

        Numbers lose in proportion to their distance; of a true value written ``> 60`` it is only known that it is
        above 60, so that larger numbers lose nothing.

        Raises:
            DataError: the true value is none.
        """
        wanted = self.value(true)
        if wanted is None:
            raise DataError("this is no true value", where=f"column {self.column}", found=true)
        if said is None:
            return 0.0
        if isinstance(wanted, str) or isinstance(said, str):
            return float(said == wanted)
        if str(true).strip().startswith(">") and said >= wanted:
            return 1.0
        return max(0.0, 1 - abs(said - wanted) / max(wanted, self.floor))


@dataclass(frozen=True)
class Parsed:
    """What a text says: values by the fields' labels (None where it can't be read), steps, and how well-formed."""

    values: Mapping[str, str | float | None]
    steps: tuple[str, ...]
    strictness: Strictness

    @property
    def readable(self) -> bool:
        """Whether every field could be read."""
        return all(value is not None for value in self.values.values())


@dataclass(frozen=True)
class StructuredOutput:
    """A form of answer: an optional block of reasoning steps, one to a line, then one line for each field.

    Attributes:
        fields: in their order.
        tag: name of the tags around the reasoning; empty for a form without.
    """

    fields: tuple[Field, ...]
    tag: str = "reasoning"

    def parse(self, text: str) -> Parsed:
        """Read a text. It is ``strict`` where it is the form and nothing else, ``loose`` where all fields are read."""
        block = re.search(rf"<{self.tag}>(.*?)</{self.tag}>", text, flags=re.DOTALL) if self.tag else None
        steps = tuple(s.strip() for s in block.group(1).splitlines() if s.strip()) if block else ()
        rest = text[block.end() :] if block else text
        values = {field.label: field.read(rest) for field in self.fields}
        lines = [line.strip() for line in rest.strip().splitlines()]
        labels = [line.partition(":")[0].strip().lower() for line in lines]
        exact = labels == [field.label.lower() for field in self.fields] and all(
            field.value(line.partition(":")[2]) is not None for field, line in zip(self.fields, lines)
        )
        opened = not self.tag or (block is not None and not text[: block.start()].strip())
        readable = all(value is not None for value in values.values())
        return Parsed(
            values, steps, "strict" if exact and readable and opened else "loose" if readable else "none"
        )

    def write(self, values: Mapping[str, object], steps: Sequence[str] | None = None) -> str:
        """A text in the form; values by column."""
        block = [f"<{self.tag}>", *steps, f"</{self.tag}>"] if steps is not None and self.tag else []
        return "\n".join([*block, *(f"{field.label}: {values[field.column]}" for field in self.fields)])


def rouge_l(said: str, reference: str) -> float:
    """ROUGE-L: the F-measure of the longest common subsequence of words (Lin 2004); 0 where either is empty."""
    one, other = said.lower().split(), reference.lower().split()
    if not one or not other:
        return 0.0
    row = [0] * (len(other) + 1)
    for word in one:
        before = 0
        for place, wanted in enumerate(other, 1):
            before, row[place] = row[place], before + 1 if word == wanted else max(row[place], row[place - 1])
    return 2 * row[-1] / (len(one) + len(other))


@system("S114", "OncoReason", paper="arXiv:2510.17532")
@dataclass(frozen=True)
class StructuredReward:
    """A composite reward that can be checked: right fields, a kept form, reasoning like the expert's.

    The sum of each field's weight times its credit, `strict` for the exact form or `loose` for readable fields, and
    `reasoning` times ROUGE-L with the expert's steps (0 for an empty block). What can't be read earns nothing and is
    never left out. The released code has a reward for arithmetic; this is our reading of it for clinical text. The
    similarity alone could be earned by copying: look at `reasoning_metrics`.

    Attributes:
        form: the form of an answer.
        strict, loose, reasoning: see above.
        steps: the column of the expert's steps, a list or a text.
        name: what reports call it.
    """

    form: StructuredOutput
    strict: float = 0.5
    loose: float = 0.25
    reasoning: float = 0.5
    steps: str = "chain_of_thought"
    name: str = "structured"

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it looks up."""
        return (*(f.column for f in self.form.fields), self.steps)

    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[str], **columns: Any
    ) -> list[float | None]:
        """See `accordance.core.scorer.Scorer.score`; None where a true value is not known."""
        found: list[float | None] = []
        for place, text in enumerate(completions):
            row = {name: values[place] for name, values in columns.items()}
            known = all(row.get(f.column) is not None for f in self.form.fields)
            found.append(self.one(text, row) if known else None)
        return found

    def one(self, text: str, row: Mapping[str, Any]) -> float:
        """The reward of one text, given the true values by column."""
        parsed = self.form.parse(text)
        total = sum(f.weight * f.credit(parsed.values[f.label], row[f.column]) for f in self.form.fields)
        total += {"strict": self.strict, "loose": self.loose, "none": 0.0}[parsed.strictness]
        expert = row.get(self.steps)
        if self.reasoning and expert:
            wanted = expert if isinstance(expert, str) else "\n".join(expert)
            total += self.reasoning * rouge_l("\n".join(parsed.steps), wanted)
        return total


def prediction_metrics(
    form: StructuredOutput, texts: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """What the texts predict, unreadable ones counted as wrong.

    Returns:
        ``parse_failures``; for each field of classes ``<column>/accuracy`` and ``<column>/f1`` (mean over the
        classes); for each of numbers ``<column>/mae`` over the values that are not censored. A number that can't be
        read is off by the whole true value, or by `floor` where that is larger.
    """
    parsed = [form.parse(text) for text in texts]
    found = {"parse_failures": float(np.mean([not p.readable for p in parsed]))}
    for one in form.fields:
        said = [p.values[one.label] for p in parsed]
        true = [one.value(row[one.column]) for row in rows]
        if one.kind == "class":
            found[f"{one.column}/accuracy"] = float(np.mean([a == b for a, b in zip(said, true)]))
            found[f"{one.column}/f1"] = float(np.mean([_f1(said, true, value) for value in one.values]))
            continue
        off = [
            max(float(b), one.floor) if a is None else abs(float(a) - float(b))
            for a, b, row in zip(said, true, rows)
            if b is not None and not str(row[one.column]).strip().startswith(">")
        ]
        found[f"{one.column}/mae"] = float(np.mean(off)) if off else float("nan")
    return found


def reasoning_metrics(steps: Sequence[str], summary: str) -> dict[str, float]:
    """How a chain of steps hangs together, by cosines of word counts (pass embeddings' texts for more).

    Returns:
        ``relevance`` and ``least_relevance``: mean and minimum over steps of the cosine with the summary;
        ``coherence``: mean cosine of each step with the next. NaN where there are too few steps.
    """
    near = [_cosine(step, summary) for step in steps]
    chain = [_cosine(a, b) for a, b in pairwise(steps)]
    return {
        "relevance": float(np.mean(near)) if near else float("nan"),
        "least_relevance": min(near) if near else float("nan"),
        "coherence": float(np.mean(chain)) if chain else float("nan"),
    }


def _cosine(one: str, other: str) -> float:
    a, b = Counter(one.lower().split()), Counter(other.lower().split())
    norm = float(np.sqrt(sum(v * v for v in a.values()) * sum(v * v for v in b.values())))
    return sum(a[word] * b[word] for word in a) / norm if norm else 0.0


def _f1(said: Sequence[object], true: Sequence[object], value: str) -> float:
    hits = sum(a == b == value for a, b in zip(said, true))
    total = sum(a == value for a in said) + sum(b == value for b in true)
    return 2 * hits / total if total else 0.0


#: The form of OncoReason: is the patient alive, for how many months, and why.
SURVIVAL = StructuredOutput(
    (
        Field("Overall Survival Status", "survival_status", values=("0:LIVING", "1:DECEASED")),
        Field("Estimated Overall Survival (months)", "survival_months", kind="number", weight=0.5),
    )
)
#: Its reward, for ``--reward accordance.training.structured:survival``.
survival = StructuredReward(SURVIVAL)
