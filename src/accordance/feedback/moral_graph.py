"""The moral graph: values cards, votes on which of two is wiser in a situation, and what comes out on top."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from accordance.core.aggregate import pagerank
from accordance.core.catalogue import system
from accordance.core.errors import DataError
from accordance.core.record import Judgment, Record, Response, user

Vote = Literal["upgrade", "no_upgrade", "not_sure"]

#: Base-2 entropy of the four counts above which voters are too divided. The published limit, 1.69, is of counts
#: that hold impressions as a fifth class; where every impression is a vote that entropy is 1 + H / 2, so H = 1.38.
ENTROPY = 1.38


@dataclass(frozen=True)
class ValuesCard:
    """A value as its holder lives it: what they attend to, not a rule or a slogan.

    Attributes:
        id: unique.
        title: its name.
        policies: what to attend to, each a phrase.
        contexts: the situations in which it applies.
        description: the value in a sentence or two.
        author: who articulated it.
    """

    id: str
    title: str
    policies: tuple[str, ...]
    contexts: tuple[str, ...]
    description: str = ""
    author: str | None = None

    @property
    def text(self) -> str:
        """The card as people read it."""
        head = f"{self.title}\n{self.description}".strip()
        return "\n".join([head, *(f"- {policy}" for policy in self.policies)])


@dataclass(frozen=True)
class EdgeVote:
    """What one person said of moving from `source` to `wiser` in a context: a gain in wisdom, or not, or unsure."""

    source: str
    wiser: str
    context: str
    voter: str
    vote: Vote
    group: str | None = None


@dataclass(frozen=True)
class Edge:
    """All votes on moving from one card to another.

    Attributes:
        source, wiser: ids of the cards.
        marked_wiser, marked_not_wiser, marked_unsure: votes on this move.
        marked_less_wise: votes that the move back is a gain.
        contexts: in how many votes each context was meant.
        groups: votes that the move is a gain, by the voters' group.
    """

    source: str
    wiser: str
    marked_wiser: int
    marked_not_wiser: int
    marked_unsure: int
    marked_less_wise: int
    contexts: Mapping[str, int] = field(default_factory=dict)
    groups: Mapping[str, int] = field(default_factory=dict)

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Wiser, not wiser, unsure, less wise."""
        return self.marked_wiser, self.marked_not_wiser, self.marked_unsure, self.marked_less_wise

    @property
    def likelihood(self) -> float:
        """(wiser - less wise) / all four counts, in [-1, 1]."""
        return (self.marked_wiser - self.marked_less_wise) / sum(self.counts)

    @property
    def entropy(self) -> float:
        """Base-2 entropy of the four counts, in [0, 2]."""
        share = np.array([count for count in self.counts if count]) / sum(self.counts)
        return float(-(share * np.log2(share)).sum())


