"""The report on a moral graph: who is on top, how firmly, by whose votes, and the six criteria of its paper."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np

from accordance.core import figures
from accordance.core.errors import DataError
from accordance.core.report import Report
from accordance.core.stats import Interval, wilson
from accordance.feedback.moral_graph import MoralGraph


def moral_report(graph: MoralGraph, *, top: int = 3, samples: int = 200, seed: int = 0) -> Report:
    """What a moral graph says and how far to trust it.

    Args:
        graph: cards and votes.
        top: how many of the wisest cards the text for a model is made of.
        samples: resamples of voters for the ranks.
        seed: of the resampling.
    """
    best, _ = graph.ranking()[0]
    where = f"when {graph.context}" if graph.context else "in all contexts"
    ranks = graph.resampled(samples, seed)
    place = {card.id: i for i, card in enumerate(graph.cards)}
    stay = float((ranks[:, place[best.id]] == 1).mean())
    report = Report(
        f"Moral graph, {where}",
        f"On top: {best.title}; it stays there in {stay:.0%} of resamples of the voters.",
        meta={"settings": graph.settings, "damping": graph.damping, "seed": seed, "context": graph.context},
    )
    report.add("cards", len(graph.cards)).add("voters", len({v.voter for v in graph.votes}))
    report.add("votes", len(graph.votes)).add(
        "edges", len(graph.edges), note=f"of {len(graph.moves)} moves voted on"
    )
    report.add("top_card", best.title, headline=True)
    report.add("top_stays", stay, unit="share", headline=True, note="resamples of voters in which it is on top")
    if not graph.edges:
        report.warn("no move has votes enough, or voters are too divided: all cards score the same")

    report.section("Cards")
    authors = Counter(card.author for card in graph.cards if card.author)
    wins = Counter(edge.wiser for edge in graph.edges)
    losses = Counter(edge.source for edge in graph.edges)
    rows, drawn = [], []
    for number, (card, score) in enumerate(graph.ranking(), 1):
        low, high = np.quantile(ranks[:, place[card.id]], [0.025, 0.975])
        rows.append(
            [number, card.title, score, f"{low:.0f} to {high:.0f}", wins[card.id], losses[card.id], card.author]
        )
        drawn.append((card.title, Interval(number, float(low), float(high), len(authors))))
    columns = ["rank", "card", "score", "rank in 95% of resamples", "wiser than", "less wise than", "author"]
    report.table("Ranking", columns, rows)
    report.figure("Rank, with its 95% interval", figures.forest(drawn[:20], xlabel="rank (1 is wisest)"))
    report.code("What to tell a model", graph.system_text(top))
    _by_group(report, graph)

    report.section("Edges")
    titles = {card.id: card.title for card in graph.cards}
    columns = ["from", "to the wiser", "wiser", "not wiser", "unsure", "less wise", "likelihood", "entropy"]
    kept = sorted(graph.edges, key=lambda edge: -edge.likelihood)
    rows = [[titles[e.source], titles[e.wiser], *e.counts, e.likelihood, e.entropy] for e in kept]
    report.table("Kept", columns, rows)
    why = Counter(reason for edge in graph.moves if (reason := graph.why_not(edge)))
    report.table("Not kept", ["reason", "moves"], why.most_common())
    report.data("edges_all", [{"from": e.source, "to": e.wiser, "counts": e.counts, "contexts": e.contexts,
                               "groups": e.groups, "why_not": graph.why_not(e)} for e in graph.moves])  # fmt: skip
    _criteria(report, graph, stay)
    return report


def _by_group(report: Report, graph: MoralGraph) -> None:
    groups = sorted({vote.group for vote in graph.votes if vote.group is not None})
    rows = []
    for group in groups:
        votes = [vote for vote in graph.votes if vote.group == group]
        try:
            order = graph.again(votes).ranking()
        except DataError:
            continue
        rows.append(
            [group, len({vote.voter for vote in votes}), len(votes), *[card.title for card, _ in order[:3]]]
        )
    if rows:
        width = max(map(len, rows))
        rows = [[*row, *[None] * (width - len(row))] for row in rows]
        columns = ["group", "voters", "votes", "first", "second", "third"][:width]
        report.table("On top by the votes of one group alone", columns, rows)
        report.add("groups_agree_on_top", len({row[3] for row in rows}) == 1)


def _criteria(report: Report, graph: MoralGraph, stay: float) -> None:
    """Fine-grained, generalisable, scalable, robust, legitimate, auditable."""
    report.section(
        "The six criteria", "As the paper asks of an alignment target; each by what can be counted here."
    )
    policies = [len(card.policies) for card in graph.cards]
    report.add("policies_per_card", float(np.mean(policies)), label="Fine-grained: policies per card")
    shared = sum(len(card.contexts) > 1 for card in graph.cards)
    report.add("cards_in_several_contexts", shared / len(graph.cards), unit="share",
               label="Generalisable: cards in several contexts")  # fmt: skip
    each = Counter(vote.voter for vote in graph.votes)
    report.add("votes_per_voter", float(np.mean(list(each.values()))), label="Scalable: votes per voter")
    report.add("robust_top", stay, unit="share", label="Robust: the top card stays when voters are drawn anew")
    kept = {(edge.source, edge.wiser) for edge in graph.edges}
    sure: dict[bool, int] = defaultdict(int)
    for vote in graph.votes:
        forward, back = (vote.source, vote.wiser) in kept, (vote.wiser, vote.source) in kept
        if vote.vote != "not_sure" and (forward or back):
            sure[(vote.vote == "upgrade") == forward] += 1
    report.add("votes_with_the_graph", wilson(sure[True], sum(sure.values())), unit="share",
               label="Legitimate: votes on its edges that go with the graph")  # fmt: skip
    report.add(
        "edges_with_counts", len(graph.moves), label="Auditable: moves with all their counts in this report"
    )
