"""A plan of stages as data: each with records, an objective, options and trainable weights of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn

from accordance.core.errors import ConfigError, DataError
from accordance.core.record import Records
from accordance.models.weights import merged, put_state
from accordance.training.loops.probe import Probe
from accordance.training.loops.session import Session
from accordance.training.registry import Loop, loop


class Stage(BaseModel):
    """One stage of a plan: a training run, or a merge of earlier ones.

    A stage with a `reward` learns from its own samples to the prompts of its records, any other one from what the
    records say. A merge trains nothing: the weights become a weighted mean of those that earlier stages left
    (Baichuan's, arXiv:2410.14940); the weights of the mean add up to 1.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*$", description="unique in the plan")
    records: str | None = Field(None, description="what it learns from, by path or name; by default the run's")
    objective: str | None = Field(None, description="by default the run's")
    options: dict[str, Any] = Field(default_factory=dict, description="in the place of the run's")
    reward: str | list[str] | None = Field(None, description="who scores samples: learn online")
    trainable: list[str] | None = Field(
        None, description="only weights whose names match one of these (model.layers.1.*); by default all"
    )
    reference: str = Field("previous", description="previous, start, or a model by path or name")
    begin: str = Field("previous", description="whose weights it begins with: previous, start, or a stage's")
    merge: dict[str, float] | None = Field(None, description="stages (or start) and their shares; adds up to 1")

    @model_validator(mode="after")
    def _merge_alone(self) -> Stage:
        other = self.model_fields_set - {"name", "merge"}
        if self.merge is not None and other:
            raise ValueError(f"a merge trains nothing: {', '.join(sorted(other))} would have no effect")
        if self.name in ("start", "previous"):
            raise ValueError(f"{self.name!r} is no name for a stage: it means something else")
        return self


class Plan(Loop):
    """What loops with a plan have in common: its stages, and a probe on held-out records around each."""

    probe: int = Field(
        64, ge=0, description="held-out records that each stage's gain is measured on; 0 for none"
    )
    probe_reward: str | list[str] | None = Field(
        None, description="who scores answers to their prompts; by default the run's reward, if any"
    )
    probe_length: int = Field(64, ge=1, description="tokens at which these answers are cut")

    def probed(self, session: Session) -> Probe:
        """The probe of a session."""
        rewards = session.names.rewards(self.probe_reward) if self.probe_reward is not None else None
        return Probe(session, self.probe, rewards, self.probe_length)


@loop("stages")
class Stages(Plan):
    """Carries out a plan, stage by stage, each from the policy of the one before unless it says otherwise.

    On held-out records (those of the run that no stage sees) it is measured before the first stage and after each:
    the log-probability per token of the response to imitate or prefer, the accuracy on pairs, and the mean reward of
    sampled answers where somebody scores. Records of a stage whose prompt is held out are left out, and counted.
    """

    plan: list[Stage] = Field(min_length=1, description="the stages: name, records, objective, options, ...")

    @model_validator(mode="after")
    def _known(self) -> Stages:
        check_plan(self.plan)
        return self

    def run(self, session: Session) -> None:
        """See `Loop.run`."""
        carry_out(session, self.plan, self.probed(session))


def check_plan(plan: Sequence[Stage]) -> None:
    """Refuse names that are taken, and weights of stages that come later or are none.

    Raises:
        ValueError: as pydantic wants it.
    """
    known: set[str] = {"start"}
    trained: set[str] = {"start"}
    for stage in plan:
        if stage.name in known:
            raise ValueError(f"two stages are called {stage.name!r}")
        wanted = [*(stage.merge or {}), *([stage.begin] if stage.begin != "previous" else [])]
        for name in wanted:
            if name not in trained:
                raise ValueError(f"{stage.name}: {name!r} is no stage that was trained before it")
        known.add(stage.name)
        if stage.merge is None:
            trained.add(stage.name)


def carry_out(
    session: Session,
    plan: Sequence[Stage],
    probe: Probe,
    *,
    prepare: Callable[[Records], Records] | None = None,
) -> None:
    """The stages of a plan, one after the other, each probed.

    Args:
        session: whose policy is trained.
        plan: the stages.
        probe: measures before the first one and after each.
        prepare: what is done to the records of each stage (its prompts augmented, say), once what is held out has
            been left out.

    Raises:
        ConfigError: an option of a stage is unknown or would have no effect (found before anything is trained).
        DataError: a stage has nothing to learn from.
    """
    for stage in plan:
        if stage.merge is None:
            _config_of(session, stage).build_objective()
        elif session.policy.has_adapter:
            raise ConfigError(
                "adapters can't be merged by a mean of their factors",
                where=f"loop.plan, {stage.name}",
                remedy="train all weights (use_peft: false)",
            )
    if any("start" in (stage.begin, *(stage.merge or {})) for stage in plan):
        session.keep_start()
    probe.before()
    for stage in plan:
        if stage.merge is not None:
            _merge(session, stage.merge)
        else:
            _train(session, stage, probe.held_out, prepare)
        probe.after(stage.name)


def _train(
    session: Session,
    stage: Stage,
    held_out: Records | None,
    prepare: Callable[[Records], Records] | None,
) -> None:
    if stage.begin != "previous":
        session.back_to(stage.begin)
    records = session.records if stage.records is None else session.names.records(stage.records)
    records = apart(session, stage.name, records, held_out)
    if prepare is not None:
        records = prepare(records)
    with only_trainable(session.policy.model, stage.trainable):
        session.stage(
            stage.name,
            records,
            online=stage.reward is not None,
            reference=stage.reference,
            rewards=None if stage.reward is None else session.names.rewards(stage.reward),
            **_options(stage),
        )


def _options(stage: Stage) -> dict[str, Any]:
    own = dict(stage.options)
    own |= {"objective": stage.objective} if stage.objective is not None else {}
    return own | ({"reward": stage.reward} if stage.reward is not None else {})


def _config_of(session: Session, stage: Stage) -> Any:
    for name in ("output_dir", "loop", "reference", "use_peft", "objective", "reward"):
        if name in stage.options:
            fixed = name in ("output_dir", "loop", "use_peft")
            raise ConfigError(
                f"{name} is not for the options of a stage",
                where=f"loop.plan, {stage.name}",
                remedy="set it for the run" if fixed else f"{name}: beside its name",
            )
    folder = session.folder / f"??-{stage.name}"  # looked at for its options alone
    try:
        return session.stage_config(folder, online=stage.reward is not None, **_options(stage))
    except ConfigError as error:
        raise ConfigError(
            error.problem,
            where=f"loop.plan, {stage.name}",
            found=error.found,
            expected=error.expected,
            remedy=error.remedy,
        ) from error


def _merge(session: Session, shares: dict[str, float]) -> None:
    """Give the policy the weighted mean of the weights that stages left."""
    states, device = [], session.policy.device
    for name in shares:
        session.back_to(name)
        own = session.policy.model.named_parameters()
        states.append({key: value.detach().cpu().clone() for key, value in own})
    put_state(session.policy.model, {k: v.to(device) for k, v in merged(states, list(shares.values())).items()})


def apart(session: Session, name: str, records: Records, held_out: Records | None) -> Records:
    """The records of a stage without those whose prompt is held out; how many those were is measured.

    Raises:
        DataError: none is left.
    """
    if held_out is None or not len(held_out):
        return records
    secret = {record.prompt for record in held_out if record.prompt}
    kept = [place for place, record in enumerate(records) if record.prompt not in secret]
    if not kept:
        raise DataError(
            "every record of the stage has a prompt that is held out", where=name, found=records.source
        )
    if len(kept) < len(records):
        lost = len(records) - len(kept)
        session.measure(f"records of {name}", lambda: {"left_out_as_held_out": lost})
        return records.select(kept)
    return records


@contextmanager
def only_trainable(model: nn.Module, patterns: Sequence[str] | None) -> Iterator[None]:
    """Freeze every weight whose name matches none of the patterns (``*`` for anything), as long as this lasts.

    Raises:
        ConfigError: a pattern matches no weight that could be trained.
    """
    if patterns is None:
        yield
        return
    free = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in free):
            raise ConfigError(
                "no trainable weight has such a name",
                where="trainable",
                found=pattern,
                expected=f"such as {', '.join(list(free)[:4])}",
            )
    frozen = [p for name, p in free.items() if not any(fnmatchcase(name, pattern) for pattern in patterns)]
    try:
        for parameter in frozen:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
