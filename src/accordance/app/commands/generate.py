"""`accord generate`: let a policy answer."""

from __future__ import annotations

import json
import os
from typing import Annotated, Any

import typer

from accordance.app import options as o
from accordance.app.terminal import Terminal, command, silence_loaded


@command
def generate(
    terminal: Terminal,
    model: o.Model,
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", "-p", help="A prompt; may be repeated.")
    ] = None,
    prompts: Annotated[
        str | None, typer.Option("--prompts", "--records", help="A file of prompts, in any format of feedback.")
    ] = None,
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="Answers to each prompt.")] = 1,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", "--max_new_tokens", min=1, help="Where answers are cut.")
    ] = 256,
    temperature: Annotated[
        float, typer.Option("--temperature", min=0.0, help="0 takes the likeliest token every time.")
    ] = 1.0,
    top_p: Annotated[float, typer.Option("--top-p", "--top_p", help="Nucleus to sample from.")] = 1.0,
    guide: Annotated[
        str | None,
        typer.Option(
            "--guide",
            help="Who scores unfinished answers (`module:function` or `population`): each step is the best of several.",
        ),
    ] = None,
    candidates: Annotated[
        int | None, typer.Option("--candidates", min=2, help="Of each step, with --guide. Default: 5.")
    ] = None,
    user: o.User = None,
    seed: o.Seed = 0,
    limit: o.Limit = None,
    on_error: o.OnError = "skip",
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Write a jsonl file of prompts and completions.")
    ] = None,
    chat_template: o.Template = None,
    eos_token: o.EndToken = None,
    dtype: o.Dtype = None,
    as_json: o.AsJson = False,
    verbose: o.Verbose = False,
) -> None:
    """Write answers to prompts.

    Examples: `accord generate --model lab:base -p "what is a good snack?"`;
    `accord generate --model runs/align --prompts questions.jsonl -n 4 -o answers.jsonl`;
    `accord generate --model lab:base -p "what is a good snack?" --guide population --candidates 8`;
    `accord generate --model runs/users -p "what is a good snack?" --user ann`
    """
    from accordance.app.aside import tell_set_aside
    from accordance.app.sources import asked_by, model_source, read_records
    from accordance.core.errors import ConfigError
    from accordance.core.record import as_prompt
    from accordance.evaluation.saving import prompt_text
    from accordance.models import load_policy

    if not verbose:
        silence_loaded()
    if not prompt and prompts is None:
        raise ConfigError("there is nothing to answer", remedy='-p "a prompt", or --prompts FILE')
    if candidates is not None and guide is None:
        raise ConfigError("--candidates has no effect without --guide", where="candidates", found=candidates)
    asked: list[Any] = [as_prompt(text) for text in prompt or ()]
    aside = None
    if prompts is not None:
        found = read_records(prompts, limit=limit, on_error=on_error).materialise()
        asked += [record.prompt for record in found]
        aside = tell_set_aside(terminal, None, found, None)
    policy = load_policy(
        model_source(model), dtype=dtype or "auto", chat_template=chat_template, eos_token=eos_token
    )
    policy = asked_by(policy, user)
    writer = policy if guide is None else _guided(policy, guide, candidates or 5)
    with terminal.progress() as note:
        done = 0

        def more(count: int) -> None:
            nonlocal done
            done += count
            note("generate", done, len(asked))

        made = writer.generate(
            asked,
            n=n,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
            progress=more,
        )
    rows = [
        {
            "prompt": prompt_text(question),
            "completions": [
                {"text": c.text, "finished": c.finished, "tokens": len(c.token_ids), "logprob": sum(c.logprobs)}
                for c in completions
            ],
        }
        for question, completions in zip(asked, made)
    ]
    if output is not None:
        _write(output, rows)

    def show(console: Any) -> None:
        for row in rows[: 20 if output else None]:
            console.print(row["prompt"], style="bold", markup=False, highlight=False)
            for completion in row["completions"]:
                mark = "" if completion["finished"] else " […]"
                console.print("  " + completion["text"] + mark, markup=False, highlight=False)

    outcome = {"model": writer.name, "user": user, "seed": seed, "output": output, "rows": rows}
    terminal.result(outcome if aside is None else outcome | {"set_aside": aside}, show)


def _guided(policy: Any, guide: str, candidates: int) -> Any:
    from accordance.app.scorers import resolve_rewards
    from accordance.inference import GuidedPolicy

    return GuidedPolicy(policy, resolve_rewards(guide)[0], candidates)


def _write(path: str, rows: list[dict[str, Any]]) -> None:
    """One line per answer, as prompt-completion data has it."""
    lines = [
        json.dumps(
            {"prompt": row["prompt"], "completion": c["text"], "finished": c["finished"]}, ensure_ascii=False
        )
        for row in rows
        for c in row["completions"]
    ]
    from pathlib import Path

    from accordance.core.report import write_whole

    write_whole({Path(os.path.expanduser(path)): "\n".join(lines) + "\n"})
