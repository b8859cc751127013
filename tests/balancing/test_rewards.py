"""Reward transforms and combiners: what they learn, what they refuse, and what is neutral."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from accordance.balancing import (
    CombinedScorer,
    Dimension,
    FrozenNorm,
    GroupWeights,
    LogSigmoidCentred,
    PreferenceOrchestrator,
    ReferenceQuantile,
    RunningNorm,
    TriFactorWeights,
    WeightedRewards,
    WorstGroup,
    log_sigmoid_centred,
    solve_palette,
)
from accordance.core.errors import ConfigError, DataError
from accordance.core.record import user
from accordance.core.scorer import FunctionScorer, Scorer
from tests.balancing.tilting import spread, tilted, uniform


def table(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Transforms


def test_a_frozen_norm_never_learns_again_and_a_running_one_does() -> None:
    first, later = 3 * table(10, 8, 2) + 5, 3 * table(10, 8, 2, seed=1) + 8
    frozen, running = FrozenNorm().fit(first), RunningNorm().fit(first)
    torch.testing.assert_close(frozen(first).flatten(0, 1).mean(0), torch.zeros(2).double())
    torch.testing.assert_close(frozen(first), running(first))
    assert frozen(later).mean() > 0.9  # the improvement stays visible
    running.observe(later)
    both = torch.cat([first, later]).flatten(0, 1)
    torch.testing.assert_close(running(later), (later - both.mean(0)) / both.std(0, correction=0))


def test_norms_clip_and_do_not_blow_up_what_hardly_varies() -> None:
    norm = FrozenNorm(clip=2.0, least=0.1).fit(torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    torch.testing.assert_close(norm(torch.tensor([[1.05, 9.0]])), torch.tensor([[0.5, 2.0]]))


def test_quantiles_are_per_prompt_and_predicted_for_new_ones() -> None:
    features = table(60, 3)
    level = features @ table(3, 2, seed=1) + 7
    samples = level[:, None] + table(60, 64, 2, seed=2)
    known = ReferenceQuantile(torch.tensor([0.85, 0.5]), ridge=1e-3).fit(samples[:40], features[:40])
    assert known.reference_ is not None
    below = (samples[:40] < known.reference_[:, None]).double().mean((0, 1))
    torch.testing.assert_close(below, torch.tensor([0.85, 0.5]).double(), atol=0.02, rtol=0)
    predicted = known.predict(features[40:])
    actual = torch.stack([samples[40:, :, 0].quantile(0.85, 1), samples[40:, :, 1].quantile(0.5, 1)], -1)
    assert (predicted - actual).abs().mean() < 0.25
    torch.testing.assert_close(known.predict(), known.reference_.mean(0))


def test_unfitted_misshapen_and_broken_rewards_are_refused() -> None:
    with pytest.raises(DataError, match="learned nothing yet"):
        FrozenNorm()(table(3, 2))
    with pytest.raises(DataError, match="another number of rewards"):
        FrozenNorm().fit(table(3, 2))(table(3, 4))
    with pytest.raises(DataError, match="can't be used"):
        FrozenNorm().fit(table(3, 2) * float("nan"))
    with pytest.raises(DataError, match="samples per prompt"):
        ReferenceQuantile().fit(table(3, 2))
    with pytest.raises(DataError, match="learned nothing yet"):
        ReferenceQuantile().fit(table(5, 3, 2)).predict(table(5, 2))


# Log-sigmoid


def test_a_far_reference_makes_the_transform_linear() -> None:
    """The neutral value: as the reference goes up, utilities differ as plain rewards do."""
    r = table(5, 3)
    ours = LogSigmoidCentred(torch.full((3,), 40.0))(r)
    torch.testing.assert_close(ours - ours[0], r.sum(-1) - r.sum(-1)[0])


def test_it_saturates_above_the_reference_and_takes_weights_and_scales() -> None:
    r = torch.tensor([[-50.0], [0.0], [50.0]]).double().requires_grad_()
    log_sigmoid_centred(r, torch.zeros(1)).sum().backward()
    assert r.grad is not None and r.grad.flatten().tolist() == pytest.approx([1.0, 0.5, 0.0])
    plain, doubled = table(4, 2), torch.tensor([2.0, 2.0])
    zero = torch.zeros(2)
    torch.testing.assert_close(
        LogSigmoidCentred(zero, weights=doubled)(plain), 2 * LogSigmoidCentred(zero)(plain)
    )
    torch.testing.assert_close(LogSigmoidCentred(zero, scale=3.0)(3 * plain), LogSigmoidCentred(zero)(plain))
    with pytest.raises(ConfigError, match="scale must be above 0"):
        LogSigmoidCentred(zero, scale=0.0)


# Worst group


def test_equal_groups_make_the_worst_group_the_plain_reward() -> None:
    r = table(6, 5, 1).expand(6, 5, 3)
    norm = FrozenNorm(clip=None).fit(r)
    for combiner in (WorstGroup(norm), WorstGroup(norm, "response"), GroupWeights(norm, 3)):
        torch.testing.assert_close(combiner(r), norm(r)[..., 0])


def test_an_offset_of_one_groups_reward_does_not_make_it_the_worst_one() -> None:
    r = table(6, 50, 2)
    norm = FrozenNorm().fit(r)
    shifted = FrozenNorm().fit(r - torch.tensor([100.0, 0.0]))
    assert torch.allclose(
        WorstGroup(norm, "response")(r), WorstGroup(shifted, "response")(r - torch.tensor([100.0, 0]))
    )


@pytest.mark.parametrize("seed", range(3))
def test_max_min_lifts_the_worst_group_over_the_single_reward(seed: int) -> None:
    """34 of 40 people want r, 6 want -0.7 r + noise; KL coefficient 1, exact steps. Against the shares' mix."""
    base = uniform(8, 12)
    one, noise = table(2, 8, 12, seed=seed)
    r = torch.stack([one, 0.7 * noise - 0.7 * one], -1)
    norm = FrozenNorm(clip=None).fit(r)
    single = tilted(base, norm(r) @ torch.tensor([34 / 40, 6 / 40]).double(), 1.0)
    groups = GroupWeights(norm, 2, rate=0.3)
    kept = []
    for _ in range(300):
        policy = tilted(base, groups(r), 1.0)
        kept.append(groups.weights)
        groups.observe(r, policy.probs)
    fair = tilted(base, norm(r) @ torch.stack(kept[100:]).mean(0), 1.0)
    worst, before = (spread(p, norm(r)).mean(0).min() for p in (fair, single))
    assert worst > before + 0.2
    # The max-min solution equalises the groups, or leaves all weight on the one that stays behind.
    levels = spread(fair, norm(r)).mean(0)
    assert (levels[0] - levels[1]).abs() < 0.05


