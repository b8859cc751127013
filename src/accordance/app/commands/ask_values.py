"""`accord ask values`, `wiser` and `moral-graph`: a moral graph from what people say, in three steps."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from accordance.app import options as o
from accordance.app.commands.asking import OutputDir
from accordance.app.terminal import Terminal, command, silence_loaded

StorePlace = Annotated[str, typer.Option("--store", help="An SQLite file, or `postgresql://user@host/name`.")]
Project = Annotated[
    str, typer.Option("--project", help="Where in the store the cards are; votes stand beside.")
]
Who = Annotated[str, typer.Option("--annotator", "--as", help="Who is asked.")]
Group = Annotated[str | None, typer.Option("--group", help="The group that they belong to.")]
Asker = Annotated[
    str | None,
    typer.Option(
        "--model", help="A checkpoint, `lab:base`, or `api:provider/model`; else people write themselves."
    ),
]


@command
def values(
    terminal: Terminal,
    annotator: Who,
    context: Annotated[str, typer.Option("--context", help="The situation: `a friend is in distress`.")],
    model: Asker = None,
    turns: Annotated[int, typer.Option("--turns", min=1, help="Questions that the model asks.")] = 4,
    group: Group = None,
    store: StorePlace = "accord.db",
    project: Project = "values",
    seed: o.Seed = 0,
    as_json: o.AsJson = False,
    verbose: o.Verbose = False,
) -> None:
    """Write a values card: what a person attends to in a situation, by themselves or interviewed by a model.

    Example: `accord ask values --as anna --context "a friend is in distress" --model api:openai/gpt-4o`
    """
    from accordance.core.errors import DataError
    from accordance.feedback.articulate import Interviewer, new_card
    from accordance.feedback.moral_graph import card_record
    from accordance.feedback.store import Annotator, Store

    if not verbose:
        silence_loaded()
    asker = None if model is None else Interviewer(_policy(model), seed=seed)
    with Store(store) as held:
        known = next((p for p in held.people() if p.name == annotator), Annotator(annotator))
        held.add_people([Annotator(annotator, group or known.group, known.profile)])
        said: list[tuple[str, str]] = []
        if asker is None:
            title = _line(terminal, f"When {context}: what do you attend to? A title, two to five words> ")
            about = _line(terminal, "In a sentence> ")
            policies = []
            while (more := _line(terminal, "Something you attend to (an empty line ends)> ")).strip():
                policies.append(more.strip())
            if not title.strip() or not policies:
                raise DataError("a card needs a title and something to attend to", found=(title, policies))
            card = new_card(title, policies, context, about, annotator)
        else:
            for _ in range(turns):
                question = asker.question(context, said)
                said.append((question, _line(terminal, f"{question}\n> ")))
            card = asker.card(context, said, annotator)
        terminal.say(card.text)
        if asker is not None and _line(terminal, "Is that what you attend to? y or n> ").strip().lower() != "y":
            terminal.result({"card": None, "interview": said}, lambda _: terminal.say("Not kept.", "yellow"))
            return
        held.add_records([card_record(card)], project)
    terminal.result(
        {"card": card_record(card).extras["values_card"], "interview": said, "store": held.where},
        lambda console: console.print(f"Kept: card {card.id} of {annotator}", markup=False),
    )


@command
def wiser(
    terminal: Terminal,
    annotator: Who,
    context: Annotated[str | None, typer.Option("--context", help="Only this situation; else all.")] = None,
    many: Annotated[int, typer.Option("--many", min=1, help="Moves to judge in each situation.")] = 6,
    model: Asker = None,
    group: Group = None,
    store: StorePlace = "accord.db",
    project: Project = "values",
    seed: o.Seed = 0,
    as_json: o.AsJson = False,
    verbose: o.Verbose = False,
) -> None:
    """Vote: somebody moved from one card to another in a situation; did they become wiser?

    A model, where one is given, tells each move as a story.

    Example: `accord ask wiser --as bob --context "a friend is in distress"`
    """
    from accordance.app.commands.ask import Session
    from accordance.core.errors import DataError
    from accordance.feedback.articulate import Interviewer
    from accordance.feedback.interview import Interview, answered
    from accordance.feedback.moral_graph import move_record, moves_for
    from accordance.feedback.store import Annotator, Store, task_key

    if not verbose:
        silence_loaded()
    teller = None if model is None else Interviewer(_policy(model), seed=seed)
    with Store(store, make=False) as held:
        known = next((p for p in held.people() if p.name == annotator), Annotator(annotator))
        person = Annotator(annotator, group or known.group, known.profile)
        held.add_people([person])
        cards = _cards(held, project)
        situations = [context] if context else sorted({c for card in cards for c in card.contexts})
        told = {record.id: record for _, record in held.tasks(f"{project}/moves")}
        records = []
        for situation in situations:
            for a, b in moves_for(cards, situation, annotator, many, seed):
                name = move_record(a, b, situation).id
                if name not in told:
                    told[name] = move_record(a, b, situation, teller and teller.story(a, b, situation))
                records.append(told[name])
        if not records:
            raise DataError(
                "there are no two cards to move between",
                where=held.where,
                found=f"{len(cards)} cards in {project!r}, situations {situations}",
                remedy="accord ask values, by two people at least",
            )
        held.add_tasks(records, f"{project}/moves")
        tasks = [(task_key(record, f"{project}/moves"), record) for record in records]
        interview = Interview(tasks, person, kind="thumb")
        session = Session(terminal, held, interview, show_source=False)
        terminal.say("+ for wiser, - for not wiser, x for unsure", "dim")
        left = interview.left(answered(held, annotator))
        session.run(left, lambda ahead: ahead, None)
    outcome = {"store": held.where, "moves": len(records), "answered": session.answered,
               "left": len(left) - session.answered}  # fmt: skip
    terminal.result(outcome, lambda console: console.print(f"{session.answered} votes kept", markup=False))


@command
def moral_graph(
    terminal: Terminal,
    context: Annotated[
        str | None, typer.Option("--context", help="Only this situation; else all together.")
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="Cards that the text for a model is made of.")] = 3,
    model: Annotated[
        str | None, typer.Option("--merge-with", help="A model that says which cards are the same value.")
    ] = None,
    store: StorePlace = "accord.db",
    project: Project = "values",
    samples: Annotated[int, typer.Option("--samples", min=10, help="Resamples of voters.")] = 200,
    seed: o.Seed = 0,
    output_dir: OutputDir = None,
    as_json: o.AsJson = False,
    verbose: o.Verbose = False,
) -> None:
    """Draw up the moral graph of all votes: which cards come out wisest, and the text that tells a model so.

    Example: `accord ask moral-graph --context "a friend is in distress" --output-dir runs/values`
    """
    from dataclasses import replace

    from accordance.app.folder import check_writable
    from accordance.feedback.articulate import Interviewer
    from accordance.feedback.moral_graph import MoralGraph, deduplicate, votes_of
    from accordance.feedback.moral_report import moral_report
    from accordance.feedback.store import Store

    if not verbose:
        silence_loaded()
    if output_dir is not None:
        check_writable(output_dir)
    with Store(store, make=False) as held:
        cards = _cards(held, project)
        votes = [vote for record in held.records(f"{project}/moves") for vote in votes_of(record)]
    if model is not None:
        cards, stands = deduplicate(cards, Interviewer(_policy(model), seed=seed).same)
        votes = [replace(v, source=stands[v.source], wiser=stands[v.wiser]) for v in votes]
        votes = [vote for vote in votes if vote.source != vote.wiser]
    report = moral_report(MoralGraph(cards, votes, context=context), top=top, samples=samples, seed=seed)
    if output_dir is not None:
        _, page = report.save(output_dir, "moral-graph")
        terminal.say(f"Report: {page}", "dim")
    terminal.result(report.to_dict(), report.print)


def _cards(store: Any, project: str) -> list[Any]:
    from accordance.feedback.moral_graph import card_of

    return [card for record in store.records(project) if (card := card_of(record)) is not None]


def _policy(name: str) -> Any:
    from accordance.app.sources import model_source

    if name.startswith("api:"):
        from accordance.models.api import InspectPolicy

        return InspectPolicy(name.removeprefix("api:"))
    from accordance.models import load_policy

    return load_policy(model_source(name))


def _line(terminal: Terminal, prompt: str) -> str:
    from accordance.core.errors import DataError
    from accordance.feedback.interview import visible

    terminal.aside.print(visible(prompt), end="", markup=False, highlight=False, style="bold")
    line = sys.stdin.readline()
    if not line:
        raise DataError("the input ended before the card was whole", remedy="nothing was kept; start again")
    return line.rstrip("\n").encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "")
