"""One reference provider: log-probabilities under the model that training must not stray from.

They come from a second model, from the adapter switched off, or from a cache on disk. The cache has one entry per
response, keyed by the token ids of prompt and response and, through its file, by a hash of the reference's weights:
it survives shuffling, subsetting and appending, and can't be stale.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from accordance.models.distributions import HeadTable
from accordance.models.engine import Engine, unwrap
from accordance.models.packing import Group, batches


@dataclass(frozen=True)
class ReferenceLogps:
    """Reference log-probabilities of the responses of some groups, in order.

    Attributes:
        logp: summed over tokens, shape [responses].
        tokens: per token, shape [tokens].
        table: its whole distributions at the tokens, where asked for.
        layers: its hidden states of all layers at the tokens, where asked for; see `GroupLogps`.
    """

    logp: Tensor
    tokens: Tensor
    table: HeadTable | None = None
    layers: Tensor | None = None


class Reference:
    """Reference log-probabilities straight from a model.

    Args:
        engine: the reference model's engine.
        context: what to be in while it is called; switching an adapter off, for instance.
        max_tokens: positions per forward pass.

    Attributes:
        table: whether it returns whole distributions as well.
        layers: whether it returns the hidden states of all layers as well.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        context: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext,
        max_tokens: int = 16_384,
    ) -> None:
        self.engine, self.context, self.max_tokens = engine, context, max_tokens
        self.table = self.layers = False

    @torch.no_grad()
    def __call__(self, groups: Sequence[Group]) -> ReferenceLogps:
        """Log-probabilities of every response of the groups."""
        training = self.engine.bare.training
        self.engine.bare.eval()
        found = []
        try:
            with self.context():
                for batch in batches(groups, self.max_tokens, shared=self.engine.shared):
                    found.append(self.engine(batch, table=self.table, layers=self.layers))
        finally:
            self.engine.bare.train(training)
        tables = [out.table for out in found if out.table is not None]
        return ReferenceLogps(
            torch.cat([out.logp for out in found]),
            torch.cat([out.tokens for out in found]),
            replace(tables[0], states=torch.cat([table.states for table in tables])) if tables else None,
            torch.cat([out.layers for out in found if out.layers is not None]) if self.layers else None,
        )


