"""`accord synthesize`: cost before, budget, resume, and what lies in the folder afterwards; all offline."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from accordance import load_records
from accordance.app.assistants import assistants
from accordance.core.errors import ConfigError
from accordance.core.record import Message, Record, Records
from accordance.core.report import Report
from accordance.curation.synthesis import METHODS, Parts
from accordance.feedback import save_records
from accordance.lab.questions import parse
from tests.app.conftest import Accord


def test_without_a_method_the_methods_are_listed_and_help_shows_examples(accord: Accord) -> None:
    assert {m["name"] for m in accord.json("synthesize")["methods"]} == set(METHODS)
    assert "accord synthesize rank" in " ".join(accord("synthesize", "--help").stdout.split())


def test_a_dry_run_says_what_it_costs_and_leaves_nothing_behind(accord: Accord, tmp_path: Path) -> None:
    folder = str(tmp_path / "made")
    plan = accord.json("synthesize", "rank", "--model=lab", "--limit=12", "--dry-run", "-o", folder)
    assert plan["items"] == 12 and plan["calls_at_most"] == 12 * 5 and not Path(folder).exists()
    made = accord.json("synthesize", "rank", "--model=lab", "--limit=12", "-o", folder)
    assert made["calls"] == plan["calls_at_most"] and made["records"] == made["pairs"]


def test_records_account_and_report_lie_in_the_folder(accord: Accord, tmp_path: Path) -> None:
    found = accord.json(
        "synthesize", "rank", "--model=lab", "--limit=20", "--set", "n=3", "-o", str(tmp_path / "made")
    )
    records = load_records(tmp_path / "made" / "records.jsonl.gz")
    assert len(records) == found["records"] == 20 - sum(found["account"]["dropped"].values())
    assert records[0].extras["provenance"]["method"] == "rank"
    dropped = (tmp_path / "made" / "dropped.jsonl").read_text().splitlines()
    assert len(dropped) == 20 - len(records)
    report = Report.load(tmp_path / "made" / "synthesize.json")
    assert report.values["records"] == len(records)
    assert "<svg" in (tmp_path / "made" / "synthesize.html").read_text()


def test_a_budget_stops_it_and_resume_pays_only_for_the_rest(accord: Accord, tmp_path: Path) -> None:
    args = ["synthesize", "rank", "--model=lab", "--limit=20", "--block=4", "-o", str(tmp_path / "made")]
    first = accord.json(*args, "--budget=50")
    assert (
        first["calls"] <= 50
        and 0 < first["items"] == 20
        and first["account"]["dropped"]["the budget was spent"] > 0
    )
    assert accord(*args).exit_code == 2
    second = accord.json(*args, "--resume")
    assert first["calls"] + second["calls"] == 100 and second["calls_saved"] == first["calls"]
    whole = accord.json(
        "synthesize", "rank", "--model=lab", "--limit=20", "--block=4", "-o", str(tmp_path / "other")
    )
    same = [load_records(tmp_path / f / "records.jsonl.gz").fingerprint() for f in ("made", "other")]
    assert same[0] == same[1] and whole["records"] == second["records"]
    other = accord(*args, "--resume", "--seed=1")
    assert other.exit_code == 2 and "other settings" in other.stderr


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("joint", ["--model=lab"]),
        ("diverse", ["--model=lab", "--set", "pool=5", "--set", "n=3"]),
        ("ultrafeedback", ["--model=lab:writers", "--set", "per_prompt=3"]),
        ("self-reference", ["--set", "votes=2", "--set", "probabilities=true"]),
        ("janus", ["--model=lab", "--set", "sets=2"]),
        ("self-align", ["--model=lab", "--set", "share=0.5"]),
        ("verbose-cloning", ["--model=lab"]),
        ("anyprefer", ["--model=lab", "--judge=lab?noise=0.1", "--set", "rounds=2"]),
    ],
)
def test_every_method_runs_offline_out_of_the_box(
    accord: Accord, tmp_path: Path, method: str, more: list[str]
) -> None:
    found = accord.json("synthesize", method, "--limit=8", "-o", str(tmp_path / "made"), *more)
    assert 0 < found["calls"] <= found["calls_at_most"]
    assert found["records"] + sum(found["account"]["dropped"].values()) == found["items"] >= 8


def test_the_lab_weighs_notes_so_that_strategies_part(accord: Accord, tmp_path: Path) -> None:
    args = ["synthesize", "dialectical", "--records=lab:evidence", "--model=lab", "--limit=120"]
    found = accord.json(*args, "-o", str(tmp_path / "made"))
    assert found["pairs"] > 20 and found["judgments"]["demonstration"] == found["records"] > 50
    for record in load_records(tmp_path / "made" / "records.jsonl.gz"):
        right = f"ANSWER: {record.extras['answer']}"
        assert record.responses[0].text.endswith(right)
        assert not any(response.text.endswith(right) for response in record.responses[1:])


def test_prompts_are_expanded_by_a_recipe_with_its_cost_told_before(accord: Accord, tmp_path: Path) -> None:
    recipe = tmp_path / "mora.yaml"
    recipe.write_text(
        "method: mora\nrecords: lab:demo\nlimit: 8\nmodel: 'lab?obedience=0.5&manner={politeness: 0.5}'\n"
        "set: {aspects: 'truthfulness, politeness', samples: 8, tries: 1}\n"
    )
    args = ["synthesize", "--recipe", str(recipe), "-o", str(tmp_path / "made")]
    plan = accord.json(*args, "--dry-run")
    assert plan["calls_at_most"] == 8 * 8 * 2 * 3 + 8 and not (tmp_path / "made").exists()
    stopped = accord.json(*args, "--budget=100")
    assert stopped["records"] == 0 and stopped["account"]["dropped"] == {"the budget was spent": 8}
    found = accord.json(*args, "--resume")
    assert (
        stopped["calls"] + found["calls"] <= plan["calls_at_most"] and found["calls_saved"] >= stopped["calls"]
    )
    rows = load_records(tmp_path / "made" / "records.jsonl.gz")
    assert len(rows) == found["pairs"] > 0 and any("rewritten_from" in row.extras for row in rows)
    assert "accord synthesize mora" in " ".join(accord("synthesize", "--help").stdout.split())


def test_the_lab_makes_up_questions(accord: Accord, tmp_path: Path) -> None:
    args = ["synthesize", "self-align", "--model=lab", "--limit=6", "--set", "invented=12", "--set", "topics=3"]
    found = accord.json(*args, "-o", str(tmp_path / "made"))
    assert found["items"] == 18
    new = [r for r in load_records(tmp_path / "made" / "records.jsonl.gz") if r.id.startswith("invented")]
    assert len(new) >= 6 and all(parse(record.prompt).kind != "other" for record in new)
    kinds = {record.extras["type"]: parse(record.prompt).kind for record in new if "type" in record.extras}
    assert kinds["needs a calculation"] == "sum"


def test_conversations_become_pairs(accord: Accord, tmp_path: Path) -> None:
    turns = (
        Message("user", "What is 7 plus 5?"),
        Message("assistant", "Stop wasting my time. 7 plus 5 is 12."),
        Message("user", "Please be polite to me, that was rude."),
    )
    rows = Records.of([Record(turns, id=str(i)) for i in range(3)])
    save_records(rows, tmp_path / "logs.jsonl")
    args = [
        "wildfeedback",
        "--records",
        str(tmp_path / "logs.jsonl"),
        "--model=lab",
        "-o",
        str(tmp_path / "made"),
    ]
    found = accord.json("synthesize", *args)
    assert found["records"] + sum(found["account"]["dropped"].values()) == 3 and found["records"] > 0
    record = load_records(tmp_path / "made" / "records.jsonl.gz")[0]
    assert record.responses[1].text == turns[1].content and record.extras["wishes"]


def test_tools_are_functions_by_name(accord: Accord, tmp_path: Path) -> None:
    (tmp_path / "tools.py").write_text("def twelve(prompt):\n    return 'The answer is 12.'\n")
    tool = f"--tool={tmp_path / 'tools.py'}:twelve"
    found = accord.json("synthesize", "anyprefer", "--model=lab", tool, "--limit=4", "-o", str(tmp_path / "a"))
    assert found["calls"] > 0
    assert (
        "uses no tools" in accord("synthesize", "rank", "--model=lab", tool, "-o", str(tmp_path / "b")).stderr
    )


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["rnak", "--model=lab"], "did you mean 'rank'"),
        (["rank"], "needs a model"),
        (["rank", "--model=lab", "--set", "vote=2"], "did you mean 'votes'"),
        (["rank", "--model=lab", "--set", "votes=two"], "another type"),
        (["rank", "--model=lab?charm=1"], "no such setting"),
        (["joint", "--model=lab", "--model=lab"], "uses one model"),
        (["ultrafeedback", "--model=lab"], "at least 2"),
        (["self-reference", "--model=lab"], "uses no models"),
        (["rank", "--model=lab", "--resume"], "nothing to go on with"),
        (["janus", "--model=lab", "--judge=lab"], "--judge: janus uses no judge"),
        (["self-align", "--model=lab", "--judge=api:openai/gpt-4o"], "self-align uses no judge"),
        (["verbose-cloning", "--model=lab", "--judge=lab"], "it uses models"),
        (["janus", "--model=lab", "--tool=nowhere:tool"], "uses no tools"),
        (["self-align", "--model=lab", "--set", "guided=0.2"], "guided has no effect"),
        (["self-reference", "--set", "limit=2"], "limit has no effect"),
        (["tutoring", "--records=lab:steps", "--model=lab"], "uses no models"),
        (["tutoring", "--records=lab:steps", "--judge=lab"], "uses no judge"),
        (["tutoring", "--records=lab:steps", "--temperature=1"], "--temperature: tutoring uses no sampling"),
        (["tutoring", "--records=lab:steps", "--budget=3"], "--budget: tutoring uses no sampling"),
        (["tutoring"], "--records lab:steps"),
    ],
)
def test_what_can_not_be_done_is_refused_with_the_way_out(
    accord: Accord, tmp_path: Path, args: list[str], said: str
) -> None:
    found = accord("synthesize", *args, "--limit=2", "-o", str(tmp_path / "made"))
    assert found.exit_code == 2 and said in " ".join(found.stderr.split())


class Watched:
    """Parts that remember what was asked for."""

    def __init__(self) -> None:
        self.asked: set[str] = set()
        self._parts = Parts(
            [assistants(["lab"], "writer")[0]], assistants(["lab"], "judge")[0], (), {"seed": 1}
        )

    def __getattr__(self, name: str) -> object:
        self.asked.add(name)
        return getattr(self._parts, name)


@pytest.mark.parametrize("name", list(METHODS))
def test_a_method_declares_exactly_the_parts_that_it_uses(name: str) -> None:
    found = METHODS[name]
    parts = Watched()
    if found.models > 1:
        parts._parts = Parts(assistants(["lab:writers"], "writer"), parts._parts.judge, (), {"seed": 1})
    found.build(parts)
    used = {role for role, uses in found.uses.items() if uses and role != "sampling"}
    assert parts.asked - {"sampling"} == used


def test_tutoring_makes_pairs_of_turns_without_asking_anybody(accord: Accord, tmp_path: Path) -> None:
    args = ["synthesize", "tutoring", "--limit=6", "--set", "dialogues=2", "-o", str(tmp_path / "made")]
    found = accord.json(*args, "--records=lab:steps")
    assert found["calls"] == found["calls_at_most"] == 0 and found["records"] == found["pairs"] > 10
    records = load_records(tmp_path / "made" / "records.jsonl.gz")
    assert {record.extras["fault"] for record in records} == {
        "gives the answer away",
        "misjudges the student",
        "takes the wrong action",
    }
    problem = {
        "prompt": "Ann has 3 apples and buys 4. How many has she?",
        "answer": "7",
        "steps": [{"question": "How much is 3 and 4?", "answer": "7", "hints": ["Start from 3."]}],
    }
    file = tmp_path / "problems.jsonl"
    file.write_text(json.dumps(problem) + "\n" + json.dumps({"prompt": "no steps"}) + "\n")
    plan = accord.json("synthesize", "tutoring", f"--records={file}", "--set", "balance=false", "--dry-run")
    assert plan["items"] >= 4
    file.write_text(json.dumps(problem | {"steps": [{"question": "How much?"}]}) + "\n")
    wrong = accord.json("synthesize", "tutoring", f"--records={file}", "--dry-run", code=2)
    assert "no steps of a problem" in wrong["problem"] and "problems.jsonl:1" in wrong["where"]


def test_a_recipe_holds_the_options_and_the_settings_of_a_folder_are_one(
    accord: Accord, tmp_path: Path
) -> None:
    recipe = tmp_path / "made.yaml"
    recipe.write_text("method: rank\nmodel: lab\nset: {n: 2}\nlimit: 6\n")
    first = accord.json("synthesize", "--recipe", str(recipe), "-o", str(tmp_path / "a"))
    assert first["items"] == 6 and first["calls"] == 18
    again = str(tmp_path / "a" / "synthesize-settings.json")
    accord.json("synthesize", "--recipe", again, "-o", str(tmp_path / "b"))
    same = [load_records(tmp_path / f / "records.jsonl.gz").fingerprint() for f in "ab"]
    assert same[0] == same[1]
    other = accord.json("synthesize", "--recipe", again, "--limit=3", "--set", "n=3", "--dry-run")
    assert other["items"] == 3 and other["calls_at_most"] == 12
    tutoring = tmp_path / "t"
    accord.json("synthesize", "tutoring", "--records=lab:steps", "--limit=2", "-o", str(tutoring))
    accord.json("synthesize", "--recipe", str(tutoring / "synthesize-settings.json"), "-o", str(tmp_path / "u"))
    for text, said in (
        ("method: rank\nmodle: lab", "did you mean 'model'"),
        ("model: lab", "no method"),
        ("method: janus\nmodel: lab\njudge: lab", "uses no judge"),
        ("method: rank\nmodel: lab\nlimit: [1]", "limit has a value of another kind"),
    ):
        recipe.write_text(text)
        assert said in accord("synthesize", "--recipe", str(recipe), "-o", str(tmp_path / "c")).stderr


def test_names_stand_for_assistants() -> None:
    assert len(assistants(["lab:writers"], "writer")) == 6
    assert assistants(["lab?noise=0.5"], "judge")[0].noise == 0.5  # type: ignore[attr-defined]
    pytest.importorskip("inspect_ai", reason="inspect-ai is an extra")
    assert json.dumps(assistants(["api:lab/judge?noise=0.5"], "judge")[0].name) == '"lab/judge"'
    with pytest.raises(ConfigError):
        assistants(["lab?noise=-1"], "judge")
