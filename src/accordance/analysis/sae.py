"""A signed sparse autoencoder over embedding differences: the few ways in which two responses differ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from accordance.core.errors import ConfigError, DataError

#: Batches without an activation after which a unit is helped back.
_SILENT = 256
#: Weight of what the silent units explain of the rest.
_HELP = 1 / 32


class SignedSAE(nn.Module):
    """BatchTopK autoencoder whose activations keep their sign (arXiv:2510.26202).

    In training the batch_size * active largest |activations| of a batch are kept; at inference those above a
    running threshold, so that what one comparison shows does not depend on its batch. There are no offsets: the
    two sides are exchangeable, so the mirror image of a comparison must have the opposite activations.

    Args:
        inputs: d, size of the embedding.
        units: size of the dictionary.
        active: units that a comparison activates, on average.
        signed: False is an ordinary ReLU autoencoder, for comparison.
    """

    threshold: Tensor

    def __init__(self, inputs: int, units: int = 32, active: int = 4, *, signed: bool = True) -> None:
        super().__init__()
        if not 0 < active <= units:
            raise ConfigError("0 < active <= units", found=f"active={active}, units={units}")
        self.active, self.signed = active, signed
        directions = nn.functional.normalize(torch.randn(units, inputs), dim=1)
        self.decode = nn.Parameter(directions.clone())  # rows are directions of length 1
        self.encode = nn.Parameter(directions.clone())
        self.register_buffer("threshold", torch.tensor(0.0))

    def preactivations(self, x: Tensor) -> Tensor:
        """Before anything is set to zero, shape [n, units]."""
        a = x @ self.encode.T
        return a if self.signed else a.relu()

    def forward(self, x: Tensor) -> Tensor:
        """Sparse signed activations at inference, shape [n, units]."""
        a = self.preactivations(x)
        return a * (a.abs() > self.threshold)

    def sparse(self, a: Tensor) -> tuple[Tensor, Tensor]:
        """The largest |activations| of the batch, and the smallest of those."""
        least = a.abs().flatten().topk(min(len(a) * self.active, a.numel())).values[-1]
        return a * (a.abs() >= least), least

    def rebuild(self, z: Tensor) -> Tensor:
        """Activations back into embedding differences, shape [n, d]."""
        return z @ self.decode

    @torch.no_grad()
    def keep_unit_norm(self) -> None:
        """Decoder directions back to length 1."""
        self.decode /= self.decode.norm(dim=1, keepdim=True).clamp_min(1e-8)


@dataclass(frozen=True)
class Fitted:
    """A trained autoencoder.

    Attributes:
        model: takes differences divided by `scale`.
        scale: one number by which differences are divided.
        explained: share of the variance that it gives back on the data held out, at inference.
        epochs: trained.
    """

    model: SignedSAE
    scale: float
    explained: float
    epochs: int

    @torch.no_grad()
    def activations(self, differences: np.ndarray) -> np.ndarray:
        """Signed activations, shape [n, units]; the mirror image of a comparison gives the opposite sign."""
        x = torch.from_numpy(np.asarray(differences, dtype=np.float32) / self.scale)
        return self.model(x).double().numpy()


def fit_sae(
    differences: np.ndarray,
    units: int = 32,
    active: int = 4,
    *,
    epochs: int = 200,
    batch_size: int = 512,
    learning_rate: float = 5e-4,
    patience: int = 5,
    signed: bool = True,
    seed: int = 0,
) -> Fitted:
    """Train on differences of embeddings; labels are never seen.

    Args:
        differences: first less second, shape [n, d].
        units, active, signed: see `SignedSAE`.
        epochs: at most.
        batch_size, learning_rate: of Adam.
        patience: epochs without a better held-out loss after which training stops.
        seed: of initialisation and batches.

    Raises:
        DataError: fewer comparisons than units, or differences that do not vary.
    """
    n, d = differences.shape
    scale = float(np.sqrt((differences**2).mean()))
    if n < max(units, 20) or not scale > 0:
        raise DataError("too little to find directions in", found=f"{n} comparisons, spread {scale:.2g}")
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SignedSAE(d, units, active, signed=signed)
    x = torch.from_numpy(np.asarray(differences, dtype=np.float32) / scale)
    order = torch.randperm(n, generator=generator)
    held, x = x[order[: n // 10]], x[order[n // 10 :]]
    optimiser = torch.optim.Adam(model.parameters(), learning_rate)
    silent = torch.zeros(units)
    best, waited, state, done = np.inf, 0, model.state_dict(), 0
    for done in range(1, epochs + 1):  # noqa: B007
        for rows in torch.randperm(len(x), generator=generator).split(batch_size):
            _step(model, optimiser, x[rows], silent)
        with torch.no_grad():
            loss = float(_nmse(model.rebuild(model(held)), held))
        if loss < best - 1e-4:
            best, waited = loss, 0
            state = {name: value.clone() for name, value in model.state_dict().items()}
        else:
            waited += 1
            if waited > patience:
                break
    model.load_state_dict(state)
    return Fitted(model.eval(), scale, 1 - best, done)


def _step(model: SignedSAE, optimiser: torch.optim.Optimizer, x: Tensor, silent: Tensor) -> None:
    a = model.preactivations(x)
    z, least = model.sparse(a)
    guess = model.rebuild(z)
    loss = _nmse(guess, x)
    silent += 1
    silent[(z != 0).any(0)] = 0
    dead = silent > _SILENT
    if dead.any():
        rest = (x - guess).detach()
        some = a * dead
        kept = some * (some.abs() >= some.abs().topk(min(2 * model.active, a.shape[1]), dim=1).values[:, -1:])
        loss = loss + _HELP * _nmse(kept @ model.decode, rest)
    optimiser.zero_grad()
    loss.backward()
    if model.decode.grad is not None:  # along a direction the gradient would only change its length
        along = (model.decode.grad * model.decode.detach()).sum(1, keepdim=True)
        model.decode.grad -= along * model.decode.detach()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    model.keep_unit_norm()
    model.threshold.copy_(
        least.detach() if model.threshold == 0 else 0.99 * model.threshold + 0.01 * least.detach()
    )


def _nmse(guess: Tensor, x: Tensor) -> Tensor:
    """Mean squared error over that of no difference, the best guess that treats both sides alike."""
    return ((guess - x) ** 2).mean() / (x**2).mean().clamp_min(1e-12)
