import math

import numpy
import pytest
import sacrebleu

from services.evaluation.domain import Score
from services.evaluation.measurement import Measurement
from services.evaluation.metrics import is_lower_better, load, measure
from services.evaluation.metrics.context import MetricContext
from tailor.errors import FailedPrecondition, InvalidArgument, Reason
from tailor.metric_kinds import PARAMETERS
from tailor.values import MetricDefinition
from tests.unit.evaluation.metrics.judges import answered

CONTEXT = MetricContext(house_terms=("residual risk", "Control owner"))


def run(kind: str, *rows: object, parameters: str = "{}") -> Measurement:
    return measure(MetricDefinition(kind, kind, parameters), rows, CONTEXT)  # type: ignore[arg-type]


def test_every_kind_has_a_module_with_a_source() -> None:
    for kind in PARAMETERS:
        module = load(kind)
        assert callable(module.measure)
        assert module.__doc__
        assert any(sign.isdigit() for sign in module.__doc__) or "proto" in module.__doc__, kind


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(InvalidArgument) as error:
        load("quality")
    assert error.value.reason == Reason.INVALID_METRIC


@pytest.mark.parametrize("kind", ["perplexity", "repetition", "fabrication"])
def test_losses_are_lower_is_better(kind: str) -> None:
    assert is_lower_better(MetricDefinition(kind, kind))
    assert not is_lower_better(MetricDefinition("rougeL", "rougeL"))


def test_rouge_of_known_texts() -> None:
    row = answered("the cat sat on a mat", "the cat lay on the mat")
    # Of six words each, the, cat, on, mat are common; two pairs of five (the cat, and no other besides), and the subsequence has four.
    assert run("rouge1", row).value() == pytest.approx(4 / 6)
    assert run("rouge2", row).value() == pytest.approx(1 / 5)
    assert run("rougeL", row).value() == pytest.approx(4 / 6)


def test_rouge_stems_english_and_reads_other_alphabets() -> None:
    assert run("rouge1", answered("controls tested", "control testing")).value() == 1.0
    assert run("rouge1", answered("Контроль надёжен", "контроль слаб", language="ru")).value() == pytest.approx(0.5)
    assert run("rouge1", answered("风险高", "风险低", language="zh")).value() == pytest.approx(2 / 3)


def test_bleu_is_the_corpus_bleu_of_sacrebleu() -> None:
    answers = ["The control was tested in March and it failed.", "No issue was found in the second branch."]
    references = ["The control was tested in March and failed.", "No issues were found in the second branch."]
    measurement = run("bleu", *(answered(ours, theirs) for ours, theirs in zip(answers, references, strict=True)))
    assert measurement.value() == pytest.approx(sacrebleu.corpus_bleu(answers, [references]).score)
    assert measurement.row_values()[0] == pytest.approx(sacrebleu.sentence_bleu(answers[0], [references[0]]).score)


def test_bleu_combines_many_resamples_at_once() -> None:
    rows = [answered("a b c d e", "a b c d e"), answered("x y z w v", "a b c d e")]
    measurement = run("bleu", *rows)
    sums = numpy.array([[entry, entry] for entry in measurement.statistics if entry is not None], numpy.float64)
    assert measurement.combine(sums).tolist() == [[pytest.approx(100.0)] * 2, [0.0] * 2]


def test_chrf_is_the_mean_of_the_rows() -> None:
    assert run("chrf", answered("abcdef ghi", "abcdef ghi"), answered("zzz", "abcdef")).value() == pytest.approx(50.0)


def test_log_likelihood_is_by_token_and_perplexity_follows_from_it() -> None:
    rows = [answered(None, "a", score=Score(-2.0, 4)), answered(None, "b", score=Score(-4.0, 2))]
    assert run("log_likelihood", *rows).value() == pytest.approx(-1.0)
    assert run("perplexity", *rows).value() == pytest.approx(math.e)


