"""Losses computed by TRL's own trainers on random log-probabilities, to hold ours against.

The trainers' methods run as they are; only what surrounds them (model, accelerator, configuration) is a
stand-in that hands over prepared log-probabilities or logits. Nothing of TRL's formulas is repeated here.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from accordance.core.objective import PairLogps, UnaryLogps


@dataclass
class TokenTable:
    """Per-token log-probs of m responses, padded, as TRL's trainers see them (position 0 predicts nothing)."""

    leaf: Tensor  # [m, T - 1], takes gradients
    ref: Tensor  # [m, T - 1]
    completion: Tensor  # [m, T], 1 on the response's tokens

    @classmethod
    def random(cls, m: int, seed: int, spread: float = 1.0) -> TokenTable:
        generator = torch.Generator().manual_seed(seed)
        lengths = torch.randint(1, 9, (m,), generator=generator)
        prompts = torch.randint(1, 4, (m,), generator=generator)
        position = torch.arange(int((lengths + prompts).max()))
        completion = (position >= prompts[:, None]) & (position < (prompts + lengths)[:, None])
        mask = completion[:, 1:]
        draw = [-torch.rand(mask.shape, generator=generator) * 2 * spread * mask for _ in range(2)]
        return cls(draw[0].requires_grad_(), draw[1], completion.long())

    @property
    def logps(self) -> Tensor:
        return self.leaf * self.completion[:, 1:]

    @property
    def lengths(self) -> Tensor:
        return self.completion.sum(1)

    def pairs(self) -> PairLogps:
        """The first half of the rows as chosen, the second as rejected."""
        logp, ref = self.logps.sum(1).chunk(2), self.ref.sum(1).chunk(2)
        return PairLogps(*logp, *self.lengths.chunk(2), *ref)


def _accelerator() -> SimpleNamespace:
    def same(x: Tensor) -> Tensor:
        return x

    def reduce(x: Tensor, reduction: str) -> Tensor:
        return x

    return SimpleNamespace(
        device=torch.device("cpu"), gather=same, gather_for_metrics=same, reduce=reduce, num_processes=1
    )


def _bookkeeping() -> dict[str, Any]:
    return {
        "model": SimpleNamespace(training=True),
        "accelerator": _accelerator(),
        "aux_loss_enabled": False,
        "precompute_ref_logps": True,
        "_metrics": {"train": defaultdict(list)},
        "_total_train_tokens": 0,
        "_tp_size": 1,
    }


def _model_of(table: TokenTable, log_sum_sq_probs: Tensor | None = None) -> Any:
    zeros = torch.zeros_like(table.logps)
    outputs = SimpleNamespace(log_probs=table.logps, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool())
    outputs.log_sum_sq_probs = log_sum_sq_probs
    return lambda **_: outputs


def trl_dpo(
    table: TokenTable, loss_type: str, log_sum_sq_probs: Tensor | None = None, **options: Any
) -> Tensor:
    """`trl.DPOTrainer._compute_loss` on the pairs of a table: the mean loss, weighted where sums are given."""
    from trl import DPOTrainer

    trainer = SimpleNamespace(
        **_bookkeeping(),
        ld_alpha=None,
        use_weighting=log_sum_sq_probs is not None,
        loss_types=[loss_type],
        loss_weights=[1.0],
        beta=options.get("beta", 0.1),
        label_smoothing=options.get("label_smoothing", 0.0),
        f_divergence_type=options.get("f_divergence_type", "reverse_kl"),
        f_alpha_divergence_coef=options.get("f_alpha_divergence_coef", 0.5),
        args=SimpleNamespace(discopop_tau=options.get("discopop_tau", 0.05)),
    )
    chosen_ref, rejected_ref = table.ref.sum(1).chunk(2)
    inputs = {
        "input_ids": table.completion,
        "attention_mask": torch.ones_like(table.completion),
        "completion_mask": table.completion,
        "ref_chosen_logps": chosen_ref,
        "ref_rejected_logps": rejected_ref,
    }
    return DPOTrainer._compute_loss(trainer, _model_of(table, log_sum_sq_probs), inputs, False)


def trl_kto(table: TokenTable, bundle: UnaryLogps, loss_type: str = "kto", **options: Any) -> Tensor:
    """`trl.KTOTrainer._compute_loss` on the rows of a table with the bundle's labels: the mean loss."""
    from trl import KTOTrainer

    trainer = SimpleNamespace(
        **_bookkeeping(),
        loss_type=loss_type,
        calculate_KL=loss_type == "kto",
        beta=options.get("beta", 0.1),
        desirable_weight=options.get("desirable_weight", 1.0),
        undesirable_weight=options.get("undesirable_weight", 1.0),
        _compute_kl_logps=lambda model, batch: bundle.kl_logp,
    )
    inputs = {
        "input_ids": table.completion,
        "attention_mask": torch.ones_like(table.completion),
        "completion_mask": table.completion,
        "label": bundle.label,
        "ref_logps": table.ref.sum(1),
        "ref_KL_logps": bundle.kl_ref,
    }
    return KTOTrainer._compute_loss(trainer, _model_of(table), inputs, False)


