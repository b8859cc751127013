"""`accord systems`: the published systems that are in the house."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from accordance.app import options as o
from accordance.app.terminal import Terminal, command


@command
def systems(
    terminal: Terminal,
    room: Annotated[str | None, typer.Option("--room", help="Only those of this room.")] = None,
    book: Annotated[
        bool, typer.Option("--book", help="Instead: what an alignment needs, where it stands, and recipes.")
    ] = False,
    as_json: o.AsJson = False,
    verbose: o.Verbose = False,
) -> None:
    """List every catalogued system: id, name, room, where its code is, which test proves it.

    Examples: `accord systems --room objectives`; `accord systems --book`
    """
    if book:
        return _book(terminal, room)
    from accordance.core.catalogue import systems as catalogue
    from accordance.core.errors import unknown

    found = catalogue()
    if room is not None:
        rooms = sorted({system.room for system in found})
        if room not in rooms:
            raise unknown("room", room, rooms)
        found = [system for system in found if system.room == room]
    rows = [[s.id, s.name, s.room, s.where, s.proof, s.paper] for s in found]

    def show(console: Any) -> None:
        title = f"{len(rows)} systems"
        console.print(terminal.table(title, ["id", "name", "room", "where", "proof", "paper"], rows))

    terminal.result([system.to_dict() for system in found], show)


def _book(terminal: Terminal, room: str | None) -> None:
    """The survey's map of alignment, and the recipes drawn from it."""
    from accordance.core.errors import unknown
    from accordance.curation.survey import recipe_book

    entries, recipes = recipe_book()
    if room is not None:
        if room not in (rooms := sorted({entry.room for entry in entries})):
            raise unknown("room of the map", room, rooms)
        entries = tuple(entry for entry in entries if entry.room == room)
    rows = [[e.room, e.branch, e.name, e.where or "not here", e.how] for e in entries]
    named = [
        {
            "name": r.name,
            "purpose": r.purpose,
            "needs": r.needs,
            "curate": list(r.curate),
            "align": dict(r.align),
        }
        for r in recipes
    ]

    def show(console: Any) -> None:
        console.print(
            terminal.table("What an alignment needs", ["room", "branch", "what", "where", "how"], rows)
        )
        said = [
            [
                r["name"],
                r["purpose"],
                r["needs"],
                f"steps: {r['curate']}",
                f"{r['align']}",
            ]  # as in a recipe file
            for r in named
        ]
        columns = ["recipe", "when", "needs", "accord curate --recipe", "accord align --recipe"]
        console.print(terminal.table("Recipes", columns, said))

    told = [
        {"room": e.room, "branch": e.branch, "name": e.name, "where": e.where, "how": e.how} for e in entries
    ]
    terminal.result({"map": told, "recipes": named}, show)