@system("S009", "Moral graph elicitation", paper="arXiv:2404.10636")
class MoralGraph:
    """Cards and the moves between them that voters agree are gains in wisdom (Klingefjord, Lowe and Edelman 2024).

    An edge a -> b is kept where at least `least` voters marked b wiser, its likelihood reaches `likelihood` and
    its entropy does not exceed `entropy`. Score flows along the edges to the wiser card, in proportion to the
    likelihood, by PageRank. Differs from the published code: a card with nothing wiser hands its score on to all
    cards evenly, where there it is lost, so that scores sum to one.

    Args:
        cards: the values, each once (see `deduplicate`).
        votes: on moves between them; the same voter on the same move counts once, the last vote.
        context: only votes in this context, and only cards of it; None pools all contexts.
        least, likelihood, entropy: what an edge needs.
        damping: of PageRank.

    Raises:
        DataError: two cards with one id, a vote on a card that is not there, on a card and itself, or in a context
            that one of its cards does not have; or no votes at all.
    """

    def __init__(
        self,
        cards: Sequence[ValuesCard],
        votes: Sequence[EdgeVote],
        *,
        context: str | None = None,
        least: int = 2,
        likelihood: float = 0.33,
        entropy: float = ENTROPY,
        damping: float = 0.85,
    ) -> None:
        by_id = {card.id: card for card in cards}
        if len(by_id) < len(cards):
            raise DataError(
                "two cards have one id", found=[i for i, n in Counter(c.id for c in cards).items() if n > 1]
            )
        self.context, self.damping = context, damping
        self.settings = {"least": least, "likelihood": likelihood, "entropy": entropy}
        self.cards = [card for card in cards if context is None or context in card.contexts]
        for vote in votes:
            _check(vote, by_id)
        last = {(v.voter, v.source, v.wiser, v.context): v for v in votes if context in (None, v.context)}
        #: The votes that count.
        self.votes = list(last.values())
        if not self.votes:
            raise DataError("nobody voted", where=None if context is None else f"context {context!r}")
        #: Every move that was voted on.
        self.moves = _moves(self.votes)
        #: The moves that are kept.
        self.edges = [edge for edge in self.moves if self.why_not(edge) is None]
        weights = np.zeros((len(self.cards), len(self.cards)))
        place = {card.id: i for i, card in enumerate(self.cards)}
        for edge in self.edges:
            weights[place[edge.wiser], place[edge.source]] = edge.likelihood
        #: Score of each card, shape [cards], summing to 1.
        self.scores = pagerank(weights, damping)

    def why_not(self, edge: Edge) -> str | None:
        """Why a move is not an edge; None where it is."""
        if edge.marked_wiser < self.settings["least"]:
            return f"fewer than {self.settings['least']} marked it wiser"
        if edge.likelihood < self.settings["likelihood"]:
            return f"likelihood below {self.settings['likelihood']:g}"
        if edge.entropy > self.settings["entropy"]:
            return f"entropy above {self.settings['entropy']:g}"
        return None

    def ranking(self) -> list[tuple[ValuesCard, float]]:
        """Cards and scores, wisest first."""
        order = sorted(range(len(self.cards)), key=lambda i: (-self.scores[i], i))
        return [(self.cards[i], float(self.scores[i])) for i in order]

    def system_text(self, top: int = 1) -> str:
        """What to tell a model in this context: what the wisest cards attend to."""
        when = f"When {self.context}" if self.context else "In every situation"
        lines = [f"- {policy}" for card, _ in self.ranking()[:top] for policy in card.policies]
        return "\n".join([f"{when}, attend to:", *lines])

    def again(self, votes: Sequence[EdgeVote]) -> MoralGraph:
        """The same cards and settings with other votes."""
        return MoralGraph(self.cards, votes, context=self.context, damping=self.damping, **self.settings)  # type: ignore[arg-type]

    def resampled(self, samples: int = 100, seed: int = 0) -> np.ndarray:
        """Ranks (1 is wisest) of the cards under resamples of voters, shape [samples, cards]."""
        generator, mine = np.random.default_rng(seed), defaultdict(list)
        for vote in self.votes:
            mine[vote.voter].append(vote)
        people, made = list(mine), []
        for _ in range(samples):
            drawn = generator.integers(len(people), size=len(people))
            votes = [
                EdgeVote(v.source, v.wiser, v.context, f"{copy}:{v.voter}", v.vote, v.group)
                for copy, person in enumerate(drawn)
                for v in mine[people[person]]
            ]
            scores = self.again(votes).scores
            made.append(1 + (scores[None, :] > scores[:, None] + 1e-12).sum(1))
        return np.array(made)


def deduplicate(
    cards: Sequence[ValuesCard],
    same: Callable[[ValuesCard, ValuesCard], bool],
    *,
    similar: Callable[[ValuesCard, ValuesCard], float] | None = None,
    least: float = 0.2,
) -> tuple[list[ValuesCard], dict[str, str]]:
    """One card for each source of meaning.

    Args:
        cards: as articulated.
        same: would somebody who holds the one agree that the other is the same? Asked only of similar cards.
        similar: a number per pair; by default the share of words that both use (Jaccard).
        least: similarity from which `same` is asked.

    Returns:
        The cards that stay, the first of each kind, with the contexts of all; and for every id the id that
        stands for it.
    """
    measure = similar or _overlap
    stands = {card.id: card.id for card in cards}
    kept: list[ValuesCard] = []
    for card in cards:
        near = sorted(
            (other for other in kept if measure(card, other) >= least), key=lambda o: -measure(card, o)
        )
        twin = next((other for other in near if same(card, other)), None)
        if twin is None:
            kept.append(card)
        else:
            stands[card.id] = twin.id
    contexts: dict[str, dict[str, None]] = defaultdict(dict)
    for card in cards:
        contexts[stands[card.id]].update(dict.fromkeys(card.contexts))
    merged = [
        ValuesCard(c.id, c.title, c.policies, tuple(contexts[c.id]), c.description, c.author) for c in kept
    ]
    return merged, stands


# Cards and votes as Records, so that the store keeps them and `accord ask` asks for them


