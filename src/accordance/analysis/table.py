"""PairTable: every comparison of some Records as flat arrays, so that a million of them fit in a few hundred MB."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from datasets import Dataset

from accordance.core.errors import DataError
from accordance.core.flat import array, expand, lengths
from accordance.core.record import Records
from accordance.core.views import ANY, which_attribute
from accordance.core.weights import weights_in

#: Arrow makes its functions when it is imported, which type checkers don't see.
pc: Any = pyarrow.compute
_BATCH = 20_000
#: From so many people on, intervals are over people: a bootstrap over fewer says little.
PEOPLE = 10


@dataclass(frozen=True)
class PairTable:
    """Comparisons of two responses, in the order in which they were shown.

    Attributes:
        texts: every response, as Arrow strings, shape [t].
        prompts: what each record asks (its last user turn), as Arrow strings, shape [r].
        text_prompt: the record of each response, shape [t].
        first, second: the two responses of each comparison, indices into `texts`, shape [n].
        label: 1 the first was preferred, 0 the second, 0.5 a tie, shape [n].
        weight: how much each comparison counts, shape [n]: 2 is the comparison twice.
        person: who judged, an index into `people`, or -1 where nobody is named, shape [n].
        group: the group of whoever judged, an index into `groups`, or -1, shape [n].
        people, groups: their names.
        ties: how many ties were left out.
        contexts: per record the whole conversation before the response, for judges; made when asked for.
    """

    texts: pa.Array
    prompts: pa.Array
    text_prompt: np.ndarray
    first: np.ndarray
    second: np.ndarray
    label: np.ndarray
    weight: np.ndarray
    person: np.ndarray
    group: np.ndarray
    people: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    ties: int = 0

    def __len__(self) -> int:
        return len(self.label)

    @property
    def sign(self) -> np.ndarray:
        """1 where the first was preferred, -1 where the second was, 0 for a tie, shape [n]."""
        return 2 * self.label - 1

    @property
    def prompt(self) -> np.ndarray:
        """A code of the prompt's text per comparison, equal for equal prompts, shape [n]."""
        codes = self.prompts.dictionary_encode().indices.to_numpy(zero_copy_only=False)
        return codes[self.text_prompt[self.first]].astype(np.int64)

    @property
    def clusters(self) -> tuple[np.ndarray, str]:
        """What hangs together, as codes per comparison, and its name: people where all are named, else prompts.

        People only where there are at least ten (`PEOPLE`).
        """
        if len(self) and (self.person >= 0).all() and len(np.unique(self.person)) >= PEOPLE:
            return np.unique(self.person, return_inverse=True)[1], "people"
        return np.unique(self.prompt, return_inverse=True)[1], "prompts"

    @property
    def ordered(self) -> bool:
        """Whether the order in which the two stand carries information (both are preferred now and then)."""
        decided = self.label[self.label != 0.5]
        return len(decided) > 0 and 0.02 < float((decided > 0.5).mean()) < 0.98

    def select(self, places: Any) -> PairTable:
        """The comparisons at these indices, or where this mask is true."""
        columns = ("first", "second", "label", "weight", "person", "group")
        return replace(self, **{name: getattr(self, name)[places] for name in columns})

    def with_labels(self, label: np.ndarray) -> PairTable:
        """The same comparisons with other outcomes."""
        return replace(self, label=np.asarray(label, dtype=np.float64))

    def pair(self, index: int) -> tuple[str, str, str]:
        """Prompt, preferred text and other text of one comparison (first and second for a tie)."""
        a, b = int(self.first[index]), int(self.second[index])
        prompt = self.prompts[int(self.text_prompt[a])].as_py()
        texts = self.texts[a].as_py(), self.texts[b].as_py()
        return (prompt, *(texts if self.label[index] >= 0.5 else texts[::-1]))

    @classmethod
    def of(
        cls,
        prompts: Sequence[str],
        first: Sequence[str],
        second: Sequence[str],
        label: Sequence[float] | np.ndarray,
        *,
        person: Sequence[str] | None = None,
        group: Sequence[str] | None = None,
        weight: Sequence[float] | np.ndarray | None = None,
    ) -> PairTable:
        """A table from texts, one of each per comparison; ties (label 0.5) stay.

        Raises:
            DataError: unequal lengths, or labels outside [0, 1].
        """
        n = len(label)
        given = [prompts, first, second, *(x for x in (person, group, weight) if x is not None)]
        if any(len(column) != n for column in given):
            raise DataError("columns of unequal length", found=[len(column) for column in [label, *given]])
        values = np.asarray(label, dtype=np.float64)
        if not ((values >= 0) & (values <= 1)).all():
            raise DataError("a label lies between 0 and 1", found=repr(values[:5]))
        people, persons = _codes(
            pa.array(person, pa.string()) if person is not None else pa.nulls(n, pa.string())
        )
        groups, grouped = _codes(
            pa.array(group, pa.string()) if group is not None else pa.nulls(n, pa.string())
        )
        return cls(
            texts=pa.array([*first, *second], pa.large_string()),
            prompts=pa.array(prompts, pa.large_string()),
            text_prompt=np.tile(np.arange(n), 2),
            first=np.arange(n),
            second=np.arange(n) + n,
            label=values,
            weight=np.ones(n) if weight is None else np.asarray(weight, dtype=np.float64),
            person=persons,
            group=grouped,
            people=people,
            groups=groups,
        )

    @classmethod
    def from_records(cls, records: Records, attribute: str | None = None) -> PairTable:
        """Every comparison of the records without ties; a ranking of K responses gives all its pairs.

        A rating by one person of several responses counts as a comparison, as in `core.views.pairs`. Judgments count
        by their weights (`core.weights`); those of weight 0 are as if they were not there.

        Args:
            records: a table.
            attribute: judgments of this attribute only; None takes overall ones, or the only attribute there is.

        Raises:
            DataError: judgments on several attributes and none chosen, no comparison without a tie, or weights that
                are none.
        """
        if not isinstance(records.dataset, Dataset):
            records = records.materialise()
        dataset = records._table()
        parts = [_flat(batch) for batch in dataset.with_format("arrow").iter(batch_size=_BATCH)]
        if not parts:
            raise DataError("there are no records", where=records.source)
        attributes = pa.chunked_array([part["attribute"] for part in parts], pa.string())
        names = pc.unique(attributes).to_pylist()
        wanted = which_attribute(records, ("comparison", "rating"), attribute) if len(names) > 1 else ANY
        if attribute is not None and wanted == ANY and names != [attribute]:
            which_attribute(records, ("comparison", "rating"), attribute)  # raises, with what there is
        joined = _join(parts)
        keep = np.ones(len(joined["label"]), dtype=bool)
        if wanted != ANY:
            same = pc.is_null(attributes) if wanted is None else pc.equal(attributes, wanted)
            keep = pc.fill_null(same, False).to_numpy(zero_copy_only=False).astype(bool)
        keep &= joined["weight"] > 0
        tie = keep & (joined["label"] == 0.5)
        keep &= ~tie
        if not keep.any():
            raise DataError(
                "there is nothing to explain",
                where=records.source,
                found=f"{int(tie.sum())} ties, no comparison with a difference",
                expected="comparisons, or ratings of two or more responses by one person",
            )
        people, person = _codes(pa.chunked_array([p["annotator"] for p in parts], pa.string()).combine_chunks())
        groups, group = _codes(pa.chunked_array([p["group"] for p in parts], pa.string()).combine_chunks())
        table = cls(
            texts=joined["texts"],
            prompts=joined["prompts"],
            text_prompt=joined["text_prompt"],
            first=joined["first"],
            second=joined["second"],
            label=joined["label"],
            weight=joined["weight"],
            person=person,
            group=group,
            people=people,
            groups=groups,
            ties=int(tie.sum()),
        )
        return table.select(keep)