class CopiedReference(Reference):
    """A reference that is a copy of a model as it is now, and can be brought up to it later.

    Args:
        engine: of the model to copy.
        max_tokens: positions per forward pass.
    """

    def __init__(self, engine: Engine, *, max_tokens: int = 16_384) -> None:
        copy: Any = deepcopy(engine.model)
        bare = unwrap(copy)
        bare.__dict__.pop("forward", None)  # taught to the original alone
        bare._accordance_patched = False
        copy.requires_grad_(False).eval()
        super().__init__(Engine(copy, shared=engine.shared), max_tokens=max_tokens)

    def sync(self, model: nn.Module) -> None:
        """Take the weights of the model as they are now."""
        self.engine.model.load_state_dict(model.state_dict())

    def state(self) -> dict[str, Tensor]:
        """The weights, for a checkpoint."""
        return dict(self.engine.model.state_dict())

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take the weights of a checkpoint."""
        self.engine.model.load_state_dict(state)


class CachedReference:
    """Reference log-probabilities from a file, computed where they are missing.

    Args:
        source: what computes them; None where all are expected in the file.
        weights: hash of the reference's weights (`weights_hash`).
        folder: where the files are; by default ``$ACCORD_CACHE`` or ``~/.cache/accordance``.

    Attributes:
        hits, misses: responses found and responses computed so far.
    """

    def __init__(self, source: Reference | None, weights: str, folder: str | Path | None = None) -> None:
        place = Path(folder or os.environ.get("ACCORD_CACHE") or Path.home() / ".cache" / "accordance")
        place.mkdir(parents=True, exist_ok=True)
        self.source, self.path = source, place / f"reference-{weights}.sqlite"
        self.hits = self.misses = 0
        self._db = sqlite3.connect(self.path, timeout=60)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("CREATE TABLE IF NOT EXISTS logps (key BLOB PRIMARY KEY, total REAL, tokens BLOB)")

    def __call__(self, groups: Sequence[Group]) -> ReferenceLogps:
        """Log-probabilities of every response of the groups, on the CPU; missing ones are computed and kept."""
        found = self._look_up([key for group in groups for key in group_keys(group)])
        missing = [group for group in groups if not all(key in found for key in group_keys(group))]
        if missing:
            found |= self._compute(missing)
        rows = [found[key] for group in groups for key in group_keys(group)]
        tokens = np.concatenate([np.frombuffer(blob, dtype=np.float32) for _, blob in rows])
        return ReferenceLogps(torch.tensor([total for total, _ in rows]), torch.from_numpy(tokens.copy()))

    def prepare(self, groups: Sequence[Group], *, step: Callable[[int], object] | None = None) -> int:
        """Make sure that all groups are in the file; returns how many responses had to be computed.

        Args:
            groups: the groups that training will ask for.
            step: called with the number of groups done, for progress.
        """
        before = self.misses
        for start in range(0, len(groups), 256):
            self(groups[start : start + 256])
            if step is not None:
                step(min(start + 256, len(groups)))
        return self.misses - before

    def _look_up(self, keys: Sequence[bytes]) -> dict[bytes, tuple[float, bytes]]:
        found: dict[bytes, tuple[float, bytes]] = {}
        for start in range(0, len(keys), 500):
            part = keys[start : start + 500]
            marks = ",".join("?" * len(part))
            rows = self._db.execute(f"SELECT key, total, tokens FROM logps WHERE key IN ({marks})", part)
            found |= {key: (total, blob) for key, total, blob in rows}
        self.hits += sum(key in found for key in keys)
        return found

    def _compute(self, groups: Sequence[Group]) -> dict[bytes, tuple[float, bytes]]:
        if self.source is None:
            raise KeyError(f"{len(groups)} groups are not in {self.path}")
        out = self.source(groups)
        sizes = [len(r) if g.prompt else len(r) - 1 for g in groups for r in g.responses]
        values = np.split(out.tokens.float().cpu().numpy(), np.cumsum(sizes)[:-1])
        totals = out.logp.double().cpu().tolist()
        keys = [key for group in groups for key in group_keys(group)]
        fresh = {key: (total, value.tobytes()) for key, total, value in zip(keys, totals, values)}
        with self._db:
            self._db.executemany(
                "INSERT OR IGNORE INTO logps VALUES (?, ?, ?)", [(key, *value) for key, value in fresh.items()]
            )
        self.misses += len(keys)
        return fresh


def group_keys(group: Group) -> Iterator[bytes]:
    """A key for each response of a group: a hash of the tokens of prompt and response, and of the head."""
    prompt = np.asarray(group.prompt, dtype=np.int32).tobytes()
    for response in group.responses:
        digest = hashlib.blake2b(len(prompt).to_bytes(8, "big") + prompt, digest_size=16)
        digest.update(np.asarray(response, dtype=np.int32).tobytes())
        if group.head is not None:
            digest.update(f"head {group.head}".encode())
        yield digest.digest()


def weights_hash(model: nn.Module, *, adapter: bool = False) -> str:
    """A hash of a model's weights and of what else decides its log-probabilities.

    Args:
        model: bare, or wrapped in PEFT.
        adapter: whether the adapter's weights count; without them it is the hash of the model with the adapter
            switched off, wherever the adapter stands.
    """
    digest = hashlib.blake2b(digest_size=12)
    rows = []
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if not adapter and ("lora_" in name or "modules_to_save" in name):
            continue
        plain = (
            name.replace("base_model.model.", "").replace(".base_layer.", ".").replace(".original_module.", ".")
        )
        rows.append((plain, value))
    for name, value in sorted(rows, key=lambda row: row[0]):
        data = value.detach().cpu().contiguous().reshape(-1)
        digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        digest.update(data.view(torch.uint8).numpy().tobytes() if data.numel() else b"")
    return digest.hexdigest()
