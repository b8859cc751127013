"""The command `accord`. Each command is a file in `commands/`; heavy imports wait until it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from accordance.app.commands import (
    aggregate,
    align,
    ask,
    blend,
    compare,
    curate,
    data,
    demo,
    diagnose,
    doctor,
    evaluate,
    explain,
    generate,
    lab,
    report,
    score,
    synthesize,
    systems,
)

app = typer.Typer(
    name="accord",
    help="From what people said, to a model that acts on it, to the evidence that it does.",
    epilog="Start with `accord demo`. Then: `accord data --records FILE`, `accord align --model M --records FILE`.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _accord(
    version: Annotated[bool, typer.Option("--version", help="Show the version.", is_eager=True)] = False,
) -> None:
    if version:
        from accordance import __version__

        typer.echo(f"accord {__version__}")
        raise typer.Exit


app.command("demo")(demo.demo)
app.command(
    "align", context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, epilog=align.EXAMPLES
)(align.align)
app.command(
    "compare-objectives",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    epilog=compare.EXAMPLES,
)(compare.compare_objectives)
app.command("data")(data.data)
app.command("explain")(explain.explain)
app.add_typer(diagnose.app, name="diagnose")
app.command("aggregate")(aggregate.aggregate)
app.command("curate")(curate.curate)
app.command("synthesize")(synthesize.synthesize)
app.command("generate")(generate.generate)
app.command("blend")(blend.blend)
app.command("score")(score.score)
app.command("evaluate")(evaluate.evaluate)
app.command("report")(report.report)
app.command("systems")(systems.systems)
app.add_typer(ask.app, name="ask")
app.add_typer(lab.app, name="lab")
app.command("doctor")(doctor.doctor)


def main() -> None:
    """Entry point of `accord`."""
    app()


if __name__ == "__main__":
    main()
