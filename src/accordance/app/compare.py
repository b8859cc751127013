"""`compare_objectives`: the same feedback and the same KL budget, several objectives; what each makes of them.

Every trial trains the same start on the same records under one objective, one strength, one seed and one share of
flipped labels, and is probed on the way: win rate over the start against KL from it. Objectives are then compared
where their trials reach the same KL, since a larger step alone wins more often. Trials are kept in the folder, so that
a study that was stopped goes on.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from transformers import TrainerCallback

from accordance.app.scorers import resolve_scorer
from accordance.core import figures
from accordance.core.errors import ConfigError
from accordance.core.record import Judgment, Records
from accordance.core.report import Report, write_whole
from accordance.core.stats import bootstrap
from accordance.evaluation.judging import judge
from accordance.evaluation.sampling import draw
from accordance.models import LocalPolicy
from accordance.objectives import get_objective
from accordance.training import TrainingConfig, train

Progress = Callable[[str, int, int], object]
#: Figures show what is within so many times the budget.
_SHOWN = 5
#: The pairwise family on one page: the *PO guide's, and what stands beside it.
FAMILY = ("dpo", "ln_dpo", "ipo", "simpo", "hinge", "robust", "orpo", "lcpo(dpo)")


@dataclass(frozen=True)
class Trial:
    """One training run of the study.

    Attributes:
        objective: what recipes call it.
        strength: its `beta`; None where it has none.
        seed: of the run.
        noise: share of comparisons whose label was flipped.
    """

    objective: str
    strength: float | None
    seed: int
    noise: float

    @property
    def name(self) -> str:
        """Unique in the study, and fit for a file."""
        beta = "" if self.strength is None else f"-beta{self.strength:g}"
        return f"{self.objective}{beta}-seed{self.seed}-noise{self.noise:g}".replace("(", "_").replace(")", "")


@dataclass(frozen=True)
class Point:
    """What a probe found.

    Attributes:
        step: optimiser steps taken.
        kl: KL from the start, nats per answer.
        win: win rate over the start.
        groups: the same by group of people.
        length: mean tokens of an answer.
        error: standard error of the win rate, over prompts.
    """

    step: int
    kl: float
    win: float
    groups: Mapping[str, float]
    length: float
    error: float = 0.0


class _Probe(TrainerCallback):
    """Samples and judges at some steps of a run."""

    def __init__(self, steps: Sequence[int], look: Callable[[int], Point]) -> None:
        self.steps, self.look, self.points = set(steps), look, [Point(0, 0.0, 0.5, {}, 0.0)]

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look, where it is time."""
        if state.global_step in self.steps:
            self.points.append(self.look(state.global_step))


def compare_objectives(
    load: Callable[[], LocalPolicy],
    records: Records,
    held_out: Records,
    *,
    output_dir: str | Path,
    objectives: Sequence[str] = FAMILY,
    factors: Sequence[float] = (1.0, 4.0),
    seeds: Sequence[int] = (0,),
    noise: Sequence[float] = (0.0,),
    max_kl: float = 4.0,
    max_steps: int = 120,
    probes: int = 5,
    samples: int = 200,
    max_new_tokens: int = 64,
    scorer: Any = "population",
    progress: Progress | None = None,
    **options: Any,
) -> Report:
    """Train one start under several objectives and compare them at the same KL.

    Args:
        load: gives the start; called once for every trial.
        records: feedback to train on.
        held_out: whose prompts are answered.
        output_dir: where trials and report go; trials that are there are not run again.
        objectives: what recipes call them.
        factors: strengths to try: an objective's own `beta` times these, for those that have one.
        seeds: of the runs.
        noise: shares of comparisons that are flipped before training, beside the labels as they are.
        max_kl: the budget, nats per answer.
        max_steps: of every trial.
        probes: how often a trial is looked at.
        samples: held-out prompts answered at each probe.
        max_new_tokens: where these answers are cut.
        scorer: who compares; see `accordance.app.scorers.resolve_scorer`.
        progress: called with (stage, done, total).
        **options: of training, the same for all (see `TrainingConfig`).

    Returns:
        The report, also saved in `output_dir`.

    Raises:
        ConfigError: an objective is unknown or learns online, or an option has no effect on any of them.
    """
    note: Progress = progress or (lambda stage, done, total: None)
    folder = Path(output_dir) / "trials"
    folder.mkdir(parents=True, exist_ok=True)
    judges, by_group = resolve_scorer(scorer)
    trials = plan_trials(objectives, factors, seeds, noise)
    setting = {
        "max_steps": max_steps, "probes": probes, "samples": samples, "max_new_tokens": max_new_tokens,
        "records": records.fingerprint(), "held_out": held_out.fingerprint(), "options": options,
    }  # fmt: skip
    found: dict[Trial, list[Point]] = {}
    start = load()
    for number, trial in enumerate(trials):
        note("trials", number, len(trials))
        file = folder / f"{trial.name}.json"
        kept = json.loads(file.read_text()) if file.exists() else None
        if kept is None or kept["setting"] != json.loads(json.dumps(setting)):
            points = _run(trial, load(), start, records, held_out, setting, judges, by_group, folder)
            kept = {"setting": setting, "points": [asdict(point) for point in points]}
            write_whole({file: json.dumps(kept)})
        found[trial] = [Point(**point) for point in kept["points"]]
    note("trials", len(trials), len(trials))
    report = study_report(found, max_kl, setting | {"objectives": list(objectives)})
    report.save(Path(output_dir))
    return report


