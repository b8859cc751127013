"""`accord ask`: a person at a terminal judges responses; what they say is in the store as soon as it is said."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from accordance.app import options as o
from accordance.app.commands import ask_criteria, ask_values, asking
from accordance.app.terminal import INTERRUPTED, Terminal, command, silence_loaded

app = typer.Typer(
    help="Ask people: a terminal interview whose answers are kept in a store, and what to make of them.",
    invoke_without_command=True,
    rich_markup_mode="markdown",
)

StorePlace = Annotated[
    str,
    typer.Option("--store", help="An SQLite file, made where missing, or `postgresql://user@host/name`."),
]
Project = Annotated[str, typer.Option("--project", help="Tasks of one store are kept apart by project.")]
DEFAULT_STORE = "accord.db"

app.command("values")(ask_values.values)
app.command("wiser")(ask_values.wiser)
app.command("moral-graph")(ask_values.moral_graph)
app.command("criteria")(ask_criteria.criteria)
app.command("agree")(ask_criteria.agree)
app.command("trees")(asking.trees)
app.command("people")(asking.people)


@app.callback(invoke_without_command=True)
@command
def ask(
    terminal: Terminal,
    context: typer.Context,
    annotator: Annotated[
        str | None, typer.Option("--annotator", "--as", help="Who is asked; resumes where they stopped.")
    ] = None,
    records: Annotated[
        str | None,
        typer.Option("--records", "--data", help="What to ask about; else what is in the store already."),
    ] = None,
    store: StorePlace = DEFAULT_STORE,
    project: Project = "default",
    kind: Annotated[
        str, typer.Option("--kind", help="`comparison` of two, or a `rating` or `thumb` for each response.")
    ] = "comparison",
    criteria: Annotated[
        str | None, typer.Option("--criteria", help="Asked for after the overall judgment: `clear,kind`.")
    ] = None,
    strength: Annotated[bool, typer.Option("--strength", help="A choice may say how strong it is.")] = False,
    scale: Annotated[str, typer.Option("--scale", help="Lowest and highest rating.")] = "1-5",
    per_record: Annotated[
        int, typer.Option("--per-record", "--per_record", min=0, help="Pairs of each record; 0: all.")
    ] = 1,
    order: Annotated[
        str,
        typer.Option("--order", help="`given`, `random`, or `informative`: what teaches the most comes first."),
    ] = "given",
    group: Annotated[
        str | None, typer.Option("--group", help="The group that the annotator belongs to.")
    ] = None,
    profile: Annotated[
        list[str] | None, typer.Option("--profile", help="`age=25-34`, and more such; kept in the store.")
    ] = None,
    show_source: Annotated[
        bool, typer.Option("--show-source", help="Show who wrote a response; by default it is blind.")
    ] = False,
    keep_judgments: Annotated[
        bool, typer.Option("--keep-judgments", help="Bring in the judgments that the records hold, too.")
    ] = False,
    format: o.Format = None,
    split: o.Split = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Ask at most so many questions.")] = None,
    export: Annotated[
        str | None, typer.Option("--export", help="Write all that was said to a jsonl file of records.")
    ] = None,
    seed: o.Seed = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "--dry_run", help="Say what would be asked; write nothing.")
    ] = False,
    as_json: o.AsJson = False,
    verbose: o.Verbose = False,
) -> None:
    """Show responses, two at a time and blind, and keep which one is better, or whether they can be compared.

    Every answer is kept at once; Ctrl-C, `q` or the end of the input stop, the same command goes on. Lines may
    come from a file or a pipe.

    Examples: `accord ask --records answers.jsonl --as anna`; `accord ask --as anna --criteria clear,kind --strength`;
    `accord ask --export said.jsonl`
    """
    if context.invoked_subcommand is not None:
        return
    from accordance.app.folder import check_writable
    from accordance.core.errors import ConfigError, DataError
    from accordance.feedback import save_records
    from accordance.feedback.interview import Interview, answered
    from accordance.feedback.store import Annotator, Store, task_key

    if not verbose:
        silence_loaded()
    if annotator is None and export is None and records is None:
        raise ConfigError("who is asked?", remedy="--as NAME; or --export FILE, to write what was said")
    if order not in ("given", "random", "informative"):
        raise ConfigError("unknown order", found=order, expected="given, random or informative")
    for name, value in (("format", format), ("split", split), ("keep_judgments", keep_judgments)):
        if records is None and value:
            raise ConfigError(f"{name} has no effect without --records", found=value)
    for name, value in (("group", group), ("profile", profile), ("criteria", criteria)):
        if annotator is None and value:
            raise ConfigError(f"{name} has no effect without --annotator", found=value)
    if export is not None:
        check_writable(str(Path(export).expanduser().absolute().parent))
    found = None if records is None else _load(terminal, records, format, split)
    person = None
    if annotator is not None:
        person = Annotator(annotator, group, dict(_assignment(each) for each in profile or ()))

    held: Store | None
    try:
        held = Store(store, make=not dry_run)
    except DataError as error:
        if not dry_run or "no store" not in error.problem:
            raise
        held = None  # nothing is made in a dry run
    known = next((each for each in held.people() if each.name == annotator), None) if held else None
    if person is not None and known is not None:
        person = Annotator(known.name, group or known.group, {**known.profile, **person.profile})
    if held is not None and not dry_run:
        if found is not None:
            (held.add_records if keep_judgments else held.add_tasks)(found, project)
        if person is not None:
            held.add_people([person])
    if dry_run and found is not None:
        tasks = [(task_key(record, project), record) for record in found]
    else:
        tasks = list(held.tasks(project)) if held else []

    outcome: dict[str, Any] = {"store": held.where if held else store, "project": project, "tasks": len(tasks)}
    interrupted = False
    if person is not None:
        interview = Interview(
            tasks,
            person,
            kind=kind,  # type: ignore[arg-type]
            criteria=[each.strip() for each in criteria.split(",") if each.strip()] if criteria else (),
            per_record=per_record,
            strength=strength,
            scale=_scale(scale),
            seed=seed,
        )
        if interview.unfit:
            terminal.say(
                f"Nothing to ask about {len(interview.unfit)} tasks: too few different responses", "yellow"
            )
        left = interview.left(answered(held, person.name) if held else ())
        before = len(left)
        outcome |= {
            "annotator": person.name,
            "unfit": len(interview.unfit),
            "questions": len(interview.questions),
        }
        if dry_run:
            outcome |= {"would_ask": len(left[:limit]), "grammar": interview.grammar}
        elif held is not None:
            arrange = _arrange(order, seed, held, project, interview)
            session = Session(terminal, held, interview, show_source=show_source)
            try:
                session.run(left, arrange, limit)
            except KeyboardInterrupt:
                interrupted = True
            outcome |= {
                "answered": session.answered,
                "corrected": session.corrected,
                "skipped": session.skipped,
                "left": before - session.answered,
                "interrupted": interrupted,
            }
    if export is not None and not dry_run and held is not None:
        made = held.records(project)
        outcome |= {
            "exported": str(save_records(made, export)),
            "records": len(made),
            "judgments": made.counts(),
        }
    if held is not None:
        held.close()

    def show(console: Any) -> None:
        for name, value in outcome.items():
            console.print(f"{name.replace('_', ' ')}: {value}", markup=False, highlight=False)

    terminal.result(outcome, show)
    if interrupted:
        raise typer.Exit(INTERRUPTED)


class Session:
    """One sitting: shows questions on stderr, reads lines from stdin, keeps every answer at once."""

    def __init__(self, terminal: Terminal, store: Any, interview: Any, *, show_source: bool) -> None:
        self.terminal, self.store, self.interview, self.show_source = terminal, store, interview, show_source
        self.answered = self.corrected = self.skipped = 0
        self._shown: Any = None

    def run(self, left: list[Any], arrange: Callable[[list[Any]], list[Any]], limit: int | None) -> None:
        """Ask until nothing is left, the limit is reached, or the person stops."""
        if not left:
            self.terminal.say("Nothing is left to ask.", "green")
            return
        self.terminal.say(
            f"Answer with {self.interview.grammar}.\ns skips, b goes back, q stops, ? helps.", "dim"
        )
        last = None
        ahead = list(arrange(left))
        while ahead and (limit is None or self.answered < limit):
            question = ahead.pop(0)
            said = self._ask(question, len(ahead) + 1)
            while said == "b":
                if last is None:
                    self.terminal.say("There is nothing to go back to.", "yellow")
                else:
                    again = self._ask(last, len(ahead) + 1)
                    if again is None:
                        return
                    self.corrected += again not in ("s", "b") and self._keep(last, again)
                said = self._ask(question, len(ahead) + 1)
            if said is None:
                return
            if said == "s":
                self.skipped += 1
                continue
            self._keep(question, said)
            self.answered += 1
            last = question
            if ahead and ahead[0].task != question.task:
                ahead = list(arrange(ahead))

    def _keep(self, question: Any, judgment: Any) -> bool:
        self.interview.record(self.store, question, judgment)
        return True

    def _ask(self, question: Any, left: int) -> Any:
        """A judgment, ``s``, ``b``, or None to stop."""
        from accordance.core.errors import DataError

        self._show(question, left)
        while True:
            line = self._line(f"{question.attribute or 'overall'}> ")
            if line is None or line.strip() == "q":
                return None
            if line.strip() in ("s", "b"):
                return line.strip()
            if line.strip() == "?":
                self.terminal.say(f"{self.interview.grammar}; s skips, b goes back, q stops", "dim")
                continue
            try:
                return self.interview.parse(question, line)
            except DataError as error:
                self.terminal.say(f"{error.problem}: {error.expected}", "yellow")

    def _line(self, prompt: str) -> str | None:
        self.terminal.aside.print(prompt, end="", markup=False, highlight=False, style="bold")
        line = sys.stdin.readline()
        if not sys.stdin.isatty():
            self.terminal.say(line.rstrip("\n"))
        return line if line else None

    def _show(self, question: Any, left: int) -> None:
        from rich.panel import Panel
        from rich.text import Text

        from accordance.feedback.interview import visible

        if (question.task, question.shown) == self._shown:
            return
        self._shown = (question.task, question.shown)
        self.terminal.say("")
        self.terminal.aside.rule(f"{left} left", style="dim")
        for message in question.record.prompt:
            self.terminal.say(f"{message.role}: {visible(message.content)}", "bold")
        for number, index in enumerate(question.shown, 1):
            response = question.record.responses[index]
            title = f" {number} " + (f"({response.source or 'unknown'}) " if self.show_source else "")
            name = title if len(question.shown) > 1 or self.show_source else None
            self.terminal.aside.print(Panel(Text(visible(response.text)), title=name, title_align="left"))


def _arrange(
    order: str, seed: int, store: Any, project: str, interview: Any
) -> Callable[[list[Any]], list[Any]]:
    """How the questions ahead are ordered; questions about one task stay together, overall first."""
    import random

    if order == "informative":
        from accordance.app.informative import most_informative_first

        return most_informative_first(store, project, interview, seed)
    if order == "random":
        places = {task: i for i, task in enumerate(dict.fromkeys(q.task for q in interview.questions))}
        order_of = random.Random(f"accord ask {interview.annotator.name} {seed}").sample(
            range(len(places)), len(places)
        )
        return lambda ahead: sorted(ahead, key=lambda question: order_of[places[question.task]])
    return lambda ahead: ahead


def _load(terminal: Terminal, source: str, format: str | None, split: str | None) -> Any:
    from accordance.app.aside import tell_set_aside
    from accordance.app.sources import read_records

    found = read_records(source, format=format, split=split, on_error="skip")
    tell_set_aside(terminal, None, found, None)
    return found


def _assignment(text: str) -> tuple[str, str]:
    from accordance.core.errors import ConfigError

    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise ConfigError("--profile takes name=value", found=text)
    return name.strip(), value.strip()


def _scale(text: str) -> tuple[int, int]:
    from accordance.core.errors import ConfigError

    low, dash, high = text.partition("-")
    if not (dash and low.isdecimal() and high.isdecimal()):
        raise ConfigError("a scale is two numbers", found=text, expected="such as 1-5")
    return int(low), int(high)
