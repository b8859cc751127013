"""Proof of S070, EGPO: the last policy reaches the equilibrium of a cyclic game at a linear rate; plain steps cycle.

Where the spec is off: one step of plain descent on the loss over uniform pairs is the tabular rule with
eta = 4 lr / (beta R), not 2 lr / (beta R) (both as the mean over ordered pairs, a response with itself included).
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from accordance.core import games
from accordance.lab.games import PreferenceGame
from accordance.lab.tabular import TabularPolicy
from accordance.objectives import Extragradient, get_objective, over_lists

BETA = 0.01


def circle() -> PreferenceGame:
    """Rock, paper, scissors with a reference that leans to the first."""
    game = PreferenceGame.rock_paper_scissors(0.9)
    ref = TabularPolicy(torch.tensor([[0.6, 0.3, 0.1]], dtype=torch.float64).log())
    return PreferenceGame(game.preference, ref)


def random_cycles(prompts: int = 12, responses: int = 10) -> PreferenceGame:
    """Random games of ten responses, those with a single best response left out."""
    game = PreferenceGame.random(2 * prompts, responses, scale=3.0, seed=0)
    has_winner = ((game.preference > 0.5).sum(-1) == responses - 1).any(-1)
    return PreferenceGame(game.preference[~has_winner][:prompts])


class Learner:
    """A table that starts at the reference and is trained by plain gradient steps on the objective."""

    def __init__(self, game: PreferenceGame, eta: float) -> None:
        self.game, self.policy = game, TabularPolicy(game.ref.logits)
        self.responses = game.preference.shape[-1]
        self.optimizer = torch.optim.SGD(self.policy.parameters(), lr=eta * BETA * self.responses / 4)
        self.extragradient = Extragradient(self.policy, self.optimizer)
        self.objective = get_objective("egpo", beta=BETA)

    def play(self) -> Tensor:
        return self.game.win_rates(self.policy)

    def loss(self, wins: Tensor) -> Tensor:
        """Mean over ordered pairs, added up over prompts."""
        return 2 * self.objective(self.game.every_pair(self.policy, wins)).sum() / self.responses**2

    def look_ahead(self) -> None:
        self.extragradient.step(self.play, self.loss)

    def plain(self) -> None:
        self.optimizer.zero_grad()
        self.loss(self.play()).backward()
        self.optimizer.step()

    def gaps(self, kind: str, steps: int) -> Tensor:
        """Duality gap of the policy after each step, shape [steps, P]."""
        return torch.stack(
            [(getattr(self, kind)(), self.game.duality_gap(self.policy, BETA))[1] for _ in range(steps)]
        )


def test_last_policy_converges_linearly_in_a_circle_while_plain_steps_go_round(record_property):
    learner = Learner(circle(), eta=0.5)
    ahead = learner.gaps("look_ahead", 1000)[:, 0]
    plain = Learner(circle(), eta=0.5).gaps("plain", 2000)[:, 0]
    assert ahead[-1] < 1e-6 and ahead[700:].max() < 1e-6
    assert plain[-1] > 0.05 and plain[1000:].min() > 0.05
    assert learner.policy.total_variation(circle().equilibrium(BETA)).max() < 1e-4
    # Linear: the logarithm of the gap falls along a straight line, from 1e-2 to 1e-9.
    falling = (ahead < 1e-2) & (ahead > 1e-9)
    step, log_gap = torch.arange(len(ahead))[falling].double(), ahead[falling].log()
    line = torch.corrcoef(torch.stack([step, log_gap]))[0, 1]
    rate = math.exp(((step - step.mean()) * log_gap).sum() / ((step - step.mean()) ** 2).sum())
    assert falling.sum() > 200 and line < -0.99 and 0.9 < rate < 0.99
    record_property("gap_egpo", ahead[-1].item())
    record_property("gap_plain", plain[-1].item())
    print(
        f"EGPO gap {ahead[-1]:.1e} (x{rate:.4f} a step), plain gap {plain[-1]:.2f}, >= {plain[1000:].min():.2f}"
    )


def test_ten_responses_with_random_cycles():
    ahead = Learner(random_cycles(), eta=1.0).gaps("look_ahead", 700)[-1]
    plain = Learner(random_cycles(), eta=1.0).gaps("plain", 1400)[700:]
    print(f"EGPO {ahead.max():.1e}; plain steps {plain[-1].median():.2f}")
    assert ahead.max() < 1e-6
    # Where one response is all but best, the two go to it alike: 2 of these 12.
    assert plain[-1].median() > 0.05 and (plain.amin(0) > 0.05).sum() >= 9


@pytest.mark.parametrize("eta", [0.5, 2.0])
def test_one_update_is_the_tabular_rule(eta):
    """theta <- (1 - eta beta) theta + eta beta (theta_ref + P opponent / beta), opponents from the half step."""
    game = random_cycles(3)
    learner = Learner(game, eta)
    learner.policy.logits.data += torch.randn(
        3, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    start, ref = learner.policy.logits.detach().clone(), game.ref.logits

    def rule(opponent: Tensor) -> Tensor:
        wins = games.win_rates(game.preference, opponent.log_softmax(-1))
        return (1 - eta * BETA) * start + eta * BETA * (ref + wins / BETA)

    def centred(logits: Tensor) -> Tensor:
        return logits - logits.mean(-1, keepdim=True)

    learner.look_ahead()
    torch.testing.assert_close(centred(learner.policy.logits), centred(rule(rule(start))), rtol=0, atol=1e-6)
    learner.policy.logits.data.copy_(start)
    learner.plain()
    torch.testing.assert_close(centred(learner.policy.logits), centred(rule(start)), rtol=0, atol=1e-6)


def test_moments_of_the_optimizer_are_those_of_the_real_updates_alone():
    """Adam: what the look-ahead did to its moments is undone."""
    target = torch.tensor([1.0, -2.0])
    point, again = (torch.nn.ParameterList([torch.zeros(2)]) for _ in range(2))
    ahead = Extragradient(point, torch.optim.Adam(point.parameters(), lr=0.1))
    plain = torch.optim.Adam(again.parameters(), lr=0.1)
    for _ in range(5):
        # The loss does not depend on what was played, so both ways must take the same steps.
        ahead.step(lambda: None, lambda _: ((point[0] - target) ** 2).sum())
        plain.zero_grad()
        ((again[0] - target) ** 2).sum().backward()
        plain.step()
    torch.testing.assert_close(point[0], again[0])


def test_sampled_lists_judged_by_sampled_opponents_lead_to_the_same_equilibrium():
    """As a language model would learn: eight answers to a prompt, each compared with its own sampled opponent."""
    beta, g = 0.5, torch.Generator().manual_seed(0)
    game = circle()
    policy, objective = TabularPolicy(game.ref.logits), over_lists(get_objective("egpo", beta=beta), ties=True)
    extragradient = Extragradient(policy, torch.optim.SGD(policy.parameters(), lr=0.02))
    prompt, visited = torch.zeros(64, dtype=torch.long), []

    def play() -> tuple[Tensor, Tensor]:
        answers, opponents = (policy.sample(prompt, 8, generator=g) for _ in range(2))
        return answers, game.compare(prompt[:, None], answers, opponents, generator=g).double()

    for step in range(900):
        extragradient.step(play, lambda p: objective(policy.lists(prompt, *p, ref=game.ref)).mean())
        if step >= 600:
            visited.append(policy.probs.detach().clone())
    equilibrium = game.equilibrium(beta)
    start = game.ref.total_variation(equilibrium).item()
    end = (torch.stack(visited).mean(0) - equilibrium.probs).abs().sum().item() / 2
    print(f"distance from the equilibrium {start:.3f} -> {end:.3f}")
    assert start > 0.08 and end < 0.02
