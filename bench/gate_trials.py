"""Trials of the gate: documents drawn without replacement, so that each trial is a sample of documents, measured and decided by the real code."""

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from bench.gate_measure import MeasuredModel, measure_sample
from services.evaluation.domain import (
    BASE,
    CANDIDATE,
    FEW_SHOT,
    INCUMBENT,
    PARITY,
    Adapter,
    Evaluation,
    EvaluationResult,
    HeldOutRow,
    Serving,
    SpecialistTerms,
)
from services.evaluation.figures import fixed_value
from services.evaluation.wire import from_result
from services.registry import wire as registry_wire
from services.registry.domain import Decision, Gate, Verdict
from services.registry.rules.gate import decide
from tailor.storage.ref import Ref

DOCUMENT_SHARE = 0.5
# The sample's `min_gain_over_incumbent` was chosen on these two, so they prove nothing about it.
LIMIT_SEEDS = {"good-1", "good-2"}
NOWHERE = Ref("s3://reports/none/report.json", "", 0)


@dataclass(frozen=True)
class TrialComparison:
    """A candidate of some kind against the base and, if one serves, an incumbent."""

    kind: str
    candidate: MeasuredModel
    base: MeasuredModel
    incumbent: MeasuredModel | None


@dataclass
class TrialTally:
    """Verdicts of one kind, and why candidates were refused."""

    verdicts: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)

    def share(self, decision: Decision) -> float:
        """The share of a verdict."""
        return self.verdicts[decision.value] / max(1, sum(self.verdicts.values()))


@dataclass(frozen=True)
class Judge:
    """Evaluation's and the registry's code on one specialist's held-out rows."""

    terms: SpecialistTerms
    gate: Gate
    rows: Sequence[HeldOutRow]
    few_shot: MeasuredModel

    def run(self, comparison: TrialComparison, numbers: Sequence[int]) -> Verdict:
        """The verdict on a candidate that was evaluated on some of the rows."""
        models = {
            BASE: comparison.base.result,
            FEW_SHOT: self.few_shot.result,
            CANDIDATE: comparison.candidate.result,
        }
        if comparison.incumbent is not None:
            models[INCUMBENT] = comparison.incumbent.result
        measured = measure_sample(self.terms, self.rows, numbers, models)
        adapter = Adapter("candidate", self.terms.name, "dataset", "base", NOWHERE)
        serving = None if comparison.incumbent is None else Serving(self.terms.name, 1, "incumbent")
        result = EvaluationResult(
            Evaluation("evl_bench", adapter),
            len(numbers),
            serving,
            NOWHERE,
            1,
            measured.metrics,
            held_out_rows=len(self.rows),
            suites=(fixed_value(PARITY, comparison.candidate.parity, lower_is_better=True),),
            not_measured=measured.not_measured,
        )
        return decide(self.gate, registry_wire.to_evaluation(from_result(result)))

    def count(self, comparisons: Sequence[TrialComparison], trials: int, seed: int) -> TrialTally:
        """At least this number of trials, evenly over the comparisons."""
        tally, draw = TrialTally(), random.Random(seed)
        for number in range(trials):
            verdict = self.run(comparisons[number % len(comparisons)], draw_rows(self.rows, draw))
            tally.verdicts[verdict.decision.value] += 1
            if verdict.decision is Decision.REFUSED:
                tally.refusals.update({name_reason(reason) for reason in verdict.reasons})
        return tally


def draw_rows(rows: Sequence[HeldOutRow], draw: random.Random) -> list[int]:
    """The numbers of the rows of half of the documents."""
    documents = sorted({name for row in rows for name in row.document_ids})
    chosen = set(draw.sample(documents, round(len(documents) * DOCUMENT_SHARE)))
    return [number for number, row in enumerate(rows) if chosen & set(row.document_ids)]


def name_reason(reason: str) -> str:
    """The condition of a reason."""
    if reason.startswith("the guard"):
        return "guard"
    if reason.startswith("parity"):
        return "parity"
    model = next((model for model in (INCUMBENT, FEW_SHOT) if f" over {model}" in reason), BASE)
    return f"primary over {model}"


def pair_seeds(good: Sequence[MeasuredModel], base: MeasuredModel) -> Iterator[TrialComparison]:
    """Every good adapter against every other one, except for those whose comparison set `min_gain_over_incumbent`."""
    for candidate in good:
        for incumbent in good:
            if candidate is not incumbent and {candidate.name, incumbent.name} != LIMIT_SEEDS:
                yield TrialComparison("aa", candidate, base, incumbent)


def compare_degraded(
    degraded: Mapping[str, Sequence[MeasuredModel]], good: Sequence[MeasuredModel], base: MeasuredModel
) -> Iterator[TrialComparison]:
    """Every degraded adapter, by kind, against every good one that serves."""
    for kind, candidates in degraded.items():
        for candidate in candidates:
            for incumbent in good:
                yield TrialComparison(kind, candidate, base, incumbent)


def without_incumbent(comparisons: Sequence[TrialComparison]) -> list[TrialComparison]:
    """The same candidates before anything served."""
    return [replace(comparison, incumbent=None) for comparison in comparisons]
