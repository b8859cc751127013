"""Objectives by name: `@objective` registers a builder, its keyword parameters are the options.

A parameter's default is the only home of that default; its help is its line under ``Args:``. `@wrapper` registers
what makes an objective over pairs from another one: its builder takes that one first, then options.
"""

from __future__ import annotations

import functools
import inspect
import math
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Concatenate, Literal, ParamSpec, Union, get_args, get_origin, get_type_hints

from accordance.core.errors import ConfigError, unknown
from accordance.core.objective import Objective, PairLogps

P = ParamSpec("P")


@dataclass(frozen=True)
class Option:
    """One option of an objective.

    Attributes:
        default: its value where nothing is said.
        type: its annotation: ``float``, ``bool``, ``str``, a ``Literal`` or ``float | None``.
        help: what it does.
        choices: the allowed values of a ``Literal``, else empty.
    """

    default: Any
    type: Any
    help: str
    choices: tuple[Any, ...] = ()


_builders: dict[str, Callable[..., Objective[Any]]] = {}
_options: dict[str, dict[str, Option]] = {}
_wrappers: set[str] = set()


def objective(name: str) -> Callable[[Callable[P, Objective[Any]]], Callable[P, Objective[Any]]]:
    """Register a builder: a function from options (keyword parameters with defaults) to an `Objective`.

    The builder is checked and completed: values are checked against the annotations, and the objective's name
    and options are filled in.

    Raises:
        ValueError: the name is taken, or a parameter has no default or no line under ``Args:``.
    """

    def register(builder: Callable[P, Objective[Any]]) -> Callable[P, Objective[Any]]:
        options = _new(name, builder)

        @functools.wraps(builder)
        def build(*args: P.args, **kwargs: P.kwargs) -> Objective[Any]:
            values = _values(name, builder, options, args, kwargs)
            return replace(builder(**values), name=name, options=values)  # type: ignore[call-arg]

        _builders[name], _options[name] = build, options
        return build

    return register


Pairwise = Objective[PairLogps]
Wrapper = Callable[Concatenate[Pairwise, P], Objective[Any]]


def wrapper(name: str, *, once: bool = False) -> Callable[[Wrapper[P]], Wrapper[P]]:
    """Register a wrapper: a function from an objective over pairs and options to another one.

    A wrapper may ask the wrapped loss about the pair and about the swapped pair. The result is called
    ``name(base)``; its options are those of both, written ``name.option``.

    Args:
        name: what recipes call it.
        once: whether it asks the wrapped loss only once a step, so that one with running values may be inside.

    Raises:
        ValueError: the name is taken, or a parameter after the first has no default or no line under ``Args:``.
    """

    def register(builder: Wrapper[P]) -> Wrapper[P]:
        options = _new(name, builder, skip=1)

        @functools.wraps(builder)
        def build(base: Pairwise, *args: P.args, **kwargs: P.kwargs) -> Objective[Any]:
            _check_wrappable(name, base, once)
            values = _values(name, functools.partial(builder, base), options, args, kwargs)
            own = {f"{name}.{key}": value for key, value in values.items()}
            made = builder(base, **values)  # type: ignore[call-arg]
            return replace(made, name=f"{name}({base.name})", options=own | qualified_options(base))

        _builders[name], _options[name] = build, options
        _wrappers.add(name)
        return build

    return register


def qualified_options(base: Objective[Any]) -> dict[str, Any]:
    """The options of an objective, each under ``name.option``."""
    return {key if "." in key else f"{base.name}.{key}": value for key, value in base.options.items()}


def objective_names() -> list[str]:
    """The names of all objectives, sorted; wrappers are in `wrapper_names`."""
    return sorted(_builders.keys() - _wrappers)


def wrapper_names() -> list[str]:
    """The names of all wrappers, sorted."""
    return sorted(_wrappers)


def objective_options(name: str) -> Mapping[str, Option]:
    """The options of an objective or wrapper by name, each with its default, type and help.

    Raises:
        ConfigError: there is nothing of that name.
    """
    if name not in _options:
        raise unknown("objective", name, _options, where="objective")
    return dict(_options[name])


def build_objective(
    name: str, options: Mapping[str, Any], base: Objective[Any] | None = None
) -> Objective[Any]:
    """The objective of that name with those options; see `get_objective` for sums.

    Args:
        name: of an objective, or of a wrapper.
        options: its own options.
        base: what a wrapper wraps.

    Raises:
        ConfigError: the name or an option is unknown, a value can't be used, or the base can't be wrapped.
    """
    known = objective_options(name)
    for key in options:
        if key not in known:
            raise _unknown_option(name, key)
    return _builders[name](*(() if base is None else (base,)), **options)


def require(holds: bool, option: str, found: object, expected: str) -> None:
    """Refuse the value of an option unless `holds`.

    Raises:
        ConfigError: it does not hold.
    """
    if not holds:
        raise ConfigError(f"{option} is out of range", where=option, found=found, expected=expected)