def test_the_minimum_of_means_serves_one_group_and_the_mean_of_minima_is_more_cautious() -> None:
    r = table(6, 50, 2)
    norm = FrozenNorm().fit(r)
    behind = r - torch.tensor([0.0, 1.0])  # the policy's samples leave the second group behind
    torch.testing.assert_close(WorstGroup(norm)(behind), norm(behind)[..., 1])
    assert WorstGroup(norm, "response")(behind).mean() < WorstGroup(norm)(behind).mean()
    with pytest.raises(ConfigError, match="unknown level"):
        WorstGroup(norm, "people")  # type: ignore[arg-type]


# Scorers combined


def scorer(name: str, *values: float | None) -> Scorer:
    return FunctionScorer(lambda prompts, completions, **_: list(values[: len(completions)]), name)


def test_scorers_combined_score_as_their_combination_and_say_none_where_one_does() -> None:
    prompts, texts = [user("q")] * 3, ["a", "b", "c"]
    both = CombinedScorer(
        [scorer("x", 1.0, None, 3.0), scorer("y", 0.5, 1.0, -1.0)], WeightedRewards(torch.tensor([1.0, 2.0]))
    )
    assert isinstance(both, Scorer) and both.name == "x+y"
    assert both.score(prompts, texts) == [2.0, None, 1.0]
    assert CombinedScorer([scorer("x", None)], WeightedRewards(torch.ones(1))).score(prompts[:1], ["a"]) == [
        None
    ]


def test_prompt_aware_combiners_ask_for_features_and_others_refuse_them() -> None:
    with pytest.raises(ConfigError, match="knows no features"):
        CombinedScorer([scorer("x", 1.0)], WeightedRewards(torch.ones(1)), features=lambda p: torch.ones(1, 1))
    made = PreferenceOrchestrator(epochs=5).fit(table(6, 2), table(6, 2))
    with pytest.raises(ConfigError, match="needs features"):
        CombinedScorer([scorer("x", 1.0)] * 2, made)
    scored = CombinedScorer(
        [scorer("x", 1.0, 2.0), scorer("y", 2.0, 1.0)],
        made,
        features=lambda prompts: torch.ones(len(prompts), 2),
    )
    assert len(scored.score([user("q")] * 2, ["a", "b"])) == 2
    with pytest.raises(ConfigError, match="no effect on WeightedRewards"):
        WeightedRewards(torch.ones(2))(table(3, 2), table(3, 1))


def test_every_combiner_gives_one_number_per_response_in_both_layouts() -> None:
    r, features = table(6, 5, 2), table(6, 3)
    palette = solve_palette(r, r.mean((0, 1)) + 0.1)
    combiners: list[Any] = [
        WeightedRewards(torch.ones(2), FrozenNorm().fit(r)),
        LogSigmoidCentred(ReferenceQuantile().fit(r)),
        LogSigmoidCentred(ReferenceQuantile().fit(r, features)),
        WorstGroup(FrozenNorm().fit(r), "response"),
        GroupWeights(FrozenNorm().fit(r), 2),
        PreferenceOrchestrator(epochs=3).fit(features, r[:, 0]),
        TriFactorWeights([Dimension("a"), Dimension("b")]).fit(r),
        palette,
    ]
    for combiner in combiners:
        of_prompts = features if combiner.prompt_aware else None
        whole, flat = combiner(r, of_prompts), combiner(r[:, 1], of_prompts)
        assert whole.shape == (6, 5) and flat.shape == (6,)
        torch.testing.assert_close(whole[:, 1], flat)


