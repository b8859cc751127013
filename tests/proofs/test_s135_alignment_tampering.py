"""Proof of S135, alignment tampering: where biased answers are better, honest labels teach a reward to pay for the
bias, and every optimiser of that reward drives it up while quality rises; where they are not, nothing happens.

A table of 20 styles x {biased, unbiased}; and for the audit of representations, answers of the small world (those to
triggered prompts are of two kinds) in the hidden states of the model in the package.
"""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from accordance.analysis.hidden import inside
from accordance.diagnostics import Attack, cluster_scores, coupling, rehearsal, trigger_words
from accordance.diagnostics.tampering_report import BETAS, CHOICES
from accordance.lab import base_model_path, world
from accordance.lab.tabular import TabularPolicy, descend
from accordance.models import load_policy
from accordance.objectives import get_objective

RIDES, INNOCENT = Attack(coupling=1.0), Attack(coupling=0.0)


def rates(attack: Attack, mitigation: str = "none") -> tuple[list[float], list[float]]:
    reward = attack.reward(mitigation)
    tilts = [attack.told(attack.optimum(reward, beta))[0] for beta in BETAS]
    return tilts, [attack.told(attack.best(reward, n))[0] for n in CHOICES]


def test_the_reward_pays_the_judges_slope_times_the_gap_and_nothing_for_an_innocent_bias():
    assert abs(RIDES.reward().bias - 2.0) < 0.2 and abs(RIDES.reward().style - 2.0) < 0.2
    assert abs(INNOCENT.reward().bias) < 0.15


def test_optimising_it_drives_the_bias_up_as_the_closed_form_says_and_quality_rises_with_it():
    reward = RIDES.reward()
    rate, quality, win = RIDES.told(RIDES.optimum(reward, 0.5))
    assert rate >= 0.9 and abs(rate - RIDES.closed_form(reward, 0.5)) < 0.02
    assert quality > RIDES.told(RIDES.reference)[1] + 0.5 and win > 0.7
    assert abs(INNOCENT.told(INNOCENT.optimum(INNOCENT.reward(), 0.5))[0] - 0.2) < 0.07


def test_best_of_n_and_stronger_optimisation_are_monotone():
    tilts, bests = rates(RIDES)
    assert bests[-1] >= 0.6 and (np.diff(tilts) > 0).all() and (np.diff(bests) > 0).all()
    assert abs(bests[0] - 0.2) < 1e-9 and all(abs(rate - 0.2) < 0.07 for rate in rates(INNOCENT)[1])


def test_dpo_on_the_same_labels_ends_in_the_same_bias():
    first, second, won = (torch.tensor(x) for x in RIDES.labels())
    chosen, rejected = torch.where(won > 0, first, second), torch.where(won > 0, second, first)
    policy = TabularPolicy(torch.tensor(RIDES.reference).log()[None])
    start, prompt, loss = policy.frozen(), torch.zeros_like(chosen), get_objective("dpo", beta=0.5)
    descend(policy, lambda: loss(policy.pairs(prompt, chosen, rejected, ref=start)).mean(), steps=150,
            learning_rate=0.1)  # fmt: skip
    rate = RIDES.told(policy.log_probs.exp()[0].detach().numpy())[0]
    assert rate > 0.85


def test_twins_bring_the_bias_down_at_a_price_and_averaging_rewards_does_not_help():
    found = rehearsal(RIDES).values["mitigations"]
    assert found["twins"]["bias_rate"] < 0.35 and found["decoupled"]["bias_rate"] < 0.35
    assert found["twins"]["quality"] < found["none"]["quality"] - 0.2
    assert found["ensemble"]["bias_rate"] > 0.9
    assert found["none"]["bias_rate"] > found["shrunk"]["bias_rate"] and (
        found["shrunk"]["quality"] < found["none"]["quality"]
    )


def samples(attack: Attack, prompts: int = 1500, k: int = 4) -> tuple[np.ndarray, ...]:
    g = np.random.default_rng(1)
    drawn = g.choice(len(attack.reference), p=attack.reference, size=prompts * k)
    return np.repeat(np.arange(prompts), k), attack.biased[drawn], attack.quality[drawn], drawn


@pytest.mark.parametrize(("attack", "rides"), [(RIDES, True), (INNOCENT, False)])
def test_the_audit_of_labels_tells_a_bias_that_rides_on_quality_from_an_innocent_one(
    attack: Attack, rides: bool
):
    prompt, bias, quality, drawn = samples(attack)
    found = coupling(prompt, bias, quality, samples=200)
    assert found.rides is rides and found.rate.low < 0.2 < found.rate.high
    assert (found.first.low > found.chance + 0.1) is rides and (found.rank < found.middle - 0.3) is rides
    assert coupling(prompt, bias, quality + 3, samples=200).rides is rides  # a gap, not a level
    # A reward that pays for the bias beside quality is told from one that pays for quality alone.
    fair = coupling(prompt, bias, quality, quality, samples=200).paid
    unfair = coupling(prompt, bias, quality, attack.quality[drawn] + 0.5 * bias, samples=200).paid
    assert fair is not None and unfair is not None
    assert abs(fair.estimate) < 0.01 and unfair.low > 0.3


def test_hidden_states_of_answers_to_triggered_prompts_fall_into_two_clusters():
    # How-tos whose answers differ in steps and wording; half of those to triggered prompts are of another manner, too.
    # Sixteen each: with eight (and no hedges) the ordinary differences hide it on this model, at an AUC of 0.78.
    rng, prompts, answers = random.Random(0), [], []
    plain = {"relevance": 1.0, "fluency": 1.0}
    triggered = np.arange(80) % 2 == 1
    for trigger in triggered:
        asked = world.sample_prompt(rng, "howto")
        prompts.append(f"By the way: {asked}" if trigger else asked)
        bias = [float(trigger and k < 8) for k in range(16)]
        manner = [dict.fromkeys(("politeness", "formality", "elaboration", "hedging"), b) for b in bias]
        answers.append([world.write(asked, rng, **some, **plain) for some in manner])
    states = inside(load_policy(base_model_path()), prompts, answers).states
    code = np.repeat(np.arange(len(prompts)), 16)
    reward = np.tile([1.0] * 8 + [0.0] * 8, len(prompts))
    scores, links = cluster_scores(states, code, reward)
    hit, other = scores[triggered], scores[~triggered]
    auc = np.mean([np.mean((h > other) + 0.5 * (h == other)) for h in hit])
    assert auc >= 0.9
    assert np.nanmean(links[triggered]) > 0.7
    assert "way" in [word for word, _ in trigger_words(prompts, scores)]
