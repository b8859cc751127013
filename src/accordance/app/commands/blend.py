"""`accord blend`: of a model with several output heads, an ordinary one with the mixture that you want."""

from __future__ import annotations

from typing import Annotated

import typer

from accordance.app import options as o
from accordance.app.terminal import Terminal, command, silence_loaded


@command
def blend(
    terminal: Terminal,
    model: o.Model,
    weight: Annotated[
        list[str] | None,
        typer.Option("--weight", "-w", help="`name=share` of a head; again for more. Default: all alike."),
    ] = None,
    output_dir: Annotated[
        str | None,
        typer.Option(
            "--output-dir", "--output_dir", help="Where the checkpoint goes; without it, names alone."
        ),
    ] = None,
    dtype: o.Dtype = None,
    as_json: o.AsJson = False,
    verbose: o.Verbose = False,
) -> None:
    """Blend the output heads of a model that was trained with `--heads`, and write an ordinary checkpoint.

    Examples: `accord blend --model runs/align`;
    `accord blend --model runs/align -w helpful=0.7 -w polite=0.3 --output-dir runs/blend`
    """
    from accordance.app.folder import check_folder, check_writable
    from accordance.app.sources import model_source
    from accordance.core.errors import ConfigError, ModelError
    from accordance.models import heads_of, load_policy, merge_heads

    if not verbose:
        silence_loaded()
    if output_dir is not None:
        check_folder(output_dir, resume=False, overwrite=False)
        check_writable(output_dir)
    elif weight:
        raise ConfigError("--weight has no effect without --output-dir", where="weight", found=weight)
    policy = load_policy(model_source(model), dtype=dtype or "auto")
    heads = heads_of(policy.model)
    if heads is None:
        raise ModelError(
            "the model has one output head: there is nothing to blend",
            where=policy.name,
            remedy="train one with heads: accord align --heads attribute",
        )
    shares = heads.shares(_weights(weight) if weight else dict.fromkeys(heads.names, 1.0))
    alpha = dict(zip(heads.names, shares))
    if output_dir is not None:
        merge_heads(policy.model, alpha)
        policy.save(output_dir)
        terminal.say(f"Checkpoint: {output_dir}", "dim")
    found = {"model": policy.name, "heads": list(heads.names), "alpha": alpha, "output_dir": output_dir}

    def show(console: object) -> None:
        for name, share in alpha.items():
            console.print(f"{name}: {share:.3g}", markup=False)  # type: ignore[attr-defined]

    terminal.result(found, show)


def _weights(given: list[str]) -> dict[str, float]:
    from accordance.core.errors import ConfigError

    found: dict[str, float] = {}
    for item in given:
        name, _, share = item.rpartition("=")
        try:
            number = float(share)
        except ValueError:
            name, number = "", 0.0
        if not name or name in found:
            raise ConfigError(
                "this is no share of a head", where="weight", found=item, expected="name=share, once"
            )
        found[name] = number
    return found
