"""Groups of K responses, forward and backward: cost should grow as P + K R, not K (P + R).

    python benchmarks/groups.py

Times our packed groups, the same responses as padded rows with the prompt repeated through the model's ordinary
forward (what a listwise or GRPO-style loss does elsewhere), and one long sequence of P + K R tokens as the ideal.
"""

from __future__ import annotations

import time
from functools import partial

import torch
from common import arguments, model, show

from accordance.models import Engine, Group

P, R = 512, 64


def timed(step, times):
    """Best seconds of some calls."""
    best = float("inf")
    for _ in range(times + 1):
        start = time.perf_counter()
        step()
        best = min(best, time.perf_counter() - start)
    return best


def padded(net, groups):
    """Log-probabilities by the ordinary forward, all scores of all positions."""
    rows = [[*g.prompt, *r] for g in groups for r in g.responses]
    ids = torch.tensor(rows)
    scores = net(ids, use_cache=False).logits[:, P - 1 : -1].float()
    return scores.log_softmax(-1).gather(2, ids[:, P:, None]).sum()


def packed(engine, groups):
    """The same by our path."""
    return engine(groups).logp.sum()


def backward(loss):
    """Forward and backward."""
    loss().backward()


def main():
    """Measure K = 1 ... 16."""
    args = arguments(__doc__)
    net = model()
    draw = torch.Generator().manual_seed(0)

    def ids(size):
        return torch.randint(2, 16_000, (size,), generator=draw).tolist()

    table = []
    for k in (1, 2, 4, 8, 16):
        groups = [Group(ids(P), [ids(R) for _ in range(k)])]
        elsewhere = timed(partial(backward, partial(padded, net, groups)), args.steps // 2)
        engine = Engine(net, shared=True)
        ours = timed(partial(backward, partial(packed, engine, groups)), args.steps // 2)
        one = [Group(ids(P), [ids(k * R)])]
        ideal = timed(partial(backward, partial(packed, engine, one)), args.steps // 2)
        net.set_attn_implementation("sdpa")
        repeated, unique = k * (P + R), P + k * R
        table.append([f"K = {k}", elsewhere, ours, elsewhere / ours, repeated / unique, ideal, ideal / ours])
    columns = [
        "group", "padded s", "ours s", "x padded", "tokens saved x", "one sequence of P + K R, s", "of that ideal",
    ]  # fmt: skip
    show(f"Groups of K responses of {R} tokens to a prompt of {P}", columns, table, as_json=args.json)


if __name__ == "__main__":
    main()
