"""Proof of S159, SELF-ALIGN: answers written under principles teach a model to follow them when nobody names them.

The model is a table with weights: what it says depends on the words of the query, and, by other weights, on them
together with the principles in its prompt. It follows a principle that it is shown four times of five, and by itself
three times of ten. Where it goes wrong, its thought often goes wrong too: that is assumed, and what filters live on.
"""

from __future__ import annotations

import copy
import math
import random
import re
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from accordance.core.asking import Asked
from accordance.core.errors import ConfigError
from accordance.core.objective import UnaryLogps
from accordance.core.policy import Completion
from accordance.core.principles import Principle, PrincipleSet
from accordance.core.record import Account, Judgment, Message, Record, Records, Response, as_prompt, user
from accordance.core.requests import Request
from accordance.curation import self_align
from accordance.curation.self_align import SelfAlign, VerboseCloning, cited
from accordance.curation.self_align_texts import FIVE, SIXTEEN, Exemplar
from accordance.feedback.synthesis import SPENT, synthesize, total
from accordance.lab.assistants import LabWriter
from accordance.objectives import get_objective

STYLES = ("gravely", "merrily", "softly", "bluntly", "slowly", "boldly")
GROUPS = ("law", "play", "sleep", "trade", "care", "war")
WORDS = {f"{group}{k}": g for g, group in enumerate(GROUPS) for k in range(8)}
PLACE = {word: k for k, word in enumerate(WORDS)}
RULES = PrincipleSet((Principle(g, f"On {g} speak {s}.") for g, s in zip(GROUPS, STYLES, strict=True)), "rules")
SHOWN = tuple(
    Exemplar(f"tell of {g}?", f"It asks of {g}: principle {n} ({g}) applies.", f"{s}: {g}.")
    for n, (g, s) in enumerate(zip(GROUPS[:5], STYLES), 1)
)
LENGTHS = torch.arange(1.0, 9.0, dtype=torch.float64)
#: Of wrong answers under principles, the share with a fault that can be seen.
SEEN = 0.7


def queries(seed: int) -> list[str]:
    pairs = [(a, b) for a, g in WORDS.items() for b, h in WORDS.items() if g == h and a < b]
    random.Random(seed).shuffle(pairs)
    return [f"what of {a} and {b}?" for a, b in pairs]


TRAIN, HELD = queries(0)[:120], queries(0)[120:]  # no pair of words stands in both


def right(text: str) -> int:
    return WORDS[re.findall(r"[a-z]+\d", text)[0]]


class Table(nn.Module):
    """A model with weights; a `Policy`."""

    def __init__(self, name: str = "base") -> None:
        super().__init__()
        style = torch.zeros(2 * len(WORDS), 6, dtype=torch.float64)
        for word, k in PLACE.items():  # two words in a query: each brings half the log-odds
            for told, prob in ((0, 0.3), (1, 0.8)):
                style[k + told * len(WORDS), WORDS[word]] = math.log(5 * prob / (1 - prob)) / 2
        self.style = nn.Parameter(style)
        self.length = nn.Parameter(torch.stack([-LENGTHS, 0.2 * LENGTHS]))  # plain; told to be comprehensive
        self.name = name

    @property
    def identity(self) -> str:
        return f"{self.name} {self.style.sum().item()}"

    def read(self, prompt) -> tuple[Tensor, int]:
        """Features of a prompt, and whether it asks for much."""
        turns = as_prompt(prompt)
        request = Request.read(turns)
        ruled = any("speak gravely" in m.content for m in turns)
        seen = request.parts["prompt"] if request else turns[-1].content
        x = torch.zeros(2 * len(WORDS), dtype=torch.float64)
        for word in re.findall(r"[a-z]+\d", seen):
            x[PLACE[word] + ruled * len(WORDS)] += 1
        return x, int(any("comprehensive" in m.content for m in turns))

    def logp(self, x: Tensor, long: Tensor, style: Tensor, length: Tensor) -> Tensor:
        styles = (x @ self.style).log_softmax(-1).gather(-1, style[:, None])[:, 0]
        return styles + self.length.log_softmax(-1)[long].gather(-1, length[:, None] - 1)[:, 0]

    @torch.no_grad()
    def generate(self, prompts, *, n=1, max_new_tokens=256, temperature=1.0, top_p=1.0, seed=0):
        return [[self.one(p, random.Random(f"{seed} {k} {as_prompt(p)}")) for k in range(n)] for p in prompts]

    def one(self, prompt, rng: random.Random) -> Completion:
        request, (x, long) = Request.read(as_prompt(prompt)), self.read(prompt)
        style = rng.choices(range(6), (x @ self.style).softmax(-1).tolist())[0]
        length = rng.choices(range(1, 9), self.length[long].softmax(-1).tolist())[0]
        asked = request.parts["prompt"] if request else as_prompt(prompt)[-1].content
        answer = " ".join([f"{STYLES[style]}: so it is with {asked[8:-1]}.", *["And more."] * (length - 1)])
        if request is None:
            return Completion(answer)
        number, fault = style + 1, ""
        if style != right(asked) and rng.random() < SEEN:
            fault = rng.choice(["no form", "none", "unknown", "cut", "empty", "leaked"])
        thought = {
            "none": "It is clear.",
            "unknown": "So principle 9 applies.",
        }.get(fault, f"So principle {number} ({GROUPS[style]}) applies.")
        if fault == "leaked":
            answer = f"By principle {number}, {answer}"
        text = f"THOUGHT: {thought}\nANSWER: {'' if fault == 'empty' else answer}"
        return Completion(answer if fault == "no form" else text, fault != "cut")


