"""Ways of making feedback by name: which policies each takes, which options, and how it is put together.

The driver is `accordance.feedback.synthesis.synthesize`; the methods stand beside it and here. To add one: a
`Synthesis`, and a function under `@method("name", ...)` below.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from accordance.core.errors import ConfigError, unknown
from accordance.core.policy import Policy
from accordance.core.policy_judge import GENERAL, PolicyJudge
from accordance.core.principles import PrincipleSet
from accordance.curation.anyprefer import Anyprefer, Tool
from accordance.curation.dialectical import DialecticalAlignment
from accordance.curation.janus import Multifaceted
from accordance.curation.mora_synthesis import RewardExpansion
from accordance.curation.self_align import SelfAlign, VerboseCloning
from accordance.curation.self_align_texts import COMPREHENSIVE, FIVE, SIXTEEN, read_exemplars
from accordance.curation.tutoring import Student, Tutor
from accordance.curation.tutoring_synthesis import Tutoring
from accordance.feedback.candidates import DiverseSampler, IndependentSampler, JointSampler
from accordance.feedback.reactions import AskedDetector, RuleDetector
from accordance.feedback.self_reference import PRINCIPLE, SelfReference
from accordance.feedback.synthesis import SampleAndRank, Synthesis
from accordance.feedback.ultrafeedback import UltraFeedback
from accordance.feedback.wild import WildFeedback


@dataclass(frozen=True)
class Parts:
    """What methods are put together from.

    Attributes:
        models: who writes responses.
        judge: who judges, labels and edits; None where nobody does.
        tools: what a judge may rely on.
        sampling: `max_new_tokens`, `temperature` and `seed` of the responses.
    """

    models: Sequence[Policy]
    judge: Policy | None
    tools: Sequence[Tool]
    sampling: Mapping[str, Any]


@dataclass(frozen=True)
class Method:
    """A way of making feedback.

    Attributes:
        name: as it is chosen by.
        summary: what it does, in a line.
        needs: what it works on: ``prompts``, ``responses`` (records that have two or more), ``conversations``, or
            ``problems``.
        models: the fewest models that write; 0 where none does.
        judge: whether somebody judges.
        tools: whether it uses tools.
        build: makes it of parts; its keyword arguments are the options.
    """

    name: str
    summary: str
    needs: str
    models: int
    judge: bool
    tools: bool
    build: Callable[..., Synthesis]

    @property
    def uses(self) -> dict[str, bool]:
        """Which parts it uses; `sampling` where anybody is asked anything."""
        asks = bool(self.models) or self.judge
        return {"models": bool(self.models), "judge": self.judge, "tools": self.tools, "sampling": asks}

    @property
    def options(self) -> dict[str, Any]:
        """Its options and their defaults."""
        found = inspect.signature(self.build).parameters.values()
        return {p.name: p.default for p in found if p.kind is p.KEYWORD_ONLY}


METHODS: dict[str, Method] = {}


def method(
    name: str,
    summary: str,
    *,
    needs: str = "prompts",
    models: int = 1,
    judge: bool = True,
    tools: bool = False,
) -> Callable[[Callable[..., Synthesis]], Callable[..., Synthesis]]:
    """Register a function of `Parts` and keyword options as a method."""

    def register(build: Callable[..., Synthesis]) -> Callable[..., Synthesis]:
        METHODS[name] = Method(name, summary, needs, models, judge, tools, build)
        return build

    return register


def make_method(name: str, parts: Parts, options: Mapping[str, Any] | None = None) -> Synthesis:
    """A method from its name, its parts and its options.

    Raises:
        ConfigError: there is no such method or option, an option of another type, too few models, or parts that it
            would not use.
    """
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    chosen, options = METHODS[name], dict(options or {})
    hints = get_type_hints(chosen.build)
    for key, value in options.items():
        if key not in chosen.options:
            raise unknown("option", key, chosen.options, where=name)
        options[key] = _typed(name, key, value, hints[key])
    if len(parts.models) < chosen.models:
        raise ConfigError(
            "the method needs more models",
            where=name,
            found=[model.name for model in parts.models],
            expected=f"at least {chosen.models}",
        )
    for role, given in (("models", parts.models), ("judge", parts.judge), ("tools", parts.tools)):
        if given:
            refuse_unused(chosen, role, given)
    if chosen.judge and parts.judge is None:
        raise ConfigError(f"{name} needs a judge", where="judge")
    return chosen.build(parts, **options)


def refuse_unused(chosen: Method, role: str, given: Any, where: str | None = None) -> None:
    """Refuse what a method would not use.

    Args:
        chosen: the method.
        role: a key of `Method.uses`.
        given: what was given for it, for the message.
        where: the option that gave it.

    Raises:
        ConfigError: the method has no use for it; says what it does use.
    """
    if chosen.uses[role]:
        return
    names = [getattr(one, "name", one) for one in (given if isinstance(given, (list, tuple)) else [given])]
    used = [each for each, yes in chosen.uses.items() if yes and each != "sampling"]
    raise ConfigError(
        f"{chosen.name} uses no {role}",
        where=where or role,
        found=", ".join(map(str, names)),
        expected=f"it uses {' and '.join(used) or 'nobody: all of it is scripted'}",
        remedy="leave it out",
    )


def _asked(parts: Parts) -> Policy:
    assert parts.judge is not None  # `make_method` looked
    return parts.judge


def _judge(parts: Parts, votes: int, rubric: str = GENERAL, scale: tuple[int, int] = (1, 10)) -> PolicyJudge:
    return PolicyJudge(_asked(parts), rubric, votes=votes, scale=scale, seed=int(parts.sampling.get("seed", 0)))


@method("rank", "sample candidates, keep the best and the worst in the judge's eyes")
def _rank(parts: Parts, *, n: int = 4, votes: int = 1, rubric: str = GENERAL) -> Synthesis:
    sampler = IndependentSampler(parts.models, n, **parts.sampling)
    return SampleAndRank(sampler, _judge(parts, votes, rubric))


@method(
    "joint",
    "candidates written together so that they differ in values, and an ordinary one (Community Alignment)",
)
def _joint(
    parts: Parts, *, joint: int = 3, ordinary: int = 1, votes: int = 1, rubric: str = GENERAL
) -> Synthesis:
    _single("joint", parts)
    sampler = JointSampler(parts.models[0], joint, ordinary, **parts.sampling)
    return SampleAndRank(sampler, _judge(parts, votes, rubric))


@method("diverse", "the most diverse of many candidates, then the best and the worst of these")
def _diverse(
    parts: Parts, *, pool: int = 12, n: int = 4, weight: float = 1.0, votes: int = 1, rubric: str = GENERAL
) -> Synthesis:
    if weight == 0:
        raise ConfigError("without a weight on diversity this is `rank`", where="weight", found=weight)
    sampler = DiverseSampler(IndependentSampler(parts.models, pool, **parts.sampling), n, weight=weight)
    return SampleAndRank(sampler, _judge(parts, votes, rubric))


@method("ultrafeedback", "several models answer under principles, a judge rates four aspects", models=2)
def _ultrafeedback(parts: Parts, *, per_prompt: int = 4, critique: bool = False, votes: int = 1) -> Synthesis:
    overall = _judge(parts, votes) if critique else None
    return UltraFeedback(
        parts.models,
        _judge(parts, votes, scale=(1, 5)),
        per_prompt=per_prompt,
        critique=critique,
        overall_judge=overall,
        **parts.sampling,
    )


@method(
    "self-reference",
    "label given responses by the judge's own answer, orders swapped",
    needs="responses",
    models=0,
)
def _self_reference(
    parts: Parts,
    *,
    votes: int = 4,
    principle: str = PRINCIPLE,
    reference: bool = True,
    probabilities: bool = False,
    scale: float = 1.0,
    limit: float = 3.0,
) -> Synthesis:
    if not probabilities:
        _without_effect("scale and limit are of probabilities", (("scale", scale, 1.0), ("limit", limit, 3.0)))
    return SelfReference(
        _asked(parts),
        votes=votes,
        principle=principle,
        reference=reference,
        probabilities=probabilities,
        scale=scale,
        limit=limit,
        **parts.sampling,
    )


@method("wildfeedback", "pairs from users' reactions in conversations", needs="conversations")
def _wildfeedback(
    parts: Parts,
    *,
    mode: Literal["expert", "on-policy"] = "expert",
    detector: Literal["rules", "judge"] = "rules",
    check: bool = True,
    keep_content: bool = False,
) -> Synthesis:
    _single("wildfeedback", parts)
    return WildFeedback(
        _asked(parts),
        parts.models[0],
        _judge(parts, 1) if check else None,
        detector=RuleDetector() if detector == "rules" else AskedDetector(_asked(parts)),
        mode=mode,
        keep_content=keep_content,
        **parts.sampling,
    )


@method("anyprefer", "a judge with tools ranks, pairs are rated, both prompts are mended", tools=True)
def _anyprefer(
    parts: Parts, *, candidates: int = 5, threshold: float = 7.0, rounds: int = 4, votes: int = 1
) -> Synthesis:
    _single("anyprefer", parts)
    judge = _judge(parts, votes)
    return Anyprefer(
        parts.models[0],
        judge,
        _asked(parts),
        _asked(parts),
        parts.tools,
        candidates=candidates,
        threshold=threshold,
        rounds=rounds,
        **parts.sampling,
    )


@method(
    "janus",
    "every prompt under several system messages; what was written for another one is rejected",
    judge=False,
)
def _janus(parts: Parts, *, sets: int = 3, plain: float = 0.1) -> Synthesis:
    _single("janus", parts)
    return Multifaceted(parts.models[0], sets=sets, plain=plain, **parts.sampling)


@method(
    "self-align",
    "a model answers under principles that it names; the answers without them (Dromedary)",
    judge=False,
)
def _self_align(
    parts: Parts,
    *,
    principles: str = "",
    exemplars: str = "",
    invented: int = 0,
    guided: float = 0.5,
    topics: int = 10,
    share: float = 1.0,
) -> Synthesis:
    _single("self-align", parts)
    if not invented:
        _without_effect("there are no invented questions", (("guided", guided, 0.5), ("topics", topics, 10)))
    return SelfAlign(
        parts.models[0],
        principles=PrincipleSet.read(principles) if principles else SIXTEEN,
        exemplars=read_exemplars(exemplars) if exemplars else FIVE,
        invented=invented,
        guided=guided,
        topics=topics,
        share=share,
        **parts.sampling,
    )


@method(
    "verbose-cloning",
    "what a model answers when told to be comprehensive, without telling it (Dromedary)",
    judge=False,
)
def _verbose_cloning(parts: Parts, *, told: str = COMPREHENSIVE) -> Synthesis:
    _single("verbose-cloning", parts)
    return VerboseCloning(parts.models[0], told=told, **parts.sampling)


@method("dialectical", "the way of weighing passages against memory that the judge finds best in each case")
def _dialectical(
    parts: Parts, *, by: str = "case", dev: float = 0.3, bar: float = 6.0, votes: int = 1
) -> Synthesis:
    _single("dialectical", parts)
    judge = _judge(parts, votes)
    return DialecticalAlignment(parts.models[0], judge, by=by, dev=dev, bar=bar, **parts.sampling)


@method(
    "mora", "prompts that can earn several rewards, or are rewritten until they can; best and worst of each"
)
def _mora(
    parts: Parts,
    *,
    aspects: str = "helpfulness, harmlessness, truthfulness",
    samples: int = 16,
    reach: float = 0.5,
    top: float = 0.0,
    similar: float = 0.6,
    loss: float = 0.2,
    tries: int = 3,
    votes: int = 1,
) -> Synthesis:
    _single("mora", parts)
    return RewardExpansion(
        parts.models[0],
        _judge(parts, votes),
        _asked(parts),
        aspects=[aspect.strip() for aspect in aspects.split(",")],
        samples=samples,
        reach=reach,
        top=top,
        similar=similar,
        loss=loss,
        tries=tries,
        **parts.sampling,
    )


@method(
    "tutoring",
    "a tutor's turns that help against turns that fail the student, by a state machine (pedagogical alignment)",
    needs="problems",
    models=0,
    judge=False,
)
def _tutoring(
    parts: Parts,
    *,
    dialogues: int = 4,
    turns: int = 8,
    smaller_after: int = 1,
    reveal_after: int = 3,
    skill: float = 0.35,
    gain: float = 0.2,
    balance: bool = True,
) -> Synthesis:
    return Tutoring(
        tutor=Tutor(smaller_after, reveal_after),
        student=Student(skill, gain),
        dialogues=dialogues,
        turns=turns,
        balance=balance,
        seed=int(parts.sampling.get("seed", 0)),
    )


def _without_effect(why: str, options: Sequence[tuple[str, Any, Any]]) -> None:
    for name, value, default in options:
        if value != default:
            raise ConfigError(f"{name} has no effect: {why}", where=name, found=value, remedy="leave it out")


def _single(name: str, parts: Parts) -> None:
    if len(parts.models) != 1:
        raise ConfigError(f"{name} uses one model", where="models", found=[m.name for m in parts.models])


def _typed(name: str, key: str, value: Any, kind: Any) -> Any:
    """The value, if it is of the kind that the option takes; whole numbers also where any number is taken."""
    where = f"{name}: {key}"
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise unknown("value", str(value), map(str, get_args(kind)), where=where)
        return value
    fits = type(value) is kind or (kind is float and type(value) is int)
    if not fits:
        raise ConfigError("an option of another type", where=where, found=value, expected=kind.__name__)
    return value
