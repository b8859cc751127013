"""A DPO step on pairs: TRL's DPOTrainer beside ours, each in a process of its own, same data, same weights.

python benchmarks/pairs.py                  # HH-RLHF pairs as they come
python benchmarks/pairs.py --long           # 1024-token prompts, 128-token responses
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time

from common import alone, arguments, matmul_peak, model, peak_memory, show, tokenizer, transcript_pairs

LONG = "--long" in sys.argv
if LONG:
    sys.argv.remove("--long")
BATCH = 2 if LONG else 8


def rows(words, count):
    """(prompt, chosen, rejected) texts; for long prompts, dialogues run together and cut by tokens."""
    if not LONG:
        return transcript_pairs(count)
    ids = words("".join(a + b for a, b, _ in transcript_pairs()))["input_ids"]
    out, size = [], 1024 + 2 * 128
    for start in range(0, count * size, size):
        part = ids[start : start + size]
        out.append(tuple(words.decode(p) for p in (part[:1024], part[1024:1152], part[1152:])))
    return out


class Clock:
    """Seconds per step, the first left out."""

    def __init__(self):
        self.marks = []

    def callback(self):
        from transformers import TrainerCallback

        clock = self

        class Marks(TrainerCallback):
            def on_step_end(self, *args, **kwargs):
                clock.marks.append(time.perf_counter())

        return Marks()

    def rate(self):
        return BATCH * (len(self.marks) - 1) / (self.marks[-1] - self.marks[0])


def peer(steps, precompute):
    """TRL's DPOTrainer."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    words, clock = tokenizer(), Clock()
    data = Dataset.from_list(
        [dict(zip(("prompt", "chosen", "rejected"), row)) for row in rows(words, BATCH * (steps + 1))]
    )
    config = DPOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=BATCH,
        max_steps=steps + 1,
        precompute_ref_log_probs=precompute,
        max_length=None,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
        logging_steps=1,
        learning_rate=1e-6,
    )
    trainer = DPOTrainer(
        model=model(), ref_model=None if precompute else model(), args=config, train_dataset=data,
        processing_class=words, callbacks=[clock.callback()],
    )  # fmt: skip
    trainer.train()
    return clock, [line["loss"] for line in trainer.state.log_history if "loss" in line]


def ours(steps, reference):
    """Accordance: reference by a second model every step, or from the cache."""
    from accordance.core.record import Judgment, Message, Record, Records, Response
    from accordance.models import LocalPolicy
    from accordance.training import TrainingConfig, train

    words, clock = tokenizer(), Clock()
    records = Records.of(
        Record(
            (Message("text", p),),
            (Response.of(c, role="text"), Response.of(r, role="text")),
            (Judgment("comparison", (0, 1), (1.0, 0.0)),),
        )
        for p, c, r in rows(words, BATCH * (steps + 1))
    )
    folder = tempfile.mkdtemp()
    options = {
        "output_dir": folder,
        "per_device_train_batch_size": BATCH,
        "max_steps": steps + 1,
        "max_length": None,
        "save_strategy": "no",
        "logging_steps": 1,
        "learning_rate": 1e-6,
        "use_cpu": True,
        "check": False,
    }
    if reference == "model":
        second = folder + "/reference"
        model().save_pretrained(second)
        options |= {"reference": second, "reference_cache": False}
    else:
        options |= {"cache_dir": folder}
    run = train(
        LocalPolicy(model(), words, name="bench", shared=True),
        records,
        TrainingConfig.of(options),
        callbacks=(clock.callback(),),
    )
    return clock, [line["loss"] for line in run.history if "loss" in line], run


def flops(words, count):
    """GFLOP per pair of one forward and backward over unique tokens, heads on label positions only."""
    texts = rows(words, count)
    ids = [[len(words(t)["input_ids"]) for t in row] for row in texts]
    positions = sum(map(sum, ids)) / count
    labels = sum(c + r + 2 for _, c, r in ids) / count
    layers = 8 * (512 * 512 * 2 + 512 * 256 * 2 + 3 * 512 * 1376)
    return 6e-9 * (positions * layers + labels * 512 * 32_000)


def main():
    """Run every variant, or one."""
    args = arguments(__doc__)
    if args.only:
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        if args.only.startswith("trl"):
            clock, losses = peer(args.steps, args.only == "trl-precomputed")
        else:
            clock, losses, *_ = ours(args.steps, args.only.removeprefix("ours-"))
        print(json.dumps({"rate": clock.rate(), "memory": peak_memory(), "losses": losses}))
        return
    extra = ["--steps", str(args.steps), *(["--long"] if LONG else [])]
    names = ("trl", "trl-precomputed", "ours-model", "ours-cache")
    results = {name: alone(__file__, name, *extra) for name in names}
    base = results["trl"]
    peak, work = matmul_peak(), flops(tokenizer(), BATCH * (args.steps + 1))
    table = [
        [
            name,
            result["rate"],
            result["rate"] / base["rate"],
            result["memory"],
            result["memory"] / base["memory"],
            result["rate"] * work * (4 / 3 if name in ("trl", "ours-model") else 1) / peak,
            result["losses"][-1],
        ]
        for name, result in results.items()
    ]
    columns = ["variant", "pairs/s", "x TRL", "peak GB", "x TRL memory", "of matmul peak", "last loss"]
    setting = "1024-token prompts, 128-token responses" if LONG else "HH-RLHF pairs as they come"
    show(f"DPO step, {setting}; matmul peak {peak:.0f} GFLOP/s", columns, table, as_json=args.json)


if __name__ == "__main__":
    main()
