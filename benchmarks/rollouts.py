"""A whole GRPO step (sample, score, learn): TRL's GRPOTrainer beside ours, each in a process of its own.

    python benchmarks/rollouts.py

Same weights, prompts of HH-RLHF, 8 answers to each of 4 prompts a step, KL 0.04 from a reference, fp32, generation by
each side itself (no server). A random model hardly ever ends by itself, so that all answers have the full length:
what is saved where they do not is left out.
"""

from __future__ import annotations

import json
import tempfile
import time

from common import alone, arguments, model, peak_memory, show, tokenizer, transcript_pairs

PROMPTS, K, LENGTH = 4, 8, 64


def prompts(count):
    """Prompts of at most 400 characters."""
    return [p for p, _, _ in transcript_pairs() if len(p) < 400][:count]


def reward(completions, **_):
    """Anything cheap."""
    return [float(len(set(text))) for text in completions]


class Clock:
    """Seconds and sampled tokens of each step, the first left out."""

    def __init__(self):
        self.marks, self.tokens = [], []

    def callback(self, count):
        from transformers import TrainerCallback

        clock = self

        class Marks(TrainerCallback):
            def on_step_end(self, *args, **kwargs):
                clock.marks.append(time.perf_counter())
                clock.tokens.append(count())

        return Marks()

    def rates(self):
        seconds = self.marks[-1] - self.marks[0]
        return (self.tokens[-1] - self.tokens[0]) / seconds, seconds / (len(self.marks) - 1)


def peer(steps):
    """TRL's GRPOTrainer."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    clock, seen = Clock(), [0]

    def counted(completions, completion_ids, **columns):
        seen[0] += sum(map(len, completion_ids))
        return reward(completions)

    config = GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=PROMPTS * K,
        num_generations=K,
        max_completion_length=LENGTH,
        max_steps=steps + 1,
        beta=0.04,
        loss_type="grpo",
        scale_rewards="group",
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
        logging_steps=1,
        learning_rate=1e-6,
    )
    data = Dataset.from_list([{"prompt": p} for p in prompts(PROMPTS * (steps + 1))])
    start = tempfile.mkdtemp()
    model().save_pretrained(start)  # it loads its reference from there
    trainer = GRPOTrainer(
        model=start, reward_funcs=counted, args=config, train_dataset=data, processing_class=tokenizer(),
        callbacks=[clock.callback(lambda: seen[0])],
    )  # fmt: skip
    trainer.train()
    return clock, {}


def ours(steps):
    """Accordance."""
    from accordance.core.record import Message, Record, Records
    from accordance.core.scorer import FunctionScorer
    from accordance.models import LocalPolicy
    from accordance.training import TrainingConfig, train
    from accordance.training.online import RolloutTrainer

    clock, seen, spent = Clock(), [0], {"sample": 0.0, "rest": 0.0}
    draw = RolloutTrainer._draw

    def timed(self, number):
        start = time.perf_counter()
        made = draw(self, number)
        spent["sample"] += time.perf_counter() - start
        seen[0] += sum(len(r) for e in made for r in e.group.responses)
        return made

    RolloutTrainer._draw = timed
    records = Records.of(Record((Message("text", p),), ()) for p in prompts(PROMPTS * (steps + 1)))
    config = TrainingConfig.of(
        {
            "objective": "grpo", "reward": "cheap", "beta": 0.04, "output_dir": tempfile.mkdtemp(),
            "per_device_train_batch_size": PROMPTS, "num_generations": K, "max_completion_length": LENGTH,
            "max_steps": steps + 1, "max_length": None, "save_strategy": "no", "logging_steps": 1,
            "learning_rate": 1e-6, "use_cpu": True, "check": False,
        }
    )  # fmt: skip
    start = time.perf_counter()
    train(
        LocalPolicy(model(), tokenizer(), name="bench", shared=True),
        records,
        config,
        reward=FunctionScorer(lambda prompts, completions, **_: reward(completions)),
        callbacks=(clock.callback(lambda: seen[0]),),
    )
    whole = time.perf_counter() - start
    return clock, {"share_sampling": spent["sample"] / whole}


def main():
    """Each variant alone, then the table."""
    args = arguments(__doc__)
    if args.only:
        clock, more = {"trl": peer, "ours": ours}[args.only](args.steps)
        tokens, seconds = clock.rates()
        print(json.dumps({"tokens": tokens, "seconds": seconds, "memory": peak_memory()} | more))
        return
    flags = ["--steps", str(args.steps)]
    found = {name: alone(__file__, name, *flags) for name in ("trl", "ours")}
    base = found["trl"]["tokens"]
    table = [
        [name, f["tokens"], f["tokens"] / base, f["seconds"], f["memory"], f.get("share_sampling", "")]
        for name, f in found.items()
    ]
    columns = ["GRPO step", "sampled tokens/s", "x TRL", "s per step", "peak GB", "share sampling and scoring"]
    show(f"{PROMPTS} prompts x {K} answers of up to {LENGTH} tokens", columns, table, as_json=args.json)


if __name__ == "__main__":
    main()
