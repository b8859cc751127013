"""Curation as a pipeline: steps that plan what to do to which row and why, and an account that can undo it.

A `Step` looks at Records and makes a `Plan`; a `Pipeline` carries plans out one after the other and returns
`Curated`: new Records, and a `Touch` for each row that a step touched. Steps are registered by name with `@step`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ConfigDict

from accordance.core.errors import ConfigError
from accordance.core.options import Kinds, Named
from accordance.core.record import Record, Records
from accordance.core.scorer import Scorer
from accordance.curation.pipeline_account import ADDED, CHANGED, COPIED, DROPPED, MOVED, Curated, Done, Touch
from accordance.feedback.table import build

Progress = Callable[[str, int, int], None]
Numbers = Mapping[str, float]


@dataclass(frozen=True)
class Tools:
    """What steps may use beside the records.

    Attributes:
        resolve: makes a Scorer of a name, where a recipe or the command line can only name it.
        progress: called with (what, done, total).
    """

    resolve: Callable[[str], Any] | None = None
    progress: Progress = lambda what, done, total: None

    def scorer(self, given: Any, where: str) -> Scorer:
        """The scorer that an option names, or is.

        Raises:
            ConfigError: it is a name and nothing resolves names here, or it has no ``score``.
        """
        found = given
        if isinstance(given, str):
            if self.resolve is None:
                raise ConfigError(
                    "a scorer's name can't be resolved here",
                    where=where,
                    found=given,
                    remedy="pass the scorer itself, or Tools(resolve=...)",
                )
            found = self.resolve(given)
        if not hasattr(found, "score"):
            raise ConfigError(
                "this is no scorer: it has no score(prompts, completions)", where=where, found=given
            )
        return found


class Plan:
    """What a step would do to the rows of its input; a row that no call names stays as it is.

    Attributes:
        dropped: row -> (reason, numbers).
        changed: row -> (record, reason, numbers).
        added: (record, the row it was made from or None, reason, numbers), put at the end.
        order: rows in their new order, dropped ones left out; a row that comes again is copied. None: as it was.
        moved: reason, and numbers by row, of a new order.
        notes: numbers about the step as a whole.
    """

    def __init__(self) -> None:
        self.dropped: dict[int, tuple[str, Numbers]] = {}
        self.changed: dict[int, tuple[Record, str, Numbers]] = {}
        self.added: list[tuple[Record, int | None, str, Numbers]] = []
        self.order: list[int] | None = None
        self.moved: tuple[str, Mapping[int, Numbers]] = ("", {})
        self.notes: dict[str, Any] = {}

    def drop(self, row: int, reason: str, **numbers: float) -> None:
        """Leave a row out."""
        self.dropped[row] = (reason, numbers)

    def change(self, row: int, record: Record, reason: str, **numbers: float) -> None:
        """Put another record in a row's place."""
        self.changed[row] = (record, reason, numbers)

    def add(self, record: Record, reason: str, *, of: int | None = None, **numbers: float) -> None:
        """Add a record at the end; `of` is the row that it was made from."""
        self.added.append((record, of, reason, numbers))

    def arrange(self, order: Iterable[int], reason: str, numbers: Mapping[int, Numbers] | None = None) -> None:
        """Give the rows another order."""
        self.order, self.moved = list(order), (reason, numbers or {})


