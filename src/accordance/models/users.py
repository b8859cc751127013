"""Users: soft tokens that stand before a prompt and say who is asking, learned beside the model.

Token ids from the size of the vocabulary on stand for these vectors: they are looked up where the model embeds its
inputs. So attention, positions, packing, log-probabilities and generation take them for tokens like any others, and
the model's own weights, its names and its checkpoint stay what they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from accordance.core.catalogue import system
from accordance.core.errors import ConfigError, ModelError
from accordance.core.objective import Auxiliary
from accordance.models.engine import relative_gap, unwrap
from accordance.models.packing import Group

#: The files beside a checkpoint.
NAMES, VECTORS = "users.json", "users.safetensors"
_UNIFORM = 0.5
_NO_GAP = 1e-4


@system("S087", "P-RLHF", paper="arXiv:2402.05133")
class Users(Auxiliary):
    """Learned soft tokens for each user, and for a generic one that stands for everybody who is not known.

    Individual users are ``e_i = e_0 + o_i``: what all share, and a difference of their own, 0 at first. With clusters
    they are mixtures ``e_i = sum_c softmax(w_i)_c v_c`` of vectors that all share; the generic one has its own weights.
    Training is ``users: annotator`` (or ``group``) in a recipe, with any offline objective: see
    `accordance.training.users`. `LocalPolicy.for_user` answers somebody, as `accord generate --user` does.

    Departs from the paper's code: differences are 0 at first and not random, so that a user without judgments is the
    generic one; there is no variant of individual users without a generic one.

    Args:
        names: of the users; the generic one has none.
        start: first values, shape [tokens, width], or [clusters, tokens, width] for clusters.
        vocabulary: the first id that stands for a user's token.
        texts: what some users say of themselves, by name; it stands before their soft tokens.

    Attributes:
        names: of the users, number 1 first.
        tokens: soft tokens of each user.
        clusters: how many vectors they share; 0 for individual users.

    Raises:
        ConfigError: a name is there twice, or nobody is named.
    """

    def __init__(
        self,
        names: Sequence[str],
        start: Tensor,
        vocabulary: int,
        texts: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        if not names or len(set(names)) != len(names) or not all(names):
            raise ConfigError("users need different names", where="users", found=list(names))
        self.names, self.vocabulary, self.texts = tuple(names), vocabulary, dict(texts or {})
        self.tokens, self.clusters = start.shape[-2], len(start) if start.ndim == 3 else 0
        if self.clusters:
            self.shared = nn.Parameter(start.detach().clone())
            self.weights = nn.Parameter(start.new_zeros(len(names) + 1, self.clusters))
        else:
            self.generic = nn.Parameter(start.detach().clone())
            self.own = nn.Parameter(start.new_zeros(len(names), *start.shape))
        self._asked: Tensor | None = None

    def attach(self, width: int, layers: int) -> None:
        """Nothing: the vectors are made from the model and the names of its users."""

    def ids(self, name: str | None) -> tuple[int, ...]:
        """Token ids of a user; of the generic one for None and for names that are not known."""
        number = self.names.index(name) + 1 if name in self.names else 0
        first = self.vocabulary + number * self.tokens
        return tuple(range(first, first + self.tokens))

    def forward(self, index: Tensor) -> Tensor:
        """Vectors of some users' tokens, shape [..., width].

        Args:
            index: token ids less the size of the vocabulary, shape [...].
        """
        user, place = index // self.tokens, index % self.tokens
        if self.clusters:
            share = torch.softmax(self.weights, -1)[user]
            return (share[..., None] * self.shared[:, place].movedim(0, -2)).sum(-2)
        own = self.own[(user - 1).clamp(min=0), place]
        return self.generic[place] + own * (user > 0)[..., None]

    @torch.no_grad()
    def add(self, names: Sequence[str]) -> None:
        """Make room for further users, who are as the generic one at first; known names stay what they are."""
        fresh = [name for name in dict.fromkeys(names) if name not in self.names]
        if not all(fresh):
            raise ConfigError("a user has a name", where="users")
        if self.clusters:
            self.weights = nn.Parameter(torch.cat([self.weights, self.weights[:1].expand(len(fresh), -1)]))
        else:
            self.own = nn.Parameter(torch.cat([self.own, self.own.new_zeros(len(fresh), *self.generic.shape)]))
        self.names += tuple(fresh)

    def _before(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """What the embedding is asked: ids that it knows."""
        mine = args[0] >= self.vocabulary
        self._asked = args[0] if bool(mine.any()) else None
        return (args[0].masked_fill(mine, 0), *args[1:])

    def _after(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """What it answers: with the users' vectors in their places."""
        if self._asked is None:
            return output
        asked, self._asked = self._asked, None
        mine, output = asked >= self.vocabulary, output.clone()
        output[mine] = self(asked[mine] - self.vocabulary).to(output.dtype)
        return output


def users_of(model: nn.Module) -> Users | None:
    """The users of a model, bare or wrapped; None where it has none."""
    return getattr(unwrap(model), "_accordance_users", None)


