"""The options of a training run: the ecosystem's names, one home for each default, unknown names refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ConfigDict, Field, PrivateAttr, ValidationError
from transformers import TrainingArguments

from accordance.balancing import GradientBalancer, balancer_options, get_balancer
from accordance.core.errors import AccordanceError, ConfigError, nearest
from accordance.core.objective import Objective
from accordance.objectives import (
    get_objective,
    known_options,
    objective_names,
    objective_options,
    parts_of,
    wrapper_names,
)
from accordance.training.distillation import (
    TRAINED_PARTS,
    AuxiliaryOptions,
    check_auxiliary,
)
from accordance.training.effect import idle_options, refuse_idle
from accordance.training.online_objective import online_objective
from accordance.training.registry import Loop, loop_kinds, make_loop
from accordance.training.rollouts import ROLLOUT_OPTIONS, RolloutOptions
from accordance.training.users import USER_OPTIONS, UserOptions, check_users

Parallel = Literal["ddp", "fsdp2", "zero2", "zero3"]

#: Options of transformers' trainer that would have no effect here, and what to use instead.
_NO_EFFECT = {
    "label_smoothing_factor": "label_smoothing, an option of the objectives that have it",
    "average_tokens_across_devices": "nothing: losses are always averaged over all processes",
    "remove_unused_columns": "nothing: columns that an objective does not need are never loaded",
    "label_names": "nothing: labels come from the records",
    "train_sampling_strategy": "nothing: batches are packed without padding, so that lengths don't matter",
    "length_column_name": "nothing: batches are packed without padding",
    "use_liger_kernel": "nothing: log-probabilities never materialise the whole vocabulary",
    "include_num_input_tokens_seen": "nothing: num_tokens is always logged",
    "neftune_noise_alpha": "nothing: inputs are packed, not embedded by a hook",
    "logging_nan_inf_filter": "nothing: a loss that is not finite stops the run",
    "group_by_length": "nothing: batches are packed without padding",
    "padding_free": "nothing: it always is",
    "auto_find_batch_size": "max_tokens, the positions per forward pass",
}

_ARGUMENTS = {field.name for field in dataclasses.fields(TrainingArguments)}


class TrainingConfig(AuxiliaryOptions, UserOptions, RolloutOptions):
    """How a policy is trained, from records or, where a `reward` is named, from what it samples itself.

    Beside these fields it takes the options of the objective (`beta`, `label_smoothing`, ...) and every argument of
    `transformers.TrainingArguments` that has an effect.
    """

    model_config = ConfigDict(extra="allow", validate_assignment=True)

    objective: str = Field("dpo", description="the loss, a sum such as 'dpo + 0.1*sft', or 'lcpo(dpo)'")
    loop: str | None = Field(None, description="a procedure of several stages; its options are loop.name")
    loop_options: dict[str, Any] = Field(default_factory=dict, description="options of the loop by name")
    output_dir: str = Field("runs/align", description="folder of the run")
    per_device_train_batch_size: int = Field(8, ge=1, description="examples per process and step")
    per_device_eval_batch_size: int = Field(16, ge=1, description="held-out examples per process and step")
    gradient_accumulation_steps: int = Field(1, ge=1, description="batches per optimiser step")
    learning_rate: float | None = Field(
        None, gt=0, description="by default 1e-6 (2e-5 for sft), ten times that with an adapter"
    )
    num_train_epochs: float = Field(1.0, gt=0, description="passes over the examples")
    max_steps: int = Field(-1, description="optimiser steps; above 0 it overrides num_train_epochs")
    lr_scheduler_type: str = Field("linear", description="as transformers has it")
    warmup_steps: float = Field(0.1, ge=0, description="steps, or a share of all steps below 1")
    max_grad_norm: float = Field(1.0, ge=0, description="gradients are clipped to this norm; 0 for no clipping")
    balancer: str = Field(
        "sum",
        description="how the gradients of a sum's members are put together: sum, raco, cagrad, mgda, maxmin",
    )
    balancer_radius: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="of raco and cagrad: how far from the weighted step they may go; by default 0.4",
    )
    balancer_temperature: float | None = Field(
        None, gt=0, description="of maxmin, in units of the loss; by default 0.1"
    )
    balance_over: Literal["objective", "attribute", "group"] = Field(
        "objective",
        description="what has a loss (and gradient) of its own: members of a sum, or judgments by attribute or group",
    )
    balance_weights: dict[str, float] | None = Field(
        None, description="of attributes or groups by name; all equal by default"
    )
    heads: Literal["attribute", "group"] | None = Field(
        None, description="an output head for each attribute or group over one backbone; implies balance_over"
    )
    head_noise: float = Field(1e-3, ge=0, description="standard deviation of what tells new heads apart")
    seed: int = Field(42, description="of everything in the run")
    logging_steps: float = Field(10, gt=0, description="steps between log lines, or a share of all below 1")
    eval_strategy: Literal["no", "steps", "epoch"] = Field(
        "no", description="when the held-out loss is measured"
    )
    save_strategy: Literal["no", "steps", "epoch"] = Field("steps", description="when checkpoints are written")
    save_steps: float = Field(500, gt=0, description="steps between checkpoints, or a share of all below 1")
    save_total_limit: int | None = Field(2, ge=1, description="checkpoints kept")
    report_to: str | list[str] = Field("none", description="trackers: wandb, tensorboard, mlflow, trackio, ...")
    max_length: int | None = Field(
        1024, ge=2, description="tokens of prompt and response; longer ones are cut, counted"
    )
    attribute: str | None = Field(
        None, description="learn from judgments of this attribute; by default overall ones, or the only one"
    )
    max_tokens: int = Field(32_768, ge=64, description="positions per forward pass")
    use_peft: bool = Field(False, description="train a LoRA adapter")
    lora_r: int = Field(16, ge=1, description="rank of the adapter")
    lora_alpha: float = Field(32.0, gt=0, description="scale of the adapter")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="dropout in the adapter")
    lora_target_modules: str | list[str] = Field("all-linear", description="which layers get an adapter")
    disable_dropout: bool = Field(
        True, description="train without dropout, so that the policy starts at its reference"
    )
    reference: str | None = Field(None, description="path or name of the reference model; by default the start")
    reference_cache: bool = Field(True, description="keep reference log-probabilities on disk")
    cache_dir: str | None = Field(None, description="where; by default $ACCORD_CACHE or ~/.cache/accordance")
    check: bool = Field(True, description="compare the first batch with a plain forward pass")
    parallel: Parallel | None = Field(None, description="how several processes share the work")
    resume_from_checkpoint: str | bool = Field(
        False, description="True for the newest whole checkpoint, or a path"
    )
    overwrite_output_dir: bool = Field(False, description="replace a run that is in the folder")

    _objective: Objective[Any] | None = PrivateAttr(None)
    _pairs: bool = PrivateAttr(False)

    @classmethod
    def of(
        cls, options: Mapping[str, Any], *, where: str = "options", also: frozenset[str] = frozenset()
    ) -> TrainingConfig:
        """A config from options by name.

        Args:
            options: names and values.
            where: the recipe's file, for error messages.
            also: other names that the caller knows, for suggestions.

        Raises:
            ConfigError: a name is unknown (with the nearest known one), a value is out of range, or an option
                would have no effect.
        """
        options = _with_heads(_with_loop_options(options, where), where)
        extras = set(options) - set(cls.model_fields)
        objective = str(options.get("objective", cls.model_fields["objective"].default))
        known = known_options(objective)
        for name in sorted(extras):
            if name in _NO_EFFECT:
                raise ConfigError(f"{name} has no effect here", where=where, remedy=f"use {_NO_EFFECT[name]}")
            if name not in known and name not in _ARGUMENTS:
                raise _unknown(name, objective, known, where, also)
        for name, depends, needed in (
            *(
                (key, "use_peft", True)
                for key in ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules")
            ),
            ("save_steps", "save_strategy", "steps"),
            ("eval_steps", "eval_strategy", "steps"),
            ("cache_dir", "reference_cache", True),
        ):
            value = options.get(depends, cls.model_fields[depends].default)
            if name in options and value != needed:
                raise ConfigError(
                    f"{name} has no effect with {depends}={value}",
                    where=where,
                    remedy=f"set {depends}={needed}, or leave {name} out",
                )
        for name in ROLLOUT_OPTIONS & options.keys():
            if options.get("reward") is None:
                raise ConfigError(
                    f"{name} has no effect on records",
                    where=where,
                    remedy="name a reward to learn online: --reward; or leave it out",
                )
        for name in USER_OPTIONS & options.keys():
            if options.get("users") is None:
                raise ConfigError(
                    f"{name} has no effect without users", where=where, remedy="users=annotator, or users=group"
                )
        try:
            return cls(**options)
        except ValidationError as error:
            first = error.errors()[0]
            raise ConfigError(
                f"{'.'.join(map(str, first['loc']))}: {first['msg']}", where=where, found=first.get("input")
            ) from error

    def build_objective(self) -> Objective[Any]:
        """The objective with its options; the same object every time, since it may keep running values."""
        if self._objective is None:
            known = known_options(self.objective)
            options = {name: value for name, value in (self.model_extra or {}).items() if name in known}
            made = get_objective(self.objective, **options)
            self._check_source(made)
            fp16 = "fp16" if (self.model_extra or {}).get("fp16") else ""
            check_users(made, self)
            given = self.model_fields_set - (set() if self.users is None else TRAINED_PARTS)
            check_auxiliary(made, given, self, self.parallel or fp16)
            # Where there is a loop, each of its stages decides for itself whether it learns online.
            self._objective = online_objective(made, self) if self.online and self.loop is None else made
            self._pairs = made.bundle.kind == "pair"
            self.build_balancer()
            self._check_heads(made)
            if self.loop is not None:
                self.build_loop()
            else:  # a loop may use what a single run does not
                refuse_idle(self, idle_options(self, self._objective, self._pairs))
        return self._objective

    def build_loop(self) -> Loop:
        """The loop with its options.

        Raises:
            ConfigError: it or an option of it is unknown, or a value is out of range.
        """
        return make_loop(str(self.loop), self.loop_options, where="loop")

    def without_effect(self) -> set[str]:
        """The names of options that do nothing with the others as they are."""
        return set(idle_options(self, self.build_objective(), self._pairs))

    @property
    def online(self) -> bool:
        """Whether the policy learns from what it samples, rather than from records."""
        return self.reward is not None

    def _check_source(self, objective: Objective[Any]) -> None:
        if objective.online and not self.online:
            raise ConfigError(
                f"{objective.name} learns from what the policy samples while it trains",
                where="objective",
                found="no reward",
                remedy="name who scores the samples: --reward module:function (population for the lab's people)",
            )
        if not self.online:
            return
        for name, allowed, why in (
            ("eval_strategy", "no", "what is sampled has no held-out loss; the run is evaluated at its end"),
            ("reference_cache", True, "what is sampled has never been seen before"),
            ("cache_dir", None, "what is sampled has never been seen before"),
        ):
            if name in self.model_fields_set and getattr(self, name) != allowed:
                raise ConfigError(f"{name} has no effect with a reward: {why}", where=name)
        if self.ptx_coef and self.balancer != "sum":
            raise ConfigError(
                "ptx_coef adds a loss of its own, which a balancer does not see",
                where="ptx_coef",
                found=f"balancer={self.balancer}",
                remedy="leave one of them out",
            )
        if self.extragradient and (self.num_iterations > 1 or self.steps_per_generation > 1):
            raise ConfigError(
                "an extragradient step samples anew every time",
                where="extragradient",
                found=f"num_iterations={self.num_iterations}, steps_per_generation={self.steps_per_generation}",
                expected="1 and 1",
            )
        if self.ref_model_sync_steps and self.use_peft:
            raise ConfigError(
                "the reference of an adapter is the model below it, which does not move",
                where="ref_model_sync_steps",
                remedy="train all weights, or leave it out",
            )

    def build_balancer(self) -> GradientBalancer | None:
        """What puts the gradients of the objective's members together; None where they are plainly summed.

        Raises:
            ConfigError: it is unknown, an option has no effect on it, or there are no members to balance.
        """
        own = {"radius": self.balancer_radius, "temperature": self.balancer_temperature}
        given = {name: value for name, value in own.items() if value is not None}
        known = balancer_options(self.balancer)
        for name in given:
            if name not in known:
                raise ConfigError(f"balancer_{name} has no effect with balancer={self.balancer}")
        if self.balance_weights is not None and self.balance_over == "objective":
            raise ConfigError(
                "balance_weights has no effect: weights of a sum stand in it, such as 'dpo + 0.5*sft'",
                remedy="balance_over=attribute or group; or leave it out",
            )
        if self.balance_over != "objective" and (self.online or self.attribute is not None):
            raise ConfigError(
                f"balance_over={self.balance_over} has no effect "
                + ("on rollouts" if self.online else f"with attribute={self.attribute}"),
                where="balance_over",
            )
        if self.balancer == "sum":
            return None
        if self.balance_over == "objective" and len(parts_of(self.build_objective())) < 2:
            raise ConfigError(
                f"balancer={self.balancer} has no effect: {self.objective} is one loss",
                where="balancer",
                expected="a sum of objectives, such as 'dpo + 0.5*sft', or balance_over=attribute or group",
            )
        if self.parallel in ("fsdp2", "zero2", "zero3") or (self.model_extra or {}).get("fp16"):
            raise ConfigError(
                "a balancer needs whole gradients that are not scaled",
                where="balancer",
                found=self.parallel or "fp16",
                remedy="train on one process, in bf16 or fp32",
            )
        return get_balancer(self.balancer, **given)

    def _check_heads(self, objective: Objective[Any]) -> None:
        reasons = (
            (self.heads != self.balance_over, f"examples are told apart by balance_over={self.balance_over}"),
            (self.use_peft, "an adapter leaves the output heads as they are"),
            (self.loop is not None, "stages of a loop are scored by one head"),
            (bool(objective.whole), f"{objective.name} compares whole distributions"),
            (self.parallel not in (None, "ddp"), "heads are trained whole on every process"),
        )
        for holds, reason in reasons if self.heads is not None else ():
            if holds:
                raise ConfigError(f"heads={self.heads} can't be: {reason}", where="heads")

    @property
    def rate(self) -> float:
        """The learning rate; where none is named, the default for the objective, and for an adapter."""
        if self.learning_rate is not None:
            return self.learning_rate
        base = 2e-5 if self.objective.strip() == "sft" else 1e-6
        return base * (10 if self.use_peft else 1)

    def arguments(self) -> TrainingArguments:
        """transformers' training arguments."""
        own = {name: value for name, value in self.model_dump().items() if name in _ARGUMENTS}
        apart = {**RolloutOptions.model_fields, **AuxiliaryOptions.model_fields, **UserOptions.model_fields}
        own = {name: value for name, value in own.items() if name not in apart}
        own.pop("resume_from_checkpoint")
        own["learning_rate"] = self.rate
        own |= _parallel(self.parallel)
        return TrainingArguments(
            **{"disable_tqdm": True, **own},
            remove_unused_columns=False,
            logging_nan_inf_filter=False,
            average_tokens_across_devices=False,
        )


