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
    as_json: o.AsJson = False,
    verbose: o.Verbose = False,
) -> None:
    """List every catalogued system: id, name, room, where its code is, which test proves it.

    Example: `accord systems --room objectives`
    """
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