# Orchestrator, palette and adaptive weights: neutral values and refusals


def test_a_hot_target_gives_equal_weights_and_a_prior_overrides() -> None:
    made = PreferenceOrchestrator(1e6, epochs=500).fit(table(30, 2), table(30, 3))
    weights = made.weights(table(4, 2))
    torch.testing.assert_close(weights, torch.full((4, 3), 1 / 3), atol=0.01, rtol=0)
    only = made.weights(table(4, 2), torch.tensor([0.0, 1.0, 0.0]))
    torch.testing.assert_close(only, torch.tensor([[0.0, 1.0, 0.0]]).expand(4, 3))


def test_the_orchestrator_is_seeded_and_says_what_it_misses() -> None:
    x, r = table(20, 2), table(20, 3)
    one, other = (PreferenceOrchestrator(epochs=20, seed=3).fit(x, r).weights(x) for _ in range(2))
    assert torch.equal(one, other)
    with pytest.raises(DataError, match="learned nothing yet"):
        PreferenceOrchestrator().weights(x)
    with pytest.raises(ConfigError, match="needed for target=contrast"):
        PreferenceOrchestrator(target="contrast").fit(x, r)
    with pytest.raises(ConfigError, match="no effect on target=preferred"):
        PreferenceOrchestrator().fit(x, r, other=r)
    with pytest.raises(DataError, match="do not agree"):
        PreferenceOrchestrator().fit(x[:5], r)
    with pytest.raises(ConfigError, match="not all 0"):
        PreferenceOrchestrator(epochs=1).fit(x, r).weights(x, torch.zeros(3))


def test_a_palette_at_the_base_level_changes_nothing() -> None:
    r = table(4, 10, 2)
    found = solve_palette(r, r.mean((0, 1)))
    assert found.weights.abs().max() < 1e-6 and found.kl == pytest.approx(0, abs=1e-9)
    below = solve_palette(r, r.mean((0, 1)) - 1)
    assert below.weights.tolist() == [0.0, 0.0] and below.feasible


@pytest.mark.parametrize(
    "change, match",
    [
        ({"rewards": table(4, 2)}, "can't be used"),
        ({"palette": torch.zeros(3)}, "another number of rewards"),
        ({"base": torch.ones(4, 10)}, "sum to 1"),
        ({"adjust": 1.5}, "adjust is out of range"),
    ],
)
def test_a_palette_refuses_what_it_can_not_use(change: dict[str, Any], match: str) -> None:
    with pytest.raises((ConfigError, DataError), match=match):
        solve_palette(**{"rewards": table(4, 10, 2), "palette": torch.zeros(2)} | change)


def test_smoothing_0_keeps_equal_weights_and_the_floor_holds() -> None:
    r = table(6, 20, 4)
    matrix = [Dimension("a"), Dimension("b"), Dimension("c", target=-9.0), Dimension("d", risk="high")]
    still = TriFactorWeights(matrix, smoothing=0.0).fit(r)
    torch.testing.assert_close(still.observe(r), torch.full((4,), 0.25).double())
    moving = TriFactorWeights(matrix, smoothing=1.0, floor=0.05).fit(r)
    weights = moving.observe(r)
    assert weights[2] == pytest.approx(0.05) and weights.sum() == pytest.approx(1) and len(moving.history) == 1
    torch.testing.assert_close(moving(r), moving.norm_(r) @ weights)


def test_correlations_are_taken_within_prompts() -> None:
    """Two rewards that share only the level of the prompt are not redundant."""
    r = table(40, 30, 2) + 10 * table(40, 1, 1, seed=1)
    same = TriFactorWeights([Dimension("a"), Dimension("b")]).fit(r)
    same.observe(r)
    assert same.factors[2].min() > 0.9


def test_a_hard_failure_of_high_risk_overrules_everything() -> None:
    matrix = [Dimension("a"), Dimension("safe", risk="high", binary=True, fails_below=0.5)]
    r = torch.tensor([[[9.0, 0.0], [1.0, 1.0], [2.0, 1.0]]])
    weights = TriFactorWeights(matrix).fit(r)
    assert weights(r)[0, 0] == -5.0 and weights(r)[0, 2] > weights(r)[0, 1] > -5
    with pytest.raises(ConfigError, match="high risk"):
        TriFactorWeights([Dimension("a", fails_below=0.1)])
    with pytest.raises(ConfigError, match="several samples"):
        weights.observe(r[0])
    with pytest.raises(ConfigError, match="floor is out of range"):
        TriFactorWeights(matrix, floor=0.6)
