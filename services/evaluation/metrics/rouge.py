"""ROUGE (Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries"), by rouge-score.

Words that answer and reference have in common, pairs of words (ROUGE-2), or their longest common subsequence (ROUGE-L).
"""

import re
from collections.abc import Sequence

from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import Tokenizer

from services.evaluation.domain import AnsweredRow
from services.evaluation.measurement import Measurement, mean_of
from services.evaluation.metrics.context import MetricContext

WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\w+?(?=[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\W|$)")


class WordTokenizer(Tokenizer):  # type: ignore[misc]
    """Words of any alphabet; rouge-score's own tokenizer knows only a-z. Each letter of a script without spaces is a word."""

    def tokenize(self, text: str) -> list[str]:
        return WORD.findall(text.lower())


def measure(rows: Sequence[AnsweredRow], context: MetricContext) -> Measurement:
    """The mean F1, 0 to 1. Rows in English, or in a language that is unknown, are stemmed."""
    variant = context.kind
    english = RougeScorer([variant], use_stemmer=True)
    other = RougeScorer([variant], tokenizer=WordTokenizer())

    def score(answered: AnsweredRow) -> float | None:
        if answered.answer is None:
            return None
        scorer = english if answered.row.language in ("", "en") else other
        return float(scorer.score(answered.row.reference, answered.answer)[variant].fmeasure)

    return mean_of(map(score, rows))
