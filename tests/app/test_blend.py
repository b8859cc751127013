"""Heads from the command line: trained by `--heads`, blended by `accord blend` into an ordinary checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from accordance.feedback.saving import save_records
from accordance.models import Group, heads_of, load_policy
from tests.app.conftest import QUICK
from tests.training.test_members import judged


def test_heads_are_trained_and_blended_from_the_command_line(accord: Any, model: str, tmp_path: Path) -> None:
    rows, run, out = tmp_path / "feedback.jsonl", str(tmp_path / "run"), str(tmp_path / "blend")
    save_records(judged(count=30, second=30), rows)
    some = ["align", "--model", model, "--records", str(rows), "--output-dir", run, *QUICK]
    found = accord(*some, "--heads", "attribute")
    assert found.exit_code == 0, found.stderr
    assert "heads: attribute" in Path(run, "recipe.yaml").read_text()
    assert accord.json("blend", "--model", run)["alpha"] == {"harmless": 0.5, "helpful": 0.5}
    told = accord.json("blend", "--model", run, "-w", "helpful=3", "-w", "harmless=1", "--output-dir", out)
    assert told["alpha"] == {"harmless": 0.25, "helpful": 0.75}
    headed, plain = load_policy(run), load_policy(out)
    heads = heads_of(headed.model)
    assert heads is not None and heads_of(plain.model) is None
    assert "accordance_heads" not in json.loads(Path(out, "config.json").read_text())
    pair = [Group([5, 6], [[7, 8, 1], [9, 1]])]
    with heads.using({"helpful": 0.75, "harmless": 0.25}):
        torch.testing.assert_close(plain.engine(pair).logp, headed.engine(pair).logp, rtol=1e-4, atol=1e-4)


def test_what_can_not_be_blended_is_told(accord: Any, model: str, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    assert "nothing to blend" in accord.error("blend", "--model", model)["problem"]
    for weight in ("helpful", "helpful=much", "=1"):
        found = accord.error("blend", "--model", model, "-w", weight, "--output-dir", out)
        assert "share of a head" in found["problem"] or "nothing to blend" in found["problem"]
    assert "no effect" in accord.error("blend", "--model", model, "-w", "helpful=1")["problem"]


def test_answers_are_guided_from_the_command_line(accord: Any, model: str) -> None:
    some = ["generate", "--model", model, "-p", "sun", "-p", "moon", "--max-new-tokens", "20", "--seed", "1"]
    judge = [*some, "--guide", "tests.app.test_blend:letters"]
    plain, guided = accord.json(*some), accord.json(*judge, "--candidates", "8")
    worth = [
        sum(letters([], [row["completions"][0]["text"] for row in found["rows"]])) for found in (plain, guided)
    ]
    assert worth[1] > worth[0] and "guided" in guided["model"]
    assert "no effect" in accord.error(*some, "--candidates", "8")["problem"]


def letters(prompts: Any, completions: list[str], **_: Any) -> list[float]:
    return [
        float(sum(character.isascii() and character.isalpha() for character in text)) for text in completions
    ]
