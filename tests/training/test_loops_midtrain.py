"""Midtraining on documents about a spec: the writer, the texts, the two stages, the comparison of corpora."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from accordance.core.errors import ConfigError, DataError
from accordance.core.judge import Rating
from accordance.core.policy import Completion
from accordance.core.principles import Principle, PrincipleSet
from accordance.core.record import Judgment, Record, Records, Response, user
from accordance.training import TrainingConfig, TrainingRun, run_loop
from accordance.training.loops import Names, SpecWriter, compare_specs
from accordance.training.loops.midtrain_documents import document, pieces
from tests.tiny import WORDS, policy, records
from tests.training.test_trainer import QUICK

SPEC = PrincipleSet([Principle("kind", "Be kind.", "It costs little.", "Be harsh.")], "spec")
TEXTS = Records.of(document(f"the assistant is kind to every {word}") for word in WORDS)
OTHERS = Records.of(document(f"rain falls on the {word} at noon") for word in WORDS)


class Scripted:
    """Lists ideas when it is asked for them, then writes the given texts in turn, over and over."""

    name = "scripted"

    def __init__(self, *texts: str, finished: bool = True) -> None:
        self.texts, self.finished, self.asked = texts, finished, list[str]()

    def generate(self, prompts: Any, **_: Any) -> list[list[Completion]]:
        self.asked += prompts
        ideas = [[Completion("1. a garden\n2. a shop\n- a school")] for p in prompts if p.startswith("Think")]
        return ideas or [
            [Completion(self.texts[n % len(self.texts)], self.finished)] for n in range(len(prompts))
        ]


class Strict:
    """A judge that agrees with texts that say "kind"; it can't be read where they say "hm"."""

    name = "strict"

    def rate(self, prompts: Any, completions: Any, **_: Any) -> list[Rating]:
        return [Rating(None if "hm" in text else 9.0 if "kind" in text else 2.0) for text in completions]


GOOD = (
    "In the garden it is kind because kindness costs little there.",
    "A shop owner writes that it was kind to all.",
)


def test_documents_have_a_lineage_and_the_writer_is_told_the_reason_only_where_there_is_one() -> None:
    policy_ = Scripted(*GOOD)
    made = SpecWriter(policy_, types=["blog post"], ideas=2).write(SPEC)
    assert [record.responses[0].text for record in made] == list(GOOD)
    assert not any(record.chat for record in made)
    lineage = {
        "spec": "spec",
        "principle": "kind",
        "type": "blog post",
        "idea": "a garden",
        "writer": "scripted",
    }
    assert made[0].extras["lineage"] == lineage
    assert all("It costs little." in asked for asked in policy_.asked)
    bare = Scripted(*GOOD)
    SpecWriter(bare, types=["blog post"]).write(SPEC.rules())
    assert not any("It costs little." in asked for asked in bare.asked)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("User: hello\nAssistant: hello, friend of mine", "a transcript"),
        ("One should Be Harsh. says the report, always", "says the opposite"),
        (GOOD[0], "almost the same"),
        ("", "empty"),
        ("it is fast", "does not agree"),
        ("hm, kind of", "could not be read"),
    ],
)
def test_texts_that_are_no_documents_about_the_spec_are_left_out_and_counted(text: str, reason: str) -> None:
    writer = SpecWriter(Scripted(GOOD[0], text), types=["memo"], ideas=2, judge=Strict())  # type: ignore[arg-type]
    made = writer.write(SPEC)
    assert len(made) == 1 and writer.account.read == 2
    assert [reason in why for why in writer.account.dropped] == [True]


def test_texts_that_were_cut_are_left_out() -> None:
    with pytest.raises(DataError, match="no document") as error:
        SpecWriter(Scripted(*GOOD, finished=False)).write(SPEC)
    assert "no document" in str(error.value)


def test_long_texts_come_in_pieces_and_nothing_is_lost() -> None:
    long = Records.of([document("a bird in a tree in the wind " * 9)])
    parts = pieces(long, policy(0).tokenizer, 50)
    lengths = [len(policy(0).tokenizer(record.responses[0].text)["input_ids"]) for record in parts]
    assert len(parts) > 4 and max(lengths) <= 49
    assert " ".join(record.responses[0].text for record in parts).split() == long[0].responses[0].text.split()
    assert pieces(long, policy(0).tokenizer, None)[0] == long[0]
    with pytest.raises(DataError, match="conversation"):
        pieces(records(2), policy(0).tokenizer, 50)