def plan_trials(
    objectives: Sequence[str], factors: Sequence[float], seeds: Sequence[int], noise: Sequence[float]
) -> list[Trial]:
    """Every trial of a study, in the order in which they are run.

    Raises:
        ConfigError: an objective is unknown, is named twice, or learns from rollouts.
    """
    if len(set(objectives)) != len(objectives):
        raise ConfigError("an objective is named twice", where="objectives", found=", ".join(objectives))
    trials = []
    for name in objectives:
        objective = get_objective(name)
        if objective.online:
            raise ConfigError(
                f"{name} learns from what the policy samples: no records to compare on", where=name
            )
        own = next((v for k, v in objective.options.items() if k.rpartition(".")[2] == "beta"), None)
        strengths = (None,) if own is None else tuple(round(own * factor, 6) for factor in factors)
        shares = [0.0, *[share for share in noise if share]]
        trials += [Trial(name, beta, seed, share) for share in shares for seed in seeds for beta in strengths]
    return trials


def _run(
    trial: Trial,
    policy: LocalPolicy,
    start: LocalPolicy,
    records: Records,
    held_out: Records,
    setting: Mapping[str, Any],
    judges: Any,
    by_group: Any,
    folder: Path,
) -> list[Point]:
    """Train one trial and look at it on the way."""

    def look(step: int) -> Point:
        answers = draw(
            policy, held_out, start, samples=setting["samples"], max_new_tokens=setting["max_new_tokens"]
        )
        verdicts = judge(answers, judges, by_group)
        ratio = answers.log_ratio
        assert ratio is not None
        groups = {name: float(np.nanmean(group.win)) for name, group in verdicts.groups.items()}
        length = float(np.mean([len(c.token_ids) for c in answers.after]))
        error = float(np.nanstd(verdicts.win) / np.sqrt(max(int((~np.isnan(verdicts.win)).sum()), 1)))
        return Point(step, float(np.mean(ratio)), float(np.nanmean(verdicts.win)), groups, length, error)

    steps, probes = setting["max_steps"], setting["probes"]
    probe = _Probe([round(steps * (i + 1) / probes) for i in range(probes)], look)
    own = {} if trial.strength is None else {"beta": trial.strength}
    config = TrainingConfig.of(
        {"output_dir": str(folder / "last"), "save_strategy": "no", "max_steps": steps, "check": False}
        | dict(setting["options"])
        | {"objective": trial.objective, "seed": trial.seed}
        | own
    )
    labels = flipped(records, trial.noise, trial.seed)
    train(policy, labels, config, callbacks=(probe,), progress=lambda stage, done, total: None)
    return probe.points


def flipped(records: Records, share: float, seed: int) -> Records:
    """The records with the labels of a share of their comparisons turned round."""
    if not share:
        return records
    chance = np.random.default_rng(seed)

    def turned(judgment: Judgment) -> Judgment:
        if judgment.kind != "comparison" or chance.random() >= share:
            return judgment
        return replace(
            judgment,
            values=tuple(sum((min(judgment.values), max(judgment.values))) - v for v in judgment.values),
        )

    return Records.of(
        (replace(record, judgments=tuple(map(turned, record.judgments))) for record in records),
        source=f"{records.source}, {share:.0%} flipped",
    )


def at_budget(points: Sequence[Point], max_kl: float, value: Callable[[Point], float]) -> tuple[float, bool]:
    """A value where a trial first reaches the budget, between probes in a straight line.

    Returns:
        The value there, and whether the budget was reached; else its value at the last probe.
    """
    for before, after in pairwise(points):
        if after.kl >= max_kl > before.kl:
            share = (max_kl - before.kl) / (after.kl - before.kl)
            return value(before) * (1 - share) + value(after) * share, True
    return value(points[-1]), False


