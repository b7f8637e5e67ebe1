"""Corpus BLEU (Papineni et al. 2002, "BLEU: a Method for Automatic Evaluation of Machine Translation"), by sacrebleu (Post 2018)."""

from collections.abc import Sequence

import numpy
from sacrebleu.metrics.bleu import BLEU

from services.evaluation.domain import AnsweredRow
from services.evaluation.measurement import Measurement, Statistics, Sums
from services.evaluation.metrics.context import MetricContext
from tailor.metric_kinds import BleuParameters

ORDER = 4


def measure(rows: Sequence[AnsweredRow], context: MetricContext) -> Measurement:
    """BLEU of all rows together, 0 to 100. Statistics: matches and totals by n-gram order, both lengths, the number of rows."""
    bleu = BLEU(tokenize=context.parameters_as(BleuParameters).tokenize, effective_order=True)
    return Measurement(tuple(_count(bleu, row) for row in rows), combine)


def _count(bleu: BLEU, answered: AnsweredRow) -> Statistics:
    if answered.answer is None:
        return None
    score = bleu.sentence_score(answered.answer, [answered.row.reference])
    return (*map(float, score.counts), *map(float, score.totals), float(score.sys_len), float(score.ref_len), 1.0)


def combine(sums: Sums) -> Sums:
    """BLEU from sums of statistics."""
    flat = sums.reshape(-1, sums.shape[-1])
    return numpy.array([_score(entry) for entry in flat.tolist()]).reshape(sums.shape[:-1])


def _score(sums: list[float]) -> float:
    # Lengths and counts are whole numbers. A single short answer has no 4-grams: effective order makes its BLEU meaningful.
    counts = [round(value) for value in sums]
    score = BLEU.compute_bleu(
        correct=counts[:ORDER],
        total=counts[ORDER : 2 * ORDER],
        sys_len=counts[-3],
        ref_len=counts[-2],
        smooth_method="exp",
        effective_order=counts[-1] == 1,
    )
    return float(score.score)
