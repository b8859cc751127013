"""Texts about what the model should be, before it is shown how: model spec midtraining (MSM, arXiv:2605.02087)."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from accordance.core.catalogue import system
from accordance.core.errors import ConfigError, DataError
from accordance.core.principles import PrincipleSet
from accordance.core.record import Records
from accordance.core.report import Report
from accordance.models import LocalPolicy
from accordance.training.config import TrainingConfig
from accordance.training.loops.midtrain_documents import SpecWriter, pieces
from accordance.training.loops.names import Names
from accordance.training.loops.session import Session, run_loop
from accordance.training.loops.stages import Plan, Stage, carry_out
from accordance.training.registry import loop

#: What the two stages are called in reports and in the run's folder.
DOCUMENTS, DEMONSTRATIONS = "documents", "demonstrations"
_OF_WRITING = ("called", "types", "ideas", "max_new_tokens", "temperature")


@loop("midtrain")
@system("S148", "MSM", paper="arXiv:2605.02087")
class Midtrain(Plan):
    """Next-token training on documents that discuss the model's spec, then the run's objective on its records.

    The documents are plain texts, by path or name, or are written here by a model from principles and reasons. All of
    their tokens are learned, without a chat template; texts share a forward pass and never see each other. The second
    stage is what the recipe says: ``objective: sft`` on demonstrations for the paper's, without the spec in the prompt.

    Each principle is one sub-domain of the spec, quoted whole; the paper has a model decompose a longer spec first.
    """

    documents: str | None = Field(None, description="plain texts about the spec, by path or name")
    principles: str | None = Field(
        None, description="the spec as a YAML or JSON file: documents are written from it"
    )
    writer: str | None = Field(None, description="the model that writes them")
    reasons: bool = Field(True, description="whether the writer is told the reasons of the principles")
    called: str = Field("the assistant", description="what the model is called in documents written here")
    types: list[str] | None = Field(None, description="kinds of text that are written")
    ideas: int = Field(2, ge=1, description="texts for each principle and type")
    max_new_tokens: int = Field(768, ge=1, description="where a text is cut, which is then left out")
    temperature: float = Field(1.0, ge=0, description="of the writing")
    mix: str | None = Field(None, description="texts such as the model was pre-trained on, mixed in")
    mix_share: float = Field(0.5, gt=0, lt=1, description="share of these among the texts of the stage")
    trainable: list[str] | None = Field(
        None, description="weights that the documents may change; by default all"
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="of the stage on documents: learning_rate, ..."
    )
    demonstrate: bool = Field(True, description="whether the second stage follows")

    @model_validator(mode="after")
    def _one_source(self) -> Midtrain:
        if (self.documents is None) == (self.principles is None):
            raise ValueError("name either documents, or principles to write them from")
        if (self.principles is None) != (self.writer is None):
            raise ValueError("principles need a writer, and a writer needs principles")
        unused = [name for name in (*_OF_WRITING, "reasons") if name in self.model_fields_set]
        if self.documents is not None and unused:
            raise ValueError(f"{', '.join(unused)}: no effect, the documents are written already")
        if self.mix is None and "mix_share" in self.model_fields_set:
            raise ValueError("mix_share has no effect without mix")
        return self

    def run(self, session: Session) -> None:
        """See `Loop.run`."""
        texts = session.keep("texts", lambda: self._texts(session))
        session.names = replace(session.names, given={**session.names.given, DOCUMENTS: texts})
        first = {"name": DOCUMENTS, "records": DOCUMENTS, "objective": "sft", "options": self.options}
        plan = [Stage.model_validate(first | {"trainable": self.trainable})]
        if self.demonstrate:
            plan.append(Stage.model_validate({"name": DEMONSTRATIONS}))
        carry_out(session, plan, self.probed(session))

    def _texts(self, session: Session) -> Records:
        if self.documents is not None:
            found = session.names.records(self.documents)
        else:
            found = self._written(session)
        most = int(self.options.get("max_length") or session.config.max_length or 0) or None
        texts = list(pieces(found, session.policy.tokenizer, most))
        told = {"documents": len(found), "pieces": len(texts), "mixed_in": 0}
        if self.mix is not None:
            others = list(pieces(session.names.records(self.mix), session.policy.tokenizer, most))
            wanted = round(len(texts) * self.mix_share / (1 - self.mix_share))
            if wanted > len(others):
                raise DataError(
                    "there are not enough texts to mix in",
                    where="loop.mix",
                    found=len(others),
                    expected=f"{wanted} for a share of {self.mix_share} beside {len(texts)} texts",
                    remedy="more texts, or a smaller loop.mix_share",
                )
            told["mixed_in"] = wanted
            texts += random.Random(session.config.seed).sample(others, wanted)
        session.measure("texts", lambda: told)
        return Records.of(texts, source="texts of the stage on documents")

    def _written(self, session: Session) -> Records:
        assert self.principles is not None and self.writer is not None
        principles = PrincipleSet.read(self.principles)
        given = {name: getattr(self, name) for name in _OF_WRITING if getattr(self, name) is not None}
        writer = SpecWriter(session.names.policy(self.writer), seed=session.config.seed, **given)
        written = writer.write(principles if self.reasons else principles.rules())
        left_out = {f"left out: {reason}": count for reason, count in writer.account.dropped.items()}
        session.measure("writing", lambda: {"written": writer.account.read, "kept": len(written), **left_out})
        return written


def compare_specs(
    start: Callable[[], LocalPolicy],
    documents: Mapping[str, Records | None],
    demonstrations: Mapping[str, Records | None],
    probe: Callable[[LocalPolicy], Mapping[str, float]],
    output_dir: str | Path,
    *,
    midtrain: Mapping[str, Any] | None = None,
    mix: Records | None = None,
    **options: Any,
) -> Report:
    """Every corpus of documents with every set of demonstrations, each from the same start: what generalises how.

    Args:
        start: makes the policy that each cell starts from.
        documents: corpora by name; None for no such stage (fine-tuning alone).
        demonstrations: sets by name (plain, with reasons, ...); None for no such stage (midtraining alone).
        probe: measures a policy on what no demonstration is about.
        output_dir: a folder for the runs, one below it for each cell.
        midtrain: options of the loop `midtrain` (``options``, ``mix_share``, ``trainable``).
        mix: texts such as the model was pre-trained on.
        **options: of the stage on demonstrations, as of any run.

    Returns:
        Per cell ``DOCUMENTS/DEMONSTRATIONS/PROBE``, and as a table; ``effect/...`` is a corpus's gain over no corpus
        with the same demonstrations.

    Raises:
        ConfigError: two cells would share a folder: a name is no name for one.
    """
    report = Report("What documents about a spec add to demonstrations")
    found: dict[tuple[str, str], dict[str, float]] = {}
    for corpus, texts in documents.items():
        for shown, records in demonstrations.items():
            if not all(part and not set(part) & set("/\\") for part in (corpus, shown)):
                raise ConfigError("names of cells are names of folders", found=f"{corpus!r}, {shown!r}")
            policy = start()
            folder = Path(output_dir) / f"{corpus} x {shown}"
            _cell(policy, texts, records, folder, midtrain or {}, mix, options)
            found[corpus, shown] = {name: float(value) for name, value in probe(policy).items()}
    names = list(next(iter(found.values())))
    rows = [[corpus, shown, *values.values()] for (corpus, shown), values in found.items()]
    report.table("Cells", ["documents", "demonstrations", *names], rows)
    for (corpus, shown), values in found.items():
        bare = next((found[name, shown] for name, texts in documents.items() if texts is None), None)
        for name, value in values.items():
            report.add(f"{corpus}/{shown}/{name}", value)
            if bare is not None and documents[corpus] is not None:
                report.data(f"effect/{corpus}/{shown}/{name}", value - bare[name])
    return report


def _cell(
    policy: LocalPolicy,
    texts: Records | None,
    records: Records | None,
    folder: Path,
    midtrain: Mapping[str, Any],
    mix: Records | None,
    options: Mapping[str, Any],
) -> None:
    """One cell: midtraining and demonstrations, one of them, or nothing."""
    if texts is None and records is None:
        return
    own = {f"loop.{name}": value for name, value in midtrain.items()}
    own |= {"loop": "midtrain", "loop.documents": "corpus", "loop.demonstrate": records is not None}
    own |= {"loop.mix": "mix"} if mix is not None else {}
    if texts is None:
        own = {"loop": "stages", "loop.plan": [{"name": DEMONSTRATIONS}]}
    config = TrainingConfig.of({"objective": "sft", **options, **own, "output_dir": str(folder)})
    names = Names({"corpus": texts, "mix": mix})
    run_loop(policy, records if records is not None else Records.of([]), config, names=names)