def test_pairs_are_compared_per_token() -> None:
    """A margin of +1, one of -0.5 although the chosen answer's sum is higher, a tie, and a row of a document."""
    rows = [
        answered(None, "a", score=Score(-2.0, 2), rejected_score=Score(-2.0, 1)),
        answered(None, "b", score=Score(-2.0, 2), rejected_score=Score(-3.0, 6)),
        answered(None, "c", score=Score(-4.0, 4), rejected_score=Score(-2.0, 2)),
        answered(None, "d", score=Score(-1.0, 1)),
    ]
    margins = run("pair_margin", *rows)
    assert margins.row_values() == [1.0, -0.5, 0.0, None]
    assert margins.value() == pytest.approx(1 / 6)
    wins = run("win_rate", *rows)
    assert (wins.row_values(), wins.value()) == ([1.0, 0.0, 0.5, None], 0.5)


def test_terms_are_the_micro_f1_of_whole_words() -> None:
    rows = [
        answered("The RESIDUAL\nrisk is low.", "Residual risk; the control owner agrees."),
        answered("A control owner and residual risks.", "Nothing."),
    ]
    # One true positive; one missed term; one that the reference does not have. `risks` is another word.
    assert run("terms", *rows).value() == pytest.approx(2 * 1 / (2 * 1 + 1 + 1))


def test_words_in_a_terms_place_are_false_positives() -> None:
    parameters = '{"terms": ["client"], "instead_of": {"client": ["customer", "punter"]}}'
    reference = "The client agrees."
    assert run("terms", answered("The client agrees.", reference), parameters=parameters).value() == 1.0
    assert run("terms", answered("The client, a customer.", reference), parameters=parameters).value() == pytest.approx(
        2 / 3
    )
    assert run("terms", answered("The punter agrees.", reference), parameters=parameters).value() == 0.0


def test_terms_need_terms() -> None:
    with pytest.raises(FailedPrecondition) as error:
        measure(MetricDefinition("terms", "terms"), [answered("a", "b")], MetricContext())
    assert error.value.reason == Reason.NOTHING_TO_MEASURE


def test_repetition_is_the_share_of_repeated_four_grams() -> None:
    assert run("repetition", answered("one two three four five six")).value() == 0.0
    # Nine words have six 4-grams, of which `a b c d` stands twice.
    assert run("repetition", answered("a b c d e a b c d")).value() == pytest.approx(1 / 6)


def test_a_heading_that_repeats_is_a_loop() -> None:
    looping = run("repetition", answered("# Findings\n" * 10), answered("Two controls failed, and one was not tested."))
    assert looping.parts["loops"].row_values() == [1.0, 0.0]
    assert looping.row_values()[0] == pytest.approx(1 - 2 / 17)


def test_a_table_is_not_a_loop() -> None:
    table = "\n".join(f"| control {number} | owner {number} | tested |" for number in range(20))
    assert run("repetition", answered(table)).parts["loops"].value() == 0.0


def test_classification_f1_of_known_counts() -> None:
    rows = [
        answered("High.", "high"),
        answered("The risk is low", "high"),
        answered("low", "low"),
        answered("low or high", "low"),
        answered("medium", "medium"),
    ]
    # high: 1 TP, 1 FN; low: 1 TP, 1 FP, 1 FN (two labels do not count); medium: 1 TP.
    macro = run("classification_f1", *rows)
    assert macro.value() == pytest.approx((2 / 3 + 2 / 4 + 1) / 3)
    assert macro.counts == {"answers_without_one_label": 1}
    micro = run("classification_f1", *rows, parameters='{"average": "micro"}')
    assert micro.value() == pytest.approx(2 * 3 / (2 * 3 + 1 + 2))


def test_only_rows_of_the_named_tasks_count() -> None:
    rows = [answered("a b", "a b", task="report"), answered("x", "a b", task="section")]
    measurement = run("rouge1", *rows, parameters='{"tasks": ["report"]}')
    assert measurement.row_values() == [1.0, None]
    with pytest.raises(FailedPrecondition):
        run("rouge1", *rows, parameters='{"tasks": ["rewrite"]}')


def test_rows_without_an_answer_do_not_count() -> None:
    assert run("rouge1", answered(None, "a"), answered("a", "a")).row_values() == [None, 1.0]
    with pytest.raises(FailedPrecondition):
        run("rouge1", answered(None, "a"))
