"""Tastes side by side, below `accord diagnose`: groups or people, people and rewards, and wordings of one meaning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from accordance.app import options as o
from accordance.app.terminal import Terminal, command, silence_loaded

if TYPE_CHECKING:
    from accordance.core.record import Records
    from accordance.core.report import Report

Folder = Annotated[
    str | None, typer.Option("--output-dir", "--output_dir", "-o", help="Also write the report there.")
]
Data = Annotated[
    str, typer.Argument(metavar="DATA", help="Feedback: a file, a folder, a hub name, or `lab:demo`.")
]
Attribute = Annotated[str | None, typer.Option("--attribute", help="Judgments of this attribute.")]


@command
def judges(
    terminal: Terminal,
    data: Data,
    by: Annotated[str, typer.Option("--by", help="Who is a judge: each `group`, or each `person`.")] = "group",
    least: Annotated[int, typer.Option("--least", min=2, help="Comparisons that a judge must have made.")] = 50,
    attribute: Attribute = None,
    format: o.Format = None,
    split: o.Split = None,
    limit: o.Limit = None,
    on_error: o.OnError = "skip",
    output_dir: Folder = None,
    as_json: o.AsJson = False,
    verbose: o.Verbose = False,
) -> None:
    """What each group (or person) rewards, property by property, and which of them judge alike.

    Example: `accord diagnose judges lab:demo --limit 800`
    """
    from accordance.analysis import PairTable, TextFeatures, dissect
    from accordance.core.errors import ConfigError

    if by not in ("group", "person"):
        raise ConfigError("a judge is a group or a person", where="--by", found=by)
    records = _read(verbose, output_dir, data, format=format, split=split, limit=limit, on_error=on_error)
    who: Literal["group", "person"] = "person" if by == "person" else "group"
    report = dissect(PairTable.from_records(records, attribute), [TextFeatures()], by=who, least=least).report()
    _tell(terminal, report, records, output_dir)


@command
def profiles(
    terminal: Terminal,
    data: Data,
    scorer: Annotated[
        str,
        typer.Option("--scorer", help="The other taste: `module:function`, `file.py:function`, `population`."),
    ],
    attribute: Attribute = None,
    samples: Annotated[int, typer.Option("--samples", min=100, help="Bootstrap resamples.")] = 1000,
    format: o.Format = None,
    split: o.Split = None,
    limit: o.Limit = None,
    on_error: o.OnError = "skip",
    seed: o.Seed = 0,
    output_dir: Folder = None,
    as_json: o.AsJson = False,
    verbose: o.Verbose = False,
) -> None:
    """Which factors drive people's preferences and which a reward's, on the same pairs, and how alike they are.

    Example: `accord diagnose profiles lab:demo --limit 800 --scorer population`
    """
    from dataclasses import replace

    import numpy as np

    from accordance.analysis import PairTable, TextFeatures, align_profiles, profile
    from accordance.app.scorers import resolve_scorer
    from accordance.core.errors import ConfigError
    from accordance.core.report import Report

    rater: Any = resolve_scorer(scorer)[0]
    if not hasattr(rater, "score"):
        raise ConfigError("this scorer compares pairs; it gives single responses no score", found=scorer)
    records = _read(verbose, output_dir, data, format=format, split=split, limit=limit, on_error=on_error)
    people = PairTable.from_records(records, attribute)
    asked = people.prompts.take(people.text_prompt).to_pylist()
    scores = rater.score(asked, people.texts.to_pylist())
    if any(score is None for score in scores):
        raise ConfigError("the scorer has no number for some responses", where=scorer)
    gap = [float(scores[a]) - float(scores[b]) for a, b in zip(people.first.tolist(), people.second.tolist())]
    reward = replace(people, label=(1 + np.sign(gap)) / 2)
    made = TextFeatures().differences(people)
    one, two = (profile(table, made, samples=samples, seed=seed) for table in (people, reward))
    found = align_profiles(two, one)
    report = Report(
        f"Tastes of people and of {scorer}",
        f"Kendall {found.kendall:.2f} between their orders of {len(one.names)} factors. {found.advice()}",
    )
    report.add("kendall", found.kendall, label="Kendall's tau-b of the orders", headline=True)
    report.add("spearman", found.spearman, label="Spearman's correlation of the orders")
    report.add("pearson", found.pearson, label="Pearson's correlation of the scores")
    told = np.flatnonzero(made.values.any(axis=0)).tolist()
    order = sorted(told, key=lambda j: -abs(found.gaps[one.names[j]]))
    rows = [[one.names[j], one.tau[j], two.tau[j], found.gaps[one.names[j]]] for j in order]
    note = "tau: concordant less discordant, over all comparisons; the gap is the reward's less people's."
    report.table("Factors, the largest gap first", ["factor", "people", scorer, "gap"], rows, note)
    report.data("advice", found.advice())
    _tell(terminal, report, records, output_dir)


@command
def wording(
    terminal: Terminal,
    data: Data,
    margin: Annotated[
        float, typer.Option("--margin", min=0.5, max=1.0, help="Share of votes that a clear preference has.")
    ] = 0.7,
    attribute: Attribute = None,
    format: o.Format = None,
    split: o.Split = None,
    limit: o.Limit = None,
    on_error: o.OnError = "skip",
    seed: o.Seed = 0,
    output_dir: Folder = None,
    as_json: o.AsJson = False,
    verbose: o.Verbose = False,
) -> None:
    """Which wording is preferred, told from pairs of texts that mean the same; and what to tell who rewrites a text.

    Whether two texts mean the same is not tested: give it paraphrases, or `wording` of the package votes on meaning.

    Example: `accord diagnose wording paraphrases.jsonl -o runs/wording`
    """
    from accordance.analysis import PairTable
    from accordance.analysis import wording as work
    from accordance.analysis.paraphrase import surface, votes_of, wording_report

    records = _read(verbose, output_dir, data, format=format, split=split, limit=limit, on_error=on_error)
    votes = votes_of(PairTable.from_records(records, attribute))
    names, look = surface([*votes.first, *votes.second])
    found = work(votes, look, names, margin=margin, meaning=0.0, seed=seed)
    _tell(terminal, wording_report(found, records.source), records, output_dir)


def _read(verbose: bool, output_dir: str | None, data: str, **reading: Any) -> Records:
    from accordance.app.folder import check_writable
    from accordance.app.sources import read_records

    if not verbose:
        silence_loaded()
    if output_dir is not None:
        check_writable(output_dir)
    return read_records(data, **reading).materialise()


def _tell(terminal: Terminal, report: Report, records: Records, output_dir: str | None) -> None:
    from accordance.app.aside import tell_set_aside

    report.data("records", records.account.to_dict())
    tell_set_aside(terminal, report, records, output_dir)
    if output_dir is not None:
        _, page = report.save(output_dir, "diagnose")
        terminal.say(f"Report: {page}", "dim")
    terminal.result(report.to_dict(), report.print)
