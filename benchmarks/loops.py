"""Loops on the lab's language model: what each is said to gain, against its baseline at as many updates.

    python benchmarks/loops.py                    # all of them, seed 0; minutes each on one core
    python benchmarks/loops.py --only evolve --seeds 3
    python benchmarks/loops.py --only cycle --learning-rate 3e-4
    python benchmarks/loops.py --json > found.json

Every arm begins with `lab:base` and goes through `accordance.align`, as a user's run does. An update is an optimiser
step; learning rates don't decay, so that a loop of three stages and one long run step alike. Sampling for measures is
at temperature 1, on prompts that no arm has seen.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from common import show

import accordance
from accordance.core.constraints import Constraint, instructions
from accordance.core.policy_judge import PolicyJudge
from accordance.core.record import Judgment, Record, Records, Response, user
from accordance.lab import SHARED as SHARED_TASTE
from accordance.lab import scene, world
from accordance.lab.assistants import LabJudge
from accordance.lab.scenes.instructions import WORDS, asked
from accordance.models import load_policy
from accordance.training.loops.lifelong import transfer

#: What all arms share; batches are 8 prompts of 8 answers, or 64 demonstrations.
SHARED = {
    "held_out": 0, "learning_rate": 2e-4, "lr_scheduler_type": "constant", "warmup_steps": 0, "check": False,
    "save_strategy": "no", "use_cpu": True, "logging_steps": 20, "max_length": 512,
}  # fmt: skip
ONLINE = {
    "objective": "grpo", "per_device_train_batch_size": 8, "num_generations": 8, "max_completion_length": 80,
}  # fmt: skip


class Bench:
    """Trains and measures arms, and says on stderr what it is at."""

    def __init__(self, name, seed, rate=None):
        self.name, self.seed, self.rate, self.rows, self.began = name, seed, rate, {}, time.time()

    def say(self, text):
        print(
            f"[{self.name} seed {self.seed} {time.time() - self.began:5.0f} s] {text}",
            file=sys.stderr,
            flush=True,
        )

    def train(self, arm, records, **options):
        """An alignment run from `lab:base`."""
        seen = {}

        def note(stage, done, total):
            if stage not in seen or time.time() - seen[stage] > 20:
                seen[stage] = time.time()
                self.say(f"{arm}: {stage} {done}/{total}")

        folder = tempfile.mkdtemp(prefix="accord-loops-")
        options = SHARED | {"seed": self.seed} | options
        options["learning_rate"] = self.rate or options["learning_rate"]
        done = accordance.align("lab:base", records, output_dir=folder, progress=note, **options)
        self.say(f"{arm}: {done.run.steps} updates; measures {json.dumps(done.run.measures)[:1500]}")
        return done

    def measure(self, arm, policy, prompts, find, n=2):
        """Means of what `find(prompt, text)` finds over sampled answers."""
        drawn = policy.generate(prompts, n=n, max_new_tokens=96, temperature=1.0, seed=1000 + self.seed)
        found = [find(prompt, answer.text) for prompt, row in zip(prompts, drawn) for answer in row]
        self.rows.setdefault(arm, {}).update({k: sum(f[k] for f in found) / len(found) for k in found[0]})
        self.say(f"{arm}: {self.rows[arm]}")


def base():
    """The model that all arms begin with."""
    return accordance.load_policy(accordance.lab.base_model_path())


# Easy to hard (S156).


def sums(steps, count, seed, known=()):
    """Prompts of `lab:steps` with so many steps, each once."""
    rng, found = random.Random(f"sums {steps} {seed}"), {}
    while len(found) < count:
        prompt = scene("steps").ask(rng)
        words = prompt[-1].content.split()
        if words.count("plus") + words.count("minus") == steps and prompt not in known:
            found[prompt] = None
    return list(found)


def problems(prompts, hard, seed):
    """Sums as records with their answers; easy ones come with a correct solution."""
    rng, made = random.Random(f"solutions {seed}"), []
    for prompt in prompts:
        extras = scene("steps").facts(prompt) | {"hard": hard}
        shown = (), ()
        if not hard:
            text = scene("steps").write(prompt, rng, outcome=1.0, sound=1.0, filler=0.0)
            shown = (Response.of(text),), (Judgment("demonstration", (0,)),)
        made.append(Record(prompt, *shown, extras=extras))
    return made


def outcome(prompts, completions, answer):
    """A reward: whether the end of a sum is right."""
    from accordance.core.selection import find_answer

    return [float(find_answer(text.strip().split("\n")[-1]) == true) for text, true in zip(completions, answer)]


def easy_to_hard(bench, steps=40):
    """RL on hard sums from verdicts on steps; imitation of easy solutions; RL on easy outcomes."""
    easy, hard = (problems(sums(k, 128, bench.seed), k == 4, bench.seed) for k in (2, 4))
    asked_ = sums(4, 256, 100 + bench.seed, {r.prompt for r in hard})

    def measure(arm, policy):
        bench.measure(arm, policy, asked_, scene("steps").measure)

    measure("base", base())
    sft = {"objective": "sft", "per_device_train_batch_size": 64, "num_train_epochs": 100}
    plain = bench.train("sft easy", Records.of(easy), **sft, max_steps=steps)
    measure("sft on easy solutions", plain.policy)
    on_easy = bench.train("rl easy", Records.of(easy), **ONLINE, reward=f"{__file__}:outcome", max_steps=steps)
    measure("rl on easy outcomes", on_easy.policy)
    for imitate in (False, True):
        how = {"loop": "easy_to_hard", "reward": "lab:steps", "loop.imitate": imitate, "loop.measured": 16}
        arm = "easy_to_hard, imitating first" if imitate else "easy_to_hard"
        ours = bench.train(arm, Records.of(easy + hard), **ONLINE, **how, max_steps=steps // (1 + imitate))
        measure(arm, ours.policy)


# Prompts that evolve (S130).

KINDS = ("no_comma", "title", "keyword", "question", "lowercase")


def demand(kind, rng):
    """An instruction of a kind, in one of its wordings."""
    told = {"word": rng.choice(WORDS), "relation": "least", "count": 1} if kind == "keyword" else {}
    return Constraint(kind, told, rng.randrange(3))


def instructed(many, count, seed, known=()):
    """Questions with so many instructions, as `lab:instructions` has them with two and four."""
    rng, found = random.Random(f"instructions {many} {seed}"), {}
    while len(found) < count:
        told = instructions([demand(kind, rng) for kind in rng.sample(KINDS, many)])
        prompt = user(f"{world.sample_prompt(rng, rng.choice(('fact', 'sum')))} {told}")
        if prompt not in known:
            found[prompt] = None
    return list(found)


def harder(prompts, n, seed):
    """An evolver: the prompt with another instruction; another question where it has all of them."""
    rng, made = random.Random(f"harder {seed}"), []
    for prompt in prompts:
        there = {constraint.kind for constraint in asked(prompt)}
        free = [kind for kind in KINDS if kind not in there]
        if free:
            made.append([f"{prompt} {demand(rng.choice(free), rng).instruction}" for _ in range(n)])
        else:
            made.append([new[-1].content for new in instructed(5, n, rng.random())])
    return made


def evolve(bench, rounds=3, steps=14):
    """GRPO on seeds with one instruction, as they are or evolved; measured on three instructions."""
    seeds = instructed(1, 96, bench.seed)
    records, asked_ = Records.of(Record(p, ()) for p in seeds), instructed(3, 192, 100 + bench.seed)

    def measure(arm, policy):
        bench.measure(arm, policy, asked_, scene("instructions").measure)

    measure("base", base())
    how = ONLINE | {"reward": "lab:instructions"}
    static = bench.train("static", records, **how, max_steps=rounds * steps)
    measure("static prompts", static.policy)
    own = {"loop": "evolve", "loop.evolver": f"{__file__}:harder", "loop.rounds": rounds, "loop.prompts": 48}
    for choice in ("proportion", "uniform"):
        arm = "evolve" if choice == "proportion" else f"evolve, {choice}"
        ours = bench.train(arm, records, **how, **own, **{"loop.choice": choice}, max_steps=steps)
        measure(arm, ours.policy)


# Tasks one after another (S117).

#: Each task: the kinds of question, the attribute, its value in chosen and rejected answers.
TASKS = {
    "polite": (("fact", "sum", "howto"), "politeness", 1.0, 0.0),
    "short": (("fact", "sum", "howto"), "elaboration", 0.0, 1.0),
    "honest": (("unknown",), "honesty", 1.0, 0.0),
}


def task_records(count, seed):
    """Pairs of the lab's writer that differ in one attribute, with their task in the extras."""
    made = []
    for task, (kinds, attribute, good, bad) in TASKS.items():
        rng = random.Random(f"{task} {seed}")
        for number in range(count):
            prompt = world.sample_prompt(rng, rng.choice(kinds))
            texts = [
                world.write(
                    prompt, random.Random(f"{seed} {number}"), **{attribute: value}, refusal=0, relevance=1
                )
                for value in (good, bad)
            ]
            responses = tuple(Response.of(text) for text in texts)
            made.append(
                Record(
                    user(prompt),
                    responses,
                    (Judgment("comparison", (0, 1), (1.0, 0.0)),),
                    extras={"task": task},
                )
            )
    return Records.of(made)