def require_positive(**options: float) -> None:
    """Refuse options that are not above 0."""
    for option, value in options.items():
        require(value > 0, option, value, "> 0")


def require_rate(**options: float) -> None:
    """Refuse rates of wrong labels outside [0, 0.5): from a half on, labels say nothing or the opposite."""
    for option, value in options.items():
        require(0 <= value < 0.5, option, value, "0 <= value < 0.5")


def _check_wrappable(name: str, base: Objective[Any], once: bool) -> None:
    if base.bundle is not PairLogps:
        raise ConfigError(
            f"{name} can't wrap {base.name}: it goes around losses of a chosen and a rejected answer",
            where="objective",
            found=f"{base.name} takes {base.bundle.kind}",
            expected="an objective over pairs, or a sum with one, such as 'dpo+0.1*sft'",
        )
    if base.arrange is not None:
        raise ConfigError(
            f"{name} can't wrap {base.name}: the two sides of its pairs are not two answers to one prompt",
            where="objective",
            found=f"{base.name} arranges examples of its own",
            expected="an objective that compares a chosen with a rejected answer",
        )
    if base.rewards is None:
        raise ConfigError(
            f"{name} can't wrap {base.name}: it does not say which of two answers is better",
            where="objective",
            found=f"{base.name} implies no rewards",
            expected="an objective that compares a chosen with a rejected answer",
        )
    if base.ranked:
        raise ConfigError(
            f"{name} can't wrap {base.name}: what a pair costs there hangs on its rank in the batch, not on it alone",
            where="objective",
            found=f"{base.name} sorts the pairs of a batch",
            expected="an objective that compares a chosen with a rejected answer",
        )
    if base.state and not once:
        raise ConfigError(
            f"{name} can't wrap {base.name}: it keeps running values, which asking twice a step would spoil",
            where="objective",
            found=f"running values {', '.join(base.state)}",
            remedy="put the one that keeps running values outside",
        )


def _new(name: str, builder: Callable[..., object], skip: int = 0) -> dict[str, Option]:
    if name in _builders:
        raise ValueError(f"objective {name!r} is registered twice")
    return _read_options(builder, skip)


def _values(
    name: str, builder: Callable[..., object], options: Mapping[str, Option], args: Any, kwargs: Any
) -> dict[str, Any]:
    """Every option with its value, checked."""
    bound = inspect.signature(builder).bind(*args, **kwargs)
    bound.apply_defaults()
    return {key: _checked(name, key, value, options[key]) for key, value in bound.arguments.items()}


def _unknown_option(name: str, option: str) -> ConfigError:
    known = objective_options(name)
    where = f"objective {name}"
    others = sorted(other for other in _builders if option in _options[other])
    if not others or not known:
        return unknown("option", option, known, where=where)
    return ConfigError(
        f"{option} has no effect on {name}",
        where=where,
        expected=f"one of: {', '.join(sorted(known))}",
        remedy=f"leave it out, or use an objective that has it: {', '.join(others)}",
    )


def _read_options(builder: Callable[..., object], skip: int) -> dict[str, Option]:
    hints, helps = get_type_hints(builder), _help_lines(builder.__doc__ or "")
    options: dict[str, Option] = {}
    for key, parameter in list(inspect.signature(builder).parameters.items())[skip:]:
        if parameter.default is inspect.Parameter.empty or key not in helps or key not in hints:
            raise ValueError(
                f"option {key!r} of {builder.__qualname__} needs a type, a default and a help line"
            )
        choices = get_args(hints[key]) if get_origin(hints[key]) is Literal else ()
        options[key] = Option(parameter.default, hints[key], helps[key], choices)
    return options


def _help_lines(docstring: str) -> dict[str, str]:
    section = re.search(r"\n *Args:\n(.*?)(?:\n\s*\n|\Z)", inspect.cleandoc(docstring), re.DOTALL)
    if section is None:
        return {}
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", section.group(1), re.MULTILINE)
    return {key: re.sub(r"\s+", " ", text).strip() for key, text in entries}


def _checked(name: str, key: str, value: Any, option: Option) -> Any:
    """The value in the option's type; an int is taken for a float, nothing else is bent."""
    where = f"objective {name}, option {key}"
    if option.choices:
        if value not in option.choices:
            raise unknown("value", str(value), map(str, option.choices), where=where)
        return value
    allowed = get_args(option.type) if get_origin(option.type) in (Union, types.UnionType) else (option.type,)
    if float in allowed and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, allowed) or (isinstance(value, float) and not math.isfinite(value)):
        names = " or ".join("none" if kind is types.NoneType else kind.__name__ for kind in allowed)
        raise ConfigError("the value can't be used", where=where, found=value, expected=names)
    return value
