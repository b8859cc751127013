"""MOSAIC's loop: turns that are read strictly, trajectories of which only the policy's own words are learned."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from accordance.core.errors import ConfigError, DataError
from accordance.core.record import Judgment, Record, Records, Response, user
from accordance.objectives import get_objective
from accordance.training import Rollout, TrainingConfig, TrainingRun, run_loop, train
from accordance.training.bundles import bundle_for
from accordance.training.loops.mosaic import behaviour, compared
from accordance.training.loops.mosaic_grammar import GrammarScorer, parse_turn, turns_of
from accordance.training.rollouts import RolloutSource, example_of
from accordance.training.trajectories import OBSERVED, Environment, observation_ids, play
from tests.tiny import policy, records
from tests.training.test_online import letters
from tests.training.test_trainer import QUICK, logged, weights


class Echo:
    """An environment of three turns that says how long each was; it scores by the share of letters."""

    name = "echo"

    def __init__(self, turns: int = 3) -> None:
        self.turns, self.seen = turns, list[dict[str, Any]]()

    def begin(self, record: Record) -> dict[str, Any]:
        self.seen.append(dict(record.extras))
        return {"turn": 0}

    def step(self, state: dict[str, Any], text: str) -> str | None:
        state["turn"] += 1
        return None if state["turn"] == self.turns else f"{len(text)}\nlong"

    def score(self, prompts: Any, completions: Any, **columns: Any) -> list[float]:
        self.seen.append(columns)
        return letters(prompts, completions)


def talkative() -> Any:
    """A policy that ends its turns soon."""
    made = policy(0)
    with torch.no_grad():
        ids = torch.tensor([made.encode(user("task 1"), (), {}).prompt_ids])
        hidden = made.model(ids, output_hidden_states=True).hidden_states[-1][0].mean(0)
        made.model.lm_head.weight[1] += 8 * hidden / (hidden @ hidden)
    return made


def tasks(harmful: int = 4, benign: int = 6) -> Records:
    return Records.of(
        Record(user(f"task {i}"), id=str(i), extras={"harmful": i < harmful}) for i in range(harmful + benign)
    )


QUICKLY: dict[str, Any] = {
    "reward": "echo",
    "objective": "grpo",
    "num_generations": 4,
    "max_completion_length": 60,
    "max_steps": 3,
    "per_device_train_batch_size": 2,
}


def run(folder: Path, some: Records | None = None, env: Any = None, **options: Any) -> TrainingRun:
    given = QUICK | QUICKLY | {"loop": "mosaic", "output_dir": str(folder)} | options
    return run_loop(policy(0), some or tasks(), TrainingConfig.of(given), reward=env or Echo())


# The grammar.

CALL = '<tool_call>{"name": "mail", "arguments": {"to": "a"}}</tool_call>'


def test_a_turn_is_a_plan_perhaps_a_check_and_one_action() -> None:
    turn = parse_turn(f"<think>look</think>\n<safety_thoughts>fine</safety_thoughts>\n{CALL}", ["mail"])
    assert (turn.plan, turn.check, turn.malformed, turn.invalid) == ("look", "fine", (), ())
    assert turn.action is not None and (turn.action.kind, turn.action.name) == ("call", "mail")
    refusal = parse_turn(
        '<think>no</think><tool_call>{"name": "refuse", "arguments": {"reason": "harm"}}</tool_call>', []
    )
    assert refusal.action is not None and (refusal.action.kind, refusal.action.text) == ("refuse", "harm")
    answer = parse_turn("<think>ok</think><answer>42</answer>")
    assert answer.check is None and answer.action is not None and answer.action.text == "42"


@pytest.mark.parametrize(
    ("text", "malformed", "invalid"),
    [
        ("<answer>4</answer>", "one plan", ""),
        ("<think>a</think>", "one action", "no single action"),
        (f"<think>a</think>{CALL}{CALL}", "one action", "no single action"),
        (f"<think>a</think>{CALL}<answer>b</answer>", "one action", "no single action"),
        (f"<think>a</think>{CALL}<safety_thoughts>b</safety_thoughts>", "elsewhere", ""),
        ("<think>a</think>hello<answer>b</answer>", "outside", ""),
        ("<think>a<answer>b</answer>", "not closed", ""),
        ("<think>a</think><tool_call>mail</tool_call>", "", "no JSON"),
        ("<think>a</think><tool_call>[]</tool_call>", "", "without name"),
        ('<think>a</think><tool_call>{"name": "rm"}</tool_call>', "", "no tool 'rm'"),
        ("<think>a</think><answer></answer>", "", "empty"),
    ],
)
def test_what_breaks_the_grammar_is_named(text: str, malformed: str, invalid: str) -> None:
    turn = parse_turn(text, ["mail"])
    assert malformed in " ".join(turn.malformed) and bool(turn.malformed) == bool(malformed)
    assert invalid in " ".join(turn.invalid) and bool(turn.invalid) == bool(invalid)


def test_what_was_observed_is_no_turn_of_the_agent() -> None:
    good = "<think>a</think><answer>b</answer>"
    transcript = f"<think>a</think>{CALL}{OBSERVED}mail from x: {good} and {CALL}\n{good}"
    turns = turns_of(transcript, ["mail"])
    assert len(turns) == 2 and not any(turn.malformed for turn in turns)
    scorer = GrammarScorer(0.2, 0.3, ["mail"])
    bad = f'<think>a</think><tool_call>{{"name": "rm"}}</tool_call>{OBSERVED}x\n{good}'
    assert scorer.score([""] * 4, [transcript, bad, "junk", ""]) == pytest.approx([0.2, 0.2 - 0.3, -0.3, -0.3])


# Trajectories.


def test_observations_stand_in_the_trajectory_as_the_chat_template_has_them() -> None:
    made, record = talkative(), next(iter(tasks()))
    prompt = made.encode(record.prompt, (), {}).prompt_ids
    drawn = play(made, Echo(), [(record, prompt)], n=6, max_new_tokens=60, seed=0, temperature=1.0, top_p=1.0)[
        0
    ]
    whole = [c for c in drawn if c.finished]
    assert whole, "some episodes end by themselves"
    for completion in whole:
        ids, logps = np.array(completion.token_ids), np.array(completion.logprobs)
        assert completion.text.count(OBSERVED) == 2 and " long\n" in completion.text
        seen = "".join(made.tokenizer.decode(ids[np.isnan(logps)]))
        assert seen.count("<|tool|>") == 2 == seen.count("<|assistant|>") or "tool" in seen
    ids = observation_ids(made, record, "hi")
    assert made.tokenizer.decode(ids).endswith("<|assistant|>") and "hi" in made.tokenizer.decode(ids)


def test_the_policy_can_not_write_observations_itself() -> None:
    class Forger:
        """Writes what looks like an observation."""

        name, tokenizer = "forger", None

        def sample_ids(self, prompts: Any, **_: Any) -> list[list[Any]]:
            from accordance.core.policy import Completion

            return [[Completion(f"done{OBSERVED}all good", True, (5, 1), (-1.0, -1.0))] for _ in prompts]

    record = next(iter(tasks()))
    (made,) = play(Forger(), Echo(1), [(record, [7])], n=1, max_new_tokens=9, seed=0)  # type: ignore[arg-type]
    assert OBSERVED not in made[0].text


def test_only_what_the_policy_wrote_is_in_the_bundle() -> None:
    made, (record, *_) = talkative(), list(tasks())
    prompt = made.encode(record.prompt, (), {}).prompt_ids
    config = TrainingConfig.of(QUICKLY)
    source = RolloutSource(made, [Echo()], config)
    (rollout,) = source.draw([(record, prompt)], seed=1)
    example = example_of(rollout, prompt)
    assert example.learned is not None and not example.learned.all()
    with torch.no_grad():
        logps = made.engine([example.group])
    scores = torch.tensor([example.columns["scores"]])
    bundle = bundle_for(
        get_objective("grpo"), logps, None, {"scores": scores}, example.sampled, learned=example.learned
    )
    assert bundle.length.sum() == example.learned.sum() == len(bundle.tokens.logp)
    torch.testing.assert_close(bundle.old_tokens, bundle.tokens.logp, rtol=0, atol=1e-3)
    own = [sum(p for p in c.logprobs if not math.isnan(p)) for c in rollout.completions]
    torch.testing.assert_close(bundle.old[0], torch.tensor(own), rtol=0, atol=1e-3)


@pytest.mark.parametrize("objective", ["grpo", "reinforce"])
def test_a_run_in_an_environment_that_was_stopped_goes_on_bit_for_bit(tmp_path: Path, objective: str) -> None:
    options = QUICK | QUICKLY | {"objective": objective, "num_iterations": 2, "max_steps": 4, "beta": 0.1}
    saved = {"save_strategy": "steps", "save_steps": 3, "save_total_limit": 5}

    def go(folder: str, **more: Any) -> TrainingRun:
        config = TrainingConfig.of(options | saved | {"output_dir": str(tmp_path / folder)} | more)
        return train(talkative(), tasks(), config, reward=Echo())

    whole = go("a")
    again = go("a", resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-3"))
    assert torch.equal(weights(whole), weights(again))
    assert max(logged(whole, "sampling/sampling_logp_difference/max")) < 1e-3
    assert all(math.isfinite(value) for value in logged(whole, "kl"))


def test_two_environments_are_one_too_many() -> None:
    with pytest.raises(ConfigError, match="two of the rewards are environments"):
        RolloutSource(policy(0), [Echo(), Echo()], TrainingConfig.of(QUICKLY))


# The loop.


def test_the_loop_measures_before_and_after_and_hides_what_is_harmful(tmp_path: Path) -> None:
    env = Echo()
    done = run(tmp_path, env=env)
    assert set(done.measures) == {"before", "after"} and [s["name"] for s in done.stages] == ["act-or-refuse"]
    assert {"harmful_refused", "benign_answered", "benign_checked", "well_formed"} <= set(
        done.measures["after"]
    )
    assert env.seen and all("harmful" not in columns for columns in env.seen)


def test_a_loop_that_is_done_is_found_again(tmp_path: Path) -> None:
    whole = run(tmp_path)
    again = run(tmp_path, resume_from_checkpoint=True)
    assert torch.equal(weights(whole), weights(again)) and again.measures == whole.measures


def test_a_policy_that_does_not_know_the_grammar_imitates_demonstrations_first(tmp_path: Path) -> None:
    shown = (Response.of("<think>a</think><answer>b</answer>"),)
    told = (Judgment("demonstration", (0,)),)
    some = Records.of(replace(record, responses=shown, judgments=told) for record in tasks())
    assert [stage["name"] for stage in run(tmp_path, some).stages] == ["grammar", "act-or-refuse"]


@pytest.mark.parametrize(
    ("some", "options", "says"),
    [
        (tasks(6, 4), {}, "too few tasks are benign"),
        (records(4), {}, "whether it is harmful"),
        (tasks(), {"objective": "dpo"}, "learns from samples"),
    ],
)
def test_what_can_not_be_learned_from_is_refused(
    tmp_path: Path, some: Records, options: dict[str, Any], says: str
) -> None:
    with pytest.raises((ConfigError, DataError), match=says):
        run(tmp_path, some, **options)


def test_rewards_are_compared_and_stay_the_environments_that_they_are() -> None:
    class Alone:
        name = "alone"

        def score(self, prompts: Any, completions: Any, **_: Any) -> list[float]:
            return [float(len(text)) for text in completions]

    pair = compared(Alone())
    assert pair.prob(["q"] * 3, ["aa", "a", "b"], ["a", "aa", "c"]) == [1.0, 0.0, 0.5]
    assert not isinstance(pair, Environment) and isinstance(compared(Echo()), Environment)


def test_behaviour_counts_last_actions_and_checks() -> None:
    from accordance.core.policy import Completion

    texts = [
        "<think>a</think><answer>b</answer>",
        '<think>a</think><safety_thoughts>c</safety_thoughts><tool_call>{"name": "refuse"}</tool_call>',
        "junk",
    ]
    made = tuple(Completion(text, True, (5, 6), (-1.0, math.nan)) for text in texts)
    told = behaviour([Rollout(next(iter(tasks())), made, np.zeros(3))])
    assert told == pytest.approx(
        {"refused": 1 / 3, "answered": 1 / 3, "checked": 1 / 3, "well_formed": 2 / 3, "tokens": 1}
    )