def study_report(found: Mapping[Trial, Sequence[Point]], max_kl: float, setting: Mapping[str, Any]) -> Report:
    """What a study found, as tables and figures."""
    wins: dict[tuple[str, float | None, float], list[float]] = defaultdict(list)
    last: dict[tuple[str, float | None, float], tuple[float, float]] = {}
    errors = [points[-1].error for points in found.values() if points[-1].error]
    reached: dict[tuple[str, float | None, float], list[bool]] = defaultdict(list)
    worst: dict[tuple[str, float | None, float], list[float]] = defaultdict(list)
    for trial, points in found.items():
        key = (trial.objective, trial.strength, trial.noise)
        win, there = at_budget(points, max_kl, lambda point: point.win)
        wins[key].append(win)
        last[key] = points[-1].win, points[-1].kl
        reached[key].append(there)
        groups = points[-1].groups
        if groups:
            worst[key].append(
                min(at_budget(points, max_kl, lambda p, g=g: p.groups.get(g, 0.5))[0] for g in groups)
            )
    objectives = list(dict.fromkeys(trial.objective for trial in found))
    best = {
        name: max((k for k in wins if k[0] == name and k[2] == 0), key=lambda k: float(np.mean(wins[k])))
        for name in objectives
    }
    order = sorted(objectives, key=lambda name: -float(np.mean(wins[best[name]])))
    shares = sorted({trial.noise for trial in found})
    report = Report(
        "Objectives compared",
        f"{len(found)} trials of {len(objectives)} objectives from one start, on the same records, compared where "
        f"they are {max_kl:g} nats from it.",
        meta={"setting": dict(setting), "max_kl": max_kl},
    )
    report.add(
        "best_objective", order[0], headline=True, note="highest win rate at the budget, at its best strength"
    )
    report.add("best_win_rate", float(np.mean(wins[best[order[0]]])), unit="share", headline=True)
    rows = []
    for name in order:
        key = best[name]
        every = [float(np.mean(wins[k])) for k in wins if k[0] == name and k[2] == 0]
        noisy = {s: float(np.mean(wins[(name, key[1], s)])) for s in shares if (name, key[1], s) in wins}
        rows.append(
            [
                name,
                key[1],
                float(np.mean(wins[key])),
                float(np.mean(worst[key])) if worst[key] else None,
                max(every) - min(every) if len(every) > 1 else None,
                *[noisy[s] - noisy[0.0] if s in noisy else None for s in shares if s],
                f"{sum(reached[key])} of {len(reached[key])}",
                *last[key],
            ]
        )
    columns = ["objective", "best beta", "win rate", "worst group", "spread over betas"]
    columns += [f"change at {share:.0%} flipped" for share in shares if share]
    columns += ["reached", "at the end", "KL at the end"]
    report.table(
        "At the budget",
        columns,
        rows,
        note="Win rate over the start by the judge, both orders averaged, mean over seeds. Where a trial does not "
        "reach the budget (reached) its last probe counts. The best beta was chosen on the same answers. The "
        "win rate and the KL at the end of a trial show what going on does; that is no comparison.",
    )
    if errors:
        report.add(
            "standard_error",
            float(np.median(errors)),
            note="of one win rate, over prompts: smaller differences may be chance",
        )
    report.data("table", [dict(zip(columns, row)) for row in rows])
    curves = {}
    for name in order:
        some = [
            points
            for trial, points in found.items()
            if (trial.objective, trial.strength, trial.noise) == best[name]
        ]
        near = [p for p in some[0] if p.kl <= _SHOWN * max_kl]
        curves[name] = ([p.kl for p in near], [p.win for p in near])
    report.figure(
        "Win rate against KL, each at its best beta",
        figures.lines(curves, xlabel="KL from the start, nats per answer", ylabel="win rate over the start"),
        note=f"First seed, probes within {_SHOWN} times the budget of {max_kl:g} nats.",
    )
    seeds = {name: np.array(wins[best[name]]) for name in order}
    if min(map(len, seeds.values())) > 1:
        rows_of = [(name, bootstrap(values, seed=0)) for name, values in seeds.items()]
        shown = figures.forest(rows_of, xlabel="win rate", reference=0.5)
        report.figure("Win rate at the budget, over seeds", shown)
    for name in order:
        spread = {
            k[1]: float(np.mean(wins[k])) for k in wins if k[0] == name and k[2] == 0 and k[1] is not None
        }
        if len(spread) > 1:
            report.data(f"betas_{name}", {f"{beta:g}": value for beta, value in spread.items()})
    sensitive: dict[str, tuple[list[float], list[float]]] = {}
    for name in order:
        tried = sorted(
            (k[1], float(np.mean(wins[k]))) for k in wins if k[0] == name and not k[2] and k[1] is not None
        )
        if tried:
            sensitive[name] = [beta / tried[0][0] for beta, _ in tried], [win for _, win in tried]
    if any(len(x) > 1 for x, _ in sensitive.values()):
        report.figure(
            "Win rate at the budget by beta",
            figures.lines(sensitive, xlabel="beta, times the smallest that was tried", ylabel="win rate"),
        )
    lengths = {
        name: ([p.kl for p in near], [p.length for p in near])
        for name in order
        for points in [next(p for t, p in found.items() if (t.objective, t.strength, t.noise) == best[name])]
        for near in [[p for p in points[1:] if p.kl <= _SHOWN * max_kl]]
    }
    report.figure(
        "Length against KL", figures.lines(lengths, xlabel="KL, nats per answer", ylabel="tokens per answer")
    )
    unreached = [name for name in order if not all(reached[best[name]])]
    if unreached:
        report.warn(
            f"{', '.join(unreached)} stayed below the budget of {max_kl:g} nats: more steps or a larger learning rate "
            "would make the comparison fair."
        )
    return report