def lifelong(bench, steps=15):
    """Three tasks: consolidation, replay and the focal weight against plain DPO one after the other."""
    records = task_records(160, bench.seed)
    rng = random.Random(f"asked {bench.seed}")
    asked_ = {
        t: [world.sample_prompt(rng, rng.choice(kinds)) for _ in range(64)] for t, (kinds, *_) in TASKS.items()
    }

    def shown(policy):
        found = {}
        for task, (_, attribute, good, _) in TASKS.items():
            drawn = policy.generate(asked_[task], n=1, max_new_tokens=96, seed=bench.seed)
            values = [
                world.attributes(p, a.text)[attribute] for p, row in zip(asked_[task], drawn) for a in row
            ]
            mean = sum(values) / len(values)
            found[task] = mean if good else 1 - mean
        return found

    how = {
        "loop": "lifelong",
        "learning_rate": 3e-4,
        "per_device_train_batch_size": 16,
        "num_train_epochs": 100,
        "loop.held_out": 0.2,
    }
    plain = {"loop.sft": False, "loop.energy": 1.0, "loop.keep": 1.0, "loop.replay": 0.0}
    replay = plain | {"loop.replay": 0.2}
    arms = {
        "sequential dpo": ("dpo", 2 * steps, plain),
        "lifelong": ("focal(dpo)", steps, {}),
        "sequential dpo, replay": ("dpo", 2 * steps, replay),
    }
    start = shown(base())
    bench.rows["base"] = {f"{task} in samples": start[task] for task in TASKS}
    for arm, (objective, many, own) in arms.items():
        done = bench.train(arm, records, objective=objective, **how, **own, max_steps=many)
        folders = sorted((done.output_dir / "stages").glob("*-*"))
        table = [shown(load_policy(next(f for f in folders if f.name[3:] == task))) for task in TASKS]
        told = done.run.measures["sequence"]
        bench.rows[arm] = {f"{task} in samples": table[-1][task] for task in TASKS}
        bench.rows[arm] |= {
            "transfer in samples": transfer(table)["backward_transfer"],
            "pairs": told["mean_final"],
            "transfer of pairs": told["backward_transfer"],
        }
        bench.say(f"{arm}: {bench.rows[arm]}; after each task {table}")


