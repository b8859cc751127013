"""`accord score`: how likely a policy finds the responses, or how good a reward function finds them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from accordance.app import options as o
from accordance.app.terminal import Terminal, command, silence_loaded

if TYPE_CHECKING:
    import pandas as pd

    from accordance.core.record import Records


@command
def score(
    terminal: Terminal,
    records: o.RecordsSource,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "--model-name-or-path",
            "--model_name_or_path",
            help="Log-probabilities under this policy.",
        ),
    ] = None,
    scorer: Annotated[
        str | None,
        typer.Option("--scorer", help="Scores by `module:function`, `file.py:function` or `population`."),
    ] = None,
    format: o.Format = None,
    split: o.Split = None,
    limit: o.Limit = None,
    on_error: o.OnError = "skip",
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Write the table: .csv, .jsonl or .parquet.")
    ] = None,
    chat_template: o.Template = None,
    eos_token: o.EndToken = None,
    dtype: o.Dtype = None,
    as_json: o.AsJson = False,
    verbose: o.Verbose = False,
) -> None:
    """Score every response of every record.

    Examples: `accord score --model lab:base --records lab:demo -o logprobs.parquet`;
    `accord score --scorer rewards.py:brevity --records feedback.jsonl`
    """
    from accordance.app.aside import tell_set_aside
    from accordance.app.scorers import resolve_scorer
    from accordance.app.sources import model_source, read_records
    from accordance.core.errors import ConfigError
    from accordance.models import load_policy

    if not verbose:
        silence_loaded()
    if model is None and scorer is None:
        raise ConfigError(
            "nobody is named who scores", remedy="--model for log-probabilities, --scorer for scores"
        )
    if output is not None and Path(output).suffix not in _WRITERS:
        raise ConfigError("unknown kind of table", found=output, expected=f"one of: {', '.join(_WRITERS)}")
    found = read_records(records, format=format, split=split, limit=limit, on_error=on_error).materialise()
    table = _responses(found)
    if model is not None:
        policy = load_policy(
            model_source(model), dtype=dtype or "auto", chat_template=chat_template, eos_token=eos_token
        )
        table = table.merge(policy.logprobs(found), on=["record", "response"])
    if scorer is not None:
        judge, _ = resolve_scorer(scorer)
        if not hasattr(judge, "score"):
            raise ConfigError("this scorer compares pairs; it gives single responses no score", found=scorer)
        prompts = [found[int(index)].prompt for index in table["record"]]
        table["score"] = judge.score(prompts, table["text"].tolist())
    if output is not None:
        _WRITERS[Path(output).suffix](table, output)
    means = {
        name: float(table[name].to_numpy(dtype=float).mean())
        for name in ("logprob", "tokens", "score")
        if name in table
    }

    def show(console: Any) -> None:
        shown = table.head(20).assign(text=table["text"].head(20).str.slice(0, 60))
        title = f"{len(table)} responses of {len(found)} records"
        console.print(terminal.table(title, list(shown.columns), shown.round(3).values.tolist()))
        console.print("Means: " + ", ".join(f"{name} {value:.3f}" for name, value in means.items()))

    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    aside = tell_set_aside(terminal, None, found, None)
    outcome = {
        "records": found.account.to_dict(),
        "set_aside": aside,
        "mean": means,
        "output": output,
        "rows": rows,
    }
    terminal.result(outcome, show)


def _responses(records: Records) -> pd.DataFrame:
    import pandas as pd

    rows = [
        (index, number, record.id, response.text)
        for index, record in enumerate(records)
        for number, response in enumerate(record.responses)
    ]
    return pd.DataFrame(rows, columns=["record", "response", "id", "text"])


_WRITERS: dict[str, Any] = {
    ".csv": lambda table, path: table.to_csv(path, index=False),
    ".jsonl": lambda table, path: table.to_json(path, orient="records", lines=True, force_ascii=False),
    ".parquet": lambda table, path: table.to_parquet(path, index=False),
}