@dataclass
class LogitPairs:
    """Random logits over the tokens of n pairs, and the pairs of log-probs that they give."""

    logits: Tensor  # [2n, T, V]
    ids: Tensor  # [2n, T]
    completion: Tensor  # [2n, T]

    @classmethod
    def random(cls, n: int, seed: int) -> LogitPairs:
        torch.manual_seed(seed)
        completion = TokenTable.random(2 * n, seed).completion
        return cls(
            torch.randn(*completion.shape, 7, requires_grad=True),
            torch.randint(0, 7, completion.shape),
            completion,
        )

    def pairs(self) -> PairLogps:
        logps = self.logits[:, :-1].log_softmax(-1).gather(-1, self.ids[:, 1:, None])[..., 0]
        sums = (logps * self.completion[:, 1:]).sum(1).chunk(2)
        return PairLogps(*sums, *self.completion.sum(1).chunk(2))

    def batch(self) -> dict[str, Tensor]:
        """The batch as TRL's collators make it; the attention mask leaves the prompt out (see `trl_orpo`)."""
        labels = self.ids.masked_fill(self.completion == 0, -100)
        parts = {"input_ids": self.ids, "attention_mask": self.completion, "labels": labels}
        halves = {name: part.chunk(2) for name, part in parts.items()}
        return {f"{side}_{name}": half[i] for name, half in halves.items() for i, side in enumerate(SIDES)}


SIDES = ("chosen", "rejected")


def _without_init(trainer_class: Any, **attributes: Any) -> Any:
    trainer = object.__new__(trainer_class)
    common = {"accelerator": _accelerator(), "is_encoder_decoder": False, "aux_loss_enabled": False}
    vars(trainer).update(common, pad_token_id=0, padding_value=0, **attributes)
    return trainer


def trl_cpo(data: LogitPairs, loss_type: str, **options: Any) -> Tensor:
    """`trl.experimental.cpo.CPOTrainer.get_batch_loss_metrics`: the mean loss."""
    from trl.experimental.cpo import CPOTrainer

    trainer = _without_init(
        CPOTrainer,
        loss_type=loss_type,
        alpha=0.0,
        beta=options["beta"],
        label_smoothing=options.get("label_smoothing", 0.0),
        cpo_alpha=options.get("cpo_alpha", 1.0),
        simpo_gamma=options.get("simpo_gamma", 0.5),
    )
    model = lambda *_, **__: SimpleNamespace(logits=data.logits)  # noqa: E731
    return trainer.get_batch_loss_metrics(model, data.batch())[0]


def trl_orpo(data: LogitPairs, beta: float) -> Tensor:
    """`trl.experimental.orpo.ORPOTrainer.get_batch_loss_metrics`: the mean loss.

    TRL takes the likelihood over prompt and response wherever the attention mask is 1. The mask of these
    batches leaves the prompt out, so that it is over the response alone, as ORPO's paper writes.
    """
    from trl.experimental.orpo import ORPOTrainer

    model = lambda *_, **__: SimpleNamespace(logits=data.logits)  # noqa: E731
    return _without_init(ORPOTrainer, beta=beta).get_batch_loss_metrics(model, data.batch())[0]


def trl_rollouts(table: TokenTable, old: Tensor, advantages: Tensor, trainer: str, **options: Any) -> Tensor:
    """`_compute_loss` of `trl.GRPOTrainer` or `trl.RLOOTrainer` on the rows of a table as samples: the mean loss.

    Args:
        table: responses; their reference is the reference.
        old: log-probs of their tokens when sampled, of the shape of `table.logps`.
        advantages: one per response.
        trainer: ``GRPOTrainer`` or ``RLOOTrainer``.
        **options: in the place of the defaults below.
    """
    import trl

    mask = table.completion[:, 1:]
    zeros = torch.zeros_like(old)
    common = {
        **_bookkeeping(),
        "_get_per_token_logps_and_entropies": lambda *_, **__: (table.logps, zeros, None),
        "top_entropy_quantile": 1.0,
        "off_policy_mask_threshold": None,
        "importance_sampling_level": "token",
        "use_vllm": False,
        "_entropy_bonus_enabled": False,
        "beta": 0.0,
        "epsilon_low": 0.2,
        "epsilon_high": 0.2,
        "loss_type": "grpo",
        "max_completion_length": 256,
        "args": SimpleNamespace(delta=None, use_bias_correction_kl=False),
    }
    common |= {"model": SimpleNamespace(training=False), "_metrics": {"eval": defaultdict(list)}}
    inputs = {
        "prompt_ids": mask[:, :0],
        "prompt_mask": mask[:, :0],
        "completion_ids": mask,
        "completion_mask": mask,
        "advantages": advantages,
        "old_per_token_logps": old,
        "old_logps": (old * mask).sum(1),
        "ref_per_token_logps": table.ref,
        "num_items_in_batch": mask.sum(),
    }
    return getattr(trl, trainer)._compute_loss(SimpleNamespace(**common | options), None, inputs)
