"""Does HH-RLHF reward questions? Eight definitions of a question, read with and without length, on halves and subsets.

python benchmarks/questions.py [--json]

The definitions, the way of controlling (log of the number of words) and the split were written down before any effect
was looked at; `asks back` and `only asks` are rules of `accord explain`. What a user may read as "a question effect" is
tried in full, so that nothing is chosen because it shows. Ends with how often shuffled labels show anything.
"""

from __future__ import annotations

import re

import numpy as np
from common import HH, arguments, show

from accordance.analysis import LENGTH, Differences, PairTable, TextFeatures, each, shuffled
from accordance.analysis.features import everything, subtract
from accordance.feedback import load_records

_SENTENCE = re.compile(r"[^.!?\n]*[.!?]+|[^.!?\n]+")
_USER = re.compile(r"\b(you|your|yours|yourself|u)\b", re.IGNORECASE)
_CLARIFY = re.compile(
    r"\b(what|why|which|how|where|who|when)\b.*\b(you|your)\b|\b(can|could|would) you (please )?(tell|explain|say|"
    r"clarify|describe|give|be more|elaborate|share)|\b(do|did) you mean|\byou mean\b|\bare you (asking|saying|talking|"
    r"looking|trying|referring|sure|interested)|more specific|\bfor what (purpose|reason)",
    re.IGNORECASE,
)
_OFFER = re.compile(
    r"\bwould you like|\bdo you want (me|to hear|to know|to talk)|\b(shall|should|can|could) (i|we)\b|\bmay i\b|"
    r"want me to|\b(how|what) about\b|\b(any|some)thing else|"
    r"\b(does|did|is|would) (that|this) (help|work|sound|make sense|ok)",
    re.IGNORECASE,
)
NAMES = (
    "a question mark anywhere", "number of questions (log)", "asks back: ends with a question",
    "only asks: nothing but questions", "share of sentences that are questions", "asks about the user (you, your)",
    "asks what the user means or wants", "offers or checks (would you like ...?)",
)  # fmt: skip
SHUFFLES = 200


def features(text: str) -> list[float]:
    """The eight readings of one response."""
    said = [s.strip() for s in _SENTENCE.findall(text) if re.search(r"\w", s)]
    asked = [s for s in said if "?" in s]
    return [
        float("?" in text), float(np.log1p(len(asked))), float(bool(said) and "?" in said[-1]),
        float(0 < len(asked) == len(said)), len(asked) / max(len(said), 1),
        *(float(any(pattern.search(s) for s in asked)) for pattern in (_USER, _CLARIFY, _OFFER)),
    ]  # fmt: skip


def study(table: PairTable) -> list[dict[str, object]]:
    """One row per definition and reading: all comparisons, halves of the prompts, and the raw effect."""
    values = np.array([features(text) for text in table.texts.to_pylist()])
    length = TextFeatures(rules=False, statistics=False).differences(table)
    made = Differences.join([subtract(table, NAMES, values), length])
    clusters, unit = table.clusters
    prompts = np.random.default_rng(0).permutation(clusters.max() + 1)
    first = (prompts < len(prompts) // 2)[clusters]
    parts = {"all": np.ones(len(table), dtype=bool), "first half": first, "second half": ~first}
    rows: list[dict[str, object]] = []
    for part, inside in parts.items():
        some, label, code = made.select(inside), table.label[inside], clusters[inside]
        for held in ((), (LENGTH,)):
            found = each(some, label, code, unit, controls=held)
            for i, name in enumerate(NAMES):
                rows.append(
                    {"definition": name, "comparisons": part, "held fixed": "length" if held else "nothing",
                     "weight": found.weight[i], "low": found.low[i], "high": found.high[i], "p": found.p[i],
                     "differ": found.differ[i], "80% power at": float(2.8 * found.se[i])}
                )  # fmt: skip
    return rows


def null(table: PairTable) -> dict[str, float]:
    """Share of shuffles of the labels in which any factor of `accord explain` survives at 5%."""
    made, _ = everything(table, [TextFeatures()])
    clusters, unit = table.clusters
    labels = [shuffled(table, seed=seed).label for seed in range(SHUFFLES)]
    return {
        name: float(
            np.mean([bool(each(made, y, clusters, unit, controls=held, samples=0).survivors()) for y in labels])
        )
        for name, held in (("nothing held", ()), ("length held", (LENGTH,)))
    }


def main() -> None:
    args = arguments(__doc__ or "")
    if not HH.exists():
        print(f"{HH} is not here")
        return
    table = PairTable.from_records(load_records(str(HH)))
    rows, shuffles = study(table), null(table)
    columns = list(rows[0])
    show(f"Questions in HH-RLHF, {len(table):,} comparisons", columns, [list(r.values()) for r in rows],
         as_json=args.json)  # fmt: skip
    show(f"Share of {SHUFFLES} shuffles in which any factor survives at 5%", list(shuffles), [list(shuffles.values())],
         as_json=args.json)  # fmt: skip


if __name__ == "__main__":
    main()
