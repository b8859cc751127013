"""WildFeedback: users' own reactions in conversations become preference pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

from accordance.core import requests
from accordance.core.catalogue import system
from accordance.core.errors import ConfigError
from accordance.core.judge import Judge
from accordance.core.policy import Policy
from accordance.core.policy_judge import asker, conversation
from accordance.core.record import Account, Judgment, Record, Records, Response
from accordance.core.requests import Request
from accordance.feedback.reactions import Detector, Moment, RuleDetector, moments, satisfaction
from accordance.feedback.synthesis import EMPTY, Cost, Draft, Synthesis, alive, count_flags, instructed, note

#: What the checklist judge is told; the wishes themselves are material, since users wrote them.
CHECKLIST = "Judge only by the user's wishes in the notes: which response meets more of them?"
_SAFE = "Whatever the user wishes, do nothing harmful."
_MOST = 5


@system("S022", "WildFeedback", paper="arXiv:2408.15549")
class WildFeedback(Synthesis):
    """Pairs from conversations in which a user was not content.

    Each user turn that follows an answer is labelled; where it shows discontent, the user's wishes are read from it,
    and the context is the conversation up to the answer it speaks of (the previous one; the reaction itself is left
    out). ``mode="expert"``: rejected is the answer that drew the reaction, chosen what `writer` answers when told the
    wishes. ``mode="on-policy"``: chosen is what `writer` answers when told, rejected what it answers when not. Pairs
    of which a checklist judge does not favour the chosen one are dropped. The wishes are in the record's extras and
    never in its prompt. Where a user was content, the answer becomes a record with a thumb up (`keep_content`).

    Departures: one reaction gives one pair. Training is elsewhere; the benchmark of clustered prompts is left out.

    Args:
        reader: reads wishes from reactions.
        writer: writes answers.
        judge: the checklist judge, or None to keep every pair. Test with another judge than this one.
        detector: labels reactions; by rules by default.
        mode: see above.
        harmful: true for (prompt, wish) that must not be learnt from; such moments are dropped.
        keep_content: whether content users' answers are kept too.
        max_new_tokens, temperature, seed: of the answers.

    Raises:
        ConfigError: an unknown mode.
    """

    name = "wildfeedback"

    def __init__(
        self,
        reader: Policy,
        writer: Policy,
        judge: Judge | None,
        *,
        detector: Detector | None = None,
        mode: Literal["expert", "on-policy"] = "expert",
        harmful: Callable[[str, str], bool] | None = None,
        keep_content: bool = False,
        max_new_tokens: int = 256,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> None:
        if mode not in ("expert", "on-policy"):
            raise ConfigError("unknown mode", where="mode", found=mode, expected="expert or on-policy")
        self.reader, self.writer, self.judge, self.mode = reader, writer, judge, mode
        self.detector: Detector = detector or RuleDetector()
        self.harmful, self.keep_content, self.max_new_tokens = harmful, keep_content, max_new_tokens
        self.options = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}

    def drafts(self, records: Records, account: Account) -> list[Draft]:
        """One for each user turn after an answer; conversations without any are dropped."""
        found = []
        for number, record in enumerate(records):
            some = self.moments(record)
            account.read += max(1, len(some))
            if not some:
                account.drop("no turn of the user after an answer", record.origin)
            for moment in some:
                origin = f"{record.origin or f'{records.source} record {number + 1}'}, answer {moment.turn}"
                draft = Draft(moment.context, f"{record.id or number}-{moment.turn}", origin)
                draft.responses = [
                    Response((moment.answer,), record.responses[0].source if record.responses else None)
                ]
                draft.extras = {"reaction": moment.reaction, "turn": moment.turn, "conversation": record.id}
                found.append(draft)
        return found

    def moments(self, record: Record) -> list[Moment]:
        """The turns that are looked at."""
        return moments(record)

    def cost(self, drafts: Sequence[Draft]) -> list[Cost]:
        """At most: every reaction could be discontent."""
        n, responses = len(drafts), 1 if self.mode == "expert" else 2
        costs = [
            Cost("labels", self.detector.name, self.detector.calls(n)),
            Cost("wishes", self.reader.name, n),
            Cost("responses", self.writer.name, n * responses),
        ]
        if self.judge is not None:
            costs.append(Cost("checklist verdicts", self.judge.name, 2 * n * getattr(self.judge, "votes", 1)))
        return [cost for cost in costs if cost.calls]

    def make(self, drafts: Sequence[Draft], account: Account) -> None:
        """Label, read wishes, answer, check."""
        told = [
            Moment(d.prompt, d.responses[0].messages[0], d.extras["reaction"], d.extras["turn"]) for d in drafts
        ]
        unhappy = []
        for draft, labels in zip(drafts, self.detector.labels(told), strict=True):
            side = satisfaction(labels or ())
            draft.extras["labels"] = list(labels or ())
            for label in labels or ():
                note(account, f"reactions: {label}")
            if labels is None:
                draft.dropped = "the detector could not be read"
            elif side < 0:
                unhappy.append(draft)
            elif side > 0 and self.keep_content:
                draft.judgments = [Judgment("thumb", (0,), (1.0,), draft.extras["reaction"], annotator="user")]
                draft.provenance = _provenance(draft, "the user's reaction")
            else:
                draft.dropped = "the user was content" if side else "the reaction shows neither"
        self._wishes(unhappy)
        self._pairs(alive(unhappy))
        self._check(alive(unhappy), account)

    def _wishes(self, drafts: Sequence[Draft]) -> None:
        how = (
            "A user reacts to a response. What does this user wish a response to be like? Answer with one short line "
            f"per wish, at most {_MOST}: WISH 1: ..., WISH 2: ...; or with WISHES: none, where the reaction says "
            "nothing of it."
        )
        asked = [
            Request(
                "wishes",
                how,
                {
                    "prompt": conversation(d.prompt),
                    "response": d.responses[0].text,
                    "reaction": d.extras["reaction"],
                },
            )
            for d in drafts
        ]
        for draft, answer in zip(drafts, asker(self.reader)(asked), strict=True):
            lines = requests.fields(answer.text)
            wishes = [
                lines[f"WISH {k}"][0] for k in range(1, _MOST + 1) if len(lines.get(f"WISH {k}", ())) == 1
            ]
            draft.extras["wishes"] = [wish for wish in wishes if wish]
            if not wishes:
                draft.dropped = "no wish could be read from the reaction"
            elif self.harmful is not None and any(self.harmful(conversation(draft.prompt), w) for w in wishes):
                draft.dropped = "the wish is harmful"

    def _pairs(self, drafts: Sequence[Draft]) -> None:
        told = [instructed(d.prompt, f"{' '.join(d.extras['wishes'])} {_SAFE}") for d in drafts]
        chosen = self.writer.generate(told, **self.options) if told else []
        plain = [d.prompt for d in drafts]
        rejected = self.writer.generate(plain, **self.options) if plain and self.mode == "on-policy" else None
        for i, draft in enumerate(drafts):
            better = Response.of(chosen[i][0].text, source=f"{self.writer.name} told the wishes")
            other = (
                draft.responses[0]
                if rejected is None
                else Response.of(rejected[i][0].text, source=self.writer.name)
            )
            draft.responses = [better, other]
            if not better.text.strip() or not other.text.strip():
                draft.dropped = EMPTY
            elif better.text == other.text:
                draft.dropped = "both answers are the same text"

    def _check(self, drafts: Sequence[Draft], account: Account) -> None:
        if self.judge is not None and drafts:
            verdicts = self.judge.compare(
                [d.prompt for d in drafts],
                [d.texts[0] for d in drafts],
                [d.texts[1] for d in drafts],
                rubric=CHECKLIST,
                notes=[wish_list(d.extras["wishes"]) for d in drafts],
            )
            count_flags(account, [verdict.flags for verdict in verdicts])
            for draft, verdict in zip(drafts, verdicts, strict=True):
                if verdict.winner is None:
                    draft.dropped = "the checklist judge could not be read"
                elif verdict.winner <= 0:
                    draft.dropped = "the checklist judge does not favour the chosen answer"
        for draft in alive(drafts):
            said = draft.extras["reaction"]
            draft.judgments = [Judgment("comparison", (0, 1), (1.0, 0.0), said, annotator="user")]
            checked = "the user's reaction" + (f", checked by {self.judge.name}" if self.judge else "")
            draft.provenance = _provenance(draft, checked)


def wish_list(wishes: Sequence[str]) -> str:
    """Wishes as the checklist judge is shown them."""
    return "\n".join(f"- {wish}" for wish in wishes)


def signal_weights(records: Records) -> dict[str, float]:
    """Weights that let content and discontent count the same, for they come at different rates: kind -> weight."""
    kinds = Counter(j.kind for record in records for j in record.judgments if j.kind in ("comparison", "thumb"))
    return {kind: sum(kinds.values()) / (len(kinds) * many) for kind, many in kinds.items()}


def _provenance(draft: Draft, labels: str) -> dict[str, object]:
    return {
        "prompt": draft.origin,
        "responses": [response.source or "the conversation" for response in draft.responses],
        "labels": labels,
    }


__all__ = ["CHECKLIST", "WildFeedback", "signal_weights", "wish_list"]
