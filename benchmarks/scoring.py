"""Scoring responses and memory: `score_groups` beside a padded loop over the model's ordinary forward.

    python benchmarks/scoring.py

The first table scores HH-RLHF pairs. The second takes one training step (forward and backward) on pairs of growing
numbers of tokens, each in a process of its own: memory should grow with tokens, not with vocabulary x tokens.
"""

from __future__ import annotations

import json
import time

import torch
from common import alone, arguments, model, peak_memory, show, tokenizer, transcript_pairs

from accordance.models import Group, LocalPolicy
from accordance.models.engine import Engine


def padded_loop(net, groups, batch=16):
    """Sums of log-probabilities, responses in right-padded batches, prompts repeated, all scores computed."""
    rows = [(list(g.prompt), list(r)) for g in groups for r in g.responses]
    sums = []
    with torch.no_grad():
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            width = max(len(p) + len(r) for p, r in part)
            ids, mask, labels = (torch.zeros(len(part), width, dtype=torch.long) for _ in range(3))
            for i, (p, r) in enumerate(part):
                ids[i, : len(p) + len(r)] = torch.tensor(p + r)
                mask[i, : len(p) + len(r)] = 1
                labels[i, len(p) : len(p) + len(r)] = 1
            scores = net(ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()
            logps = scores.log_softmax(-1).gather(2, ids[:, 1:, None]).squeeze(2)
            sums += (logps * labels[:, 1:]).sum(1).tolist()
    return sums


def step(tokens, fast):
    """Peak memory in GB of one forward and backward over `tokens` response tokens."""
    net = model()
    draw = torch.Generator().manual_seed(0)

    def ids(size):
        return torch.randint(2, 16_000, (size,), generator=draw).tolist()

    groups = [Group(ids(64), [ids(64), ids(64)]) for _ in range(tokens // 128)]
    if fast:
        Engine(net, shared=True)(groups).logp.sum().backward()
    else:
        rows = torch.tensor([[*g.prompt, *r] for g in groups for r in g.responses])
        scores = net(rows, use_cache=False).logits[:, 63:-1].float()
        scores.log_softmax(-1).gather(2, rows[:, 64:, None]).sum().backward()
    return peak_memory()


def main():
    """Run both parts, or one measurement of the second."""
    args = arguments(__doc__)
    if args.only:
        kind, tokens = args.only.split(":")
        print(json.dumps({"memory": step(int(tokens), kind == "ours")}))
        return
    words = tokenizer()
    groups = [
        Group(words(p)["input_ids"], [words(c)["input_ids"] + [1], words(r)["input_ids"] + [1]])
        for p, c, r in transcript_pairs(96)
    ]
    policy = LocalPolicy(model(), words, shared=True)
    start = time.perf_counter()
    ours, _ = policy.score_groups(groups)
    middle = time.perf_counter()
    policy.model.set_attn_implementation("sdpa")
    theirs = padded_loop(policy.model, groups)
    end = time.perf_counter()
    gap = max(abs(a - b) / abs(b) for a, b in zip(ours, theirs))
    table = [
        ["padded loop", end - middle, 1.0, ""],
        ["accordance", middle - start, (end - middle) / (middle - start), f"{gap:.1e}"],
    ]
    show(f"Scoring {len(groups)} pairs", ["", "seconds", "x", "largest gap"], table, as_json=args.json)
    rows = []
    for tokens in (1024, 4096, 8192):
        ordinary = alone(__file__, f"plain:{tokens}")["memory"]
        fast = alone(__file__, f"ours:{tokens}")["memory"]
        rows.append([f"{tokens}", ordinary, fast, fast / ordinary])
    show(
        "Peak memory of a training step", ["response tokens", "ordinary GB", "ours GB", "ratio"], rows,
        as_json=args.json,
    )  # fmt: skip


if __name__ == "__main__":
    main()
