"""A synthetic cohort: patients whose survival is known to follow from what their summaries say."""

from __future__ import annotations

import math

import numpy as np

from accordance.core.errors import ConfigError
from accordance.core.record import Record, Records, user

#: Risk factors and the logarithm of what each multiplies the hazard by.
RISKS = {"stage4": 1.0, "smoker": 1.4, "old": 0.3, "anaemic": 0.4, "mutated": 1.4, "frail": 0.4}
#: Pairs that are worse, or better, together than apart.
INTERACTIONS = {("smoker", "mutated"): -2.8, ("old", "frail"): 1.6}
#: Mean survival, in months, of a patient without any risk.
BASELINE = 120.0
#: Patients are called living where less than half of those like them die within so many months.
HORIZON = 24.0


def log_hazard(risks: frozenset[str]) -> float:
    """What the risks make of the hazard, as a logarithm."""
    alone = sum(RISKS[name] for name in risks)
    return alone + sum(more for pair, more in INTERACTIONS.items() if risks.issuperset(pair))


def expert_steps(risks: frozenset[str]) -> list[str]:
    """The true rules, one step for each that applies."""
    steps = [f"{name} adds {value}" for name, value in RISKS.items() if name in risks]
    steps += [f"{a} with {b} adds {v}" for (a, b), v in INTERACTIONS.items() if risks.issuperset((a, b))]
    return [*steps, f"risk is {log_hazard(risks):.1f}"]


def make_cohort(n: int, seed: int = 0, *, censored: float = 0.3, prevalence: float = 0.4) -> Records:
    """Patients as records: a summary to answer, and the truth in the extras.

    Survival is exponential with the hazard that the risks make. Of censored patients it is only known that they
    lived longer than some time (``"> 12"``) and they count as living; of the others the status is that after
    `HORIZON` months, and the months are those they lived.

    Args:
        n: how many.
        seed: of everything.
        censored: share of patients who left the study early.
        prevalence: probability of each risk.

    Raises:
        ConfigError: n below 1, or a share outside [0, 1].
    """
    if n < 1 or not 0 <= censored <= 1 or not 0 <= prevalence <= 1:
        raise ConfigError("a cohort", where="make_cohort", found=(n, censored, prevalence))
    draw = np.random.default_rng(seed)
    records = []
    for number in range(n):
        risks = frozenset(name for name in RISKS if draw.random() < prevalence)
        months = draw.exponential(BASELINE / math.exp(log_hazard(risks)))
        left = draw.random() < censored
        until = months * draw.random() if left else months
        living = left or months > HORIZON
        shown = [name if name in risks else f"not {name}" for name in draw.permutation(list(RISKS))]
        records.append(
            Record(
                user(f"patient {number}: " + ", ".join(shown)),
                id=str(number),
                origin=f"cohort:{number + 1}",
                extras={
                    "survival_status": "0:LIVING" if living else "1:DECEASED",
                    "survival_months": f"> {until:.0f}" if left else f"{until:.0f}",
                    "chain_of_thought": expert_steps(risks),
                },
            )
        )
    return Records.of(records, source="synthetic cohort")