# A judge and a policy that teach each other (S023).


def utility(prompt, text):
    """What the judge would say without noise."""
    found = world.attributes(prompt, text)
    return sum(weight * found[name] for name, weight in SHARED_TASTE.items())


def cycle(bench, cycles=3, steps=12):
    """Rankings by a noisy judge that is shown what was agreed on, or not; iterative DPO by the same judge."""
    records = accordance.lab.demo_records(n=144, seed=bench.seed)
    rng = random.Random(f"cycle {bench.seed}")
    asked_ = [world.sample_prompt(rng) for _ in range(128)]

    def measure(arm, policy):
        bench.measure(
            arm, policy, asked_, lambda p, t: {"utility": utility(p, t), "square": utility(p, t) ** 2}
        )
        row = bench.rows[arm]
        row["sd"] = (row.pop("square") - row["utility"] ** 2) ** 0.5
        row["gain in sd"] = (row["utility"] - bench.rows["base"]["utility"]) / bench.rows["base"]["sd"]

    measure("base", base())
    many = {
        "per_device_train_batch_size": 16,
        "num_generations": 6,
        "max_completion_length": 96,
        "num_train_epochs": 100,
    }
    own = {"loop": "cycle", "objective": "pro", "loop.cycles": cycles}
    arms = {
        "iterate, dpo": {"loop": "iterate", "loop.rounds": cycles},
        "cycle": own,
        "cycle, nothing shown": own | {"loop.demonstrations": 0, "loop.given": 0},
    }
    for arm, options in arms.items():
        judge = PolicyJudge(LabJudge(noise=3.0, relief=0.3, seed=bench.seed))
        done = bench.train(arm, records, reward=judge, **many, **options, max_steps=steps)
        measure(arm, done.policy)


BENCHES = {"easy_to_hard": easy_to_hard, "evolve": evolve, "lifelong": lifelong, "cycle": cycle}


def main():
    """All benches, or one of them, for some seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(BENCHES), help="one of them")
    parser.add_argument("--seeds", type=int, default=1, help="how many, from the first on")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--learning-rate", type=float, help="of all arms, in the place of the bench's own")
    parser.add_argument("--json", action="store_true", help="print one JSON object a loop instead of a table")
    args = parser.parse_args()
    for name in [args.only] if args.only else BENCHES:
        seeds = range(args.first, args.first + args.seeds)
        benches = [Bench(name, seed, args.learning_rate) for seed in seeds]
        for bench in benches:
            BENCHES[name](bench)
        columns = list(dict.fromkeys(key for row in benches[0].rows.values() for key in row))
        for bench in benches if len(benches) > 1 else []:
            bench.say(json.dumps(bench.rows))
        table = [
            [
                arm,
                *(
                    sum(b.rows[arm][key] for b in benches) / len(benches) if key in row else ""
                    for key in columns
                ),
            ]
            for arm, row in benches[0].rows.items()
        ]
        title = f"{name}: mean of {len(benches)} seed(s)"
        show(title, [name, *columns], table, as_json=args.json)


if __name__ == "__main__":
    main()
