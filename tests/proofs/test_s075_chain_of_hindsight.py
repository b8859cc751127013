"""Proof of S075, chain of hindsight: what is asked for is what comes, learned from good and bad answers alike.

A random tiny language model, 128 comparisons: a question names a letter, the good answer says yes to it and the bad
one no. Compared are likelihood of the chosen, of both without cues, chains of hindsight, and chains whose labels were
drawn by lot. The rate of good answers is exact: the probability of "y" against "n" as the first letter.

The copy check of the spec needs a model that can copy; that words of earlier answers are left out is a unit test.
"""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.tiny import policy

from accordance.core.record import Judgment, Record, Records, Response, user
from accordance.models import Group
from accordance.objectives import hindsight_prompt
from accordance.training import TrainingConfig, train

LETTERS = "abcdefghijklmnop"


def answers(letter: str) -> tuple[Response, Response]:
    return Response.of(f"y{letter}"), Response.of(f"n{letter}")


def comparisons(lot: random.Random | None = None) -> Records:
    made = []
    for number in range(128):
        letter = LETTERS[number % len(LETTERS)]
        values = (1.0, 0.0) if lot is None or lot.random() < 0.5 else (0.0, 1.0)
        made.append(
            Record(user(letter), answers(letter), (Judgment("comparison", (0, 1), values),), id=str(number))
        )
    return Records.of(made)


def demonstrations() -> Records:
    """Both answers to imitate, without a word on which is good."""
    shown = (Judgment("demonstration", (0,)), Judgment("demonstration", (1,)))
    return Records.of(Record(r.prompt, r.responses, shown, id=r.id) for r in comparisons())


@cache
def trained(how: str):
    records = {
        "chosen": comparisons,
        "both": demonstrations,
        "coh": comparisons,
        "lot": lambda: comparisons(random.Random(0)),
    }[how]()
    with TemporaryDirectory() as folder:
        options = {
            "objective": "sft" if how in ("chosen", "both") else "coh",
            "learning_rate": 5e-3,
            "lr_scheduler_type": "constant_with_warmup",
            "num_train_epochs": 9,
            "per_device_train_batch_size": 16,
            "save_strategy": "no",
            "use_cpu": True,
            "output_dir": str(Path(folder)),
        }
        return train(policy(), records, TrainingConfig.of(options)).policy


def good_rate(how: str, cue: bool | None = None) -> float:
    """How often the answer says yes, asked without a cue, or for a good or a bad one."""
    made = trained(how)
    rates = []
    for letter in LETTERS:
        prompt = user(letter) if cue is None else hindsight_prompt(user(letter), cue)
        ids = made.encoder.encode(prompt, answers(letter))
        first = Group(ids.prompt_ids, [response[:1] for response in ids.response_ids])
        yes, no = made.engine([first]).logp.detach().exp().tolist()
        rates.append(yes / (yes + no))
    return sum(rates) / len(rates)


def test_asked_for_a_good_answer_it_does_as_well_as_imitation_of_the_chosen():
    assert good_rate("coh", True) > good_rate("chosen") - 0.02


def test_the_words_in_front_make_the_difference_to_imitating_both():
    assert good_rate("coh", True) > good_rate("both") + 0.15


def test_good_and_bad_can_be_asked_for():
    assert good_rate("coh", True) - good_rate("coh", False) >= 0.4


def test_labels_drawn_by_lot_give_no_control():
    assert abs(good_rate("lot", True) - good_rate("lot", False)) < 0.05
