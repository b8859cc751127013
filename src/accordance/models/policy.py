"""Local weights as a Policy: load, score, generate, save."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from accordance.core.errors import ConfigError, MissingExtra, ModelError
from accordance.core.policy import Completion, Prompt, check_sampling
from accordance.core.record import Message, Record, Records, Response, as_prompt
from accordance.models.encoding import TEMPLATES, Encoded, Encoder
from accordance.models.engine import Engine, unwrap
from accordance.models.generation import Stop, sample
from accordance.models.heads import CONFIG, restore_heads
from accordance.models.packing import Group, batches
from accordance.models.reference import weights_hash
from accordance.models.users import NAMES, VECTORS, Users, restore_users, save_users, users_of


class LocalPolicy:
    """A causal LM with its tokenizer: writes responses and says how likely responses are.

    Args:
        model: a transformers causal LM, bare or wrapped in PEFT.
        tokenizer: its tokenizer, with a chat template where records are conversations.
        name: what reports call it.
        shared: see `Engine`.
        max_tokens: positions per forward pass when scoring and generating.

    Attributes:
        engine: the log-prob path.
        encoder: the tokenisation.
        notes: what had to be settled while loading (a missing pad token, say).
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        *,
        name: str = "policy",
        shared: bool | None = None,
        max_tokens: int = 16_384,
    ) -> None:
        self.model, self.tokenizer, self.name, self.max_tokens = model, tokenizer, name, max_tokens
        self.notes: list[str] = []
        bare = unwrap(model)
        ends = getattr(getattr(bare, "generation_config", None), "eos_token_id", None)
        ends = [ends] if isinstance(ends, int) else list(ends or [])
        vocabulary = bare.get_input_embeddings().weight.shape[0]
        generic = () if self.users is None else self.users.ids(None)
        self.encoder = Encoder(
            tokenizer, frozenset(token for token in ends if token < vocabulary), prefix=generic
        )
        if len(tokenizer) > vocabulary:
            raise ModelError(
                "the tokenizer has more tokens than the model has embeddings",
                where=name,
                found=f"{len(tokenizer)} tokens, {vocabulary} embeddings",
                remedy="load the tokenizer that belongs to the model, or resize_token_embeddings first",
            )
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
            self.notes.append("the tokenizer has no pad token: its end token pads, masked, in generation")
        self.engine = Engine(model, shared=shared)
        if not self.engine.shared:
            self.notes.append(f"prompts are repeated for each response: {self.engine.reason}")

    @property
    def num_parameters(self) -> int:
        """Number of weights."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.engine.device

    @property
    def has_adapter(self) -> bool:
        """Whether an adapter (PEFT) is on the model."""
        return hasattr(self.model, "disable_adapter")

    @property
    def users(self) -> Users | None:
        """The users that the model knows; None where it knows none."""
        return users_of(self.model)

    def for_user(self, name: str | None = None, text: str | None = None) -> LocalPolicy:
        """The same weights, asked by somebody: whatever it writes and scores is for that user (P-RLHF, S087).

        Args:
            name: of the user; None, or one that is not known, for the generic user.
            text: what the user says of themself; by default what is known, if anything.

        Raises:
            ModelError: the model has no users.
        """
        if self.users is None:
            raise ModelError(
                "the model has no users",
                where=self.name,
                remedy="train it with them: accord align --users annotator (or group)",
            )
        made = self.for_nobody()
        words = self.users.texts.get(name or "", "") if text is None else text
        said = made.encoder._tokens([words])[0] if words else []
        made.encoder = replace(made.encoder, prefix=(*said, *self.users.ids(name)))
        return made

    def for_nobody(self) -> LocalPolicy:
        """The same weights, without a word about who is asking: as before it had users."""
        made = copy.copy(self)
        made.encoder = replace(self.encoder, prefix=())
        return made

    def encode(
        self,
        prompt: Sequence[Message],
        responses: Sequence[Response],
        extras: Mapping[str, Any] | None = None,
    ) -> Encoded:
        """Token ids of a prompt and its responses; see `Encoder.encode`."""
        return self.encoder.encode(prompt, responses, extras)

    def logprobs(self, records: Records | Sequence[Record]) -> pd.DataFrame:
        """Log-probability of every response of every record.

        Returns:
            A table with the columns `record` and `response` (indices), `logprob` (natural log, summed over the
            response's tokens, end-of-turn token included) and `tokens` (how many).
        """
        groups, places = [], []
        for index, group in enumerate(self.encoder.groups(records)):
            if group.responses:
                groups.append(group)
                places += [(index, number) for number in range(len(group.responses))]
        sums, lengths = self.score_groups(groups)
        table = pd.DataFrame(places, columns=["record", "response"])
        return table.assign(logprob=sums, tokens=lengths)

    @torch.no_grad()
    def score_groups(self, groups: Sequence[Group]) -> tuple[list[float], list[int]]:
        """Summed log-probability and number of tokens of every response of tokenised groups, in order."""
        training = self.model.training
        self.model.eval()
        sums: list[float] = []
        lengths: list[int] = []
        try:
            for batch in batches(groups, self.max_tokens, shared=self.engine.shared):
                out = self.engine(batch)
                sums += out.logp.tolist()
                lengths += out.lengths.tolist()
        finally:
            self.model.train(training)
        return sums, lengths

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        n: int = 1,
        max_new_tokens: int = 256,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int = 0,
        progress: Any = None,
    ) -> list[list[Completion]]:
        """Write `n` responses to each prompt; see `accordance.core.policy.Policy.generate`.

        Args:
            progress: called with the number of prompts done since the last call.
        """
        check_sampling(n, max_new_tokens, temperature, top_p)
        rows = self.encoder.encode_many([(as_prompt(prompt), (), {}) for prompt in prompts])
        options = {"n": n, "max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p}
        return self.sample_ids([row.prompt_ids for row in rows], seed=seed, progress=progress, **options)

    def sample_ids(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        n: int = 1,
        max_new_tokens: int = 256,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int = 0,
        progress: Any = None,
        stop: Stop | None = None,
    ) -> list[list[Completion]]:
        """`generate` for prompts that are token ids already; see there.

        Args:
            stop: says of the tokens of a response so far whether it ends there, unfinished.
        """
        return sample(
            unwrap(self.model) if not self.has_adapter else self.model,
            self.tokenizer,
            self.encoder.end_ids,
            prompts,
            n=n,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
            max_tokens=self.max_tokens,
            progress=progress,
            ordinary=self.engine.shared,
            stop=stop,
        )

    @contextlib.contextmanager
    def adapter_off(self) -> Iterator[None]:
        """The model without its adapter, for as long as the context lasts."""
        if not self.has_adapter:
            raise ConfigError("the policy has no adapter to switch off", where=self.name)
        with self.model.disable_adapter():  # type: ignore[operator]
            yield

    def weights_hash(self, *, adapter: bool = True) -> str:
        """A hash of the weights; see `accordance.models.reference.weights_hash`."""
        return weights_hash(self.model, adapter=adapter)

    def save(self, folder: str | Path) -> None:
        """Write model (or adapter) and tokenizer as transformers and PEFT lay them out, and users beside them."""
        self.model.save_pretrained(str(folder))  # type: ignore[operator]
        self.tokenizer.save_pretrained(str(folder))
        save_users(self.model, folder)


def load_policy(
    model: str | Path | nn.Module | LocalPolicy,
    *,
    tokenizer: Any = None,
    adapter: str | Path | None = None,
    dtype: str | torch.dtype = "auto",
    device_map: Any = None,
    load_in_4bit: bool = False,
    load_in_8bit: bool = False,
    chat_template: str | None = None,
    eos_token: str | None = None,
    shared: bool | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    name: str | None = None,
    max_tokens: int = 16_384,
) -> LocalPolicy:
    """Any transformers causal LM as a Policy.

    Args:
        model: a path, a hub name, a loaded model, or a policy (returned as it is). A folder that holds a PEFT
            adapter loads its base model and puts the adapter on. One that was trained with users answers the generic
            one; see `LocalPolicy.for_user`.
        tokenizer: a path, a hub name or a tokenizer; by default the model's own.
        adapter: path or hub name of a PEFT adapter to put on.
        dtype: ``"auto"`` for the checkpoint's own, or such as ``"bfloat16"``.
        device_map: as transformers has it; by default the first GPU where there is one.
        load_in_4bit, load_in_8bit: quantise the weights (extra ``quant``).
        chat_template: a template, a path to one, or one of ours by name (``"plain"``, ``"chatml"``).
        eos_token: the token that ends a turn, where the tokenizer names none.
        shared: whether to compute prompts once; by default measured.
        revision, trust_remote_code: as transformers has them.
        name: what reports call the policy.
        max_tokens: positions per forward pass when scoring and generating.

    Raises:
        ModelError: nothing loadable is there, or tokenizer and model do not fit.
    """
    if isinstance(model, LocalPolicy):
        return model
    where = str(model) if isinstance(model, str | Path) else type(model).__name__
    source: Any = model
    named = isinstance(model, str | Path) or adapter is not None
    if isinstance(model, str | Path):
        if adapter is None and (Path(model) / "adapter_config.json").exists():
            source, adapter = _base_of(Path(model)), model
        options = {"revision": revision, "trust_remote_code": trust_remote_code}
        loaded = _load_model(str(source), dtype, device_map, load_in_4bit, load_in_8bit, options)
        if hasattr(loaded.config, CONFIG):
            restore_heads(loaded, _weight_files(str(source), options))
    else:
        loaded, options = model, {}
    own = (
        tokenizer if tokenizer is not None else (where if adapter is None or _has_tokenizer(where) else source)
    )
    if not isinstance(model, str | Path) and tokenizer is None:
        raise ConfigError("a loaded model needs its tokenizer", remedy="load_policy(model, tokenizer=...)")
    words = _load_tokenizer(own, options) if isinstance(own, str | Path) else own
    if chat_template is not None:
        words.chat_template = _template(chat_template)
    if eos_token is not None:
        if words.convert_tokens_to_ids(eos_token) in (None, words.unk_token_id):
            raise ConfigError("the end token is not in the vocabulary", where=where, found=eos_token)
        words.eos_token = eos_token
    if adapter is not None:
        from peft import PeftModel

        loaded = PeftModel.from_pretrained(loaded, str(adapter), is_trainable=True)
    made = LocalPolicy(loaded, words, name=name or Path(where).name, shared=shared, max_tokens=max_tokens)
    files = _user_files(str(adapter if adapter is not None else model), options) if named else None
    if files is not None:
        restore_users(loaded, *files)
        made.encoder = made.for_user(None).encoder
    return made


def logprobs(policy: LocalPolicy | str | Path, records: Records | Sequence[Record]) -> pd.DataFrame:
    """Log-probability of every response under a policy; see `LocalPolicy.logprobs`."""
    return load_policy(policy).logprobs(records)


def _base_of(folder: Path) -> str:
    from peft import PeftConfig

    base = PeftConfig.from_pretrained(str(folder)).base_model_name_or_path
    if not base:
        raise ModelError("the adapter does not say which model it belongs to", where=str(folder))
    return base


def _has_tokenizer(where: str) -> bool:
    return any((Path(where) / file).exists() for file in ("tokenizer.json", "tokenizer_config.json"))


def _load_model(
    source: str, dtype: Any, device_map: Any, four: bool, eight: bool, options: dict[str, Any]
) -> nn.Module:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    quantised = {}
    if four or eight:
        try:
            import bitsandbytes  # noqa: F401  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise MissingExtra("bitsandbytes", "quant", "loading in 4 or 8 bits") from error
        quantised["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=four,
            load_in_8bit=eight,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    if device_map is None and torch.cuda.is_available():
        device_map = {"": torch.cuda.current_device()}
    try:
        return AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype, device_map=device_map, **quantised, **options
        )
    except (OSError, ValueError) as error:
        folder = Path(source)
        found = sorted(p.name for p in folder.iterdir())[:12] if folder.is_dir() else None
        raise ModelError(
            f"no causal LM could be loaded: {str(error).splitlines()[0]}",
            where=source,
            found=found,
            expected="a folder with config.json and model.safetensors, or a name on the hub",
            remedy="check the path; offline, download the model first (HF_HUB_OFFLINE=1 uses the local copy)",
        ) from error


def _weight_files(source: str, options: Mapping[str, Any]) -> list[str]:
    """The safetensors files of a checkpoint that transformers has just loaded, a folder's or the hub's."""
    from transformers.utils.hub import cached_file, get_checkpoint_shard_files

    some = {"revision": options.get("revision"), "_raise_exceptions_for_missing_entries": False}
    index = cached_file(source, "model.safetensors.index.json", **some)
    if index is not None:
        return list(get_checkpoint_shard_files(source, index, revision=some["revision"])[0] or ())
    whole = cached_file(source, "model.safetensors", **some)
    return [] if whole is None else [whole]


def _user_files(source: str, options: Mapping[str, Any]) -> tuple[str, str] | None:
    """The files with the users of a checkpoint, a folder's or the hub's; None where it has none."""
    if Path(source).is_dir():
        files = [str(Path(source) / name) for name in (NAMES, VECTORS)]
        return (files[0], files[1]) if Path(files[0]).exists() else None
    from transformers.utils.hub import cached_file

    how = {"revision": options.get("revision"), "_raise_exceptions_for_missing_entries": False}
    found = cached_file(source, NAMES, _raise_exceptions_for_connection_errors=False, **how)
    return None if found is None else (found, str(cached_file(source, VECTORS, **how)))


def _load_tokenizer(source: str | Path, options: dict[str, Any]) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(source), **options)
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(
            f"no tokenizer could be loaded: {str(error).splitlines()[0]}",
            where=str(source),
            expected="tokenizer.json and tokenizer_config.json beside the weights",
            remedy="load_policy(..., tokenizer='path or name')",
        ) from error


def _template(given: str) -> str:
    if given in TEMPLATES:
        return TEMPLATES[given]
    if len(given) < 4096 and "{" not in given:
        path = Path(given)
        if not path.is_file():
            raise ConfigError(
                "no such chat template",
                found=given,
                expected=f"a template, a path to one, or one of: {', '.join(TEMPLATES)}",
            )
        return path.read_text()
    return given


def silence_transformers() -> None:
    """Keep transformers' informational warnings out of the terminal; errors still show."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
