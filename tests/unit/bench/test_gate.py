"""The trials of the gate's bench, on models of known scores."""

import random
from collections import Counter
from dataclasses import replace

import pytest

from bench.gate import headline, make_judge
from bench.gate_adapters import LOOP_WORDS, digest_inputs, loop
from bench.gate_measure import MeasuredModel, count_new_tokens
from bench.gate_trials import TrialComparison, TrialTally, draw_rows, pair_seeds
from services.evaluation.domain import Answer, HeldOutRow, ModelResult, Score
from services.registry.domain import Decision
from services.synthetic.domain import Row as MadeRow
from tailor.values import SamplingDefaults

pytestmark = pytest.mark.release

ROWS = [
    HeldOutRow(f"row_{number}", "section", (f"doc_{number // 2}",), (("user", "Write."),), f"line of sight {number}")
    for number in range(40)
]


def make_model(name: str, log_probability: float, parity: float = 0.0) -> MeasuredModel:
    noise = random.Random(name)
    scores = tuple(Score(log_probability * 10 + noise.gauss(0, 0.5), 10) for _ in ROWS)
    return MeasuredModel(name, ModelResult(tuple(Answer(row.reference) for row in ROWS), scores), parity)


def test_a_trial_draws_whole_documents_without_replacement() -> None:
    numbers = draw_rows(ROWS, random.Random(1))
    assert len(numbers) == len(set(numbers)) == 20
    documents = Counter(ROWS[number].document_ids for number in numbers)
    assert set(documents.values()) == {2}


def test_the_real_code_tells_better_worse_and_broken_models_apart() -> None:
    judge = make_judge(["line of sight"], ROWS, make_model("few_shot", -2.8))
    base, good = make_model("base", -3.0), make_model("good-1", -2.0)
    everything = range(len(ROWS))
    assert judge.run(TrialComparison("better", good, base, None), everything).decision is Decision.PASSED
    worse = judge.run(TrialComparison("shuffled", make_model("bad", -2.5), base, good), everything)
    assert worse.decision is Decision.REFUSED and "over incumbent" in worse.reasons[0]
    half = judge.run(TrialComparison("half_scale", make_model("half", -2.0, parity=0.4), base, None), everything)
    assert half.decision is Decision.REFUSED and "parity" in half.reasons[0]
    prompted = replace(judge, few_shot=make_model("few_shot", -2.0))
    assert prompted.run(TrialComparison("better", good, base, None), everything).decision is not Decision.PASSED


def test_pairs_of_seeds_are_ordered_without_those_that_set_the_limit() -> None:
    models = [make_model(f"good-{seed}", -2.0) for seed in (1, 2, 3)]
    assert len(list(pair_seeds(models, models[0]))) == 4


def test_the_headline_counts_refusals_by_a_guard_apart_from_those_by_the_primary_metric() -> None:
    tallies = {
        "aa": TrialTally(Counter(refused=3, undecided=17), Counter({"guard": 1, "primary over incumbent": 2})),
        "better": TrialTally(Counter(passed=19, undecided=1), Counter()),
        "looping": TrialTally(Counter(passed=1, refused=9), Counter()),
        "looping_first": TrialTally(Counter(passed=10), Counter()),
    }
    figures = headline(tallies)
    assert (figures["aa_refused"], figures["aa_not_better"], figures["aa_passed"]) == (0.05, 0.15, 0.0)
    assert (figures["degraded_passed"], figures["degraded_first_passed"], figures["better_passed"]) == (0.1, 1.0, 0.95)
    assert figures["undecided"]["aa"] == 0.85


def test_a_loop_repeats_the_first_words_up_to_the_length_of_the_answer() -> None:
    words = loop(" ".join(str(number) for number in range(20))).split()
    assert len(words) == 20 and words[:LOOP_WORDS] == words[LOOP_WORDS : 2 * LOOP_WORDS]


def test_trainings_of_another_recipe_or_of_other_rows_are_not_used_again() -> None:
    row = MadeRow("section", ("doc_1",), (("user", "Write."), ("assistant", "Done.")))
    other = replace(row, messages=(("user", "Write."), ("assistant", "Not yet.")))
    digests = {digest_inputs(recipe, [made], [row]) for recipe in ("{}", '{"seed": 1}') for made in (row, other)}
    assert len(digests) == 4
    assert digest_inputs("{}", [row]) == digest_inputs("{}", [row])


def test_answers_are_as_long_as_callers_get_them_and_not_longer_than_the_bench_can_write() -> None:
    lengths = [count_new_tokens(SamplingDefaults(max_tokens=tokens)) for tokens in (0, 24, 512)]
    assert lengths == [64, 24, 64]