def run(folder: Path, **options: Any) -> TrainingRun:
    config = TrainingConfig.of(
        QUICK | {"output_dir": str(folder), "objective": "sft", "loop": "midtrain"} | options
    )
    names = Names({"texts": TEXTS, "others": OTHERS, "writer": Scripted(*GOOD)})
    return run_loop(policy(0), records(16), config, names=names, held_out=TEXTS)


def test_documents_come_before_demonstrations_with_texts_mixed_in(tmp_path: Path) -> None:
    more = {"loop.documents": "texts", "loop.mix": "others", "loop.mix_share": 0.4}
    done = run(tmp_path, **more, **{"loop.options": {"learning_rate": 1e-2, "num_train_epochs": 3}})
    assert [(s["name"], s["examples"]) for s in done.stages] == [("documents", 20), ("demonstrations", 16)]
    assert done.measures["texts"] == {"documents": 12, "pieces": 12, "mixed_in": 8}
    assert done.measures["after documents"]["gain_logp"] > 0.1


def test_without_documents_stage_two_is_a_plain_run_and_without_demonstrations_it_is_left_out(
    tmp_path: Path,
) -> None:
    done = run(tmp_path, **{"loop.documents": "texts", "loop.demonstrate": False})
    assert [stage["name"] for stage in done.stages] == ["documents"]


def test_documents_are_written_from_principles_once(tmp_path: Path) -> None:
    SPEC.save(tmp_path / "spec.yaml")
    more = {"loop.principles": str(tmp_path / "spec.yaml"), "loop.writer": "writer", "loop.types": ["memo"]}
    done = run(tmp_path / "run", **more)
    assert done.stages[0]["examples"] == 2 and done.measures["writing"] == {"written": 2, "kept": 2}
    again = run(tmp_path / "run", **more, resume_from_checkpoint=True)
    assert again.steps == done.steps


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "either documents, or principles"),
        ({"loop.documents": "texts", "loop.writer": "w"}, "a writer needs principles"),
        ({"loop.documents": "texts", "loop.ideas": 3}, "ideas: no effect"),
        ({"loop.documents": "texts", "loop.mix_share": 0.1}, "no effect without mix"),
    ],
)
def test_what_would_have_no_effect_is_refused(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        run(tmp_path, **options)


def test_too_few_texts_to_mix_in_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not enough texts"):
        run(tmp_path, **{"loop.documents": "texts", "loop.mix": "others", "loop.mix_share": 0.9})


def test_every_corpus_meets_every_set_of_demonstrations_from_the_same_start(tmp_path: Path) -> None:
    shown = Judgment("demonstration", (0,))
    demos = Records.of(Record(user(word), (Response.of("yes"),), (shown,)) for word in WORDS)
    starts = []

    def start() -> Any:
        starts.append(policy(0))
        return starts[-1]

    def probe(own: Any) -> dict[str, float]:
        table = own.logprobs(TEXTS)
        return {"texts": float(table["logprob"].sum() / table["tokens"].sum())}

    corpora: dict[str, Any] = {"none": None, "kind": TEXTS, "rain": OTHERS}
    sets: dict[str, Any] = {"none": None, "shown": demos}
    quick = {k: v for k, v in QUICK.items() if k != "output_dir"} | {"learning_rate": 1e-2}
    more = {"options": {"num_train_epochs": 6}}
    report = compare_specs(start, corpora, sets, probe, tmp_path, midtrain=more, **quick)
    assert len(starts) == 6
    assert all(torch.equal(a, b) for a, b in zip(starts[0].model.parameters(), policy(0).model.parameters()))
    values = report.values
    for row in ("none", "shown"):
        effect = values[f"kind/{row}/texts"] - values[f"none/{row}/texts"]
        assert values[f"effect/kind/{row}/texts"] == pytest.approx(effect)
        assert values[f"kind/{row}/texts"] > values[f"rain/{row}/texts"] + 0.05
