"""What the benchmarks share: the setting of ../shared/design/performance.md, peaks, timing, tables."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HH = Path(__file__).resolve().parents[2] / "shared" / "data" / "hh-rlhf-harmless-test.jsonl.gz"
TEMPLATE = (
    "{% for m in messages %}{{ '\n\nHuman: ' if m['role'] == 'user' else '\n\nAssistant:' }}"
    "{% if m['role'] == 'user' %}{{ m['content'] }}{% else %} {{ m['content'] }}{{ eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '\n\nAssistant:' }}{% endif %}"
)


def arguments(description: str) -> argparse.Namespace:
    """The command line that all benchmarks share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--steps", type=int, default=8, help="steps that are timed")
    parser.add_argument("--only", help="run one variant in this process (used by the benchmark itself)")
    return parser.parse_args()


def transcript_pairs(limit: int | None = None) -> list[tuple[str, str, str]]:
    """(prompt, chosen, rejected) texts of HH-RLHF: the prompt is the dialogue that both share."""
    rows = []
    with gzip.open(HH, "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            head = os.path.commonprefix([row["chosen"], row["rejected"]])  # noqa: RUF071 - characters are meant
            cut = head.rfind("\n\nAssistant:")
            if cut < 0:
                continue
            cut += len("\n\nAssistant:")
            chosen, rejected = row["chosen"][cut:], row["rejected"][cut:]
            if chosen.strip() and rejected.strip() and chosen != rejected:
                rows.append((row["chosen"][:cut], chosen, rejected))
            if limit is not None and len(rows) >= limit:
                break
    return rows


def tokenizer(size: int = 16_000) -> Any:
    """A BPE tokenizer trained on the benchmark's own text, kept beside the results."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    folder = Path(os.environ.get("ACCORD_BENCH", "/tmp/accord-bench")) / f"bpe-{size}"
    if not folder.exists():
        raw = Tokenizer(models.BPE())
        raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        raw.decoder = decoders.ByteLevel()
        texts = [a + b + c for a, b, c in transcript_pairs()]
        raw.train_from_iterator(
            texts, trainers.BpeTrainer(vocab_size=size, special_tokens=["<pad>", "</s>"], show_progress=False)
        )
        made = PreTrainedTokenizerFast(
            tokenizer_object=raw, pad_token="<pad>", eos_token="</s>", chat_template=TEMPLATE
        )
        made.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def model(seed: int = 0, **changes: Any) -> Any:
    """The 43 M Llama of the setting, random weights."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(seed)
    sizes = {
        "vocab_size": 32_000,
        "hidden_size": 512,
        "intermediate_size": 1376,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "tie_word_embeddings": True,
        "max_position_embeddings": 4096,
        "bos_token_id": None,
        "eos_token_id": 1,
        "pad_token_id": 0,
    }
    return AutoModelForCausalLM.from_config(LlamaConfig(**sizes | changes))


def matmul_peak(size: int = 2048, times: int = 6) -> float:
    """GFLOP/s of an fp32 matrix product here and now."""
    import torch

    a, b = torch.randn(size, size), torch.randn(size, size)
    best = 0.0
    for _ in range(times):
        start = time.perf_counter()
        a @ b
        best = max(best, 2 * size**3 / (time.perf_counter() - start) / 1e9)
    return best


def peak_memory() -> float:
    """Largest resident size of this process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def alone(script: str, variant: str, *arguments: str) -> dict[str, Any]:
    """Run one variant of a benchmark in a process of its own; returns what it printed as JSON."""
    command = [sys.executable, script, "--only", variant, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{variant} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def show(title: str, columns: list[str], rows: list[list[Any]], *, as_json: bool) -> None:
    """Print a small table, or the same as JSON."""
    if as_json:
        print(json.dumps({"title": title, "rows": [dict(zip(columns, row)) for row in rows]}))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for column in columns:
        table.add_column(column, justify="left" if column == columns[0] else "right")
    for row in rows:
        table.add_row(*(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row))
    Console(width=140).print(table)
