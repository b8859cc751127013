"""What a person (or a program that reads JSON) sees: results on stdout, everything else on stderr."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ParamSpec

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

P = ParamSpec("P")

#: Exit code for what the user can mend; 130 is for Ctrl-C, as shells have it.
USER_ERROR, INTERRUPTED = 2, 130

_STAGES = {
    "tokenise": "tokenising",
    "reference": "reference log-probabilities",
    "train": "training",
    "evaluate": "evaluating",
    "generate": "writing answers",
}


class Terminal:
    """Where a command writes.

    Args:
        json: stdout carries exactly one JSON document, and nothing else.
        verbose: let third parties speak (warnings, log lines, progress bars).
    """

    def __init__(self, *, json: bool = False, verbose: bool = False) -> None:
        self.json, self.verbose = json, verbose
        self.aside = Console(stderr=True)
        self._out = sys.stdout
        self._answered = False

    def say(self, message: str, style: str | None = None) -> None:
        """A line for people, on stderr."""
        self.aside.print(Text(message, style=style or ""))

    def result(self, value: Any, show: Callable[[Console], object]) -> None:
        """The command's result: one JSON document, or what `show` prints on a console."""
        if not self.json:
            show(Console())
        elif not self._answered:
            self._answered = True
            print(json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False, default=str), file=self._out)
            self._out.flush()

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
        """A table of plain text; markup in the cells is shown, not obeyed."""
        made = Table(title=title or None, title_justify="left", header_style="bold")
        for column in columns:
            made.add_column(column, overflow="fold")
        for row in rows:
            made.add_row(*[Text("" if cell is None else str(cell)) for cell in row])
        return made

    @contextlib.contextmanager
    def progress(self) -> Iterator[Callable[[str, int, int], None]]:
        """A callback (stage, done, total) that draws bars on stderr, or lines where stderr is no terminal."""
        if not self.aside.is_terminal:
            yield _lines(self)
            return
        columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, TextColumn("{task.fields[note]}"), console=self.aside) as bars:
            tasks: dict[str, TaskID] = {}

            def note(stage: str, done: int, total: int) -> None:
                if stage == "note":
                    return
                if stage not in tasks:
                    tasks[stage] = bars.add_task(_STAGES.get(stage, stage), total=total, note="")
                bars.update(tasks[stage], completed=done, total=total)

            note.remark = lambda stage, text: bars.update(tasks[stage], note=text) if stage in tasks else None  # type: ignore[attr-defined]
            yield note

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """Keep stdout for the result and third parties' noise away; our own warnings go to stderr."""
        handler = _Lines(self)
        log = logging.getLogger("accordance")
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        propagate, log.propagate = log.propagate, False
        try:
            with contextlib.redirect_stdout(sys.stderr) if self.json else contextlib.nullcontext():
                if self.verbose:
                    yield
                else:
                    with warnings.catch_warnings():
                        _silence()
                        yield
        finally:
            log.removeHandler(handler)
            log.propagate = propagate


def command(function: Callable[P, object]) -> Callable[P, None]:
    """A command: its errors are a clear message and exit code 2 (`--json`: an object with `error`)."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        terminal = Terminal(json=bool(kwargs.get("as_json")), verbose=bool(kwargs.get("verbose")))
        kwargs["terminal"] = terminal
        try:
            with terminal.quiet():
                function(*args, **kwargs)
        except KeyboardInterrupt:
            terminal.result({"interrupted": True}, lambda _: terminal.say("Stopped.", "yellow"))
            raise typer.Exit(INTERRUPTED) from None
        except (Exception, SystemExit) as problem:
            if isinstance(problem, (typer.Exit, typer.Abort, SystemExit)):
                raise
            _report(terminal, problem)
            raise typer.Exit(USER_ERROR) from None

    hidden = {"terminal"}
    run.__annotations__ = {k: v for k, v in function.__annotations__.items() if k not in hidden}
    run.__signature__ = _without(function, hidden)  # type: ignore[attr-defined]
    return run


def _report(terminal: Terminal, problem: Exception) -> None:
    """Show an error that the user can mend; let any other one, which is our bug, through."""
    from accordance.core.errors import AccordanceError

    if isinstance(problem, AccordanceError):
        parts, text = problem.to_dict(), str(problem)
    elif isinstance(problem, OSError) and problem.strerror:
        where = str(problem.filename or "")
        parts = {"error": type(problem).__name__, "problem": problem.strerror, "where": where}
        text = f"{where}: {problem.strerror}" if where else problem.strerror
    else:
        raise problem
    if terminal.verbose:
        terminal.aside.print_exception()
    if terminal.json:
        terminal.result(parts, lambda _: None)
    else:
        head, *rest = text.split("\n")
        terminal.aside.print(Text("Error: ", style="bold red").append(Text(head, style="red")))
        for line in rest:
            terminal.say(line)


def _without(function: Callable[..., object], names: set[str]) -> Any:
    import inspect

    signature = inspect.signature(function, eval_str=True)
    return signature.replace(parameters=[p for name, p in signature.parameters.items() if name not in names])


class _Lines(logging.Handler):
    """Our own log lines on stderr."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__()
        self.terminal = terminal

    def emit(self, record: logging.LogRecord) -> None:
        style = "yellow" if record.levelno >= logging.WARNING else "dim"
        self.terminal.say(("! " if record.levelno >= logging.WARNING else "") + record.getMessage(), style)


def _lines(terminal: Terminal) -> Callable[[str, int, int], None]:
    """Progress where nobody watches a bar: a line now and then."""
    last: dict[str, float] = {}
    remarks: dict[str, str] = {}

    def note(stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done >= total or now - last.get(stage, -1e9) >= 10:
            last[stage] = now
            terminal.say(
                f"{_STAGES.get(stage, stage)}: {done}/{total} {remarks.get(stage, '')}".rstrip(), "dim"
            )

    note.remark = remarks.__setitem__  # type: ignore[attr-defined]
    return note


def _silence() -> None:
    """Third parties' bars, information and warnings."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.simplefilter("ignore")
    for name in ("datasets", "huggingface_hub", "torch", "accelerate", "peft", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)


def silence_loaded() -> None:
    """Progress bars of libraries that a command has just imported."""
    import datasets
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()
