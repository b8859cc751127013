"""What is shipped with the package: the base model, and answers that it wrote, for the demo."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from accordance.core.errors import ConfigError, ModelError
from accordance.core.record import Records
from accordance.lab import world
from accordance.lab.collect import judged
from accordance.lab.people import Population, default_population

_HERE = Path(__file__).parent
_ANSWERS = _HERE / "base_answers.jsonl.gz"


def base_model_path() -> Path:
    """The folder of the embedded base model, an ordinary `transformers` checkpoint.

    Raises:
        ModelError: the package was installed without it.
    """
    path = _HERE / "base_model"
    if not (path / "model.safetensors").is_file():
        raise ModelError(
            "the embedded base model is missing",
            where=str(path),
            remedy="train it again: accordance.lab.pretrain.pretrain(folder), or reinstall the package",
        )
    return path


def demo_records(n: int = 8000, seed: int = 0, population: Population | None = None) -> Records:
    """The demo's feedback: pairs of answers by the base model, judged here and now.

    The answers are shipped with the package, since sampling them takes minutes; the judgments are computed.

    Args:
        n: how many prompts, each with two answers.
        seed: of the judgments.
        population: who judges, by default `default_population()`.

    Raises:
        ConfigError: more prompts than the package holds.
    """
    with gzip.open(_ANSWERS, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    if not 1 <= n <= len(rows):
        raise ConfigError(
            f"the package holds answers to {len(rows)} prompts",
            where="n",
            found=n,
            remedy="for more, sample them: accordance.lab.make_records(policy, n, population)",
        )
    prompts, texts = [row["prompt"] for row in rows[:n]], [row["responses"] for row in rows[:n]]
    return judged(prompts, texts, population or default_population(), seed, source="accordance base model")


def write_answers(n: int = 8000, seed: int = 0, path: Path = _ANSWERS) -> None:
    """Sample two answers of the base model to each of `n` prompts: how the shipped file was made.

    Args:
        n: how many prompts.
        seed: of prompts and sampling.
        path: a gzipped file of JSON lines.
    """
    rng = random.Random(f"embedded {seed}")
    prompts = [world.sample_prompt(rng) for _ in range(n)]
    written = base_answers(prompts, 2, seed=seed)
    rows = [json.dumps({"prompt": p, "responses": a}, ensure_ascii=False) for p, a in zip(prompts, written)]
    data = ("\n".join(rows) + "\n").encode()
    path.write_bytes(gzip.compress(data, 9, mtime=0))


@torch.no_grad()
def base_answers(
    prompts: Sequence[str],
    n: int = 1,
    *,
    seed: int = 0,
    max_new_tokens: int = 160,
    temperature: float = 1.0,
    batch_size: int = 512,
    model_path: str | Path | None = None,
) -> list[list[str]]:
    """Answers that the base model samples, by plain `transformers` generation.

    Args:
        prompts: what is asked, one user turn each.
        n: answers per prompt.
        seed: of the sampling.
        max_new_tokens: where an answer is cut; a cut answer keeps its last, open sentence.
        temperature: above 0.
        batch_size: sequences generated at once.
        model_path: another checkpoint than the embedded one.
    """
    path = model_path or base_model_path()
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path).eval()
    asked = [prompt for prompt in prompts for _ in range(n)]
    # Like lengths together: the padding of a short prompt costs as much as text.
    order = sorted(range(len(asked)), key=lambda i: len(asked[i]))
    torch.manual_seed(seed)
    texts = [""] * len(asked)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        chats = [[{"role": "user", "content": asked[i]}] for i in rows]
        batch = tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, padding=True, return_dict=True, return_tensors="pt"
        )
        out = cast("Any", model).generate(
            **batch,
            do_sample=True,
            temperature=temperature,
            top_k=0,
            top_p=1.0,
            max_new_tokens=max_new_tokens,
        )
        new = tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        for i, text in zip(rows, new):
            texts[i] = text
    return [texts[i : i + n] for i in range(0, len(texts), n)]
