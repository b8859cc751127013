"""Learning online: the one trainer, fed by rollouts instead of records.

A *round* is what is sampled at once: the prompts of `steps_per_generation` optimiser steps, learned from
`num_iterations` times. Which prompts a round takes and how it samples follows from the seed and the round's number
alone, so that a killed run goes on as if nothing had happened.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from accordance.core.errors import ConfigError
from accordance.core.objective import ListLogps, Tokens
from accordance.core.record import Record
from accordance.models import Group
from accordance.objectives import across_workers
from accordance.training.bundles import columns_of, joined
from accordance.training.examples import Example, Examples
from accordance.training.history import PastPolicies, history_columns
from accordance.training.lookahead import LookAhead
from accordance.training.rollouts import Rollout, RolloutOptions, RolloutSource, example_of
from accordance.training.trainer import PreferenceTrainer, order_seed

#: Name of the file in a checkpoint that holds the round in which it was written.
_ROUND = "round.pt"
#: The weights of a reference that stays in step with the policy.
_REFERENCE = "reference.pt"
#: Where the update began in the middle of which a checkpoint of extragradient training was written.
_BEGAN = "began.pt"
#: The weights of the past policies that an objective looks back to.
_PAST = "past.pt"


class RolloutTrainer(PreferenceTrainer):
    """Trains a policy on what it samples itself.

    Args:
        source: samples and scores.
        prompts: what to answer, as examples without responses.
        records: the record of each prompt.
        options: how many to sample, and how often to learn from them.
        ptx: demonstrations whose likelihood is a part of the loss, of weight `options.ptx_coef`.
        *args, **kwargs: see `PreferenceTrainer`; its `train` is made here. A `reference` that moves
            (`ref_model_sync_steps`) is a `CopiedReference`.

    Raises:
        ConfigError: the policy's weights are spread over processes, so that it can't sample.
    """

    def __init__(
        self,
        *args: Any,
        source: RolloutSource,
        prompts: Examples,
        records: Sequence[Record],
        options: RolloutOptions,
        ptx: Examples | None = None,
        **kwargs: Any,
    ) -> None:
        policy, objective, arguments = args[:3]
        self.source, self.prompts, self.records, self.options = source, prompts, records, options
        self.ptx = ptx
        world = arguments.world_size
        self._per_step = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps * world
        steps = -(-len(prompts) // self._per_step) * options.num_iterations
        turns: Any = _Turns(steps * self._per_step)
        super().__init__(policy, objective, arguments, turns, **kwargs)
        if source.environment is not None and objective.credit is not None:
            raise ConfigError(
                f"{objective.name} can't learn from trajectories: it credits single tokens", where="reward"
            )
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise ConfigError(
                "a policy whose weights are spread over processes can't sample while it trains",
                where="parallel",
                remedy="--parallel ddp, with --use-peft where memory is short",
            )
        self.args.ignore_data_skip = True  # what a step learns from follows from its number
        self._round: tuple[int, list[Example]] = (-1, [])
        self._fresh, self._sampled = False, None
        self._look_ahead = LookAhead() if options.extragradient else None
        past = history_columns(objective)
        self._past = PastPolicies(policy, past, self.max_tokens) if past else None
        if options.extragradient and objective.module is not None:
            raise ConfigError(
                f"{objective.name} has trained parts of its own, which an extragradient step would leave ahead",
                where="extragradient",
            )

    def _collate(self, examples: list[Any]) -> dict[str, Any]:
        return {"turns": len(examples)} if isinstance(examples[0], int) else super()._collate(examples)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor]:
        """The batches of one optimiser step, sampled now or in an earlier step of the round."""
        turns = [turn["turns"] for _, turn in zip(range(num_batches), epoch_iterator)]
        examples = iter(self._examples_of(self.state.global_step))
        made = ([next(examples) for _ in range(size)] for size in turns)
        batches = [super(RolloutTrainer, self)._collate(batch) for batch in made]
        if self.ptx is not None:
            self._add_demonstrations(batches, self.ptx, device)
        return super().get_batch_samples(iter(batches), num_batches, device)

    def _add_demonstrations(self, batches: list[dict[str, Any]], ptx: Examples, device: torch.device) -> None:
        """Demonstrations beside the samples of each batch of a step, in parts of their own."""
        size, world, rank = self.args.per_device_train_batch_size, self.args.world_size, self.args.process_index
        first, parts, tokens = self.state.global_step * len(batches), [], 0
        for number, batch in enumerate(batches, first):
            begin = (number * world + rank) * size
            places = [_place(place, len(ptx), self.args, 4) for place in range(begin, begin + size)]
            own = super()._collate([ptx.items[i] for i in places])["parts"]
            tokens += sum(len(part["packed"].labels) for part in own)
            parts += own
            batch["parts"] += own
        everywhere: Any = self.accelerator.gather(torch.tensor([float(tokens)], device=device))
        for part in parts:
            part["ptx"] = float(everywhere.sum())

    def _examples_of(self, step: int) -> list[Example]:
        """What one process learns from in one step."""
        options = self.options
        number, within = divmod(step, options.steps_per_generation * options.num_iterations)
        if within and self._round[0] != number:
            raise ConfigError("the round in which the checkpoint was written is not in it", where=_ROUND)
        if self._round[0] != number:
            every, taken = options.ref_model_sync_steps, options.steps_per_generation * options.num_iterations
            if self._moves_reference and _comes_by(step, taken, every):  # type: ignore[arg-type]
                self.reference.sync(self.policy.model)  # type: ignore[union-attr]
            if self._past is not None and _comes_by(step, taken, options.history_steps or taken):
                self._past.remember()
            self._round = number, self._draw(number)
        self._fresh = within == 0
        if self._look_ahead is not None:
            model, optimizer = self.policy.model, cast(torch.optim.Optimizer, self.optimizer)
            if self._look_ahead.ahead:  # what was sampled ahead is learned from where the update began
                self._look_ahead.back(model, optimizer)
                self._fresh = False
            else:
                self._look_ahead.leave(model, optimizer)
        examples = self._round[1]
        passes, place = divmod(within, options.steps_per_generation)
        if passes:  # another pass goes through the same samples in another order
            order = torch.randperm(len(examples), generator=_generator(self.args.seed, 1, step)).tolist()
            examples = [examples[i] for i in order]
        size = len(examples) // options.steps_per_generation
        return examples[place * size : (place + 1) * size]

    def _draw(self, number: int) -> list[Example]:
        """Sample and score one round."""
        rank, world = self.args.process_index, self.args.world_size
        size = self._per_step * self.options.steps_per_generation
        chosen = [self._prompt_at(place) for place in range(number * size, (number + 1) * size)][rank::world]
        prompts = [self.prompts[i].group.prompt for i in chosen]
        seed = int(torch.randint(2**31, (1,), generator=_generator(self.args.seed, 2, number, rank)))
        asked = list(zip([self.records[i] for i in chosen], prompts))
        rollouts = self.source.draw(asked, seed)
        examples = [example_of(rollout, prompt) for rollout, prompt in zip(rollouts, prompts)]
        if self.reference is not None:
            found = self.reference([example.group for example in examples]).tokens.cpu()
            sizes = [len(example.sampled) for example in examples if example.sampled is not None]
            examples = [replace(e, reference=tokens) for e, tokens in zip(examples, found.split(sizes))]
        if self._past is not None:
            found = self._past([example.group for example in examples])
            columns = {name: _sums(examples, tokens).tolist() for name, tokens in found.items()}
            examples = [
                replace(e, columns=e.columns | {name: rows[i] for name, rows in columns.items()})
                for i, e in enumerate(examples)
            ]
        if self.objective.advantages is not None:
            examples = self._with_advantages(examples)
        if self.objective.credit is not None:
            examples = self._with_credit(examples)
        self._note_rollouts(rollouts, examples)
        return examples

    def _prompt_at(self, place: int) -> int:
        """The prompt at a place of the endless sequence of shuffled prompts."""
        return _place(place, len(self.prompts), self.args, 3)

    def _with_advantages(self, examples: list[Example]) -> list[Example]:
        """Advantages over the whole round, on all processes: batches and parts of it see the same."""
        assert self.objective.advantages is not None
        scores = columns_of(examples)["scores"]
        lengths = torch.tensor([[len(r) for r in e.group.responses] for e in examples])
        sampled, known = joined(e.sampled for e in examples), joined(e.reference for e in examples)
        assert sampled is not None
        old = _sums(examples, sampled)
        ref = None if known is None else _sums(examples, known)
        mask = torch.ones_like(lengths, dtype=torch.bool)
        bundle = ListLogps(old, lengths, mask, scores, ref, old)
        with across_workers(self._total):
            values = self.objective.advantages(bundle)
        return [
            replace(example, columns=example.columns | {"advantages": row})
            for example, row in zip(examples, values.tolist())
        ]

    @torch.no_grad()
    def _with_credit(self, examples: list[Example]) -> list[Example]:
        """What each token of the round is worth, on all processes, by the critic as it stands."""
        assert self.objective.credit is not None and self._auxiliary is not None
        scores = columns_of(examples)["scores"]
        lengths = torch.tensor([[len(r) for r in e.group.responses] for e in examples])
        row = torch.repeat_interleave(torch.arange(lengths.numel()), lengths.flatten())
        old = torch.cat([e.sampled for e in examples if e.sampled is not None])
        refs = [e.reference for e in examples if e.reference is not None]
        values = self._auxiliary.values([example.group for example in examples], self.max_tokens).cpu()
        tokens = Tokens(old, row, torch.cat(refs) if refs else None, extras={"value": values})
        sums = torch.zeros(lengths.numel()).index_add(0, row, old).view_as(scores)
        mask = torch.ones_like(lengths, dtype=torch.bool)
        bundle = ListLogps(sums, lengths, mask, scores, None, sums, tokens=tokens, old_tokens=old)
        with across_workers(self._total):
            found = self.objective.credit(bundle)
        sizes = lengths.sum(1).tolist()
        parts = {name: values.split(sizes) for name, values in found.items()}
        return [
            replace(example, credit={name: part[i] for name, part in parts.items()})
            for i, example in enumerate(examples)
        ]

    @torch.no_grad()
    def _note_rollouts(self, rollouts: Sequence[Rollout], examples: Sequence[Example]) -> None:
        own = [range(len(r.scores)) if r.answer is None else range(r.answer) for r in rollouts]
        scores = [torch.tensor([float(r.scores[i]) for i in places]) for r, places in zip(rollouts, own)]
        written = [r.completions[i] for r, places in zip(rollouts, own) for i in places]
        spread = torch.stack([row.std() for row in scores])
        self._add("reward", torch.cat(scores))
        self._add("reward_std", spread)
        self._add("frac_reward_zero_std", (spread == 0).float())
        self._add("completions/mean_length", torch.tensor([float(len(c.token_ids)) for c in written]))
        self._add("completions/clipped_ratio", torch.tensor([float(not c.finished) for c in written]))
        if examples[0].reference is not None:
            known = [e for e in examples if e.sampled is not None and e.reference is not None]
            apart = [_learned(e, e.sampled - e.reference) for e in known]  # type: ignore[operator]
            sizes = [len(r) for e in examples for r in e.group.responses]
            each = torch.stack([some.sum() for some in torch.cat(apart).split(sizes)])
            self._add("kl", each[~each.isnan()])
            for name in ("sampled", "reference"):
                values = torch.cat([getattr(e, name)[e.sampled.isfinite()] for e in known])  # type: ignore[union-attr]
                self._add("surprise/policy" if name == "sampled" else "surprise/reference", -values)

    def _add(self, name: str, values: Tensor) -> None:
        note = self._sums["train"][name]
        note[0], note[1] = note[0] + values.sum(), note[1] + values.numel()

    def _note(self, kind: str, bundle: Any, logps: Any, losses: Tensor) -> None:
        super()._note(kind, bundle, logps, losses)
        if self._fresh and self._sampled is not None:
            apart = (logps.tokens.detach() - self._sampled.to(logps.tokens)).abs()
            apart = apart[~apart.isnan()]
            self._add("sampling/sampling_logp_difference/mean", apart)
            note = self._sums["train"]["sampling/sampling_logp_difference/max"]
            note[0], note[1] = max(float(note[0]), float(apart.max())), 1

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """See `PreferenceTrainer.compute_loss`."""
        if "ptx" in inputs["part"]:
            return self._ptx_loss(model, inputs["part"])
        self._sampled = inputs["part"]["sampled"]
        return super().compute_loss(model, inputs, *args, **kwargs)

    def _ptx_loss(self, model: nn.Module, part: dict[str, Any]) -> Tensor:
        """The weighted mean over tokens of -log pi of one part's demonstrations."""
        losses = -self.policy.engine(part["packed"], model=model).tokens
        self._add("ptx/loss", losses.detach())
        return self.options.ptx_coef * losses.sum() * self.accelerator.num_processes / part["ptx"]

    # Checkpoints

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Beside everything else the round, in the middle of which the run may stop, and a moved reference."""
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        folder.mkdir(parents=True, exist_ok=True)
        number, examples = self._round
        rows = [
            (
                list(e.group.prompt),
                [list(r) for r in e.group.responses],
                e.columns,
                e.origin,
                e.sampled,
                e.reference,
                e.credit,
                e.learned,
            )
            for e in examples
        ]
        torch.save({"number": number, "rows": rows}, folder / f"{self.args.process_index}-{_ROUND}")
        if self._look_ahead is not None and self._look_ahead.ahead and self.args.should_save:
            torch.save(self._look_ahead.state(), folder / _BEGAN)
        if self._past is not None and self.args.should_save:
            torch.save(self._past.state(), folder / _PAST)
        if self._moves_reference and self.args.should_save:
            torch.save(self.reference.state(), folder / _REFERENCE)  # type: ignore[union-attr]
        super()._save_checkpoint(model, trial)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        folder = Path(resume_from_checkpoint)
        file = folder / f"{self.args.process_index}-{_ROUND}"
        if file.exists():
            kept = torch.load(file, weights_only=True)
            examples = [
                Example(Group(array("i", prompt), [array("i", r) for r in responses]), *rest)
                for prompt, responses, *rest in kept["rows"]
            ]
            self._round = kept["number"], examples
        if self._look_ahead is not None and (folder / _BEGAN).exists():
            self._look_ahead.restore(torch.load(folder / _BEGAN, weights_only=True))
        if self._past is not None:
            self._past.restore(torch.load(folder / _PAST, weights_only=True))
        if self._moves_reference:
            self.reference.restore(torch.load(folder / _REFERENCE, weights_only=True))  # type: ignore[union-attr]

    @property
    def _moves_reference(self) -> bool:
        return self.reference is not None and self.options.ref_model_sync_steps is not None


class _Turns(Dataset[int]):
    """As many places as there are prompts to take in an epoch; what stands there is decided by the step."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> int:
        return index