def records(prompts: list[str]) -> Records:
    return Records.of([Record(user(p), id=str(i)) for i, p in enumerate(prompts)])


def aligner(model: Table, **options) -> SelfAlign:
    return SelfAlign(model, principles=RULES, exemplars=SHOWN, **options)


@cache
def written() -> Records:
    return synthesize(aligner(Table()), records(TRAIN))


def unfiltered() -> Records:
    """What the filter saw, all of it: whatever stands after the last mark, as an answer to the bare query."""
    method, base = aligner(Table()), Table()
    drafts = method.drafts(records(TRAIN), Account())
    texts = [group[0].text for group in base.generate([method.request(d).messages() for d in drafts])]
    said = [text.split("ANSWER:")[-1].strip() for text in texts]
    shown = Judgment("demonstration", (0,))
    made = [
        Record(r.prompt, (Response.of(t),), (shown,), r.id)
        for r, t in zip(records(TRAIN), said, strict=True)
        if t
    ]
    return Records.of(made)


def learn(model: Table, made: Records, name: str, steps: int = 150) -> Table:
    """Supervised training of a copy on demonstrations, prompts as they stand in the records."""
    model, sft = copy.deepcopy(model), get_objective("sft")
    model.name = name
    rows = [(r.prompt, r.responses[r.judgments[0].responses[0]].text) for r in made]
    x, long = zip(*(model.read(prompt) for prompt, _ in rows), strict=True)
    style = torch.tensor([next(k for k, s in enumerate(STYLES) if s in text) for _, text in rows])
    length = torch.tensor([1 + text.count("And more.") for _, text in rows])
    features, told = torch.stack(x), torch.tensor(long)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        sft(UnaryLogps(model.logp(features, told, style, length), torch.ones(len(rows)))).mean().backward()
        optimizer.step()
    return model


@torch.no_grad()
def obeyed(model: Table, ruled: bool = False) -> float:
    """Probability of the right style on held-out queries (exact), with the principles in the prompt or without."""
    shares = []
    for query in HELD:
        prompt = (Message("system", RULES.text()), *user(query)) if ruled else user(query)
        shares.append((model.read(prompt)[0] @ model.style).softmax(-1)[right(query)].item())
    return sum(shares) / len(shares)


@torch.no_grad()
def mean_length(model: Table) -> float:
    return (model.length[0].softmax(-1) @ LENGTHS).item()


@cache
def engraved() -> Table:
    return learn(Table(), written(), "engraved")


def test_engraved_principles_are_followed_on_held_out_queries_though_nobody_names_them() -> None:
    assert obeyed(Table()) <= 0.35
    assert obeyed(engraved()) >= 0.75 and obeyed(engraved()) >= 0.9 * obeyed(Table(), ruled=True)
    for record in written():
        assert len(record.prompt) == 1 and record.prompt_text in TRAIN  # no principles, no examples
        assert "principle" not in record.responses[0].text.casefold()
        assert record.extras["principles"] and "principle" in record.extras["thought"]


def test_what_the_filter_drops_would_have_taught_something_worse() -> None:
    loose = learn(Table(), unfiltered(), "loose")
    assert obeyed(engraved()) >= obeyed(loose) + 0.03


def test_verbose_cloning_makes_answers_longer_and_costs_little_obedience() -> None:
    made = synthesize(VerboseCloning(engraved()), records(TRAIN))
    assert all(len(r.prompt) == 1 for r in made) and len(made) == len(TRAIN)
    verbose = learn(engraved(), made, "verbose")
    assert mean_length(verbose) >= 1.5 * mean_length(engraved())
    assert obeyed(verbose) >= obeyed(engraved()) - 0.05
    with pytest.raises(ConfigError):
        VerboseCloning(engraved(), told=" ")


class Curious(Table):
    """Makes up questions: shown examples, mostly of what these are about; given a topic, of the topic."""

    def one(self, prompt, rng: random.Random) -> Completion:
        request = Request.read(as_prompt(prompt))
        assert request is not None
        if request.task == "topics":
            kind = request.parts["type"].replace(" ", "")
            return Completion("\n".join(f"TOPIC: {kind}{letter}" for letter in "abcdefghij"))
        if request.task == "question":
            about = request.parts.get("topic") or rng.choice(re.findall(r"of (\w+)", request.parts["examples"]))
            more = (
                rng.choice(["rain", "sun", "wind", "fog", "ice"]),
                rng.choice(["who", "when", "where", "why"]),
            )
            return Completion(f"QUESTION: {more[1]} {more[0]} of {about} ?")
        said = re.sub(r"\W+", " ", request.parts["prompt"])
        return Completion(f"THOUGHT: principle 1 (law) applies.\nANSWER: {said}, it seems.")