def _flat(batch: pa.Table) -> dict[str, Any]:
    """Texts, prompts and comparisons of a batch, without a Python object per row."""
    responses, judgments = (array(batch[name]) for name in ("responses", "judgments"))
    prompts = [_last_asked(turns) for turns in array(batch["prompt"]).to_pylist()]
    each = responses.flatten()
    many = lengths(responses)
    said, start = judgments.flatten(), np.append(0, np.cumsum(many))[:-1]
    rows, _, first, second, label = expand(judgments, start)
    of = pa.array(rows.astype(np.int64))
    return {
        "texts": _texts(each.field("messages")),
        "prompts": pa.array(prompts, pa.large_string()),
        "text_prompt": np.repeat(np.arange(len(many)), many),
        "first": first.astype(np.int64),
        "second": second.astype(np.int64),
        "label": label,
        "weight": weights_in(batch, lengths(judgments))[rows],
        **{name: said.field(name).take(of).cast(pa.string()) for name in ("annotator", "group", "attribute")},
    }


def _join(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Batches into one, with indices moved on."""
    texts = np.cumsum([0, *(len(p["texts"]) for p in parts)])
    prompts = np.cumsum([0, *(len(p["prompts"]) for p in parts)])
    moved = {"text_prompt": prompts, "first": texts, "second": texts}
    joined: dict[str, Any] = {
        name: np.concatenate([p[name] + by[i] for i, p in enumerate(parts)]) for name, by in moved.items()
    }
    for name in ("label", "weight"):
        joined[name] = np.concatenate([p[name] for p in parts])
    for name in ("texts", "prompts"):
        joined[name] = pa.concat_arrays([p[name] for p in parts])
    return joined


def _texts(messages: Any) -> pa.Array:
    """What each response says: its messages joined by line breaks, roles left out."""
    content = messages.values.field("content").cast(pa.large_string())
    listed = pa.LargeListArray.from_arrays(messages.offsets.cast(pa.int64()), content)
    return pc.fill_null(pc.binary_join(listed, pa.scalar("\n", pa.large_string())), "")


def _last_asked(turns: list[dict[str, str]]) -> str:
    return next((t["content"] for t in reversed(turns) if t["role"] in ("user", "text")), "")


def _codes(names: Any) -> tuple[tuple[str, ...], np.ndarray]:
    """Distinct names, and per row an index into them, -1 for none."""
    coded = array(names).dictionary_encode()
    indices = pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    return tuple(coded.dictionary.to_pylist()), indices
