"""A rough forecast of a training run's memory and time. An estimate, and marked as such wherever it is shown."""

from __future__ import annotations

import time
from dataclasses import dataclass

#: Width over depth of the usual decoder (Llama 7B: 4096 / 32).
ASPECT = 128
#: Share of the measured matrix speed that training reaches.
UTILISATION = 0.5


@dataclass(frozen=True)
class Estimate:
    """Bytes and seconds.

    Attributes:
        weights: parameters, gradients and optimiser state of full fine-tuning.
        adapter: the parameters alone, as with LoRA.
        reference: a second copy of the parameters.
        activations: what is kept for the backward pass of one group.
        seconds: one epoch.
        speed: floating-point operations per second, measured here.
    """

    weights: float
    adapter: float
    reference: float
    activations: float
    seconds: float
    speed: float


def estimate(parameters: int, longest: int, tokens: int, *, bytes_per_number: int = 4) -> Estimate:
    """Memory and time of training with AdamW and a reference model.

    With N parameters, b bytes per number, T tokens in the longest group and S tokens in the epoch:

    - weights, gradients and two moments: ``N (b + b + 8)`` bytes (moments in fp32);
    - a reference model: ``N b`` bytes;
    - activations: ``17 b d L T`` bytes for depth L and width d, without checkpointing and with fused attention
      (34 bytes per token, width and layer at two bytes a number: Korthikanti et al., arXiv:2205.05198), where
      ``N = 12 L d^2`` and ``d = 128 L`` give L and d; the logits are not in it, since the head runs in chunks;
    - time: ``8 N S`` operations (2 forward, 4 backward, 2 for the reference) at half the speed that a matrix
      product reaches here, measured while this runs.

    Args:
        parameters: N.
        longest: T.
        tokens: S, prompts counted once per group.
        bytes_per_number: b; 4 for fp32, 2 for bf16.
    """
    depth = (parameters / (12 * ASPECT**2)) ** (1 / 3)
    speed = _speed()
    return Estimate(
        weights=parameters * (2 * bytes_per_number + 8),
        adapter=parameters * bytes_per_number,
        reference=parameters * bytes_per_number,
        activations=17 * bytes_per_number * ASPECT * depth * depth * longest,
        seconds=8 * parameters * tokens / (speed * UTILISATION),
        speed=speed,
    )


def _speed(size: int = 512, seconds: float = 0.05) -> float:
    """Operations per second of a matrix product on the device that training would take."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    kind = torch.bfloat16 if device == "cuda" else torch.float32
    size = size if device == "cpu" else 8 * size
    a = torch.ones(size, size, device=device, dtype=kind)
    (a @ a).sum().item()  # the first one also loads the library
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        (a @ a)[0, 0].item()
        count += 1
    return 2 * size**3 * count / (time.perf_counter() - start)