def card_record(card: ValuesCard) -> Record:
    """A card as a record: the situation asks, the card demonstrates what to attend to."""
    said = Judgment("demonstration", (0,), annotator=card.author)
    extras = {"values_card": {"id": card.id, "title": card.title, "description": card.description,
                              "policies": list(card.policies), "contexts": list(card.contexts)}}  # fmt: skip
    asked = user(f"What is worth attending to when {' or when '.join(card.contexts)}?")
    return Record(asked, (Response.of(card.text),), (said,), card.id, "values", extras)


def card_of(record: Record) -> ValuesCard | None:
    """The card that a record holds, or None."""
    held = record.extras.get("values_card")
    if held is None:
        return None
    author = next((j.annotator for j in record.judgments if j.kind == "demonstration"), None)
    return ValuesCard(
        held["id"], held["title"], tuple(held["policies"]), tuple(held["contexts"]), held["description"], author
    )


def move_record(source: ValuesCard, wiser: ValuesCard, context: str, story: str | None = None) -> Record:
    """A question to vote on (a thumb): is moving from one card to the other, in this situation, a gain in wisdom?"""
    told = (
        story or f"Someone used to attend to this:\n\n{source.text}\n\nNow they attend to this:\n\n{wiser.text}"
    )
    asked = user(f"When {context}: did this person become wiser?")
    move = {"source": source.id, "wiser": wiser.id, "context": context}
    return Record(asked, (Response.of(told),), (), f"{source.id}>{wiser.id}", "moves", {"move": move})


def votes_of(record: Record) -> list[EdgeVote]:
    """The votes that a record of a move holds; none where it is no such record."""
    move = record.extras.get("move")
    if move is None:
        return []
    made = []
    for judgment in record.judgments:
        vote: Vote = "not_sure"
        if judgment.kind == "thumb":
            vote = "upgrade" if judgment.values[0] else "no_upgrade"
        elif judgment.kind != "incomparable":
            continue
        voter = judgment.annotator or ""
        made.append(EdgeVote(move["source"], move["wiser"], move["context"], voter, vote, judgment.group))
    return made


def moves_for(
    cards: Sequence[ValuesCard], context: str, voter: str, many: int, seed: int = 0
) -> list[tuple[ValuesCard, ValuesCard]]:
    """A few moves for one voter: ordered pairs of cards of the context, drawn by voter and seed, never both ways."""
    here = [card for card in cards if context in card.contexts]
    pairs = [(a, b) for i, a in enumerate(here) for b in here[i + 1 :]]
    key = [seed, *f"{voter}\n{context}".encode()]
    generator = np.random.default_rng(key)
    drawn = generator.permutation(len(pairs))[:many]
    return [pairs[i] if generator.random() < 0.5 else pairs[i][::-1] for i in drawn]


def _check(vote: EdgeVote, cards: Mapping[str, ValuesCard]) -> None:
    for card in (vote.source, vote.wiser):
        if card not in cards:
            raise DataError("a vote on a card that is not there", where=f"voter {vote.voter}", found=card)
        if vote.context not in cards[card].contexts:
            raise DataError(
                "a vote in a context that the card does not have",
                where=f"voter {vote.voter}, card {card}",
                found=vote.context,
                expected=", ".join(cards[card].contexts),
            )
    if vote.source == vote.wiser or vote.vote not in ("upgrade", "no_upgrade", "not_sure"):
        raise DataError("this is no vote", where=f"voter {vote.voter}", found=vote)


def _moves(votes: Sequence[EdgeVote]) -> list[Edge]:
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    contexts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    groups: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for vote in votes:
        way = vote.source, vote.wiser
        counts[way][vote.vote] += 1
        counts[vote.wiser, vote.source]["back"] += vote.vote == "upgrade"
        contexts[way][vote.context] += 1
        if vote.group is not None and vote.vote == "upgrade":
            groups[way][vote.group] += 1
    return [
        Edge(
            a,
            b,
            n["upgrade"],
            n["no_upgrade"],
            n["not_sure"],
            n["back"],
            dict(contexts[a, b]),
            dict(groups[a, b]),
        )
        for (a, b), n in counts.items()
        if n["upgrade"] + n["no_upgrade"] + n["not_sure"] + n["back"]
    ]


def _overlap(a: ValuesCard, b: ValuesCard) -> float:
    words: list[set[Any]] = [{w for w in c.text.lower().split() if len(w) > 3} for c in (a, b)]
    either = len(words[0] | words[1])
    return len(words[0] & words[1]) / either if either else math.nan