def attach_users(model: nn.Module, users: Users) -> None:
    """Let a model look up the users' token ids. They are no part of its weights.

    Raises:
        ModelError: it has users already, other users' ids, or reads token ids in more places than its embedding.
    """
    bare = unwrap(model)
    embedding = bare.get_input_embeddings()
    if users_of(model) is not None:
        raise ModelError("the model has users already", where=type(bare).__name__)
    if embedding.weight.shape[0] != users.vocabulary:
        raise ModelError(
            "the users belong to a model with another vocabulary",
            where=type(bare).__name__,
            found=f"{embedding.weight.shape[0]} embeddings",
            expected=f"{users.vocabulary}",
        )
    users.to(embedding.weight.device)
    hooks = embedding.register_forward_pre_hook(users._before), embedding.register_forward_hook(users._after)
    object.__setattr__(bare, "_accordance_users", users)  # beside the model's modules, not among them
    try:
        _measure(bare, users)
    except Exception as error:
        for hook in hooks:
            hook.remove()
        object.__delattr__(bare, "_accordance_users")
        raise ModelError(
            f"users' tokens can't stand before a prompt of {type(bare).__name__}: {error}",
            remedy="a model that reads its token ids in its input embedding alone",
        ) from error


def add_users(
    model: nn.Module,
    names: Sequence[str],
    *,
    tokens: int = 4,
    clusters: int = 0,
    frequent: Sequence[int] | None = None,
    seed: int = 0,
    texts: Mapping[str, str] | None = None,
) -> Users:
    """Give a model users, or add to those that it has.

    Args:
        model: a transformers causal LM, bare or wrapped in PEFT.
        names: of the users.
        tokens: soft tokens of each.
        clusters: vectors that users are mixtures of; 0 for individual users.
        frequent: token ids whose embeddings are the first values, most frequent first, read round and round where there
            are too few; None for uniform values between -0.5 and 0.5.
        seed: of those.
        texts: what users say of themselves, by name.

    Raises:
        ConfigError: see `Users`; or the model has users of another kind or size.
        ModelError: see `attach_users`.
    """
    there = users_of(model)
    if there is not None:
        if (there.tokens, there.clusters) != (tokens, clusters):
            raise ConfigError(
                "the model's users are of another kind",
                where="users",
                found=f"user_tokens={tokens}, user_clusters={clusters}",
                expected=f"user_tokens={there.tokens}, user_clusters={there.clusters}",
            )
        there.add(names)
        there.texts |= dict(texts or {})
        return there
    embedding = unwrap(model).get_input_embeddings()
    rows = max(clusters, 1) * tokens
    if frequent is None:
        draw = torch.Generator().manual_seed(seed)
        start = (torch.rand(rows, embedding.weight.shape[1], generator=draw) * 2 - 1) * _UNIFORM
    else:
        chosen = [frequent[place % len(frequent)] for place in range(rows)]
        with torch.no_grad():
            start = embedding(torch.tensor([chosen], device=embedding.weight.device))[0].float()
    shape = (clusters, tokens, -1) if clusters else (tokens, -1)
    made = Users(names, start.view(*shape), embedding.weight.shape[0], texts)
    attach_users(model, made)
    return made


def save_users(model: nn.Module, folder: str | Path) -> None:
    """Write a model's users beside its checkpoint: `users.json` and `users.safetensors`; nothing where it has none."""
    users = users_of(model)
    if users is None:
        return
    said = {
        "names": list(users.names),
        "tokens": users.tokens,
        "clusters": users.clusters,
        "vocabulary": users.vocabulary,
        "texts": users.texts,
    }
    state = {name: value.detach().cpu().contiguous() for name, value in users.state_dict().items()}
    save_file(state, str(Path(folder) / VECTORS))
    (Path(folder) / NAMES).write_text(json.dumps(said, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def restore_users(model: nn.Module, names: str | Path, vectors: str | Path) -> Users:
    """Give a model the users that `save_users` wrote.

    Args:
        model: the model that they were trained with.
        names, vectors: the two files.

    Raises:
        ModelError: the files do not fit each other, or the model.
    """
    said, state = json.loads(Path(names).read_text(encoding="utf-8")), load_file(str(vectors))
    start = state["shared" if said["clusters"] else "generic"]
    made = Users(said["names"], start, said["vocabulary"], said["texts"])
    try:
        made.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(
            "the users' names and vectors do not belong together", where=str(names), found=str(error)
        ) from error
    attach_users(model, made)
    return made


def nobody(group: Group, vocabulary: int) -> Group:
    """The group as a model sees it that knows no users: without the ids before its prompt that say who is asking.

    Args:
        group: with or without them.
        vocabulary: the first id that stands for a user's token.
    """
    last = max((place for place, token in enumerate(group.prompt) if token >= vocabulary), default=-1)
    return group if last < 0 else replace(group, prompt=group.prompt[last + 1 :])


@torch.no_grad()
def _measure(bare: Any, users: Users) -> None:
    """Compare scores of users' ids with those of their vectors put in by hand."""
    device = bare.get_input_embeddings().weight.device
    own = torch.tensor([[*users.ids(users.names[-1]), *range(3, 6)]], device=device)
    words = bare.get_input_embeddings()(own[:, users.tokens :])
    vectors = users(own[:, : users.tokens] - users.vocabulary).to(words.dtype)
    training = bare.training
    bare.eval()
    try:
        ours = bare(input_ids=own, use_cache=False).logits
        plain = bare(inputs_embeds=torch.cat([vectors, words], 1), use_cache=False).logits
    finally:
        bare.train(training)
    off = relative_gap(ours.float(), plain.float())
    if not off <= (_NO_GAP if words.dtype == torch.float32 else 0.05):
        raise ValueError(f"its scores are off by {off:.1e}")
