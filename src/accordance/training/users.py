"""Personal alignment: the same judgments learned as those of who passed them, and as those of anybody (P-DPO).

Every example stands there twice: with its user's soft tokens before the prompt, and with the generic user's. The loss
is ``alpha`` times the mean over the first kind plus ``1 - alpha`` times the mean over the second, whatever the
objective; the reference sees the prompt alone.
"""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from accordance.core.errors import ConfigError, DataError
from accordance.core.objective import Objective
from accordance.models import Group, LocalPolicy, add_users, nobody
from accordance.training.examples import Example, Examples
from accordance.training.order import MEMBER

#: What examples are told apart by, for metrics and for batches that hold both kinds.
KINDS = ("generic", "individual")


class UserOptions(BaseModel):
    """Who judged, as something to learn."""

    users: Literal["annotator", "group"] | None = Field(
        None, description="learn soft tokens for each annotator, or each group, that stand before the prompt"
    )
    user_tokens: int = Field(4, ge=1, description="soft tokens of each user")
    user_clusters: int = Field(
        0, ge=0, description="users are mixtures of so many shared vectors; 0 for vectors of their own"
    )
    user_alpha: float = Field(
        0.5,
        ge=0,
        le=1,
        description="weight of the loss under the user's tokens; the rest is the generic user's",
    )
    user_start: Literal["words", "uniform"] = Field(
        "words", description="first values: embeddings of frequent tokens, or uniform between -0.5 and 0.5"
    )
    user_texts: str | None = Field(
        None,
        description="a JSON file of what users say of themselves, by name; it stands before their soft tokens",
    )


USER_OPTIONS = frozenset(UserOptions.model_fields) - {"users"}


def room_for_users(policy: LocalPolicy, options: Any) -> int:
    """How many tokens stand before a prompt at most, to say who is asking."""
    if options.users is None:
        return 0
    texts = read_texts(options.user_texts) if options.user_texts is not None else {}
    said = policy.encoder._tokens(list(texts.values()))
    return options.user_tokens + max(map(len, said), default=0)


def check_users(objective: Objective[Any], options: Any) -> None:
    """Refuse users where they can't be learned.

    Args:
        objective: what is trained with.
        options: a `TrainingConfig`.

    Raises:
        ConfigError: see the reasons.
    """
    extra = options.model_extra or {}
    reasons = (
        (options.online, "what is sampled was judged by nobody"),
        (options.loop is not None, "stages of a loop are of one policy for all"),
        (objective.module is not None, f"{objective.name} has trained parts of its own"),
        (objective.arrange is not None, f"{objective.name} arranges examples of its own, which name nobody"),
        (
            objective.ranked,
            f"{objective.name} sorts pairs, those of different users among them",
        ),
        (objective.own_answers, f"{objective.name} makes comparisons that nobody made"),
        (options.parallel is not None, "users are learned on one process"),
        (bool(extra.get("fp16")), "users need gradients that are not scaled: train in bf16 or fp32"),
        (
            bool(extra.get("load_best_model_at_end")),
            "load_best_model_at_end would bring back the weights alone",
        ),
    )
    for holds, reason in reasons if options.users is not None else ():
        if holds:
            raise ConfigError(f"users={options.users} can't be: {reason}", where="users")


def kind_weights(individual: Sequence[bool], alpha: float) -> list[float]:
    """How much each example counts, so that their mean is a mixture of two means.

    Args:
        individual: whether each example is a user's own; the others are the generic user's.
        alpha: the weight of the mean over the first kind; ``1 - alpha`` is that of the second.

    Returns:
        One weight for each, which multiplies its loss; where only one kind is there, alpha counts for nothing.
    """
    counts = Counter(individual)
    mix = {True: alpha, False: 1.0 - alpha} if len(counts) == 2 else {True: 1.0, False: 1.0}
    return [len(individual) * mix[own] / counts[own] for own in individual]


def personal_examples(
    policy: LocalPolicy, options: Any, data: Examples, held: Examples | None
) -> tuple[Examples, Examples | None]:
    """Give the policy the users of some examples, and make of each example its user's and the generic user's.

    Args:
        policy: is given the users; from now on it answers the generic one.
        options: a `TrainingConfig` with users.
        data: what is trained on; says who the users are.
        held: held-out examples; users that `data` does not know are the generic one.

    Returns:
        The examples of both kinds, weighted; each kind is dropped and counted where its weight is 0.

    Raises:
        DataError: no judgment names anybody.
    """
    names = sorted({example.user for example in data.items if example.user})
    if not names:
        raise DataError(
            f"no judgment names its {options.users}: there are no users to learn",
            where="users",
            found=f"{len(data)} examples",
            remedy="leave users out, or take records that say who judged",
        )
    counts = Counter(t for e in data.items for ids in (e.group.prompt, *e.group.responses) for t in ids)
    frequent = [token for token, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    users = add_users(
        policy.model,
        names,
        tokens=options.user_tokens,
        clusters=options.user_clusters,
        frequent=frequent if options.user_start == "words" else None,
        seed=options.seed,
        texts=read_texts(options.user_texts) if options.user_texts is not None else None,
    )
    prefixes = {name: policy.for_user(name).encoder.prefix for name in ("", *users.names)}
    policy.encoder = policy.for_user(None).encoder
    balanced = options.balance_over == "objective"
    for some in (data, held):
        if some is not None:
            _both_kinds(some, prefixes, options.user_alpha, balanced)
    return data, held


def _both_kinds(data: Examples, prefixes: dict[str, tuple[int, ...]], alpha: float, tell_apart: bool) -> None:
    made: list[tuple[Example, bool]] = []
    for example in data.items:
        if not example.group.prompt:
            data.dropped.setdefault("no prompt for a user to ask", []).append(example.origin)
            continue
        known = example.user in prefixes and bool(example.user)
        if not known and alpha < 1:
            data.notes["judged by nobody that is known: learned as the generic user's alone"] += 1
        for individual, wanted in ((True, known and alpha > 0), (False, alpha < 1)):
            if wanted:
                ids = array("i", (*prefixes[example.user if individual else ""], *example.group.prompt))
                made.append((replace(example, group=replace(example.group, prompt=ids)), individual))
        if not known and alpha == 1:
            data.dropped.setdefault("judged by nobody that is known", []).append(example.origin)
    weights = kind_weights([individual for _, individual in made], alpha)
    data.items = [
        replace(e, columns=_columns(e, weight, individual if tell_apart else None))
        for (e, individual), weight in zip(made, weights)
    ]


def _columns(example: Example, weight: float, individual: bool | None) -> dict[str, Any]:
    columns = example.columns | {"weight": weight * example.columns.get("weight", 1.0)}
    return columns if individual is None else columns | {MEMBER: int(individual)}


def without_users(data: Examples, vocabulary: int) -> Examples:
    """The same examples as those see them who know no users: prompts and responses alone."""
    return replace(data, items=[replace(e, group=nobody(e.group, vocabulary)) for e in data.items])


def blind(source: Any, vocabulary: int) -> Callable[[Sequence[Group]], Any] | None:
    """A reference, or a teacher, that is asked about prompts and responses alone; None stays None."""
    if source is None:
        return None
    return lambda groups: source([nobody(group, vocabulary) for group in groups])


def read_texts(path: str) -> dict[str, str]:
    """What users say of themselves, by name.

    Raises:
        ConfigError: it can't be read, or is no mapping of names to texts.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError("the users' texts can't be read", where=path, found=str(error)) from error
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise ConfigError("the users' texts are no mapping", where=path, expected='{"name": "text", ...}')
    return found
