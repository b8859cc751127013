"""What stands below `accord ask`: message trees, people and their welfare, and other ways of asking."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from accordance.app import options as o
from accordance.app.terminal import Terminal, command, silence_loaded

OutputDir = Annotated[
    str | None, typer.Option("--output-dir", "--output_dir", help="Also write the report there, json and html.")
]


@command
def trees(
    terminal: Terminal,
    source: Annotated[
        str, typer.Argument(metavar="TREES", help="OASST's trees or messages: a file or folder.")
    ],
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Write records to this jsonl file; else only count.")
    ] = None,
    cut: Annotated[
        str, typer.Option("--cut", help="`rankings` (comparisons of replies) or `threads` (demonstrations).")
    ] = "rankings",
    top: Annotated[
        int | None,
        typer.Option("--top", min=1, help="Of threads: follow so many best replies to each message."),
    ] = None,
    spam: Annotated[
        float, typer.Option("--spam", min=0.0, max=1.0, help="Share of spam labels allowed.")
    ] = 0.5,
    least_quality: Annotated[
        float | None, typer.Option("--least-quality", "--least_quality", help="Lowest quality label, 0 to 1.")
    ] = None,
    lang: Annotated[
        list[str] | None, typer.Option("--lang", help="Only this language; again for more.")
    ] = None,
    per_author: Annotated[
        int | None, typer.Option("--per-author", "--per_author", min=1, help="At most so many of one author.")
    ] = None,
    held_out: Annotated[
        float | None, typer.Option("--held-out", "--held_out", help="Share of whole trees for a second file.")
    ] = None,
    seed: o.Seed = 0,
    as_json: o.AsJson = False,
    verbose: o.Verbose = False,
) -> None:
    """Filter message trees (OpenAssistant), count what is in them, and cut them into records for training.

    Example: `accord ask trees oasst2_ready.trees.jsonl.gz --lang en --cut threads --top 1 -o threads.jsonl`
    """
    from accordance.core.errors import ConfigError
    from accordance.feedback import save_records
    from accordance.feedback import trees as forest

    if not verbose:
        silence_loaded()
    if cut not in ("rankings", "threads"):
        raise ConfigError("unknown cut", found=cut, expected="rankings or threads")
    if top is not None and cut != "threads":
        raise ConfigError("top has no effect on rankings", found=top, remedy="--cut threads")
    if held_out is not None and output is None:
        raise ConfigError("held_out has no effect without a file to write", remedy="--output FILE")
    read = forest.load_trees(source)
    kept, account = forest.clean(
        read, spam=spam, least_quality=least_quality, langs=lang or None, per_author=per_author
    )
    outcome: dict[str, Any] = {
        "source": source,
        "read": len(read),
        "kept": len(kept),
        "messages": account.to_dict(),
        "counts": forest.tally(kept),
        "written": {},
    }
    if output is not None:
        files = {output: kept}
        if held_out is not None:
            rest, apart = forest.split_trees(kept, held_out, seed)
            stem, dot, end = output.partition(".jsonl")
            files = {output: rest, f"{stem}.held-out{dot}{end}": apart}
        for file, some in files.items():
            made = forest.ranking_records(some) if cut == "rankings" else forest.thread_records(some, top)
            save_records(made, file)
            outcome["written"][file] = {"trees": len(some), "records": len(made)}

    def show(console: Any) -> None:
        counts = outcome["counts"]
        console.print(f"{len(kept)} of {len(read)} trees kept, {counts['messages']} messages", style="bold")
        for name in ("ranked", "pairs", "deepest", "by_state", "by_role", "by_lang"):
            console.print(f"{name.replace('_', ' ')}: {counts[name]}", markup=False, highlight=False)
        authors = counts["by_author"]
        console.print(
            f"authors: {len(authors)}; the busiest wrote {max(authors.values(), default=0)}", markup=False
        )
        rows = [(name, f"{mean:.3f}", count) for name, (mean, count) in counts["labels"].items()]
        if rows:
            console.print(terminal.table("Labels", ["label", "mean", "messages"], rows))
        rows = list(account.dropped.items())
        if rows:
            console.print(terminal.table("Messages left out", ["reason", "messages"], rows))
        for file, what in outcome["written"].items():
            console.print(f"{file}: {what['records']} records of {what['trees']} trees", markup=False)

    terminal.result(outcome, show)


@command
def people(
    terminal: Terminal,
    records: o.RecordsSource,
    survey: Annotated[
        str | None, typer.Option("--survey", help="What people said of themselves: a file with `user_id`.")
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option("--group-by", "--group_by", help="A question of the survey; else the judgments' group."),
    ] = None,
    census: Annotated[
        str | None,
        typer.Option(
            "--census", help="A json file of shares: `{question: {answer: share}}`; people are weighted."
        ),
    ] = None,
    plan: Annotated[
        int | None, typer.Option("--plan", min=1, help="Also say whom of the survey to ask: so many people.")
    ] = None,
    asked: Annotated[int, typer.Option("--asked", min=2, help="How many people each scheme asks.")] = 100,
    draws: Annotated[int, typer.Option("--draws", min=1, help="How often schemes are tried.")] = 200,
    format: o.Format = None,
    limit: o.Limit = None,
    on_error: o.OnError = "skip",
    seed: o.Seed = 0,
    output_dir: OutputDir = None,
    as_json: o.AsJson = False,
    verbose: o.Verbose = False,
) -> None:
    """Say who rated, whom they stand for, which group ranks models how, and who fares how when others choose.

    Reads ratings of several models by named people, such as PRISM's utterances and survey.

    Example: `accord ask people --records utterances.jsonl --survey survey.jsonl --group-by gender --census uk.json`
    """
    import json
    from pathlib import Path

    from accordance.app.aside import tell_set_aside
    from accordance.app.folder import check_writable
    from accordance.app.sources import read_records
    from accordance.core.errors import ConfigError, DataError
    from accordance.feedback import participation as part
    from accordance.feedback.people_report import people_report

    if not verbose:
        silence_loaded()
    for name, value in (("group_by", group_by), ("census", census), ("plan", plan)):
        if value is not None and survey is None:
            raise ConfigError(f"{name} has no effect without a survey", found=value, remedy="--survey FILE")
    if plan is not None and census is None:
        raise ConfigError("a plan follows a census", found=plan, remedy="--census FILE")
    if output_dir is not None:
        check_writable(output_dir)
    found = read_records(records, format=format, limit=limit, on_error=on_error).materialise()
    turns = part.rated_turns(found)
    profiles = part.load_profiles(survey) if survey is not None else {}
    margins = None
    if census is not None:
        try:
            margins = json.loads(Path(census).expanduser().read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError("the census is no JSON", where=census, found=str(error)) from error
    if group_by is not None:
        groups = {person: said[group_by] for person, said in profiles.items() if group_by in said}
        if not groups:
            raise ConfigError("nobody answered that question", where=str(survey), found=group_by)
    else:
        judged = (judgment for record in found for judgment in record.judgments)
        groups = {j.annotator: j.group for j in judged if j.annotator is not None and j.group is not None}
    report = people_report(turns, profiles, groups, margins, plan=plan, asked=asked, draws=draws, seed=seed)
    report.data("records", found.account.to_dict())
    tell_set_aside(terminal, report, found, output_dir)
    if output_dir is not None:
        _, page = report.save(output_dir, "people")
        terminal.say(f"Report: {page}", "dim")
    terminal.result(report.to_dict(), report.print)