def _with_loop_options(options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Options of the loop, given as ``loop.name``, under `loop_options`."""
    dotted = {key: value for key, value in options.items() if key.startswith("loop.")}
    rest = {key: value for key, value in options.items() if key not in dotted}
    own = dict(rest.get("loop_options") or {}) | {key.partition(".")[2]: v for key, v in dotted.items()}
    if own and rest.get("loop") is None:
        raise ConfigError(
            f"{next(iter(own))} has no effect: there is no loop",
            where=where,
            remedy=f"name one: {', '.join(loop_kinds())}",
        )
    return rest | ({"loop_options": own} if own else {})


def _with_heads(options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Heads of their own for attributes or groups come with losses of their own."""
    if "head_noise" in options and options.get("heads") is None:
        raise ConfigError("head_noise has no effect without heads", where=where, remedy="heads=attribute")
    given = options.get("heads")
    return ({"balance_over": given} if given in ("attribute", "group") else {}) | dict(options)


def read_recipe(path: str | Path) -> dict[str, Any]:
    """The options in a recipe: one YAML file of names and values.

    Raises:
        ConfigError: it is not there, or not a mapping.
    """
    try:
        options = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError("the recipe can't be read", where=str(path), found=str(error)) from error
    except yaml.YAMLError as error:
        raise ConfigError("the recipe is not YAML", where=str(path), found=str(error)) from error
    if not isinstance(options, dict):
        raise ConfigError("a recipe is a mapping of options", where=str(path), found=type(options).__name__)
    return options


def _unknown(name: str, objective: str, known: set[str], where: str, also: frozenset[str]) -> AccordanceError:
    others = [n for n in objective_names() + wrapper_names() if name in objective_options(n)]
    if others:
        return ConfigError(
            f"{name} has no effect on the objective {objective}",
            where=where,
            expected=f"its options: {', '.join(sorted(known)) or 'none'}",
            remedy=f"leave it out, or use an objective that has it: {', '.join(others)}",
        )
    close = nearest(name, known | set(TrainingConfig.model_fields) | _ARGUMENTS | also)
    return ConfigError(
        f"unknown option {name!r}",
        where=where,
        expected="an option of the run, of the objective, or of transformers.TrainingArguments",
        remedy=f"did you mean {close!r}?" if close else "see `accord align --help`",
    )


def _parallel(kind: Parallel | None) -> dict[str, Any]:
    if kind == "fsdp2":
        return {"fsdp": "full_shard auto_wrap", "fsdp_config": {"version": 2}}
    if kind in ("zero2", "zero3"):
        stage = int(kind[-1])
        auto = dict.fromkeys(("train_micro_batch_size_per_gpu", "gradient_accumulation_steps"), "auto")
        return {
            "deepspeed": {
                "zero_optimization": {"stage": stage},
                "bf16": {"enabled": "auto"},
                "gradient_clipping": "auto",
                **auto,
            }
        }
    return {}
