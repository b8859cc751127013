"""SELF-ALIGN (Dromedary): a base model answers under principles that it names, and learns the answers without them."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

from accordance.core import requests
from accordance.core.catalogue import system
from accordance.core.errors import ConfigError
from accordance.core.policy import Completion, Policy
from accordance.core.policy_judge import asker, conversation
from accordance.core.principles import PrincipleSet
from accordance.core.record import Account, Judgment, Records, Response, as_prompt
from accordance.core.requests import Request
from accordance.curation.self_align_texts import COMPREHENSIVE, FIVE, SIXTEEN, TYPES, Exemplar
from accordance.curation.steps_instruct import Novel
from accordance.feedback.synthesis import EMPTY, Cost, Draft, Synthesis, alive, answers, generator, note

TRUNCATED = "the answer was cut"
UNREADABLE = "no thought and answer could be read"
UNCITED = "the thought names no principle"
UNKNOWN = "the thought names a principle that is none"
LEAKED = "the answer speaks of the principles"
REPEATED = "the answer is repeated"
CROWDED = "every principle it names has its share"
UNASKED = "no question could be read"
FAMILIAR = "the question is too much like an earlier one"

_FORM = re.compile(r"\A\s*THOUGHT:(?P<thought>.*?)^ANSWER:(?P<answer>.*)\Z", re.DOTALL | re.MULTILINE)
_NEXT = re.compile(r"^QUERY:", re.MULTILINE)
_CITED = re.compile(
    r"\bprinciples?[ ]+((?:\d+(?:[ ]*\([^)\n]*\))?(?:[ ]*,[ ]*(?:and[ ]+)?|[ ]+and[ ]+)?)+)", re.IGNORECASE
)
_NUMBER = re.compile(r"(\d+)(?:[ ]*\(([^)\n]*)\))?")
_TOPIC = re.compile(r"^[ \t]*TOPIC(?: \d+)?:[ \t]*(\S.*?)[ \t]*$", re.MULTILINE)


@system("S159", "SELF-ALIGN", paper="arXiv:2305.03047")
class SelfAlign(Synthesis):
    """Demonstrations that a model wrote under principles, thinking aloud which apply; nothing of that stays in them.

    Stage 1: besides the prompts that are given, `invented` questions are made up. Half of them come from
    self-instruction (some given prompts are shown, a new one is wanted), half from a kind of question that models
    are apt to get wrong and a topic that the model named for it; ``guided`` moves the share. A question whose ROUGE-L
    with an earlier one is 0.7 or more is dropped. Stage 2: the model sees principles, worked examples and the query,
    and writes a thought that names principles, then the answer. What can't be read, names no principle or one that
    is none, is cut, empty, repeated, or speaks of the principles in its answer, is dropped under that reason; so is
    what only names principles which `share` of all drafts named before. The record has the bare query as its prompt
    and the answer as a demonstration; ``extras["thought"]`` and ``extras["principles"]`` tell where it comes from.

    Stage 3 (engraving) is supervised training of the model *before* all this on these records (objective ``sft``).
    Stage 4 is `VerboseCloning` with the model that comes out, and training on its records; keep both models.

    Departures: stage 3 and 4 are trained by the trainer, not here. Principles, examples and kinds of questions are
    worded anew. Self-instruction shows given prompts only, not invented ones, so that a run can be taken up again;
    the answer is cut where the model goes on with a query of its own, as base models do. `share` is ours: the paper
    does not say how one principle is kept from dominating.

    Args:
        writer: the base model.
        principles: in the order of their numbers.
        exemplars: worked examples; every thought names principles of the set, by number.
        types: kinds of questions, for guided ones.
        invented: questions to make up.
        guided: share of them that gets a kind and a topic, in [0, 1].
        topics: topics named per kind.
        share: of all drafts may name the same principle, in (0, 1], rounded up; 1 for no limit.
        max_new_tokens, temperature, seed: of what the model writes, thought included.

    Attributes:
        cited_: name of principle -> records kept that name it.

    Raises:
        ConfigError: a share out of range, no principles or examples, or an example that names no principle of the set.
    """

    name = "self-align"

    def __init__(
        self,
        writer: Policy,
        *,
        principles: PrincipleSet = SIXTEEN,
        exemplars: Sequence[Exemplar] = FIVE,
        types: Sequence[str] = TYPES,
        invented: int = 0,
        guided: float = 0.5,
        topics: int = 10,
        share: float = 1.0,
        max_new_tokens: int = 256,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> None:
        if not principles or not exemplars or (invented and guided and not types):
            raise ConfigError("there have to be principles, examples and kinds of questions", where=self.name)
        if invented < 0 or topics < 1 or not 0 <= guided <= 1 or not 0 < share <= 1:
            raise ConfigError(
                "out of range", where=self.name, found=f"{invented=}, {guided=}, {topics=}, {share=}"
            )
        for number, one in enumerate(exemplars, 1):
            if not cited(one.thought, principles):
                raise ConfigError(
                    "an example names no principle of the set, or one that is none",
                    where=f"exemplar {number}",
                    found=one.thought,
                    expected=", ".join(f"principle {n} ({p.name})" for n, p in enumerate(principles, 1)),
                    remedy="examples that go with these principles",
                )
        self.writer, self.principles, self.exemplars, self.types = writer, principles, exemplars, list(types)
        self.invented, self.guided, self.topics, self.share, self.seed = invented, guided, topics, share, seed
        self.ask = asker(writer, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
        self.cited_: Counter[str] = Counter()
        self._begin([], 0)

    def _begin(self, given: Sequence[str], drafts: int) -> None:
        """Forget what an earlier run kept."""
        self.cited_.clear()
        self._named: dict[str, list[str]] = {}
        self._said: set[str] = set()
        self._given, self._known, self._most = list(given), Novel(0.7), math.ceil(self.share * drafts)
        for text in given:
            self._known.add(text)

    def drafts(self, records: Records, account: Account) -> list[Draft]:
        """One per prompt, and one per question to be made up."""
        made = super().drafts(records, account)
        given = [conversation(draft.prompt) for draft in made]
        guided = round(self.guided * self.invented) if given else self.invented
        for k in range(self.invented):
            extras = {}
            if k < guided:
                extras = {"type": self.types[k % len(self.types)], "topic": k // len(self.types) % self.topics}
            origin = f"question {k + 1} that {self.writer.name} made up"
            made.append(
                Draft((), f"invented-{k}", origin, extras=extras, provenance={"prompt": self.writer.name})
            )
        account.read += self.invented
        self._begin(given, len(made))
        return made

    def cost(self, drafts: Sequence[Draft]) -> list[Cost]:
        """An answer for each draft; for those made up a question; topics once for each kind of question."""
        costs = [Cost("answers", self.writer.name, len(drafts))]
        new = [draft for draft in drafts if not draft.prompt]
        kinds = {draft.extras["type"] for draft in new if "type" in draft.extras}
        more = [Cost("topics", self.writer.name, len(kinds)), Cost("questions", self.writer.name, len(new))]
        return [*costs, *(cost for cost in more if cost.calls)]

    def make(self, drafts: Sequence[Draft], account: Account) -> None:
        """Make up the questions that are wanted, answer all, and keep the answers that pass."""
        self._invent([draft for draft in drafts if not draft.prompt])
        ready = alive(drafts)
        for draft, found in zip(ready, self.ask([self.request(d) for d in ready]), strict=True):
            self._fill(draft, found, account)

    def request(self, draft: Draft) -> Request:
        """What the model is shown to answer a draft: principles, worked examples, query."""
        shown = "\n\n".join(
            f"QUERY: {e.query}\nTHOUGHT: {e.thought}\nANSWER: {e.answer}" for e in self.exemplars
        )
        listed = "\n".join(f"{n} ({p.name}). {p.said()}" for n, p in enumerate(self.principles, 1))
        how = (
            "Answer the prompt as an assistant that holds to these principles:\n"
            f"{listed}\n\nFirst think, for yourself: what is asked, which principles apply (by number), and what "
            "follows from them. Write this on a line THOUGHT: ... and then ANSWER: and the answer, which does not "
            f"speak of the principles. Like this:\n\n{shown}"
        )
        return Request("self align", how, {"prompt": conversation(draft.prompt)})

    def _invent(self, drafts: Sequence[Draft]) -> None:
        new = {d.extras["type"]: None for d in drafts if d.extras.get("type", None) not in (None, *self._named)}
        how = f"Name {self.topics} topics for questions of a type, as different as can be, each on a line TOPIC: ..."
        asked = [Request("topics", how, {"type": kind}) for kind in new]
        for kind, found in zip(new, self.ask(asked), strict=True):
            self._named[kind] = list(dict.fromkeys(_TOPIC.findall(found.text)))
        asked = []
        for draft in drafts:
            if (kind := draft.extras.get("type")) is None:
                drawn = generator(self.seed, draft).sample(self._given, min(8, len(self._given)))
                parts, how = {"examples": "\n".join(drawn)}, "Write a new question, unlike the examples"
            else:
                named = self._named[kind]
                draft.extras["topic"] = named[draft.extras["topic"] % len(named)] if named else ""
                parts = {"type": kind, "topic": draft.extras["topic"] or "any"}
                how = "Write a question of the type, about the topic"
            asked.append(
                Request("question", f"{how}. Answer with one line QUESTION: ...", parts, note=draft.id)
            )
        for draft, found in zip(drafts, self.ask(asked), strict=True):
            text = requests.one(found.text, "QUESTION") if found.finished else None
            if text is None:
                draft.dropped = UNASKED
            elif self._known.like(text) is not None:
                draft.dropped = FAMILIAR
            else:
                self._known.add(text)
                draft.prompt = as_prompt(text)

    def _fill(self, draft: Draft, found: Completion, account: Account) -> None:
        """Keep the answer as a demonstration of the bare prompt, or drop the draft."""
        form, goes_on = _FORM.match(found.text), None
        if form is not None and (goes_on := _NEXT.search(form["answer"])) is not None:
            note(account, "answers cut where the model asked itself another question")
        thought = form["thought"].strip() if form else ""
        answer = form["answer"][: goes_on.start() if goes_on else None].strip() if form else ""
        names = cited(thought, self.principles)
        draft.dropped = self._fault(
            draft, form is not None, found.finished or goes_on is not None, names, answer
        )
        if draft.dropped is not None:
            return
        assert names
        self._said.add(" ".join(answer.casefold().split()))
        self.cited_.update(names)
        draft.responses = [Response.of(answer, source=self.writer.name)]
        draft.judgments = [Judgment("demonstration", (0,), annotator=self.writer.name)]
        draft.extras |= {"thought": thought, "principles": names}
        draft.provenance |= {"responses": [self.writer.name], "labels": f"under {self.principles.name}"}

    def _fault(
        self, draft: Draft, read: bool, whole: bool, names: Sequence[str] | None, answer: str
    ) -> str | None:
        """Why an answer is not kept; None where it is."""
        if not whole:
            return TRUNCATED
        if not read or re.search(r"^(?:THOUGHT|ANSWER):", answer, re.MULTILINE):
            return UNREADABLE
        if not names:
            return UNKNOWN if names is None else UNCITED
        if not answer:
            return EMPTY
        if _CITED.search(answer):
            return LEAKED
        said = " ".join(answer.casefold().split())
        if said in self._said or said == " ".join(conversation(draft.prompt).casefold().split()):
            return REPEATED
        return CROWDED if all(self.cited_[name] >= self._most for name in names) else None


def cited(thought: str, principles: PrincipleSet) -> list[str] | None:
    """The principles that a thought names by number ("principle 3 (helpful)"), each once, in its order.

    Returns:
        Their names; empty where it names none. None where a number, or the name after it, is not of the set.
    """
    found: list[str] = []
    for some in _CITED.findall(thought):
        for number, name in _NUMBER.findall(some):
            place = int(number) - 1
            if not 0 <= place < len(principles):
                return None
            true = principles[place].name
            if name and name.strip().casefold() != true.casefold():
                return None
            found.append(true)
    return list(dict.fromkeys(found))


class VerboseCloning(Synthesis):
    """What a model answers when it is told something, as demonstrations without it: context distillation by samples.

    With `COMPREHENSIVE` this is the last stage of `SelfAlign`, with the engraved model as the writer. Training on it
    makes answers longer and more direct; the paper reports that honesty may suffer, so keep the model before it.

    Args:
        writer: the model.
        told: the system message under which it answers; not in the records.
        max_new_tokens, temperature, seed: of the answers.

    Raises:
        ConfigError: nothing is told.
    """

    name = "verbose-cloning"

    def __init__(
        self,
        writer: Policy,
        *,
        told: str = COMPREHENSIVE,
        max_new_tokens: int = 256,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> None:
        if not told.strip():
            raise ConfigError("there is nothing to distil where nothing is told", where="told")
        self.writer, self.told = writer, told
        self.options = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}

    def cost(self, drafts: Sequence[Draft]) -> list[Cost]:
        """One answer for each prompt."""
        return [Cost("answers", self.writer.name, len(drafts))]

    def make(self, drafts: Sequence[Draft], account: Account) -> None:
        """Answer under the instruction; keep whole answers to the bare prompts."""
        for draft, (found,) in zip(
            drafts, answers(self.writer, drafts, self.told, **self.options), strict=True
        ):
            if not found.finished or not found.text.strip():
                draft.dropped = TRUNCATED if not found.finished else EMPTY
                continue
            draft.responses = [Response.of(found.text, source=self.writer.name)]
            draft.judgments = [Judgment("demonstration", (0,), annotator=self.writer.name)]
            draft.provenance |= {"responses": [self.writer.name], "told": self.told}
