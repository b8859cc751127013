"""A loop at work: stages that are whole or not there, so that a stopped loop goes on where it was.

Everything costly goes through the session and is kept in the run's folder: trained stages (`stage`), records that
were made (`keep`), numbers that were measured (`measure`). A loop that is resumed runs from its beginning and finds
what is done already; so a loop must be deterministic in the seed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from accordance.core.errors import ConfigError, unknown
from accordance.core.record import Judgment, Record, Records, Response
from accordance.core.report import write_whole
from accordance.feedback import load_records, save_records
from accordance.models import CopiedReference, LocalPolicy, Reference, load_policy
from accordance.objectives import get_objective, known_options
from accordance.training.callbacks import Progress
from accordance.training.config import TrainingConfig
from accordance.training.examples import Examples
from accordance.training.loops.names import Names
from accordance.training.rollouts import ROLLOUT_OPTIONS, Rollout, RolloutSource, distinct_columns, prompts_for
from accordance.training.run import TrainingRun, add_adapter, train

_DONE, _MEASURES = "stage.json", "measures.json"
#: Options that belong to the whole loop, not to a stage of it.
_OWN = {"loop", "output_dir", "resume_from_checkpoint", "overwrite_output_dir"}
#: Options without effect on objectives that need no reference.
_OF_REFERENCE = {"reference", "reference_cache", "cache_dir"}

From = Literal["previous", "start"]


class Interrupted(Exception):
    """A stage was stopped by Ctrl-C; its checkpoint is in the folder."""


class Session:
    """What a loop works with.

    Args:
        policy: is trained in place.
        records: feedback, or prompts.
        config: options of every stage, unless a stage says otherwise.
        rewards: who scores samples; empty where nobody is named.
        progress, callbacks: of every stage.
        held_out: records that no stage learns from, for a loop that measures on them; None for none.
        names: how the loop's options that name things are looked up.

    Attributes:
        history: the log lines of all stages, each with its ``stage`` and steps counted on.
        stages: one mapping per stage: name, examples, steps, seconds.
        steps: optimiser steps of all stages.
        last: the last stage's run, None before the first and where the last one was done before.
    """

    def __init__(
        self,
        policy: LocalPolicy,
        records: Records,
        config: TrainingConfig,
        *,
        rewards: Sequence[Any] = (),
        progress: Progress | None = None,
        callbacks: Sequence[Any] = (),
        held_out: Records | None = None,
        names: Names | None = None,
    ) -> None:
        self.policy, self.records, self.config, self.rewards = policy, records, config, list(rewards)
        self.folder = Path(config.output_dir) / "stages"
        self.note: Progress = progress or (lambda stage, done, total: None)
        self.callbacks = tuple(callbacks)
        self.held_out, self.names = held_out, names or Names()
        self.history: list[dict[str, Any]] = []
        self.stages: list[dict[str, Any]] = []
        self.steps = 0
        self.last: TrainingRun | None = None
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / _MEASURES
        self.measures: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
        self._start: Path | None = None
        if config.use_peft:
            add_adapter(policy, config)

    def stage(
        self,
        name: str,
        records: Records,
        *,
        online: bool = False,
        reference: From | str | Path = "previous",
        after: Callable[[], object] | None = None,
        rewards: Sequence[Any] | None = None,
        **options: Any,
    ) -> TrainingRun | None:
        """Train the policy on records; a stage that is done already is loaded.

        Args:
            name: of the stage, unique in the loop.
            records: what it learns from.
            online: whether it learns from samples to their prompts, scored by the session's rewards.
            reference: the policy as the stage finds it, as the loop found it, or another by path or name.
            after: what is done to the weights when they are trained, before they are kept.
            rewards: who scores samples, in the place of the session's rewards.
            **options: in the place of the loop's own.

        Returns:
            The run; None where the stage was done before.

        Raises:
            Interrupted: it was stopped.
        """
        folder = self.folder / f"{len(self.stages) + 1:02d}-{name}"
        done = folder / _DONE
        if reference == "start" and not self.policy.has_adapter:
            self.keep_start()
        if done.exists():
            told = json.loads(done.read_text())
            self._load(folder)
            run = None
        else:
            run = self._train(folder, records, online, reference, rewards, options)
            if after is not None:
                after()
                self.policy.save(folder)
            told = {
                "name": name,
                "examples": len(run.examples),
                "steps": run.steps,
                "seconds": round(sum(run.timings.values()), 3),
                "history": run.history,
            }
            write_whole({done: json.dumps(told)})
        lines = told["history"]
        self.history += [
            line | {"stage": name} | ({"step": line["step"] + self.steps} if "step" in line else {})
            for line in lines
        ]
        self.stages.append({key: value for key, value in told.items() if key != "history"})
        self.steps += told["steps"]
        self.last = run
        return run

    def _train(
        self,
        folder: Path,
        records: Records,
        online: bool,
        reference: Any,
        rewards: Sequence[Any] | None,
        options: dict[str, Any],
    ) -> TrainingRun:
        config = self.stage_config(folder, online=online, **options)
        other: Reference | None = None
        if config.build_objective().reference:
            if reference == "previous" and self.policy.has_adapter and self.stages:
                other = CopiedReference(self.policy.engine, max_tokens=config.max_tokens)
            elif reference == "start" and not self.policy.has_adapter:
                options = options | {"reference": str(self._start)}
            elif reference not in ("previous", "start"):
                options = options | {"reference": str(reference)}
            config = self.stage_config(folder, online=online, **options)
        run = train(
            self.policy,
            records,
            config,
            reward=(self.rewards if rewards is None else rewards) if online else None,
            reference=other,
            progress=self.note,
            callbacks=self.callbacks,
        )
        if run.interrupted:
            raise Interrupted(folder)
        return run

    def stage_config(self, folder: str | Path, *, online: bool = False, **options: Any) -> TrainingConfig:
        """The config of one stage: the loop's, with other options where they are given.

        Options of the loop's objective go with it: another objective has its own.
        """
        base = self.config.model_dump(exclude_unset=True, exclude=_OWN | {"loop_options"})
        if "objective" in options and options["objective"] != self.config.objective:
            own, other = known_options(self.config.objective), known_options(options["objective"])
            base = {key: value for key, value in base.items() if key not in own or key in other}
            if not get_objective(options["objective"]).reference:
                base = {key: value for key, value in base.items() if key not in _OF_REFERENCE}
        if not online:
            base = {key: value for key, value in base.items() if key not in ROLLOUT_OPTIONS | {"reward"}}
        resume = bool(self.config.resume_from_checkpoint) and Path(folder).exists()
        return TrainingConfig.of(
            base | {"output_dir": str(folder), "resume_from_checkpoint": resume} | options, where="loop"
        )

    def sample(
        self, records: Records, *, seed: int = 0, rewards: Sequence[Any] | None = None, **options: Any
    ) -> list[Rollout]:
        """Answers of the policy as it stands to the records' prompts, scored by the session's rewards.

        Args:
            records: whose prompts are answered.
            seed: of sampling.
            rewards: who scores them, in the place of the session's rewards.
            **options: in the place of the loop's own (`num_generations`, `temperature`, ...).
        """
        config = self.config.model_copy(update=options)
        prompts, kept = prompts_for(
            records,
            self.policy.encoder,
            max_length=config.max_length,
            max_completion_length=config.max_completion_length,
            distinct=distinct_columns(self.rewards if rewards is None else rewards),
        )
        source = RolloutSource(self.policy, self.rewards if rewards is None else rewards, config)
        asked = list(zip(kept, [example.group.prompt for example in prompts.items]))
        drawn: list[Rollout] = []
        self.note("sample", 0, len(asked))
        for start in range(0, len(asked), 64):
            drawn += source.draw(asked[start : start + 64], _mixed(self.config.seed, seed, start))
            self.note("sample", len(drawn), len(asked))
        return drawn

    def beside(self, name: str, policy: LocalPolicy) -> Session:
        """A session of its own for another policy of the loop (a teacher, a ceiling), in a folder below this one."""
        config = self.config.model_copy(update={"output_dir": str(self.folder / name)})
        return Session(
            policy,
            self.records,
            config,
            rewards=self.rewards,
            progress=self.note,
            callbacks=self.callbacks,
            held_out=self.held_out,
            names=self.names,
        )

    def keep(self, name: str, make: Callable[[], Records]) -> Records:
        """Records that `make` makes, or those that it made before, from the run's folder."""
        path = self.folder / f"{name}.jsonl"
        if not path.exists():
            half = path.with_suffix(".part.jsonl")
            save_records(make(), half)
            half.rename(path)
        return load_records(path).materialise()

    def measure(self, name: str, find: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """Numbers that `find` finds, or those that it found before; they stand in the report under the name."""
        if name not in self.measures:
            self.measures[name] = dict(find())
            write_whole({self.folder / _MEASURES: json.dumps(self.measures)})
        return self.measures[name]

    def need_rewards(self, who: str) -> None:
        """Raises ConfigError where nobody scores."""
        if not self.rewards:
            raise ConfigError(
                f"{who} has samples scored and nobody is named for it",
                where="reward",
                remedy="--reward module:function (population for the lab's people)",
            )

    def back_to(self, name: str) -> None:
        """Give the policy the weights that a stage left, or with ``start`` those that the loop found.

        Raises:
            ConfigError: no stage of that name was there.
        """
        self._load(self.folder_of(name))

    def folder_of(self, name: str) -> Path:
        """Where the weights of a stage lie, or with ``start`` those that the loop found."""
        if name == "start":
            self.keep_start()
            return self.folder / "00-start"
        for number, stage in enumerate(self.stages, 1):
            if stage["name"] == name:
                return self.folder / f"{number:02d}-{name}"
        raise unknown("stage", name, ["start", *(stage["name"] for stage in self.stages)], where="loop")

    def keep_start(self) -> None:
        """Keep the weights that the loop found; must be called before the first stage. Done once."""
        if self._start is not None:
            return
        self._start = self.folder / "00-start"
        if not (self._start / _DONE).exists():
            if self.stages:
                raise ConfigError("the start of the loop was not kept", where=str(self._start))
            self.policy.save(self._start)
            (self._start / _DONE).write_text("{}")

    @torch.no_grad()
    def _load(self, folder: Path) -> None:
        """Take the weights that a stage left."""
        if self.policy.has_adapter:
            from peft import load_peft_weights, set_peft_model_state_dict

            set_peft_model_state_dict(self.policy.model, load_peft_weights(str(folder)))
            return
        dtype = self.policy.engine.bare.dtype
        done = load_policy(folder, tokenizer=self.policy.tokenizer, dtype=dtype)
        self.policy.model.load_state_dict(done.model.state_dict())


def best_and_worst(rollouts: Sequence[Rollout], *, least: float = 0.0) -> Records:
    """A comparison of the best with the worst answer to each prompt, where their scores differ by more than `least`."""
    made = []
    for rollout in rollouts:
        best, worst = int(rollout.scores.argmax()), int(rollout.scores.argmin())
        gap = float(rollout.scores[best] - rollout.scores[worst])
        if gap > least and rollout.completions[best].text != rollout.completions[worst].text:
            answers = tuple(Response.of(rollout.completions[i].text) for i in (best, worst))
            values = (float(rollout.scores[best]), float(rollout.scores[worst]))
            made.append(
                Record(
                    rollout.record.prompt,
                    answers,
                    (Judgment("comparison", (0, 1), values),),
                    id=rollout.record.id,
                    origin=rollout.record.origin,
                    extras=rollout.record.extras,
                )
            )
    return Records.of(made)


def run_loop(
    policy: LocalPolicy,
    records: Records,
    config: TrainingConfig,
    *,
    reward: Any = None,
    progress: Progress | None = None,
    callbacks: tuple[Any, ...] = (),
    card: Callable[[], str] | None = None,
    held_out: Records | None = None,
    names: Names | None = None,
) -> TrainingRun:
    """Carry out the loop that the config names; the final model goes to `config.output_dir`.

    Args:
        policy, records, config, reward, progress, callbacks, card: as `train` takes them.
        held_out: records that no stage learns from; loops that probe their stages do so on them.
        names: how the loop's options that name records, rewards and policies are looked up.

    Returns:
        The run: steps and log lines of all stages; `stages` and `measures` say what each did.
    """
    loop = config.build_loop()
    rewards = reward if isinstance(reward, Sequence) else [] if reward is None else [reward]
    given = {"progress": progress, "callbacks": callbacks, "held_out": held_out, "names": names}
    session = Session(policy, records, config, rewards=rewards, **given)  # type: ignore[arg-type]
    if loop.needs_reward:
        session.need_rewards(f"loop {loop.name}")
    stopped = False
    try:
        loop.run(session)
    except Interrupted:
        stopped = True
    if not stopped:
        policy.save(config.output_dir)
        if card is not None:
            Path(config.output_dir, "README.md").write_text(card(), encoding="utf-8")
    return TrainingRun(
        policy,
        {},
        session.history,
        session.last.examples if session.last is not None else Examples(source="stages done before"),
        session.steps,
        interrupted=stopped,
        reference="the policy as each stage found it, unless the loop says otherwise",
        timings={f"stage {s['name']}": s["seconds"] for s in session.stages},
        stages=session.stages,
        measures=session.measures,
    )


def _mixed(*key: int) -> int:
    mixed = 0
    for part in key:
        mixed = (mixed * 1_000_003 + part + 1) % (2**31 - 1)
    return mixed