def _learned(example: Example, values: Tensor) -> Tensor:
    """Values of tokens, 0 where the token does not count."""
    return values if example.learned is None else values.masked_fill(~example.learned, 0.0)


def _sums(examples: Sequence[Example], tokens: Tensor) -> Tensor:
    """Values of all tokens of some rollouts, those that do not count left out, added up to one per response, [n, K]."""
    sizes = torch.tensor([[len(r) for r in e.group.responses] for e in examples])
    counted = torch.cat([_learned(e, some) for e, some in zip(examples, tokens.split(sizes.sum(1).tolist()))])
    return torch.stack([part.sum() for part in counted.split(sizes.flatten().tolist())]).view(sizes.shape)


def _comes_by(step: int, taken: int, every: int) -> bool:
    """Whether a multiple of `every` lies within the `taken` steps before this one."""
    return step // every > max(step - taken, 0) // every


def _place(place: int, size: int, args: Any, key: int) -> int:
    """What stands at a place of the endless sequence of shuffled things."""
    turn, index = divmod(place, size)
    order = torch.randperm(size, generator=_generator(order_seed(args), key, turn))
    return int(order[index])


def _generator(seed: int, *key: int) -> torch.Generator:
    """A generator of its own for each key."""
    mixed = hashlib.blake2b(repr((seed, *key)).encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(mixed, "big"))
