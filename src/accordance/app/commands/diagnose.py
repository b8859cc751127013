"""`accord diagnose`: discretion with principles, biases that ride on quality into a reward, and tastes compared."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from accordance.app import options as o
from accordance.app.commands.explain import asked_judge
from accordance.app.commands.tastes import judges, profiles, wording
from accordance.app.terminal import Terminal, command, silence_loaded

if TYPE_CHECKING:
    from accordance.core.record import Records
    from accordance.core.report import Report

app = typer.Typer(name="diagnose", help="What labels and rewards do that no score shows.", no_args_is_help=True)

Folder = Annotated[
    str | None, typer.Option("--output-dir", "--output_dir", "-o", help="Also write the report there.")
]
Scorers = Annotated[
    list[str] | None,
    typer.Option(
        "--scorer", help="A reward: `module:function`, `file.py:function`, `population`; again for more."
    ),
]
Data = Annotated[
    str, typer.Argument(metavar="DATA", help="Feedback: a file, a folder, a hub name, or `lab:demo`.")
]


app.command("judges")(judges)
app.command("profiles")(profiles)
app.command("wording")(wording)


@app.command("discretion")
@command
def discretion(
    terminal: Terminal,
    data: Data,
    principle: Annotated[
        list[str], typer.Option("--principle", help="A principle, or a file with one per line; again for more.")
    ],
    judge: Annotated[
        str,
        typer.Option("--judge", help="Says which response follows a principle: `lab`, `api:provider/model`."),
    ] = "lab",
    scorer: Scorers = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="A checkpoint that prefers what it finds likelier; again for more."),
    ] = None,
    attribute: Annotated[str | None, typer.Option("--attribute", help="Judgments of this attribute.")] = None,
    budget: Annotated[
        int | None, typer.Option("--budget", min=0, help="At most so many calls of the judge.")
    ] = None,
    cache: Annotated[str | None, typer.Option("--cache", help="A file that keeps the judge's answers.")] = None,
    samples: Annotated[int, typer.Option("--samples", min=0, help="Bootstrap resamples.")] = 200,
    format: o.Format = None,
    split: o.Split = None,
    limit: o.Limit = None,
    on_error: o.OnError = "skip",
    seed: o.Seed = 0,
    output_dir: Folder = None,
    as_json: o.AsJson = False,
    verbose: o.Verbose = False,
) -> None:
    """How much latitude annotators, rewards and models take with written principles.

    Examples: `accord diagnose discretion lab:demo --limit 300 --principle "more politeness" --principle "less harm"`;
    `accord diagnose discretion hh.jsonl --principle constitution.txt --judge api:openai/gpt-4o --budget 20000`
    """
    from accordance.analysis import PairTable
    from accordance.diagnostics import discretion as work
    from accordance.diagnostics import discretion_report, oracle_votes

    _ready(verbose, output_dir)
    records = _records(data, format, split, limit, on_error)
    table = PairTable.from_records(records, attribute)
    principles = _principles(principle)
    asked = asked_judge(judge, budget, cache)
    votes, consistency = oracle_votes(asked, principles, table)
    annotators = {"people": table.sign}
    for g, name in enumerate(table.groups):
        annotators[name] = (table.group == g) * table.sign
    for name in scorer or ():
        annotators[name] = _preferred(table, _scores(table, name))
    for name in model or ():
        annotators[name] = _preferred(table, _likelihoods(table, name))
    found = work(votes, annotators, principles, clusters=table.clusters[0], samples=samples, seed=seed)
    report = discretion_report(found, consistency=consistency, source=records.source)
    for name in model or ():
        report.warn(f"{name} prefers by the sum of log-probabilities, which favours short responses")
    report.data("judge", asked.account.to_dict())
    _tell(terminal, report, records, output_dir)


@app.command("tampering")
@command
def tampering(
    terminal: Terminal,
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="[DATA]", help="Responses, several per prompt; without it the attack is rehearsed."
        ),
    ] = None,
    bias: Annotated[
        str | None,
        typer.Option(
            "--bias", help="What the bias looks like: a regular expression, `module:f` or `file.py:f`."
        ),
    ] = None,
    scorer: Annotated[
        str | None, typer.Option("--scorer", help="The reward under audit; else the quality itself is taken.")
    ] = None,
    quality: Annotated[
        str, typer.Option("--quality", help="Who says how good a response is: `ratings`, `wins`, or a scorer.")
    ] = "wins",
    model: Annotated[
        str | None,
        typer.Option("--model", help="Look for clusters in the states of this model, such as `lab:base`."),
    ] = None,
    coupling: Annotated[
        float | None,
        typer.Option("--coupling", help="Of the rehearsal: how much better biased answers are; else 1."),
    ] = None,
    format: o.Format = None,
    split: o.Split = None,
    limit: o.Limit = None,
    on_error: o.OnError = "skip",
    seed: o.Seed = 0,
    output_dir: Folder = None,
    as_json: o.AsJson = False,
    verbose: o.Verbose = False,
) -> None:
    """Whether a bias rides on quality into the reward, and how it would grow.

    Examples: `accord diagnose tampering` (the attack, rehearsed on a table);
    `accord diagnose tampering samples.jsonl --bias "(?i)acme" --quality ratings --scorer my.py:reward --model lab:base`
    """
    from accordance.core.errors import ConfigError
    from accordance.diagnostics import Attack, rehearsal

    _ready(verbose, output_dir)
    if data is None:
        useless = [n for n, v in (("--bias", bias), ("--scorer", scorer), ("--model", model)) if v is not None]
        if useless:
            raise ConfigError("without DATA the attack is rehearsed, which takes no such option", found=useless)
        _tell(terminal, rehearsal(Attack(1.0 if coupling is None else coupling, seed=seed)), None, output_dir)
        return
    if bias is None or coupling is not None:
        raise ConfigError("DATA needs --bias, and takes no --coupling", where="accord diagnose tampering")
    records = _records(data, format, split, limit, on_error)
    _tell(terminal, _audit(records, bias, scorer, quality, model, seed), records, output_dir)


def _audit(
    records: Records, bias: str, scorer: str | None, quality: str, model: str | None, seed: int
) -> Report:
    from accordance.core.errors import DataError
    from accordance.diagnostics import tampering_report

    named, off = _bias(bias)
    prompts, texts, good, left_out = [], [], [], 0
    for record in records:
        found = _quality(record, quality)
        if len(record.responses) < 2 or found is None:
            left_out += 1
            continue
        prompts.append(record.prompt_text)
        texts.append([r.text for r in record.responses])
        good.append(found)
    if not prompts:
        raise DataError(
            "no record has two responses with a quality", where=records.source, expected=quality,
            remedy="--quality ratings, wins, or a scorer",
        )  # fmt: skip
    if quality not in ("ratings", "wins"):
        good = _scored(prompts, texts, quality)
    reward = None if scorer is None else _scored(prompts, texts, scorer)
    twins = None
    if scorer is not None and off is not None:
        some = [(p, t) for p, group in zip(prompts, texts) for t in group if named(p, t)]
        sides = [_scored([p for p, _ in some], [[f(t)] for _, t in some], scorer) for f in (str, off)]
        twins = ([v for (v,) in sides[0]], [v for (v,) in sides[1]]) if some else None
    report = tampering_report(
        prompts, texts, named, good, reward, twins=twins, embed=_embedder(model, prompts, texts), seed=seed
    )
    if left_out:
        report.warn(f"{left_out} records have fewer than two responses, or none that was judged")
    return report


def _bias(given: str) -> tuple[Any, Any]:
    """A bias as a function of prompt and text, and how to take it out of a text, where that is known."""
    from accordance.core.errors import ConfigError
    from accordance.core.named import named_object

    if re.fullmatch(r"[\w./-]+:\w+", given):
        return named_object(given, where="--bias", expected="a function of prompt and response"), None
    try:
        pattern = re.compile(given)
    except re.error as error:
        raise ConfigError(
            "this is no regular expression", where="--bias", found=given, expected=str(error)
        ) from error
    return lambda prompt, text: pattern.search(text) is not None, lambda text: pattern.sub("", text)


def _quality(record: Any, quality: str) -> list[float] | None:
    """Mean rating of each response, or the share of its comparisons that it won; None where one has none."""
    values: list[list[float]] = [[] for _ in record.responses]
    for j in record.judgments:
        if quality == "ratings" and j.kind == "rating":
            for place, value in zip(j.responses, j.values):
                values[place].append(value)
        elif quality == "wins" and j.kind in ("comparison", "rating"):
            for i, a in zip(j.responses, j.values):
                values[i] += [float(a > b) + 0.5 * (a == b) for k, b in zip(j.responses, j.values) if k != i]
    if quality not in ("ratings", "wins"):
        return [0.0] * len(values)  # a scorer says it
    return [sum(v) / len(v) for v in values] if all(values) else None


def _scored(prompts: list[str], texts: list[list[str]], name: str) -> list[list[float]]:
    flat = _numbers(name, [p for p, g in zip(prompts, texts) for _ in g], [t for g in texts for t in g])
    found = iter(flat)
    return [[next(found) for _ in group] for group in texts]


def _scores(table: Any, name: str) -> Any:
    import numpy as np

    prompts = table.prompts.to_pylist()
    return np.array(_numbers(name, [prompts[i] for i in table.text_prompt], table.texts.to_pylist()))


def _numbers(name: str, prompts: list[str], texts: list[str]) -> list[float]:
    from accordance.app.scorers import resolve_scorer
    from accordance.core.errors import ConfigError, DataError

    found, _ = resolve_scorer(name)
    if not hasattr(found, "score"):
        raise ConfigError("this scorer compares pairs; it gives single responses no score", found=name)
    scores = found.score(prompts, texts)
    if any(s is None for s in scores):
        raise DataError("the scorer has no number for some responses", where=name)
    return [float(s) for s in scores]


def _likelihoods(table: Any, name: str) -> Any:
    import numpy as np

    from accordance.analysis.hidden import of_table
    from accordance.app.sources import model_source
    from accordance.models import load_policy

    found, used = of_table(load_policy(model_source(name)), table)
    values = np.full(len(table.texts), np.nan)
    values[used] = found.logprob * found.tokens
    return values


def _preferred(table: Any, values: Any) -> Any:
    import numpy as np

    return np.sign(values[table.first] - values[table.second])


def _embedder(model: str | None, prompts: list[str], texts: list[list[str]]) -> Any:
    if model is None:
        return None
    from accordance.analysis.hidden import inside
    from accordance.app.sources import model_source
    from accordance.models import load_policy

    return lambda _: inside(load_policy(model_source(model)), prompts, texts).states


def _principles(given: list[str]) -> list[str]:
    from pathlib import Path

    from accordance.core.errors import ConfigError

    found: list[str] = []
    for one in given:
        path = Path(one)
        lines = path.read_text(encoding="utf-8").splitlines() if len(one) < 256 and path.is_file() else [one]
        found += [line.strip() for line in lines if line.strip()]
    found = list(dict.fromkeys(found))
    if len(found) < 2:
        raise ConfigError(
            "discretion is between principles: name two or more", where="--principle", found=found
        )
    return found


def _ready(verbose: bool, output_dir: str | None) -> None:
    from accordance.app.folder import check_writable

    if not verbose:
        silence_loaded()
    if output_dir is not None:
        check_writable(output_dir)


def _records(data: str, format: str | None, split: str | None, limit: int | None, on_error: str) -> Records:
    from accordance.app.sources import read_records

    return read_records(data, format=format, split=split, limit=limit, on_error=on_error).materialise()


def _tell(terminal: Terminal, report: Report, records: Records | None, output_dir: str | None) -> None:
    if records is not None:
        from accordance.app.aside import tell_set_aside

        report.data("records", records.account.to_dict())
        tell_set_aside(terminal, report, records, output_dir)
    if output_dir is not None:
        _, page = report.save(output_dir, "diagnose")
        terminal.say(f"Report: {page}", "dim")
    terminal.result(report.to_dict(), report.print)
