"""Whether chance can pass the gate: adapters of known worth, measured once by evaluation's code and decided on many samples of documents.

`python -m bench.gate`, or `make bench-gate`. Trainings and scores are kept in `.tailor/bench-gate`, so that a run that was stopped continues;
delete it to start again.
"""

import argparse
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from google.protobuf import json_format

from bench import gate_page
from bench.gate_adapters import GOOD, HALF_SCALE, LOOPING, OVERTRAINED, SHUFFLED, VARIANTS, Variant, prepare
from bench.gate_measure import (
    MeasuredModel,
    measure_base,
    measure_few_shot,
    measure_variant,
    to_held_out,
    with_metrics,
)
from bench.gate_trials import Judge, TrialComparison, TrialTally, compare_degraded, pair_seeds, without_incumbent
from bench.report import ROOT
from bench.training_house import SAMPLE
from services.evaluation.domain import SpecialistTerms
from services.evaluation.figures import BUILT_IN
from services.registry.domain import Decision, Gate, GuardMetric
from services.registry.rules.sample_size import LOG_LIKELIHOOD
from tailor.api.events.v1 import models_pb2
from tailor.codec import decode
from tailor.values import MetricDefinition

FOLDER = ROOT / ".tailor" / "bench-gate"
TRIALS = 60
BETTER = "better"
GUARDS = (GuardMetric("rougeL", 0.05), GuardMetric("repetition", 0.15))
DEGRADED = (HALF_SCALE, SHUFFLED, LOOPING, OVERTRAINED)


def main() -> None:
    """Train what is missing, measure, decide and store the figures."""
    arguments = parse_arguments()
    variants = choose_variants(arguments.seeds, arguments.degraded)
    FOLDER.mkdir(parents=True, exist_ok=True)
    place = prepare(FOLDER, arguments.tokens, arguments.held_out)
    base = measure_base(place)
    few_shot = measure_few_shot(place, read_specialist()["evaluation"]["few_shot"])
    models = [model for variant in variants for model in measure_variant(place, variant)]
    judge = make_judge(place.house.house_terms, to_held_out(place.held_out), few_shot)
    figures = run_trials(judge, base, models, arguments.trials)
    figures |= {"cores": os.cpu_count(), "held_out_rows": len(place.held_out), "train_rows": len(place.train)}
    figures["train_tokens"] = arguments.tokens or "as the demo"
    print(gate_page.keep_figures(figures))


def parse_arguments() -> argparse.Namespace:
    """The sizes of the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.gate", description="Measure the gate's errors.")
    parser.add_argument("--trials", type=int, default=TRIALS, help="trials of each kind")
    parser.add_argument("--seeds", type=int, default=4, help="good adapters")
    parser.add_argument("--degraded", type=int, default=2, help="trainings of each degraded kind")
    parser.add_argument("--tokens", type=int, default=0, help="train tokens; by default, the sample's")
    parser.add_argument("--held-out", type=int, default=0, help="held-out rows; by default, all")
    return parser.parse_args()


def choose_variants(seeds: int, degraded: int) -> list[Variant]:
    """The first trainings of each kind."""
    counts = {GOOD: seeds}
    chosen: list[Variant] = []
    for variant in VARIANTS:
        if sum(variant.kind == other.kind for other in chosen) < counts.get(variant.kind, degraded):
            chosen.append(variant)
    return chosen


def read_specialist() -> dict[str, Any]:
    """The definition of the sample's specialist."""
    return tomllib.loads((SAMPLE / "specialist.toml").read_text(encoding="utf-8"))


def read_gate() -> Gate:
    """The gate of the sample's specialist, by the registry's code."""
    return decode(Gate, json_format.ParseDict(read_specialist()["gate"], models_pb2.Gate()))


def make_judge(house_terms: Sequence[str], rows: Sequence[Any], few_shot: MeasuredModel) -> Judge:
    """The sample's gate with guards of answers, and the metrics that it looks at."""
    gate = replace(read_gate(), guards=GUARDS)
    metrics = tuple(MetricDefinition(name, name) for name in BUILT_IN)
    terms = SpecialistTerms("engagement-reports", 1, tuple(house_terms), metrics=metrics)
    wanted = [gate.primary.metric or LOG_LIKELIHOOD, *(guard.metric for guard in gate.guards)]
    return Judge(with_metrics(terms, wanted), gate, rows, few_shot)


def run_trials(judge: Judge, base: MeasuredModel, models: Sequence[MeasuredModel], trials: int) -> dict[str, Any]:
    """The shares of each verdict by kind, and the issue's figures."""
    by_kind = {kind: [model for model in models if model.name.startswith(f"{kind}-")] for kind in (GOOD, *DEGRADED)}
    good, degraded = by_kind[GOOD], {kind: by_kind[kind] for kind in DEGRADED}
    worse = list(compare_degraded(degraded, good, base))
    comparisons: dict[str, list[TrialComparison]] = {
        "aa": list(pair_seeds(good, base)),
        BETTER: [TrialComparison(BETTER, model, base, None) for model in good],
        **{kind: [item for item in worse if item.kind == kind] for kind in DEGRADED},
    }
    for kind in DEGRADED:
        first = {item.candidate.name: item for item in without_incumbent(comparisons[kind])}
        comparisons[f"{kind}_first"] = list(first.values())
    # The demo's own gate, which has no guards, decides on the demo's adapter.
    judges = {BETTER: replace(judge, gate=read_gate())}
    tallies = {
        kind: judges.get(kind, judge).count(items, trials, seed)
        for seed, (kind, items) in enumerate(comparisons.items())
    }
    return {
        **headline(tallies),
        "trials": trials,
        "trainings": {kind: len(trainings) for kind, trainings in by_kind.items()},
    } | {
        "kinds": {
            kind: {"verdicts": dict(tally.verdicts), "refused_by": dict(tally.refusals)}
            for kind, tally in tallies.items()
        },
        "parity": {model.name: round(model.parity, 4) for model in models},
        "log_likelihood": {model.name: round(mean_log_likelihood(model), 4) for model in (base, *models)},
    }


def headline(tallies: Mapping[str, TrialTally]) -> dict[str, Any]:
    """The figures that the gate is held to. `aa_refused` counts refusals by a guard, `aa_not_better` those by the primary metric."""
    aa = tallies["aa"]
    trials = max(1, sum(aa.verdicts.values()))
    return {
        "aa_refused": aa.refusals["guard"] / trials,
        "aa_not_better": aa.share(Decision.REFUSED),
        "aa_passed": aa.share(Decision.PASSED),
        "degraded_passed": find_worst(tallies, DEGRADED),
        "degraded_first_passed": find_worst(tallies, [f"{kind}_first" for kind in DEGRADED]),
        "better_passed": tallies[BETTER].share(Decision.PASSED),
        "undecided": {kind: tally.share(Decision.UNDECIDED) for kind, tally in tallies.items()},
    }


def find_worst(tallies: Mapping[str, TrialTally], kinds: Sequence[str]) -> float:
    """The largest share of passes among some kinds."""
    return max((tallies[kind].share(Decision.PASSED) for kind in kinds if kind in tallies), default=0.0)


def mean_log_likelihood(model: MeasuredModel) -> float:
    """Nats per token on all held-out rows."""
    scores = [score for score in model.result.scores if score is not None]
    return sum(score.log_probability for score in scores) / sum(score.tokens for score in scores)


if __name__ == "__main__":
    main()
