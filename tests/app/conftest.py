"""A tiny model and feedback on disk, and the command in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from accordance.app.cli import app
from tests import tiny

#: A run of a second or so.
QUICK = [
    "--max-steps=3",
    "--per-device-train-batch-size=4",
    "--learning-rate=1e-3",
    "--samples=4",
    "--max-new-tokens=6",
    "--logging-steps=1",
    "--held-out=0.3",
]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint of the tiny Llama."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny.policy().save(folder)
    return str(folder)


@pytest.fixture(scope="session")
def feedback(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Comparisons as a jsonl file; one row has no preference that can be used."""
    return write_feedback(tmp_path_factory.mktemp("data") / "feedback.jsonl", 40)


def write_feedback(path: Path, count: int, seed: int = 0) -> str:
    """Preference rows in the ecosystem's format; the last one's two responses are identical."""
    rows = [
        {"prompt": r.prompt_text, "chosen": r.responses[0].text, "rejected": r.responses[1].text}
        for r in tiny.records(count, seed)
    ]
    rows.append({"prompt": "same", "chosen": "twice", "rejected": "twice"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


class Accord:
    """Runs the command; `json` checks that stdout is exactly one JSON document."""

    def __call__(self, *args: str) -> Any:
        result = CliRunner().invoke(app, list(args))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    def json(self, *args: str, code: int = 0) -> Any:
        result = self(*args, "--json")
        assert result.exit_code == code, result.stderr + result.stdout
        return json.loads(result.stdout)

    def error(self, *args: str) -> dict[str, str]:
        """The error that the command ends with, which is told without a traceback."""
        plain = self(*args)
        assert plain.exit_code == 2
        assert "Error:" in plain.stderr
        assert "Traceback" not in plain.stderr + plain.stdout
        found = self.json(*args, code=2)
        assert found["problem"].split(":")[0] in " ".join(plain.stderr.split())
        return found


@pytest.fixture
def accord() -> Accord:
    """The command, in this process."""
    return Accord()
