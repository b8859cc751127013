"""`samples.parquet`: every sampled answer with its scores, for whoever wants to look closer."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from accordance.core.errors import TrainingError
from accordance.core.record import Message
from accordance.evaluation.judging import Verdicts
from accordance.evaluation.sampling import Answers


def prompt_text(prompt: Sequence[Message]) -> str:
    """A prompt for people: its text where it is one turn, else each turn after its role."""
    if len(prompt) == 1:
        return prompt[0].content
    return "\n\n".join(f"{message.role}: {message.content}" for message in prompt)


def samples_frame(answers: Answers, verdicts: Verdicts | None) -> pd.DataFrame:
    """One row per answer.

    Columns: `record`, `prompt`, `after`, `length_after`, `finished_after`; with a reference also `before`,
    `length_before`, `finished_before`, `logp_after` and `ref_logp_after` (log-probability of the answer after,
    under policy and reference); with a scorer `win`, `score_before`, `score_after`, and for each group
    `win_<group>`.
    """
    table = pd.DataFrame({"record": answers.origins, "prompt": [prompt_text(p) for p in answers.prompts]})
    for side, completions in (("before", answers.before), ("after", answers.after)):
        if completions is not None:
            table[side] = [c.text for c in completions]
            table[f"length_{side}"] = answers.length(completions)
            table[f"finished_{side}"] = [c.finished for c in completions]
    if answers.logp is not None:
        table["logp_after"], table["ref_logp_after"] = answers.logp, answers.ref_logp
    if verdicts is not None:
        table["win"] = verdicts.win
        if verdicts.before is not None:
            table["score_before"], table["score_after"] = verdicts.before, verdicts.after
        for name, group in verdicts.groups.items():
            table[f"win_{name}"] = group.win
    return table


def write_samples(path: Path, answers: Answers, verdicts: Verdicts | None) -> None:
    """Write `samples_frame` as Parquet; the file is there whole or not at all.

    Raises:
        TrainingError: the folder can't be written to, or the disk is full.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    frame = samples_frame(answers, verdicts)
    for column in frame.select_dtypes(include=["object", "string"]):
        frame[column] = [str(v).encode("utf-8", "replace").decode() for v in frame[column]]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.to_parquet(part, index=False)
        os.replace(part, path)
    except OSError as error:
        raise TrainingError(
            "can't write the samples",
            where=str(path),
            found=error.strerror or str(error),
            expected="a folder that can be written to, with space left",
            remedy="free some space or choose another output folder",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
