"""What a policy's log-probabilities say about held-out comparisons: does it prefer what people preferred?

The implicit reward of a response is log pi - log ref (Rafailov et al. 2023, up to the factor beta, which changes
no order); a pair's *margin* is the reward of the chosen response minus that of the rejected one.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from accordance.core.errors import ModelError
from accordance.core.record import Message, Record, Records
from accordance.core.stats import Interval, bootstrap, proportion
from accordance.core.views import pairs

#: (index of the record, index of the response) to (summed log-probability, number of tokens).
Logps = dict[tuple[int, int], tuple[float, int]]


@dataclass(frozen=True)
class PairTable:
    """Held-out comparisons with their log-probabilities, one row per pair; all arrays have shape [pairs].

    Attributes:
        prompt: a key of the prompt; pairs with one prompt hang together.
        group, attribute: of the judgment; None where it names none.
        chosen, rejected: summed log-probabilities under the policy.
        chosen_tokens, rejected_tokens: numbers of tokens.
        ref_chosen, ref_rejected: summed log-probabilities under the reference; None without one.
        ties: comparisons that found no difference; they are not among the rows.
    """

    prompt: np.ndarray
    group: np.ndarray
    attribute: np.ndarray
    chosen: np.ndarray
    rejected: np.ndarray
    chosen_tokens: np.ndarray
    rejected_tokens: np.ndarray
    ref_chosen: np.ndarray | None = None
    ref_rejected: np.ndarray | None = None
    ties: int = 0

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def chosen_change(self) -> np.ndarray:
        """log pi - log ref of the chosen responses; log pi without a reference."""
        return self.chosen if self.ref_chosen is None else _difference(self.chosen, self.ref_chosen)

    @property
    def rejected_change(self) -> np.ndarray:
        """log pi - log ref of the rejected responses; log pi without a reference."""
        return self.rejected if self.ref_rejected is None else _difference(self.rejected, self.ref_rejected)

    @property
    def margin(self) -> np.ndarray:
        """Implicit reward of chosen minus rejected, in nats."""
        return _difference(self.chosen_change, self.rejected_change)

    @property
    def margin_per_token(self) -> np.ndarray:
        """The same with each reward divided by the number of tokens of its response."""
        chosen, rejected = self.chosen_change / self.chosen_tokens, self.rejected_change / self.rejected_tokens
        return _difference(chosen, rejected)

    @property
    def likelihood_margin(self) -> np.ndarray:
        """log pi of chosen minus rejected, the reference left aside."""
        return _difference(self.chosen, self.rejected)

    @property
    def likelihood_margin_per_token(self) -> np.ndarray:
        """The same with each log pi divided by the number of tokens of its response."""
        return _difference(self.chosen / self.chosen_tokens, self.rejected / self.rejected_tokens)

    def where(self, mask: np.ndarray) -> PairTable:
        """The rows for which `mask` (shape [pairs]) is true."""
        columns = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: v[mask] for k, v in columns.items() if isinstance(v, np.ndarray)})

    def mean(self, values: np.ndarray, seed: int = 0) -> Interval:
        """Mean of per-pair values with an interval by prompt, over the pairs where they are finite."""
        use = np.isfinite(values)
        return bootstrap(values[use], clusters=self.prompt[use].tolist(), seed=seed)

    def accuracy(self, margins: np.ndarray, seed: int = 0) -> Interval:
        """Share of pairs with a positive margin, an equal reward counting half, with an interval by prompt."""
        use = ~np.isnan(margins)
        return proportion(outcomes(margins[use]), clusters=self.prompt[use].tolist(), seed=seed)

    @property
    def ruled_out(self) -> int:
        """Pairs with a response to which the policy or the reference gives no probability at all."""
        return int((~np.isfinite(self.margin)).sum())


def outcomes(margins: np.ndarray) -> np.ndarray:
    """1 where positive, 0 where negative, one half where exactly 0."""
    return 0.5 * (np.sign(margins) + 1)


def pair_table(policy: Any, records: Records, reference: Any = None) -> PairTable:
    """Score both sides of every held-out comparison.

    Args:
        policy, reference: each with `logprobs(records)`.
        records: what to score; ties are counted and left out.

    Raises:
        ModelError: a policy gives no log-probability for a response.
    """
    view = pairs(records)
    ties = len(pairs(records, ties=True)) - len(view)
    used = sorted({place[0] for place in view.places})
    subset = records.select(used)
    at = {index: number for number, index in enumerate(used)}
    own = _logps(policy, subset) if used else {}
    ref = _logps(reference, subset) if used and reference is not None else None

    rows: list[tuple[Any, ...]] = []
    table = list(subset)
    keys = [prompt_key(record.prompt) for record in table]
    for index, number, a, b in view.places:
        place = at[index]
        judgment = table[place].judgments[number]
        chosen, rejected = (place, judgment.responses[a]), (place, judgment.responses[b])
        rows.append((keys[place], judgment.group, judgment.attribute, chosen, rejected))

    def column(logps: Logps, side: int, part: int) -> np.ndarray:
        return np.array([_find(logps, row[side])[part] for row in rows], dtype=np.float64)

    return PairTable(
        prompt=_objects(row[0] for row in rows),
        group=_objects(row[1] for row in rows),
        attribute=_objects(row[2] for row in rows),
        chosen=column(own, 3, 0),
        rejected=column(own, 4, 0),
        chosen_tokens=np.maximum(column(own, 3, 1), 1),
        rejected_tokens=np.maximum(column(own, 4, 1), 1),
        ref_chosen=None if ref is None else column(ref, 3, 0),
        ref_rejected=None if ref is None else column(ref, 4, 0),
        ties=ties,
    )


def prompt_key(prompt: Sequence[Message]) -> str:
    """A key of a prompt: equal for equal turns."""
    return json.dumps([[message.role, message.content] for message in prompt], ensure_ascii=False)


def scores_likelihood(policy: Any) -> bool:
    """Whether a policy can say how likely given responses are (an API usually can't)."""
    return callable(getattr(policy, "logprobs", None))


def _logps(policy: Any, records: Records | Sequence[Record]) -> Logps:
    """The table of `policy.logprobs` (a data frame, or rows as mappings) by (record, response)."""
    table = policy.logprobs(records)
    rows: Sequence[Mapping[Hashable, Any]] = table.to_dict("records") if hasattr(table, "to_dict") else table
    found = {(int(r["record"]), int(r["response"])): (float(r["logprob"]), int(r["tokens"])) for r in rows}
    bad = next((place for place, (logp, _) in found.items() if np.isnan(logp)), None)
    if bad is not None:
        raise ModelError(
            "a log-probability is NaN",
            where=f"{policy.name}, record {bad[0]}, response {bad[1]}",
            remedy="look for NaN in the weights; in half precision try dtype='float32'",
        )
    return found


def _find(logps: Logps, place: tuple[int, int]) -> tuple[float, int]:
    if place not in logps:
        raise ModelError(
            "the policy gave no log-probability for a response",
            where=f"record {place[0]}, response {place[1]}",
            expected="one row per response from policy.logprobs(records)",
        )
    return logps[place]


def _difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a - b; NaN, without a word, where both are minus infinity (`PairTable.ruled_out` counts them)."""
    with np.errstate(invalid="ignore"):
        return a - b


def _objects(values: Any) -> np.ndarray:
    given = list(values)
    out = np.empty(len(given), dtype=object)
    out[:] = given
    return out
