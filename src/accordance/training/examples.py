"""What a trainer trains on: groups of token ids with the judgments that an objective needs beside them."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from accordance.core import views
from accordance.core.errors import ConfigError, DataError
from accordance.core.objective import Objective, Slot
from accordance.core.record import Account, Judgment, Record, Records, Response
from accordance.core.weights import WEIGHTS, weight_of
from accordance.models import Encoder, Group, fit


@dataclass(frozen=True)
class Example:
    """One example: its tokens, and numbers per example or per response.

    Attributes:
        group: prompt and responses (chosen, rejected; or one; or a list, best first).
        columns: numbers by name: `gap` for pairs, `label` for thumbs, `scores` (one per response) for lists, what
            the objective asks for in its `columns`, and `starts` where responses have prompts of their own: how
            many labels at the beginning of each response belong to its prompt.
        origin: file and row of its record.
        sampled: log-probability of each token of the responses when it was sampled, shape [tokens], for what a
            policy wrote while it trained.
        reference: the same under the reference, shape [tokens], where it is known already.
        credit: what each of these tokens is worth, by name, shape [tokens] each, where the objective asks for it.
        learned: which tokens of the responses count, shape [tokens]: not what an environment said between the turns
            of a policy. None for all of them.
        user: who judged (annotator or group), where that was asked for; empty where nobody is named.
    """

    group: Group
    columns: dict[str, Any]
    origin: str = ""
    sampled: Tensor | None = None
    reference: Tensor | None = None
    credit: dict[str, Tensor] = field(default_factory=dict)
    learned: Tensor | None = None
    user: str = ""


@dataclass
class Examples(Dataset[Example]):
    """Examples in memory, tokens as packed integers.

    Attributes:
        items: the examples.
        dropped: for each reason, the origins of what can't be trained on.
        notes: what was done to examples that were kept, and how often.
        source: which view of the records they are (``pairs``, ``thumbs``, ...).
        annotators: the names behind the column `annotator`, in the order of their indices; empty where the
            objective does not ask for it. An empty name stands for all judges without one.
    """

    items: list[Example] = field(default_factory=list)
    dropped: dict[str, list[str]] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)
    source: str = ""
    annotators: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        return self.items[index]

    def account(self, account: Account) -> Account:
        """A records account with these drops added under their reasons (examples, not rows)."""
        merged = account.copy()
        for reason, origins in self.dropped.items():
            merged.notes[f"not trained on: {reason}"] += len(origins)
        merged.notes.update(self.notes)
        return merged


def examples_for(
    objective: Objective[Any],
    records: Records,
    encoder: Encoder,
    *,
    max_length: int | None = None,
    attribute: str | None = None,
    seed: int = 0,
    annotators: Mapping[str, int] | None = None,
    users: str | None = None,
    progress: Callable[[int], object] | None = None,
) -> Examples:
    """The examples that an objective can learn from in these records.

    Pairs come from comparisons; single responses from thumbs, or from pairs taken apart (chosen up, rejected
    down), or for imitation from demonstrations, or from chosen responses; lists from rankings of any length.
    Ties and identical responses carry no direction: pairs leave them out and say so.

    Args:
        objective: decides which view of the records is taken.
        records: what people said.
        encoder: the policy's tokenisation.
        max_length: largest number of tokens of prompt and response; see `accordance.models.fit`.
        attribute: which attribute's judgments count; by default overall ones, or those of the only attribute.
        seed: of the mismatched responses that KTO's KL term needs.
        annotators: indices of annotators that are known from other examples; new ones come after them.
        users: ``annotator`` or ``group``, for examples that say whose judgment they are.
        progress: called with the number of examples tokenised since the last call.

    Raises:
        ConfigError: the objective learns from rollouts alone.
        DataError: the records hold nothing that the objective can learn from, or lack a column that it needs.
    """
    if objective.online:
        raise ConfigError(
            f"{objective.name} learns from what the policy samples while it trains; records alone can't feed it",
            where="objective",
            found=f"records of {records.source}",
            remedy="run it in an online loop, or use an objective for recorded judgments such as dpo or sppo",
        )
    source, rows, dropped = _rows(objective, records, attribute, seed)
    made = Examples(dropped=dropped, source=source, annotators=dict(annotators or {}))
    stream = iter(rows)
    while chunk := list(islice(stream, 1024)):
        for (record, _, found), (group, starts) in zip(chunk, _encode(encoder, chunk)):
            least = 1 if group.prompt else 2
            if min(len(r) - start for r, start in zip(group.responses, starts)) < least:
                made.dropped.setdefault("empty response", []).append(record.origin)
                continue
            short, what = fit(group, max_length)
            if short is not None and any(len(r) <= start for r, start in zip(short.responses, starts)):
                short, what = None, "prompt as long as max_length or longer"
            if short is None:
                made.dropped.setdefault(what, []).append(record.origin)
                continue
            if what:
                made.notes[what] += 1
            columns = _asked_columns(objective, record, found, made.annotators)
            if objective.arrange is not None:
                # A response's first token has no label where nothing stands before it.
                columns["starts"] = [max(start - (not group.prompt), 0) for start in starts]
            who = str(found.get(users) or "") if users is not None else ""
            made.items.append(Example(short, columns, record.origin, user=who))
        if progress is not None:
            progress(len(chunk))
    if not made.items:
        raise DataError(
            f"nothing is left that {objective.name} can learn from",
            where=records.source,
            found=f"{ {reason: len(rows) for reason, rows in made.dropped.items()} or 'no judgments' } of "
            f"{len(records)} records with judgments {records.counts()}",
            expected=_NEEDS[objective.bundle.kind],
            remedy="look at the records with `accord data`; another objective or a larger max_length may do",
        )
    if objective.mismatched:
        _add_mismatched(made, seed)
    return made


#: What a row says of who judged; no numbers.
_WHO = ("annotator", "group")


def _who(judgment: Judgment) -> dict[str, str]:
    return {"annotator": judgment.annotator or "", "group": judgment.group or ""}


Row = tuple[Record, Sequence[Response] | Sequence[Slot], dict[str, Any]]


def _rows(
    objective: Objective[Any], records: Records, attribute: str | None, seed: int
) -> tuple[str, Iterable[Row], dict[str, list[str]]]:
    if objective.arrange is None:
        return _SOURCES[objective.bundle.kind](objective, records, attribute)
    arranged = objective.arrange(records, attribute, seed)
    rows = ((item.record, item.slots, dict(item.columns)) for item in arranged)
    return f"examples that {objective.name} arranges", rows, {}


def _encode(encoder: Encoder, chunk: Sequence[Row]) -> Iterator[tuple[Group, list[int]]]:
    """The group of each row, and how many tokens of each of its responses belong to the prompt."""
    asked = []
    for record, answers, _ in chunk:
        if answers and isinstance(answers[0], Slot):
            asked += [(slot.prompt, (slot.response,), record.extras) for slot in answers]  # type: ignore[union-attr]
        else:
            asked.append((record.prompt, answers, record.extras))
    encoded = iter(encoder.encode_many(asked))
    for _, answers, _ in chunk:
        if not (answers and isinstance(answers[0], Slot)):
            ids = next(encoded)
            yield (
                Group(array("i", ids.prompt_ids), [array("i", r) for r in ids.response_ids]),
                [0] * len(answers),
            )
            continue
        several = [next(encoded) for _ in answers]
        shared = _common_beginning([ids.prompt_ids for ids in several])
        own = [ids.prompt_ids[shared:] for ids in several]
        responses = [array("i", head + ids.response_ids[0]) for head, ids in zip(own, several)]
        yield Group(array("i", several[0].prompt_ids[:shared]), responses), [len(head) for head in own]


_NEEDS = {
    "pair": "comparisons of two or more responses with a difference",
    "unary": "thumbs, demonstrations, or pairs to take apart",
    "list": "comparisons or ratings of two or more responses",
}


def _common_beginning(rows: Sequence[list[int]]) -> int:
    """How many tokens all rows begin with."""
    places = zip(*rows)
    return next((place for place, ids in enumerate(places) if len(set(ids)) > 1), min(map(len, rows)))


def _asked_columns(
    objective: Objective[Any], record: Record, found: dict[str, Any], annotators: dict[str, int]
) -> dict[str, Any]:
    """The columns of an example: those of its view, and what the objective asks for besides."""
    columns = {name: value for name, value in found.items() if name not in _WHO}
    for name in objective.columns:
        value = found.get(name, record.extras.get(name))
        if name == "annotator" and isinstance(value, str):
            value = annotators.setdefault(value, len(annotators))
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise DataError(
                f"{objective.name} needs a number {name!r} with every record",
                where=record.origin or record.id,
                found="nothing" if value is None else repr(value),
                expected=f"a number in the record's extras under {name!r}",
            )
        columns[name] = value
    return columns


def _pairs(
    objective: Objective[Any], records: Records, attribute: str | None
) -> tuple[str, Iterable[Row], dict[str, list[str]]]:
    dropped: dict[str, list[str]] = {}
    wanted = views.which_attribute(records, ("comparison", "rating"), attribute)
    weigh = _weigh(records)

    def rows() -> Iterator[Row]:
        for pair in views.pairs(records, ties=True, attribute=wanted):
            if pair.tie or pair.chosen.text == pair.rejected.text:
                reason = "tie" if pair.tie else "identical responses"
                dropped.setdefault(reason, []).append(pair.record.origin)
                continue
            columns = {"gap": pair.gap, **_who(pair.judgment)}
            yield pair.record, (pair.chosen, pair.rejected), columns | weigh(pair.record, pair.judgment)

    return "pairs", rows(), dropped


def _weigh(records: Records) -> Callable[[Record, Judgment], dict[str, float]]:
    """The column `weight` of a judgment, where any judgment of these records has one (see `core.weights`)."""
    if not any(extras and f'"{WEIGHTS}"' in extras for extras in records._table()["extras"]):
        return lambda record, judgment: {}
    return lambda record, judgment: {"weight": weight_of(record, judgment)}


def _unary(
    objective: Objective[Any], records: Records, attribute: str | None
) -> tuple[str, Iterable[Row], dict[str, list[str]]]:
    if objective.labels:
        thumbs = views.thumbs(records, attribute=views.which_attribute(records, ("thumb",), attribute))
        if len(thumbs):
            rows = (
                (item.record, (item.response,), {"label": item.value > 0, **_who(item.judgment)})
                for item in thumbs
            )
            return "thumbs", rows, {}
        _, pairs, dropped = _pairs(objective, records, attribute)
        apart: Any = (
            (record, (response,), {"label": good, **{k: v for k, v in found.items() if k in ("weight", *_WHO)}})
            for record, responses, found in pairs
            for response, good in zip(responses, (True, False))
        )
        return "pairs taken apart into thumbs", apart, dropped
    shown = views.demonstrations(records)
    if len(shown):
        return "demonstrations", ((item.record, (item.response,), {}) for item in shown), {}
    _, pairs, dropped = _pairs(objective, records, attribute)
    chosen = ((r, responses[:1], {k: found[k] for k in _WHO}) for r, responses, found in pairs)
    return "chosen responses of pairs", chosen, dropped


def _lists(
    objective: Objective[Any], records: Records, attribute: str | None
) -> tuple[str, Iterable[Row], dict[str, list[str]]]:
    dropped: dict[str, list[str]] = {}
    wanted = views.which_attribute(records, ("comparison", "rating"), attribute)
    weigh = _weigh(records)

    def rows() -> Iterator[Row]:
        for item in views.rankings(records, attribute=wanted):
            if len(set(item.scores)) == 1:
                dropped.setdefault("tie", []).append(item.record.origin)
                continue
            columns = {"scores": item.scores, **_who(item.judgment)}
            yield item.record, item.responses, columns | weigh(item.record, item.judgment)

    return "rankings", rows(), dropped


_SOURCES: dict[str, Callable[..., tuple[str, Iterable[Row], dict[str, list[str]]]]] = {
    "pair": _pairs,
    "unary": _unary,
    "list": _lists,
}


def _add_mismatched(made: Examples, seed: int) -> None:
    """Put beside every response one that was written for another prompt."""
    size = len(made.items)
    if size < 2:
        raise DataError("a mismatched response needs at least two examples", found=size)
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed)).tolist()
    shift = {order[place]: order[(place + 1) % size] for place in range(size)}
    items = []
    for index, example in enumerate(made.items):
        other = made.items[shift[index]].group.responses[0]
        both = Group(example.group.prompt, [*example.group.responses, other])
        items.append(replace(example, group=both))
    made.items = items
