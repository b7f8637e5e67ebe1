"""chrF: F-score of character n-grams (Popović 2015, "chrF: character n-gram F-score for automatic MT evaluation"), by sacrebleu."""

from collections.abc import Sequence

from sacrebleu.metrics.chrf import CHRF

from services.evaluation.domain import AnsweredRow
from services.evaluation.measurement import Measurement, mean_of
from services.evaluation.metrics.context import MetricContext


def measure(rows: Sequence[AnsweredRow], context: MetricContext) -> Measurement:
    """The mean of the rows' chrF2, 0 to 100. Needs no tokenizer, so it suits every language."""
    chrf = CHRF()
    return mean_of(
        None if row.answer is None else float(chrf.sentence_score(row.answer, [row.row.reference]).score)
        for row in rows
    )