class Step(Named):
    """One step of a pipeline; its options are its fields.

    A step must not change the records that it is given, and with equal records and options it plans the same.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, frozen=True)

    def plan(self, records: Records, tools: Tools) -> Plan:
        """What the step would do to these records."""
        raise NotImplementedError

    def options(self) -> dict[str, Any]:
        """The options that are set, defaults included, as a recipe holds them."""
        return {key: _plain(value) for key, value in self if value is not None}


Kind = TypeVar("Kind", bound=type[Step])

#: What stands in a saved recipe for an object that only lives in memory.
IN_MEMORY = "in memory: "
_STEPS: Kinds[Step] = Kinds("step")


def step(name: str) -> Callable[[Kind], Kind]:
    """Register a `Step` under a name.

    Raises:
        ValueError: the name is taken.
    """
    return _STEPS.register(name)


def step_kinds() -> dict[str, type[Step]]:
    """Every registered step by name."""
    return _STEPS.all()


def make_step(name: str, options: Mapping[str, Any] | None = None, *, where: str = "steps") -> Step:
    """A step from its name and options.

    Raises:
        ConfigError: the name or an option is unknown (with the nearest one), or a value is out of range.
    """
    for key, value in (options or {}).items():
        if isinstance(value, str) and value.startswith(IN_MEMORY):
            raise ConfigError(
                f"{key} was an object in memory when the recipe was saved",
                where=f"{where}, {name}",
                found=value,
                remedy=f"name one in its place, or make the pipeline in Python with {key}=...",
            )
    return _STEPS.make(name, options or {}, where=where)


@dataclass(frozen=True)
class Pipeline:
    """Steps, one after the other.

    Attributes:
        steps: what is done, in order.
    """

    steps: tuple[Step, ...]

    @classmethod
    def of(cls, *steps: Step | str | Mapping[str, Any], where: str = "steps") -> Pipeline:
        """A pipeline from steps, names, or mappings of one name to its options.

        ``Pipeline.of("drop_ties", {"length_balance": {"buckets": 6}}, DropCycles())``

        Raises:
            ConfigError: nothing to do, or a step that is none.
        """
        made = [_step_of(given, f"{where}, step {number}") for number, given in enumerate(steps, 1)]
        if not made:
            raise ConfigError("a pipeline needs a step", where=where, expected=", ".join(step_kinds()))
        return cls(tuple(made))

    def run(self, records: Records, tools: Tools | None = None) -> Curated:
        """Carry the steps out. The records given stay as they are; nothing is written, so this is the dry run too.

        Args:
            records: what to curate; a stream is read into a table first.
            tools: how scorers are named, and who is told of progress.

        Returns:
            The curated records with the account of every row that was touched.
        """
        tools = tools or Tools()
        original = now = records.materialise()
        rows = list(range(len(original)))
        following = len(rows)
        touches: list[Touch] = []
        done: list[Done] = []
        for number, each in enumerate(self.steps, 1):
            tools.progress(f"{number}. {each.name}", 0, len(now))
            plan = each.plan(now, tools)
            before, made = len(now), list(_touches(plan, now, rows, number, each.name, following))
            now, rows = _carry_out(plan, now, rows, following)
            following += sum(touch.action in (ADDED, COPIED) for touch in made)
            counted = Counter(touch.action for touch in made)
            done.append(Done(each.name, each.options(), before, len(now), dict(counted), dict(plan.notes)))
            touches += made
            tools.progress(f"{number}. {each.name}", before, before)
        account = original.account.copy()
        for touch in touches:
            if touch.action == DROPPED and touch.row < len(original):
                account.drop(f"curation, {touch.name}: {touch.reason}", touch.origin)
            elif touch.action != DROPPED:
                account.notes[f"curation, {touch.name}: {touch.action}"] += 1
        return Curated(Records(now.dataset, account, original.source), original, touches, rows, done)


def _touches(
    plan: Plan, records: Records, rows: Sequence[int], number: int, name: str, following: int
) -> Iterator[Touch]:
    """The account of a plan, with what is needed to undo it: rows in their old order, then copies and additions."""

    def touch(
        record: Record, row: int, action: str, reason: str, numbers: Numbers, before: Any = None
    ) -> Touch:
        return Touch(number, name, action, row, record.origin, record.id, reason, dict(numbers), before)

    order, copies = _arranged(plan, len(records))
    reason, noted = plan.moved
    moved = {row: (old, new) for old, (row, new) in enumerate(sorted((r, i) for i, r in enumerate(order)))}
    moved = {row: places for row, places in moved.items() if places[0] != places[1] or row in noted}
    wanted = sorted({*plan.dropped, *plan.changed, *moved, *copies})
    held: dict[int, Record] = {}
    for row, record in zip(wanted, records.select(wanted)):
        if row in plan.dropped:
            yield touch(record, rows[row], DROPPED, *plan.dropped[row], record.to_row())
            continue
        if row in plan.changed:
            new, why, numbers = plan.changed[row]
            old, now = record.to_row(), new.to_row()
            before = {column: value for column, value in old.items() if now[column] != value}
            yield touch(record, rows[row], CHANGED, why, numbers, before)
        if row in moved:
            places = dict(zip(("from", "to"), moved[row]))
            yield touch(record, rows[row], MOVED, reason, {**places, **noted.get(row, {})})
        held[row] = record
    for number_, row in enumerate(copies, following):
        yield touch(held[row], number_, COPIED, reason, {"copy_of": rows[row], **noted.get(row, {})})
    for number_, (record, of, why, numbers) in enumerate(plan.added, following + len(copies)):
        made_of = {} if of is None else {"made_of": rows[of]}
        yield touch(record, number_, ADDED, why, {**made_of, **numbers})


def _arranged(plan: Plan, size: int) -> tuple[list[int], list[int]]:
    """The rows that stay, each once, in their new order; and the rows of the copies, in the order of those.

    Raises:
        ValueError: the plan's order loses a row that it does not drop. A step's mistake, not the user's.
    """
    order = [row for row in (range(size) if plan.order is None else plan.order) if row not in plan.dropped]
    once = list(dict.fromkeys(order))
    if len(once) + len(plan.dropped) != size:
        raise ValueError("an order must hold every row that is not dropped")
    if len(once) == len(order):
        return once, []
    seen: set[int] = set()
    return once, [row for row in order if row in seen or seen.add(row)]  # type: ignore[func-returns-value]


def _carry_out(plan: Plan, records: Records, rows: Sequence[int], following: int) -> tuple[Records, list[int]]:
    """The records after a plan, and the number of each of its rows; new ones are counted on from `following`."""
    once, copies = _arranged(plan, len(records))
    kept = [row for row in (once if not copies else plan.order or ()) if row not in plan.dropped]
    numbered, seen, new = [], set(), following
    for row in kept:
        numbered.append(new if row in seen else rows[row])
        new += row in seen
        seen.add(row)
    numbered += range(new, new + len(plan.added))
    chosen = records if kept == list(range(len(records))) else records.select(kept)
    if not plan.changed and not plan.added:
        return chosen, numbered

    def made() -> Iterator[Record]:
        for row, record in zip(kept, chosen):
            yield plan.changed[row][0] if row in plan.changed else record
        for record, *_ in plan.added:
            yield record

    return Records(build(made(), records.account), records.account, records.source), numbered


def _step_of(given: Any, where: str) -> Step:
    if isinstance(given, Step):
        return given
    if isinstance(given, str):
        return make_step(given, where=where)
    if isinstance(given, Mapping) and len(given) == 1:
        ((name, options),) = given.items()
        if options is None or isinstance(options, Mapping):
            return make_step(str(name), options, where=where)
    raise ConfigError(
        "this is no step",
        where=where,
        found=given,
        expected="a name, or one name with its options, such as {length_balance: {buckets: 6}}",
    )


def _plain(value: Any) -> Any:
    """An option as YAML can hold it."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return f"{IN_MEMORY}{getattr(value, 'name', None) or type(value).__name__}"
