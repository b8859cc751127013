"""The report on judgments by criterion: each group's weights, and how much can't be compared."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np

from accordance.core.errors import DataError
from accordance.core.record import Records
from accordance.core.report import Report
from accordance.core.stats import wilson
from accordance.feedback.partial_orders import PartialOrder, fit_partial_order


def criteria_report(records: Records, *, least: int = 20) -> Report:
    """A partial order from people's marks on each criterion and their overall comparisons of the same pair.

    Args:
        records: comparisons of two responses, overall and by attribute, by the same person.
        least: overall comparisons that a group needs for weights of its own; smaller ones are named and left out.

    Raises:
        DataError: no pair was judged both overall and by a criterion, or no group has enough.
    """
    marks: dict[tuple[int, str | None, frozenset[int]], dict[str | None, float | None]] = defaultdict(dict)
    group: dict[str | None, str] = {}
    for number, record in enumerate(records):
        for judgment in record.judgments:
            if judgment.kind not in ("comparison", "incomparable") or len(judgment.responses) != 2:
                continue
            way = 1.0 if judgment.responses[0] < judgment.responses[1] else -1.0
            gap = (
                None
                if judgment.kind == "incomparable"
                else way * float(np.sign(judgment.values[0] - judgment.values[1]))
            )
            marks[number, judgment.annotator, frozenset(judgment.responses)][judgment.attribute] = gap
            group[judgment.annotator] = judgment.group or "everybody"
    names = sorted({a for said in marks.values() for a in said if a is not None})
    # A criterion that somebody left open, or on which they could not compare, pulls neither way.
    held = [
        (who, said[None], np.array([said.get(name) or 0.0 for name in names]))
        for (_, who, _), said in marks.items()
        if None in said and len(said) > 1
    ]
    if not held:
        raise DataError(
            "no pair was judged both overall and by a criterion",
            where=records.source,
            found=f"criteria {names}" if names else "no criteria",
            remedy="accord ask --criteria clear,kind asks for both",
        )
    report = Report("Criteria, and what can't be compared")
    report.add("pairs", len(held), note="judged overall and by a criterion")
    open_ = sum(gap is None for _, gap, _ in held)
    report.add("cannot_compare", wilson(open_, len(held)), unit="share", headline=True)
    report.add("ties", sum(gap == 0.0 for _, gap, _ in held))
    clear = [(group[who], gap > 0, marks) for who, gap, marks in held if gap]
    size = Counter(label for label, _, _ in clear)
    small = {label: n for label, n in size.items() if n < least}
    if small:
        report.warn(f"groups with fewer than {least} overall comparisons have no weights: {small}")
    clear = [each for each in clear if each[0] not in small]
    if not clear:
        raise DataError(
            "no group has comparisons enough", where=records.source, found=small, expected=f"{least}"
        )
    labels, first, gaps = (list(column) for column in zip(*clear))
    order = fit_partial_order(np.array(gaps), np.array(first), labels, criteria=names, least=least)
    columns = ["group", "comparisons", *names]
    rows = [[str(label), size[str(label)], *row] for label, row in zip(order.labels, order.weights)]
    report.table("What each group weighs", columns, rows, "weights of absolute sum 1")
    report.data(
        "weights", {str(label): dict(zip(names, row)) for label, row in zip(order.labels, order.weights)}
    )
    _against(report, order, held)
    return report


def _against(report: Report, order: PartialOrder, held: list) -> None:
    """What the order says of the pairs, beside what people said."""
    zero = np.zeros(order.weights.shape[1])
    said: Counter[tuple[str, str]] = Counter()
    for _, gap, marks in held:
        person = "cannot compare" if gap is None else "a tie" if gap == 0 else "one is better"
        verdict = order.compare(marks, zero)
        said[person, "one is better" if verdict in ("first", "second") else verdict] += 1
    kinds = ["one is better", "equal", "incomparable"]
    people = ["one is better", "a tie", "cannot compare"]
    rows = [[person, *[said[person, kind] for kind in kinds]] for person in people]
    report.table("What people said, and what follows from all groups' weights", ["people said", *kinds], rows)
    both = sum(said[person, "incomparable"] for person in people)
    report.add("groups_disagree", wilson(both, len(held)), unit="share",
               note="pairs that no side wins by every group's weights")  # fmt: skip
