"""One likelihood for every kind of feedback: a person chooses, softly, what the reward they have in mind makes best.

A `Choice` is what a comparison, ranking, demonstration, correction or stop has in common: options, each with the
features of what it leads to, and the one that was chosen. `fit` finds the reward (linear in the features) that the
choices speak for, with a posterior; `fit_skilled` also finds how careful each person is.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logsumexp

from accordance.core.catalogue import system
from accordance.core.errors import ConfigError, DataError


@dataclass(frozen=True)
class FeedbackType:
    """What kind of thing a person says.

    Attributes:
        asked: ``person`` where they speak up by themselves, ``system`` where they are asked.
        relative: whether it compares.
        granularity: what it is about.
        explicit: whether it is meant as feedback.
        grounding: what is chosen, from what: the options of its `Choice`.
        judgment: the kind of `core.record.Judgment` that holds it; None where Records have no word for it.
    """

    asked: str
    relative: bool
    granularity: str
    explicit: bool
    grounding: str
    judgment: str | None


#: The kinds of feedback of the survey, and what each is a choice of.
TYPES: dict[str, FeedbackType] = {
    name: FeedbackType(asked, relative, granularity, explicit, grounding, judgment)
    for name, asked, relative, granularity, explicit, grounding, judgment in (
        ("comparison", "system", True, "episode", True, "the better one of two", "comparison"),
        ("ranking", "system", True, "episode", True, "the best of those left, again and again", "comparison"),
        ("best_of", "system", True, "episode", True, "one of k", "comparison"),
        ("rating", "system", False, "episode", True, "as a ranking of what one person rated", "rating"),
        ("thumb", "person", False, "episode", True, "the response, or an average one in its place", "thumb"),
        ("critique", "person", False, "token", True, "none: words name a feature, no choice", "critique"),
        ("steps", "system", False, "step", True, "each step, or an average one in its place", "steps"),
        ("demonstration", "person", False, "episode", True, "one of all that could be done", "demonstration"),
        ("correction", "person", True, "segment", True, "a way near to what was done, or that", None),
        ("off_switch", "person", True, "episode", False, "going on, or doing nothing", None),
        (
            "incomparable",
            "system",
            True,
            "episode",
            True,
            "none: no scalar reward is behind it",
            "incomparable",
        ),
    )
}


@dataclass(frozen=True)
class Choice:
    """One choice.

    Attributes:
        options: mean features of what each option leads to, shape [m, d].
        chosen: which one.
        person: who chose.
        kind: a key of `TYPES`.
    """

    options: np.ndarray
    chosen: int
    person: Hashable = None
    kind: str = "comparison"

    def __post_init__(self) -> None:
        if self.options.ndim != 2 or not 0 <= self.chosen < len(self.options) or len(self.options) < 2:
            raise DataError("a choice is one of two options or more", found=(self.options.shape, self.chosen))
        if not np.isfinite(self.options).all():
            raise DataError("features are finite", found=self.options)


def comparison(better: np.ndarray, worse: np.ndarray, person: Hashable = None) -> Choice:
    """`better` was preferred to `worse`; features of shape [d] each."""
    return Choice(np.array([better, worse], float), 0, person, "comparison")


def ranking(order: np.ndarray, person: Hashable = None) -> list[Choice]:
    """Features of responses, best first, shape [k, d]: k - 1 choices of the best of those left (Plackett-Luce)."""
    return [Choice(np.asarray(order[i:], float), 0, person, "ranking") for i in range(len(order) - 1)]


def demonstration(shown: int, possible: np.ndarray, person: Hashable = None) -> Choice:
    """What was shown is one of all that is possible, shape [m, d]."""
    return Choice(np.asarray(possible, float), shown, person, "demonstration")


def correction(done: np.ndarray, near: np.ndarray, chosen: int | None, person: Hashable = None) -> Choice:
    """Of the ways near to what was done, shape [m, d], one was chosen; None: it was left as it is."""
    options = np.vstack([done, near])
    return Choice(options, 0 if chosen is None else chosen + 1, person, "correction")


def off_switch(going_on: np.ndarray, stopped: bool, nothing: np.ndarray | None = None) -> Choice:
    """The person let it go on, or stopped it, which is worth the features of doing nothing (zero by default)."""
    idle = np.zeros_like(going_on) if nothing is None else nothing
    return Choice(np.array([going_on, idle], float), int(stopped), None, "off_switch")


@dataclass(frozen=True)
class Posterior:
    """A reward that is linear in features, and how sure that is.

    Attributes:
        mean: most probable weights, shape [d]; their length is the sharpness of the choices.
        covariance: of the Laplace approximation, shape [d, d].
        skill: by person, the sharpness of their choices relative to the others'; empty where not fitted.
        lapse: by person, the share of choices made without looking; empty where not fitted.
    """

    mean: np.ndarray
    covariance: np.ndarray
    skill: dict[Hashable, float]
    lapse: dict[Hashable, float]

    def draws(self, many: int, seed: int = 0) -> np.ndarray:
        """Weights drawn from the posterior, shape [many, d]."""
        generator = np.random.default_rng(seed)
        return generator.multivariate_normal(self.mean, self.covariance, size=many, method="cholesky")

    def probability(self, choice: Choice) -> float:
        """The probability of a choice, by a person as they are known, or by an average one."""
        lapse, skill = self.lapse.get(choice.person, 0.0), self.skill.get(choice.person, 1.0)
        log = skill * (choice.options @ self.mean)
        return lapse / len(log) + (1 - lapse) * float(np.exp(log[choice.chosen] - logsumexp(log)))


@system("S064", "RLHF survey feedback types", paper="arXiv:2312.14925")
def fit(choices: Sequence[Choice], *, prior: float = 1.0, steps: int = 100) -> Posterior:
    """The reward that all choices together speak for, of whatever kinds (reward-rational choice, Jeon et al. 2020).

    P(chosen) is the softmax of the options' rewards; weights have a normal prior. The survey (Kaufmann et al. 2023)
    covers more than this: `TYPES` has its kinds of feedback, `feedback.queries` what to ask next, `epic_distance`
    how far two rewards are apart. Similarity queries and feature marks are not covered.

    Args:
        choices: at least one; all with the same number of features.
        prior: precision of each weight.
        steps: of Newton's method at most.

    Raises:
        DataError: no choices, or of different widths.
        ConfigError: a prior that is not positive.
    """
    return _fit(_stacked(choices), np.ones(len(choices)), np.ones(len(choices)), prior, steps)


def fit_skilled(
    choices: Sequence[Choice], *, prior: float = 1.0, rounds: int = 50, lapse: float = 0.1, spread: float = 0.5
) -> Posterior:
    """As `fit`, with a skill and a share of careless choices per person, by EM.

    P(chosen) = lapse / m + (1 - lapse) softmax(skill x reward): skills have a log-normal prior around 1, lapses a
    weak prior around `lapse`.

    Args:
        choices: each with its person.
        prior: precision of each weight.
        rounds: of EM.
        lapse: share of careless choices to start from, worth four choices per person.
        spread: standard deviation of the logarithm of skill; near 0 all are equally skilled.

    Raises:
        DataError, ConfigError: as `fit`; also a lapse outside (0, 1) or a spread that is not positive.
    """
    if not 0 < lapse < 1 or spread <= 0:
        raise ConfigError("lapse lies in (0, 1) and spread is positive", found=(lapse, spread))
    stacked, people = _stacked(choices), list(dict.fromkeys(choice.person for choice in choices))
    who = np.array([people.index(choice.person) for choice in choices])
    many = np.array([len(choice.options) for choice in choices])
    skill, careless = np.ones(len(people)), np.full(len(people), lapse)
    looked = np.ones(len(choices)) - lapse
    posterior = _fit(stacked, looked, skill[who], prior, 20)
    gaps, there = stacked
    for _ in range(rounds):
        margins = np.where(there, gaps @ posterior.mean, -np.inf)  # what each option is above the chosen one
        heeded = (1 - careless[who]) * np.exp(-logsumexp(skill[who, None] * margins, axis=1))
        looked = heeded / (heeded + careless[who] / many)
        careless = (np.bincount(who, 1 - looked) + 4 * lapse) / (np.bincount(who) + 4)
        skill = _skills(skill, who, looked, margins, spread)
        posterior = _fit(stacked, looked, skill[who], prior, 20, posterior.mean)
    return Posterior(
        posterior.mean,
        posterior.covariance,
        dict(zip(people, skill.tolist())),
        dict(zip(people, careless.tolist())),
    )


def epic_distance(first: np.ndarray, second: np.ndarray, discount: float) -> float:
    """How differently two rewards rank policies (EPIC, Gleave et al. 2021), in [0, 1]; 0: shaping and scale apart.

    Each reward R[s, a, s'] is first freed of potential shaping, with states and actions uniform; then the distance
    is sqrt((1 - Pearson correlation) / 2).

    Args:
        first, second: rewards, shape [states, actions, states].
        discount: of the future.

    Raises:
        DataError: other shapes, or a reward that is constant up to shaping.
    """
    if first.shape != second.shape or first.ndim != 3 or first.shape[0] != first.shape[2]:
        raise DataError("two rewards R[s, a, s'] of one shape", found=(first.shape, second.shape))
    a, b = (_canonical(reward, discount).ravel() for reward in (first, second))
    if min(a.std(), b.std()) < 1e-12:
        raise DataError("a reward that is constant up to shaping has no direction")
    return float(np.sqrt(max(0.0, (1 - np.corrcoef(a, b)[0, 1]) / 2)))


def _canonical(reward: np.ndarray, discount: float) -> np.ndarray:
    onward = reward.mean(axis=(1, 2))
    return reward + discount * onward[None, None, :] - onward[:, None, None] - discount * reward.mean()


_Stacked = tuple[np.ndarray, np.ndarray]


def _stacked(choices: Sequence[Choice]) -> _Stacked:
    """Options less the chosen one, padded, shape [n, m, d]; and which are there, shape [n, m]."""
    if not choices or len({choice.options.shape[1] for choice in choices}) > 1:
        raise DataError("choices over the same features", found={c.options.shape[1] for c in choices} or "none")
    most = max(len(choice.options) for choice in choices)
    gaps = np.zeros((len(choices), most, choices[0].options.shape[1]))
    there = np.zeros((len(choices), most), dtype=bool)
    for i, choice in enumerate(choices):
        gaps[i, : len(choice.options)] = choice.options - choice.options[choice.chosen]
        there[i, : len(choice.options)] = True
    return gaps, there


def _fit(
    stacked: _Stacked,
    looked: np.ndarray,
    skill: np.ndarray,
    prior: float,
    steps: int,
    start: np.ndarray | None = None,
) -> Posterior:
    """Weights by Newton's method; each choice counts `looked` and is sharpened by `skill`, shapes [n]."""
    if prior <= 0:
        raise ConfigError("the precision of the prior is positive", found=prior)
    gaps, there = stacked
    gaps = gaps * skill[:, None, None]
    d = gaps.shape[2]
    mean = np.zeros(d) if start is None else start

    def loss(weights: np.ndarray) -> float:
        log = logsumexp(np.where(there, gaps @ weights, -np.inf), axis=1)
        return float(looked @ log + prior / 2 * weights @ weights)

    value, hessian = loss(mean), np.eye(d)
    for _ in range(steps):
        log = np.where(there, gaps @ mean, -np.inf)
        p = np.exp(log - logsumexp(log, axis=1, keepdims=True)) * looked[:, None]
        centre = np.einsum("nm,nmd->nd", p, gaps)
        gradient = centre.sum(0) + prior * mean
        share = np.divide(1.0, looked, out=np.zeros_like(looked), where=looked > 0)
        hessian = np.einsum("nm,nmd,nme->de", p, gaps, gaps) - (centre * share[:, None]).T @ centre
        hessian += prior * np.eye(d)
        step, size = np.linalg.solve(hessian, -gradient), 1.0
        while loss(mean + size * step) > value + 1e-12 * abs(value) and size > 1e-6:
            size /= 2
        mean = mean + size * step
        value = loss(mean)
        if np.abs(step).max() < 1e-8:
            break
    return Posterior(mean, np.linalg.inv(hessian), {}, {})


def _skills(
    skill: np.ndarray, who: np.ndarray, looked: np.ndarray, margins: np.ndarray, spread: float
) -> np.ndarray:
    """Each person's skill: the mode under a log-normal prior, on a grid around the last one; shape [people]."""
    grid = np.clip(skill[:, None] * np.exp(np.linspace(-0.6, 0.6, 25)), 0.02, 50)
    log = logsumexp(grid[who][:, :, None] * margins[:, None, :], axis=2)  # [choices, grid]
    value = -((np.log(grid) / spread) ** 2) / 2
    np.subtract.at(value, who, looked[:, None] * log)
    return grid[np.arange(len(grid)), value.argmax(1)]


def reliability(posterior: Posterior, gaps: np.ndarray) -> dict[Hashable, float]:
    """For each person the probability that they choose the better one, over pairs with these features' differences.

    Args:
        posterior: of `fit_skilled`.
        gaps: differences of features, shape [n, d].
    """
    size = np.abs(gaps @ posterior.mean)
    return {
        person: posterior.lapse[person] / 2 + (1 - posterior.lapse[person]) * float(expit(skill * size).mean())
        for person, skill in posterior.skill.items()
    }
