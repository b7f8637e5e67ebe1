"""Repetition: the share of repeated n-grams, seq-rep-n (Welleck et al. 2020, "Neural Text Generation With Unlikelihood Training")."""

import re
from collections.abc import Sequence

from services.evaluation.domain import AnsweredRow
from services.evaluation.measurement import Measurement, mean_of
from services.evaluation.metrics.context import MetricContext
from tailor.metric_kinds import RepetitionParameters

LOWER_IS_BETTER = True
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\w+|[^\w\s]")
# A loop is a block of at most MAX_PERIOD words that stands MIN_TIMES or more times in a row and has MIN_LOOP_WORDS in all.
MAX_PERIOD = 64
MIN_TIMES = 4
MIN_LOOP_WORDS = 12
MAX_WORDS = 20_000


def measure(rows: Sequence[AnsweredRow], context: MetricContext) -> Measurement:
    """1 - distinct n-grams / n-grams of each answer, 0 to 1, as a mean over the rows; answers shorter than an n-gram have 0.

    The part `loops` is the share of answers that are caught in a loop. Only the first 20,000 words of an answer are read.
    """
    size = context.parameters_as(RepetitionParameters).words
    texts = [None if row.answer is None else WORD.findall(row.answer.lower())[:MAX_WORDS] for row in rows]
    shares = mean_of(None if words is None else repeated_share(words, size) for words in texts)
    loops = mean_of(None if words is None else float(has_loop(words)) for words in texts)
    return Measurement(shares.statistics, shares.combine, parts={"loops": loops})


def repeated_share(words: Sequence[str], size: int) -> float:
    """The share of n-grams of `size` words that stand earlier in the text."""
    total = len(words) - size + 1
    if total <= 0:
        return 0.0
    return 1.0 - len({tuple(words[start : start + size]) for start in range(total)}) / total


def has_loop(words: Sequence[str]) -> bool:
    """True if a block of words stands several times in a row."""
    return any(_longest_run(words, period) >= max(MIN_TIMES * period, MIN_LOOP_WORDS) for period in _periods(words))


def _periods(words: Sequence[str]) -> range:
    return range(1, min(MAX_PERIOD, len(words) // MIN_TIMES) + 1)


def _longest_run(words: Sequence[str], period: int) -> int:
    """The length of the longest stretch that repeats itself after `period` words."""
    longest = run = 0
    for first, second in zip(words, words[period:], strict=False):
        run = run + 1 if first == second else 0
        longest = max(longest, run)
    return longest + period if longest else 0
