"""The one trainer: a thin subclass of `transformers.Trainer`.

What it adds: a batch is a set of packed groups; the loss is an `Objective` over their log-probabilities; the mean
is taken over the whole optimiser step, so that gradient accumulation and the number of processes change nothing;
reference log-probabilities come from a provider. Everything else is transformers'.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import Trainer, TrainingArguments

from accordance.balancing import GradientBalancer
from accordance.core.errors import ConfigError, TrainingError
from accordance.core.objective import Objective
from accordance.models import Compared, Group, LocalPolicy, ReferenceLogps, Table, batches
from accordance.models.engine import relative_gap
from accordance.models.users import save_users
from accordance.objectives import across_workers
from accordance.training.auxiliary import AuxiliaryParts
from accordance.training.balanced import Members
from accordance.training.bundles import bundle_for, columns_of, joined
from accordance.training.critic import Critic
from accordance.training.examples import Example, Examples
from accordance.training.order import SeededSampler, order_seed, sampler_of

#: Written into a checkpoint's folder when everything else in it is there.
COMPLETE = "complete"

ReferenceFn = Callable[[Sequence[Group]], ReferenceLogps]
TeacherFn = Callable[[Sequence[Group]], Sequence[Table]]


class PreferenceTrainer(Trainer):
    """Trains a policy on examples under an objective.

    Args:
        policy: what is trained; its model may be wrapped in PEFT.
        objective: the loss.
        args: transformers' training arguments.
        train: examples to learn from.
        held_out: examples to report the loss and metrics on, or None.
        reference: gives reference log-probabilities for groups; None where the objective needs none.
        teacher: gives a teacher's distributions for groups, and those of its reference where the objective reads
            advantages; None where the objective needs none.
        auxiliary_rate: learning rate of the objective's own trainable parts.
        auxiliary_warmup: first steps in which they alone are moved.
        critic: what they read in the place of the policy.
        balancer: puts the gradients of a sum's members together; None adds them up, in one backward pass.
        members: names of what each example belongs to, by the number in its column ``member``; metrics are also
            told for each.
        max_tokens: positions per forward pass; a larger batch is cut into several, with the same gradient for
            objectives that treat examples one by one.
        check: whether to compare the first batch with a plain forward pass, and the policy with its reference.
        starts_at_reference: whether the policy equals the reference before the first step, so that it can be
            checked.
        card: writes the model card's text, given the folder.
        callbacks: transformers callbacks.

    Raises:
        ConfigError: a balancer can't work on several processes.
        TrainingError: a loss is not finite, or the first batch shows that the reference is not the policy's.
    """

    def __init__(
        self,
        policy: LocalPolicy,
        objective: Objective[Any],
        args: TrainingArguments,
        train: Examples,
        held_out: Examples | None = None,
        *,
        reference: ReferenceFn | None = None,
        teacher: TeacherFn | None = None,
        auxiliary_rate: float = 1e-3,
        auxiliary_warmup: int = 0,
        critic: Critic | None = None,
        balancer: GradientBalancer | None = None,
        members: Sequence[str] = (),
        max_tokens: int = 32_768,
        check: bool = True,
        starts_at_reference: bool = True,
        card: Callable[[], str] | None = None,
        callbacks: Sequence[Any] = (),
    ) -> None:
        self.policy, self.objective, self.reference = policy, objective, reference
        self.max_tokens, self.check, self.starts_at_reference = max_tokens, check, starts_at_reference
        self.card, self.teacher, self.auxiliary_rate = card, teacher, auxiliary_rate
        self.auxiliary_warmup = auxiliary_warmup
        self._sums: dict[str, dict[str, list[Any]]] = {
            "train": defaultdict(lambda: [0.0, 0]),
            "eval": defaultdict(lambda: [0.0, 0]),
        }
        self._seen_tokens = 0
        super().__init__(
            model=policy.model,
            args=args,
            train_dataset=train,
            eval_dataset=held_out,
            data_collator=self._collate,
            processing_class=policy.tokenizer,
            callbacks=list(callbacks),
        )
        self.model_accepts_loss_kwargs = True
        self.loss_is_scaled_for_ga = True
        self._auxiliary = (
            AuxiliaryParts(objective, policy, args.seed, args.device, critic)
            if objective.module is not None
            else None
        )
        self.members = tuple(members)
        self._members = Members(policy.model, objective, balancer) if balancer is not None else None
        if balancer is not None and self.accelerator.num_processes > 1:
            raise ConfigError(
                "a balancer works on one process",
                where="balancer",
                found=f"{self.accelerator.num_processes} processes",
                remedy="start one process, or leave balancer out",
            )

    # Data

    def _collate(self, examples: list[Example]) -> dict[str, Any]:
        """A batch: one part for each forward pass that it takes, and how many units its loss is a mean over."""
        groups = [example.group for example in examples]
        parts, start = [], 0
        for chunk in batches(groups, self.max_tokens, shared=self.policy.engine.shared):
            some = examples[start : start + len(chunk)]
            start += len(chunk)
            parts.append(
                {
                    "packed": self.policy.engine.pack(chunk, hidden=self.objective.hidden),
                    "columns": columns_of(some),
                    "origins": [example.origin for example in some],
                    "sampled": joined(example.sampled for example in some),
                    "learned": joined(example.learned for example in some),
                    "reference": joined(example.reference for example in some),
                    "credit": {
                        name: torch.cat([example.credit[name] for example in some]) for name in some[0].credit
                    },
                }
            )
        return {"units": torch.tensor([self._units(example) for example in examples]), "parts": parts}

    def _units(self, example: Example) -> float:
        if self.objective.unit == "examples":
            return 1.0
        group = example.group
        counted = group.responses[:1] if self.objective.mismatched else group.responses
        whole = float(sum(len(response) - (not group.prompt) for response in counted))
        return whole - sum(example.columns.get("starts", ()))

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return sampler_of(self.train_dataset, order_seed(self.args))  # type: ignore[arg-type]

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor]:
        """The batches of one optimiser step, and the units in all of them on all processes."""
        samples = [batch for _, batch in zip(range(num_batches), epoch_iterator)]
        units = sum((batch["units"].sum() for batch in samples), torch.zeros(()))
        everywhere: Any = self.accelerator.gather(units.to(device).reshape(1))
        return samples, everywhere.sum()

    # The loss

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward of one batch, part by part."""
        if self._members is not None:
            return self._balanced_step(self._members, model, inputs, num_items_in_batch)
        losses = [
            super(PreferenceTrainer, self).training_step(model, {"part": part}, num_items_in_batch)
            for part in inputs["parts"]
        ]
        return torch.stack(losses).sum()

    def _balanced_step(
        self, members: Members, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any
    ) -> Tensor:
        """Forward of one batch and a backward for each member; the last batch of a step sets the gradients."""
        model.train()
        total = torch.zeros((), device=self.args.device)
        for part in inputs["parts"]:
            prepared = self._prepare_inputs({"part": part})
            with self.compute_loss_context_manager():
                loss = self.compute_loss(model, prepared, num_items_in_batch=num_items_in_batch)
            members.gradients.add(members.losses)
            total += loss.detach()
        if self.accelerator.sync_gradients:
            found = members.gradients.write(members.balancer)
            for name, value in zip(members.names, found):
                note = self._sums["train"][f"balance/{name}"]
                note[0], note[1] = note[0] + value, note[1] + 1
        return total

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The summed loss of one part, over the units of the whole optimiser step."""
        part = inputs["part"]
        packed = part["packed"]
        if self.check and model.training and self.state.global_step == 0:
            self.policy.engine.check(packed.groups)
        wants_entropy = model.training and self._logs_next()
        reference = self._reference_of(part)
        logps = self.policy.engine(
            packed,
            model=model,
            entropy=wants_entropy,
            hidden=self.objective.hidden,
            compared=self._compared(packed.groups, reference),
            states=self.objective.states,
        )
        if self._auxiliary is not None:
            self._auxiliary.module.train(model.training)
            logps = self._auxiliary.seen(packed, logps)
        columns = {name: value.to(logps.logp.device) for name, value in part["columns"].items()}
        told = part["sampled"], part["credit"], part["learned"]
        bundle = bundle_for(self.objective, logps, reference, columns, *told)
        if self.check and model.training and self.state.global_step == 0:
            self._check_reference(logps.logp, reference)
            self.check = False
        balanced = self._members if model.training else None
        losses = self._losses(bundle) if balanced is None else balanced(bundle)
        if not bool(torch.isfinite(losses).all()):
            self._not_finite(losses, logps.logp, part)
        if bundle.weight is not None:
            losses = losses * bundle.weight
        kind = "train" if model.training else "eval"
        self._note(kind, bundle, logps, losses)
        loss = losses.sum()
        if num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes / num_items_in_batch
            if balanced is not None:
                balanced.losses = balanced.losses / num_items_in_batch
        return (loss, {"losses": losses.detach()}) if return_outputs else loss

    def _reference_of(self, part: dict[str, Any]) -> ReferenceLogps | None:
        """Reference log-probabilities of one part: those that came with its examples, or the provider's."""
        if part["reference"] is None or self.objective.layers or "kl" in self.objective.whole:
            return None if self.reference is None else self.reference(part["packed"].groups)
        sizes = [len(r) - (not g.prompt) for g in part["packed"].groups for r in g.responses]
        tokens = part["reference"]
        return ReferenceLogps(torch.stack([some.sum() for some in tokens.split(sizes)]), tokens)

    def _compared(self, groups: Sequence[Group], reference: ReferenceLogps | None) -> Compared | None:
        """What the objective wants whole distributions compared with; None where it wants nothing."""
        whole = self.objective.whole
        if not whole:
            return None
        tables: Sequence[Table] = self.teacher(groups) if self.teacher is not None else []
        return Compared(
            kl=reference.table if reference is not None and "kl" in whole else None,
            teacher_kl=tables[0] if "teacher_kl" in whole else None,
            advantage=(tables[0], tables[1]) if "advantage" in whole else None,
            collision="collision" in whole,
            greatest="greatest" in whole,
        )

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """The optimiser of the policy, and of the objective's own trainable parts."""
        optimizer = super().create_optimizer(*args, **kwargs)
        if self._auxiliary is not None:
            alone = lambda: self.state.global_step < self.auxiliary_warmup  # noqa: E731
            rates = self.auxiliary_rate, self.args.learning_rate, self.args.weight_decay
            self._auxiliary.join(optimizer, *rates, self.accelerator, alone)
        return optimizer

    def _losses(self, bundle: Any) -> Tensor:
        """One loss per example; statistics over the batch (KTO's KL, BCO's shift) are over all processes."""
        if self.accelerator.num_processes == 1:
            return self.objective(bundle)
        with across_workers(self._total):
            return self.objective(bundle)

    def _total(self, value: Tensor) -> Any:
        """A tensor summed over all processes."""
        return self.accelerator.reduce(value, "sum")

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[Tensor, None, None]:
        """The mean loss of one held-out batch; the metrics are noted on the way."""
        units = inputs["units"].sum().to(self.args.device)
        with torch.no_grad():
            total = sum(
                (self.compute_loss(model, {"part": part}) for part in inputs["parts"]),
                torch.zeros((), device=self.args.device),
            )
        return total.detach() / units, None, None

    def _check_reference(self, logp: Tensor, reference: ReferenceLogps | None) -> None:
        if reference is None or not self.starts_at_reference:
            return
        gap = relative_gap(reference.logp.cpu(), logp.detach().cpu())
        if gap > self.policy.engine.tolerance:
            raise TrainingError(
                "before the first step the policy differs from its reference",
                found=f"relative gap {gap:.1e}",
                expected=f"at most {self.policy.engine.tolerance:.0e}",
                remedy="dropout on, or reference log-probabilities of other weights: clear the cache folder",
            )

    def _not_finite(self, losses: Tensor, logp: Tensor, part: dict[str, Any]) -> None:
        bad = (~torch.isfinite(losses)).nonzero().flatten().tolist()
        rows = [part["origins"][i] for i in bad][:5]
        raise TrainingError(
            "the loss is not finite",
            where=f"step {self.state.global_step + 1}, {', '.join(filter(None, rows)) or 'batch rows ' + str(bad[:5])}",
            found=f"{len(bad)} of {len(losses)} losses; finite log-probabilities: "
            f"{bool(torch.isfinite(logp).all())}",
            remedy="lower the learning rate or max_grad_norm, or train in bf16 or fp32 instead of fp16; "
            "the last checkpoint is whole",
        )

    # Metrics

    def _logs_next(self) -> bool:
        every = self.state.logging_steps or 1
        return (self.state.global_step + 1) % max(int(every), 1) == 0

    @torch.no_grad()
    def _note(self, kind: str, bundle: Any, logps: Any, losses: Tensor) -> None:
        """Collect sums and counts of the ecosystem's metrics."""
        sums = self._sums[kind]

        def add(name: str, values: Tensor) -> None:
            sums[name][0] = sums[name][0] + values.detach().float().sum()  # stays on the device until logged
            sums[name][1] += values.numel()

        if logps.entropy is not None:
            add("entropy", logps.entropy)
        if kind == "train":
            self._seen_tokens += len(logps.tokens)
        if self.objective.metrics is not None:
            for name, values in self.objective.metrics(bundle).items():
                add(name, values)
        if self.objective.pairs is not None:
            bundle = self.objective.pairs(bundle)
        rewards = self.objective.rewards(bundle) if self.objective.rewards is not None else None
        if bundle.kind == "pair":
            add("logps/chosen", bundle.chosen)
            add("logps/rejected", bundle.rejected)
            if rewards is not None:
                chosen, rejected = rewards
                add("rewards/chosen", chosen)
                add("rewards/rejected", rejected)
                add("rewards/margins", chosen - rejected)
                right = (chosen > rejected).float() + 0.5 * (chosen == rejected).float()
                add("rewards/accuracies", right)
                for number, name in enumerate(self.members):
                    add(f"rewards/accuracies/{name}", right[bundle.extras["member"] == number])
        elif bundle.kind == "unary":
            good = bundle.label if bundle.label is not None else torch.ones_like(bundle.logp, dtype=torch.bool)
            add("logps/chosen", bundle.logp[good])
            if bundle.label is not None:
                add("logps/rejected", bundle.logp[~good])
            if rewards is not None:
                add("rewards/chosen", rewards[good])
                add("rewards/rejected", rewards[~good])
        elif rewards is not None and bundle.scores is not None:
            best = rewards.masked_fill(~bundle.mask, -math.inf).argmax(1)
            first = bundle.scores.nan_to_num(-math.inf).argmax(1)
            add("rewards/accuracies", (best == first).float())

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the collected metrics, averaged over examples and processes, to what transformers logs."""
        evaluating = any(key.startswith("eval_") for key in logs)
        if not evaluating or "eval_loss" in logs:
            kind, prefix = ("eval", "eval_") if evaluating else ("train", "")
            sums = self._sums[kind]
            names = sorted(sums)
            if names:
                table = torch.tensor([[float(total), count] for total, count in map(sums.__getitem__, names)])
                table = self._total(table.to(self.args.device))
                logs |= {
                    prefix + name: float(total / count)
                    for name, (total, count) in zip(names, table.tolist())
                    if count
                }
            sums.clear()
        if not evaluating:
            seen = torch.tensor(float(self._seen_tokens), device=self.args.device)
            logs["num_tokens"] = float(self._total(seen))
        super().log(logs, start_time)

    def floating_point_ops(self, inputs: dict[str, Any]) -> float:
        """Operations of one batch: six per weight and computed position."""
        positions = sum(part["packed"].input_ids.numel() for part in inputs["parts"])
        return 6.0 * positions * self.policy.num_parameters

    # Checkpoints

    def save_model(self, *args: Any, **kwargs: Any) -> None:
        """Write the model, and its users beside it."""
        super().save_model(*args, **kwargs)
        if self.args.should_save:
            save_users(self.policy.model, args[0] if args and args[0] else str(self.args.output_dir))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        if self.args.should_save and folder.exists():
            extra = {"objective": dict(self.objective.state), "seen_tokens": self._seen_tokens}
            if self._auxiliary is not None:
                extra["auxiliary"] = self._auxiliary.state()
            torch.save(extra, folder / "accordance.pt")
            (folder / COMPLETE).touch()
            os.sync()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        file = Path(resume_from_checkpoint) / "accordance.pt"
        if file.exists():
            extra = torch.load(file, weights_only=True)
            for name, value in extra["objective"].items():
                self.objective.state[name].copy_(value)
            self._seen_tokens = extra["seen_tokens"]
            if self._auxiliary is not None:
                self._auxiliary.restore(extra["auxiliary"])
        self.check = False  # the policy has left its reference

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write the run's own model card instead of transformers' generic one."""
        if self.card is not None and self.is_world_process_zero():
            Path(str(self.args.output_dir), "README.md").write_text(self.card(), encoding="utf-8")


def last_complete_checkpoint(folder: str | Path) -> Path | None:
    """The newest checkpoint in a run's folder that was written to its end."""
    done = [path.parent for path in Path(folder).glob(f"checkpoint-*/{COMPLETE}")]
    return max(done, key=lambda path: int(path.name.split("-")[1]), default=None)


__all__ = ["COMPLETE", "PreferenceTrainer", "SeededSampler", "last_complete_checkpoint", "order_seed"]