def topics_of(guided: float) -> tuple[list[str], Records]:
    method = aligner(Curious("curious"), types=("live", "sums", "law"), invented=30, guided=guided)
    made = synthesize(method, records([f"tell me something of {w}" for w in list(WORDS)[:6]]))
    new = [r for r in made if r.id.startswith("invented")]
    return [re.findall(r"of (\w+)", r.prompt_text)[0] for r in new], made


def test_kinds_and_topics_bring_more_diverse_questions_than_examples_do() -> None:
    plain, dropped = topics_of(0.0)
    guided, made = topics_of(1.0)
    few = min(len(plain), len(guided))
    assert few >= 10 and len(set(guided[:few])) >= 1.5 * len(set(plain[:few]))
    assert dropped.account.dropped[self_align.FAMILIAR] > 0  # ROUGE-L, against all earlier ones
    assert all(made[k].extras["topic"] in made[k].prompt_text for k in range(6, len(made)))
    assert {r.extras.get("type") for r in made} == {None, "live", "sums", "law"}


@pytest.mark.parametrize(
    ("text", "finished", "reason"),
    [
        ("THOUGHT: principles 1 (law) and 2 apply.\nANSWER: yes:\nit is.", True, None),
        ("THOUGHT: principle 1.\nANSWER: yes.\nQUERY: and now?\nTHOUGHT: hm", False, None),
        ("THOUGHT: principle 1.\nANSWER: yes", False, self_align.TRUNCATED),
        ("yes", True, self_align.UNREADABLE),
        ("THOUGHT: principle 1.\nANSWER: yes\nANSWER: no", True, self_align.UNREADABLE),
        ("THOUGHT: it is clear.\nANSWER: yes", True, self_align.UNCITED),
        ("THOUGHT: principle 7.\nANSWER: yes", True, self_align.UNKNOWN),
        ("THOUGHT: principle 1 (war).\nANSWER: yes", True, self_align.UNKNOWN),
        ("THOUGHT: principle 1.\nANSWER: ", True, self_align.EMPTY),
        ("THOUGHT: principle 1.\nANSWER: by principle 1 yes", True, self_align.LEAKED),
        ("THOUGHT: principle 1.\nANSWER: what now?", True, self_align.REPEATED),
    ],
)
def test_every_fault_is_dropped_under_its_reason(text: str, finished: bool, reason: str | None) -> None:
    class Says(Table):
        def one(self, prompt, rng):
            return Completion(text, finished)

    made = synthesize(aligner(Says()), records(["What now?"]))
    assert dict(made.account.dropped) == ({} if reason is None else {reason: 1})
    assert all("QUERY" not in r.responses[0].text and "yes" in r.responses[0].text for r in made)


def test_no_principle_takes_more_than_its_share_and_no_limit_is_the_plain_method() -> None:
    free, held = (synthesize(aligner(Table(), share=share), records(TRAIN)) for share in (1.0, 0.1))
    assert [r.id for r in free] == [r.id for r in written()]
    most = [max(sum(g in r.extras["principles"] for r in some) for g in GROUPS) for some in (free, held)]
    assert most[0] > 12 == most[1] and held.account.dropped[self_align.CROWDED] > 0


def test_a_spent_budget_is_taken_up_again_and_the_cost_is_told_before() -> None:
    cache, options = Asked(Curious("curious")).cache, {"types": ("live", "sums"), "invented": 12}
    given = records(["tell me something of law0"])

    def run(budget: int | None) -> tuple[Records, Asked, int]:
        asked = Asked(Curious("curious"), cache=cache, budget=budget)
        method = aligner(asked, **options)  # type: ignore[arg-type]
        cost = total(method.cost(method.drafts(given, Account())))
        return synthesize(method, given, block=4), asked, cost

    first, asked, cost = run(9)
    assert first.account.dropped[SPENT] > 0 and asked.budget.spent == 9
    second, again, _ = run(None)
    assert again.budget.saved == 9 and again.budget.spent + 9 <= cost == 13 + 12 + 2
    assert (
        second.fingerprint() == synthesize(aligner(Curious("curious"), **options), given, block=4).fingerprint()
    )


def test_the_principles_examples_and_the_scripted_writer_go_together() -> None:
    assert len(SIXTEEN) == 16 and len(FIVE) == 5 and all(cited(e.thought, SIXTEEN) for e in FIVE)
    made = synthesize(SelfAlign(LabWriter(), max_new_tokens=500), records(["What is 7 plus 5?"]))
    assert "12" in made[0].responses[0].text and "helpful" in made[0].extras["principles"]
    with pytest.raises(ConfigError, match="no principle of the set"):
        SelfAlign(Table(), principles=RULES)
    for wrong in ({"share": 0.0}, {"guided": 1.5}, {"invented": -1}, {"topics": 0}):
        with pytest.raises(ConfigError, match="out of range"):
            aligner(Table(), **wrong)
