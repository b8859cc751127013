"""Policies to evidence: how well a policy does what people asked of it, with intervals.

In: a policy, held-out records, the reference it came from, and any Scorer. Out: a Report. To add a measurement:
a function from `PairTable`, `Answers` or `Verdicts` to numbers, and a line in `findings.py` that shows it.
"""

from accordance.evaluation.judging import Verdicts, judge
from accordance.evaluation.likelihood import PairTable, pair_table
from accordance.evaluation.run import AdapterOff, evaluate
from accordance.evaluation.sampling import Answers, draw
from accordance.evaluation.saving import samples_frame, write_samples

__all__ = [
    "AdapterOff",
    "Answers",
    "PairTable",
    "Verdicts",
    "draw",
    "evaluate",
    "judge",
    "pair_table",
    "samples_frame",
    "write_samples",
]
