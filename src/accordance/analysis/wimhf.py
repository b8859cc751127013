"""WIMHF: which few ways in which responses differ the data can measure, and which of them the labels reward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import stats as scipy_stats

from accordance.analysis.embedding import Embedder, HashedText
from accordance.analysis.features import Differences
from accordance.analysis.sae import Fitted, fit_sae
from accordance.analysis.table import PairTable
from accordance.core.catalogue import system
from accordance.core.errors import ConfigError

#: Names a feature from (prompt, text that has more of it, text that has less), the clearest first.
Namer = Callable[[Sequence[tuple[str, str, str]]], str]
#: Which of two texts has more of a concept: 1 the first, -1 the second, 0 neither.
Annotator = Callable[[str, str, str, str], int]


@system("S062", "WIMHF", paper="arXiv:2510.26202")
@dataclass
class SparseFeatures:
    """Features found without a list of hypotheses: a sparse autoencoder over differences of embeddings.

    A `FeatureMaker`: pass it to `explain` or `analyse`, beside or instead of rules. Departs from the paper in that
    the autoencoder has no offsets, since the sides are exchangeable, and in that there is no Matryoshka loss.

    Attributes:
        units, active: size of the dictionary, and how many of it a comparison activates on average.
        embed: texts into vectors; hashed words by default, which needs no model and sees wording only.
        namer: names a unit from five comparisons that show it; by default units are named by number.
        annotator: says which of two texts has more of a named concept; names that its answers don't bear out
            on comparisons held out (Pearson, Bonferroni at 5%) are given up, and their units left out.
        epochs, batch_size, learning_rate, seed: of training; a few hundred comparisons want smaller batches and a
            larger rate than the paper's, which are the defaults.
        fitted: the autoencoder, after `differences`.
        fidelity: name -> correlation of the annotator's answers with the activations, after `differences`.
    """

    units: int = 32
    active: int = 4
    embed: Embedder = field(default_factory=HashedText)
    namer: Namer | None = None
    annotator: Annotator | None = None
    epochs: int = 200
    batch_size: int = 512
    learning_rate: float = 5e-4
    seed: int = 0
    fitted: Fitted | None = None
    fidelity: dict[str, float] = field(default_factory=dict)

    def differences(self, table: PairTable) -> Differences:
        """See `FeatureMaker.differences`."""
        if self.annotator is not None and self.namer is None:
            raise ConfigError("an annotator checks names, so it has no effect without a namer")
        vectors = np.asarray(self.embed(table.texts.to_pylist()), dtype=np.float64)
        gaps = vectors[table.first] - vectors[table.second]
        self.fitted = fit_sae(
            gaps,
            self.units,
            self.active,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=self.seed,
        )
        z = self.fitted.activations(gaps)
        alive = [j for j in range(z.shape[1]) if (z[:, j] != 0).sum() >= 5]
        names = {j: self._name(table, z[:, j], j) for j in alive}
        kept = [j for j in alive if self._borne_out(table, z[:, j], names[j], len(alive))]
        unique = [
            name if list(names.values()).count(name) == 1 else f"{name} ({j})"
            for j, name in names.items()
            if j in kept
        ]
        return Differences(tuple(unique), z[:, kept])

    def _shown(self, table: PairTable, z: np.ndarray, place: int) -> tuple[str, str, str]:
        a, b = int(table.first[place]), int(table.second[place])
        more, less = (a, b) if z[place] > 0 else (b, a)
        return (
            table.prompts[int(table.text_prompt[a])].as_py(),
            table.texts[more].as_py(),
            table.texts[less].as_py(),
        )

    def _name(self, table: PairTable, z: np.ndarray, unit: int) -> str:
        if self.namer is None:
            return f"unit {unit}"
        return self.namer([self._shown(table, z, int(i)) for i in np.argsort(-np.abs(z))[:5]])

    def _borne_out(self, table: PairTable, z: np.ndarray, name: str, tests: int) -> bool:
        if self.annotator is None:
            return True
        places = np.argsort(-np.abs(z))[5:]  # not those that the name was made from
        places = places[z[places] != 0]
        some = np.random.default_rng(self.seed).permutation(places)[:300]
        said = []
        for i in some:
            prompt, more, less = self._shown(table, z, int(i))
            said.append(self.annotator(name, prompt, more, less) * np.sign(z[i]))
        if len(said) < 10 or np.std(said) == 0:
            return False
        r, p = scipy_stats.pearsonr(said, z[some])
        self.fidelity[name] = float(r)  # type: ignore[arg-type]
        return bool(p * tests < 0.05 and r > 0)  # type: ignore[operator]


def relabel(table: PairTable, z: np.ndarray, unwanted: int, many: int) -> tuple[PairTable, np.ndarray]:
    """Flip the labels of the comparisons that show a feature most and go the unwanted way.

    Args:
        table: the comparisons.
        z: the feature's differences, shape [n].
        unwanted: 1 where preferring more of it is unwanted, -1 where preferring less is.
        many: how many labels to flip, at most.

    Returns:
        The new table, and the indices of the flipped comparisons.

    Raises:
        ConfigError: `unwanted` is neither 1 nor -1.
    """
    if unwanted not in (1, -1):
        raise ConfigError("unwanted is 1 or -1", found=unwanted)
    wrong = np.flatnonzero(z * table.sign * unwanted > 0)
    flipped = wrong[np.argsort(-np.abs(z[wrong]), kind="stable")[:many]]
    label = table.label.copy()
    label[flipped] = 1 - label[flipped]
    return table.with_labels(label), flipped
