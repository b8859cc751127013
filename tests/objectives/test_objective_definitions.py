"""Each objective equals its published formula, written out by hand for one example."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch

from accordance.core.objective import ListLogps, PairLogps, UnaryLogps
from accordance.objectives import get_objective

W, L, RW, RL, NW, NL = -6.0, -8.0, -7.5, -5.5, 4, 2  # log-probs of chosen and rejected, reference's, lengths
A, B = W - RW, L - RL  # log-ratios


def sig(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def nls(x: float) -> float:
    return -math.log(sig(x))


def odds(logp: float) -> float:
    return math.log(math.exp(logp) / (1 - math.exp(logp)))


PAIRS = [
    ("dpo", {"beta": 0.3}, nls(0.3 * (A - B))),
    ("dpo", {"beta": 0.3, "label_smoothing": 0.1}, 0.9 * nls(0.3 * (A - B)) + 0.1 * nls(-0.3 * (A - B))),
    ("ln_dpo", {"beta": 2.0}, nls(2 * (A / NW - B / NL))),
    ("ipo", {"beta": 0.3}, (A / NW - B / NL - 1 / 0.6) ** 2),
    ("ipo", {"beta": 0.3, "reduction": "sum"}, (A - B - 1 / 0.6) ** 2),
    ("hinge", {"beta": 0.1}, 1 - 0.1 * (A - B)),
    ("hinge", {"beta": 1.0}, 0.0),
    (
        "robust",
        {"beta": 0.3, "label_smoothing": 0.1},
        (0.9 * nls(0.3 * (A - B)) - 0.1 * nls(-0.3 * (A - B))) / 0.8,
    ),
    ("f_dpo", {"beta": 0.3, "divergence": "reverse_kl"}, nls(0.3 * (A - B))),
    ("f_dpo", {"beta": 0.3, "divergence": "forward_kl"}, nls(0.3 * (-math.exp(-A) + math.exp(-B)))),
    (
        "f_dpo",
        {"beta": 0.3, "divergence": "js"},
        nls(
            0.3
            * (math.log(2 * math.exp(A) / (1 + math.exp(A))) - math.log(2 * math.exp(B) / (1 + math.exp(B))))
        ),
    ),
    (
        "f_dpo",
        {"beta": 0.3, "divergence": "alpha", "alpha": 0.4},
        nls(0.3 * ((1 - math.exp(-0.4 * A)) / 0.4 - (1 - math.exp(-0.4 * B)) / 0.4)),
    ),
    ("simpo", {"beta": 2.0, "gamma": 0.7}, nls(2 * W / NW - 2 * L / NL - 0.7)),
    ("cpo", {"beta": 0.3, "nll_average": "sum"}, nls(0.3 * (W - L)) - W),
    ("cpo", {"beta": 0.3, "nll_weight": 0.5}, nls(0.3 * (W - L)) - 0.5 * W / NW),
    ("orpo", {"beta": 0.3}, -W / NW + 0.3 * nls(odds(W / NW) - odds(L / NL))),
    ("apo_zero", {"beta": 0.3}, 1 - sig(0.3 * A) + sig(0.3 * B)),
    ("apo_down", {"beta": 0.3}, sig(0.3 * A) + 1 - sig(0.3 * (A - B))),
    ("nca", {"beta": 0.3}, nls(0.3 * A) + 0.5 * nls(-0.3 * A) + 0.5 * nls(-0.3 * B)),
    ("bco_pair", {"beta": 0.3}, nls(0.3 * A) + nls(-0.3 * B)),
]


@pytest.mark.parametrize("name, options, expected", PAIRS)
def test_pairwise_objectives(name, options, expected):
    values = (torch.tensor([x], dtype=torch.float64) for x in (W, L, NW, NL, RW, RL))
    loss = get_objective(name, **options)(PairLogps(*values))
    assert loss.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_sft_is_the_summed_negative_log_likelihood():
    sft = get_objective("sft")
    assert sft.unit == "tokens"
    assert sft(UnaryLogps(torch.tensor([W, L]), torch.tensor([NW, NL]))).tolist() == [-W, -L]


def test_kto():
    kl = max(0.0, ((-3 - -5) + (-4 - -3)) / 2)
    bundle = UnaryLogps(
        torch.tensor([W, L]),
        torch.tensor([NW, NL]),
        torch.tensor([True, False]),
        torch.tensor([RW, RL]),
        kl_logp=torch.tensor([-3.0, -4.0]),
        kl_ref=torch.tensor([-5.0, -3.0]),
    )
    loss = get_objective("kto", beta=0.3, desirable_weight=1.2, undesirable_weight=0.8)(bundle)
    expected = [1.2 * (1 - sig(0.3 * (A - kl))), 0.8 * (1 - sig(0.3 * (kl - B)))]
    assert loss.tolist() == pytest.approx(expected, rel=1e-6)


S = (-3.0, -8.0, -2.0)  # log-probs of three ranked responses, best first
N = (2, 4, 2)
R = (0.9, 0.5, 0.2)  # scores


def ranked(order: tuple[int, ...] = (0, 1, 2)) -> ListLogps:
    def column(values):
        return torch.tensor([[values[i] for i in order]], dtype=torch.float64)

    return ListLogps(column(S), column(N), torch.ones(1, 3, dtype=torch.bool), column(R))


@pytest.mark.parametrize("order", permutations(range(3)))
def test_pro_in_any_order_of_the_responses(order):
    s = [a / b for a, b in zip(S, N)]
    d = {(k, i): R[k] - R[i] for k in range(3) for i in range(k + 1, 3)}
    first, second = max(d[0, 1], d[0, 2]), d[1, 2]
    own0, own1 = math.exp(s[0] * first), math.exp(s[1] * second)
    rank = -math.log(own0 / (own0 + math.exp(s[1] * d[0, 1]) + math.exp(s[2] * d[0, 2])))
    rank -= math.log(own1 / (own1 + math.exp(s[2] * d[1, 2])))
    expected = rank + 0.05 * 2**2 * -S[0]
    loss = get_objective("pro", alpha=0.05, squash="none")(ranked(order))
    assert loss.item() == pytest.approx(expected, rel=1e-9)


def test_plackett_luce():
    reward = [0.3 * a for a in S]
    expected = sum(
        -math.log(math.exp(reward[k]) / sum(math.exp(reward[i]) for i in range(k, 3))) for k in range(2)
    )
    loss = get_objective("plackett_luce", beta=0.3, reference=False)(ranked())
    assert loss.item() == pytest.approx(expected, rel=1e-9)
