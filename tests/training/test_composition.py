"""Any pairwise objective x any wrapper x any balancer x LoRA or all weights: two steps, or a refusal that says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from accordance.balancing import balancer_names
from accordance.core.errors import ConfigError
from accordance.objectives import get_objective, objective_names, wrapper_names
from accordance.training import TrainingConfig, train
from tests.tiny import policy, records
from tests.training.test_trainer import QUICK, logged, weights


def feedable(text: str) -> bool:
    """Whether comparisons alone feed it: no teacher, no critiques, no numbers of the records' own."""
    made = get_objective(text)
    return set(made.columns) <= {"annotator"} and not {"teacher_kl", "advantage"} & set(made.whole)


PAIRWISE = sorted(n for n in objective_names() if get_objective(n).bundle.kind == "pair" and feedable(n))
WRAPPERS = sorted(name for name in wrapper_names() if feedable(f"{name}(dpo)"))
OTHERS = [*PAIRWISE, "sft", "kto"]

inner = st.one_of(
    st.sampled_from(PAIRWISE),
    st.tuples(st.sampled_from(PAIRWISE), st.sampled_from(OTHERS)).map(lambda two: f"{two[0]} + 0.3*{two[1]}"),
)
wrapped = st.lists(st.sampled_from(WRAPPERS), max_size=2).flatmap(
    lambda names: inner.map(lambda text: "(".join([*names, text]) + ")" * len(names))
)
expressions = st.one_of(wrapped, st.tuples(wrapped, st.sampled_from(OTHERS)).map(" + 0.5*".join))


def check_pairs_of_settings(folder: Path, objective: str, balancer: str, lora: bool) -> str:
    """Two steps, or why not; ``"ran"`` or ``"refused"``."""
    options: dict[str, Any] = QUICK | {"objective": objective, "balancer": balancer, "use_peft": lora}
    options |= {"output_dir": str(folder), "max_steps": 2, "per_device_train_batch_size": 4, "check": False}
    try:
        config = TrainingConfig.of(options | ({"lora_r": 2} if lora else {}))
        config.build_objective()
    except ConfigError as error:
        text = str(error)
        assert error.remedy or error.expected or error.found is not None, text
        assert len(text) > 30
        return "refused"
    start = policy()
    before = torch.cat([p.detach().flatten() for p in start.model.parameters()])
    done = train(start, records(8), config)
    assert done.steps == 2 and len(logged(done, "loss")) >= 2
    assert all(torch.isfinite(torch.tensor(logged(done, "loss"))))
    after = weights(done)
    assert after.isfinite().all()
    if not lora:
        assert not torch.equal(before, after)
    return "ran"


@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(expressions, st.sampled_from(balancer_names()), st.booleans())
@example("lcpo(dpo)", "sum", True)
@example("spo(lcpo(tdpo))", "sum", True)
@example("mapl(simpo + 0.1*sft)", "sum", False)
@example("dpo + 0.5*sft", "raco", True)
@example("sparsepo + 0.5*dpo", "maxmin", False)
@example("lcpo(sparsepo)", "sum", True)
@example("lcpo(dpo) + 0.2*simpo", "mgda", False)
def test_what_is_composed_runs_or_says_why_not(
    tmp_path: Path, objective: str, balancer: str, lora: bool
) -> None:
    check_pairs_of_settings(tmp_path, objective, balancer, lora)


def test_the_good_half_runs_and_the_bad_half_is_refused(tmp_path: Path) -> None:
    good = [("focal(dpo)", "sum"), ("dpo + 0.5*sft", "cagrad"), ("spo(dpo)", "sum"), ("mapl(lcpo(dpo))", "sum")]
    bad = [("dpo", "raco"), ("dpo + kto", "sum"), ("lcpo(spo(dpo))", "sum"), ("spo(sparsepo)", "sum")]
    bad += [("focal(lcpo(dpo))", "sum"), ("dpo + dpo", "sum"), ("mapl(dpo) + simpo", "sum")]
    for number, (objective, balancer) in enumerate(good):
        assert check_pairs_of_settings(tmp_path / str(number), objective, balancer, False) == "ran", objective
    for objective, balancer in bad:
        assert check_pairs_of_settings(tmp_path / "no", objective, balancer, False) == "refused", objective
