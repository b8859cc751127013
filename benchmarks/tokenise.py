"""Tokenising conversations: TRL's preprocessing beside ours, same rows, same tokenizer.

python benchmarks/tokenise.py
"""

from __future__ import annotations

import tempfile
import time

from common import arguments, model, show, tokenizer, transcript_pairs


def main():
    """Time both once, from rows in memory to token ids."""
    args = arguments(__doc__)
    from datasets import Dataset, disable_caching
    from trl import DPOConfig, DPOTrainer

    from accordance.core.record import Judgment, Record, Records, Response, user
    from accordance.models import Encoder
    from accordance.objectives import get_objective
    from accordance.training import examples_for

    disable_caching()
    words, texts = tokenizer(), transcript_pairs()
    rows = [
        {
            "prompt": [{"role": "user", "content": p}],
            "chosen": [{"role": "assistant", "content": c}],
            "rejected": [{"role": "assistant", "content": r}],
        }
        for p, c, r in texts
    ]
    records = Records.of(
        Record(user(p), (Response.of(c), Response.of(r)), (Judgment("comparison", (0, 1), (1.0, 0.0)),))
        for p, c, r in texts
    )
    small = model(hidden_size=64, num_hidden_layers=1)
    config = DPOConfig(
        output_dir=tempfile.mkdtemp(), max_length=None, use_cpu=True, report_to="none", bf16=False,
        precompute_ref_log_probs=False,
    )  # fmt: skip
    dataset = Dataset.from_list(rows)
    start = time.perf_counter()
    DPOTrainer(model=small, ref_model=model(hidden_size=64, num_hidden_layers=1), args=config,
               train_dataset=dataset, processing_class=words)  # fmt: skip
    theirs = time.perf_counter() - start
    start = time.perf_counter()
    made = examples_for(get_objective("dpo"), records, Encoder(words))
    ours = time.perf_counter() - start
    assert len(made) == len(rows)
    table = [
        ["TRL DPOTrainer (construction)", theirs, len(rows) / theirs, 1.0],
        ["accordance examples_for", ours, len(rows) / ours, theirs / ours],
    ]
    show(f"Tokenising {len(rows)} pairs", ["", "seconds", "pairs/s", "x TRL"], table, as_json=args.json)


if __name__ == "__main__":
    main()
