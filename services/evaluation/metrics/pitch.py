"""Pitch: whether a text suits its readers: a full report or a board summary of the same facts.

Reading level: LIX (Björnsson 1968, "Läsbarhet"), which needs no dictionary. Facts: recall of figures and dates (after Nan et al. 2021).
"""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import fmean

from services.evaluation.domain import AnsweredRow
from services.evaluation.judge.prompts import pitch_request
from services.evaluation.measurement import Measurement, mean_of
from services.evaluation.metrics.context import MetricContext
from services.evaluation.metrics.figures import find_values
from services.evaluation.ports import JudgeModel
from tailor.metric_kinds import PitchParameters

MAX_TOKENS = 50
# Points of LIX between neighbouring levels of difficulty, twice: a text that is two levels off has 0.
LIX_RANGE = 20.0
LONG_WORD = 7
WORD = re.compile(r"[^\W\d_]+")
SENTENCE = re.compile(r"[.!?:]+(?:\s|$)|\n+")
PARTS = ("facts", "length", "reading_level", "told_apart")


def measure(rows: Sequence[AnsweredRow], context: MetricContext) -> Measurement:
    """The mean of four parts, each 0 to 1, over the rows whose task has a pitch. Blocks on the judge model.

    `facts`: share of the reference's figures and dates that the answer has; `length`: the shorter text's words by the longer one's;
    `reading_level`: 1 minus the difference of LIX by 20; `told_apart`: 1 if the judge names the row's own pitch. A part that does not apply
    to a row is left out of its mean. Without `judged`, there is no `told_apart`. Raises FailedPrecondition (NO_JUDGE).
    """
    parameters = context.parameters_as(PitchParameters)
    judge = context.require_judge() if parameters.judged else None

    def score(row: AnsweredRow) -> dict[str, float] | None:
        if row.answer is None or row.row.task not in parameters.pitches:
            return None
        named = _named_pitch(judge, row.answer, parameters) if judge else None
        parts = {
            "facts": kept_facts(row.row.reference, row.answer, row.row.language),
            "length": length_ratio(row.row.reference, row.answer),
            "reading_level": reading_level(row.row.reference, row.answer),
            "told_apart": None if named is None else float(named == row.row.task),
        }
        return {name: value for name, value in parts.items() if value is not None}

    with ThreadPoolExecutor(context.concurrency, thread_name_prefix="judge") as pool:
        scores = list(pool.map(score, rows))
    means = mean_of(fmean(entry.values()) if entry else None for entry in scores)
    parts = {name: mean_of(entry.get(name) if entry else None for entry in scores) for name in PARTS}
    failures = sum(judge is not None and entry is not None and "told_apart" not in entry for entry in scores)
    return Measurement(means.statistics, means.combine, parts=parts, counts={"judge_failures": failures})


def kept_facts(reference: str, answer: str, language: str = "") -> float | None:
    """The share of the reference's figures and dates that the answer has; None if it has none."""
    expected = find_values(reference, language)
    total = len(expected.figures) + len(expected.dates)
    if not total:
        return None
    missing = expected.missing_in(find_values(answer, language))
    return 1.0 - (len(missing.figures) + len(missing.dates)) / total


def length_ratio(reference: str, answer: str) -> float:
    """Words of the shorter text by those of the longer one."""
    lengths = sorted((len(answer.split()), len(reference.split())))
    return lengths[0] / lengths[1] if lengths[1] else 1.0


def reading_level(reference: str, answer: str) -> float | None:
    """1 if both have the same LIX, 0 if it differs by 20 or more; None if one of them has no words in letters."""
    levels = [lix(text) for text in (reference, answer)]
    if levels[0] is None or levels[1] is None:
        return None
    return max(0.0, 1.0 - abs(levels[0] - levels[1]) / LIX_RANGE)


def lix(text: str) -> float | None:
    """Words per sentence plus the percentage of words with more than six letters; None without words."""
    words = WORD.findall(text)
    if not words:
        return None
    sentences = sum(1 for part in SENTENCE.split(text) if WORD.search(part))
    long_words = sum(len(word) >= LONG_WORD for word in words)
    return len(words) / max(1, sentences) + 100 * long_words / len(words)


def _named_pitch(judge: JudgeModel, text: str, parameters: PitchParameters) -> str | None:
    messages, schema = pitch_request(text, parameters.pitches)
    content = judge.ask(messages, schema, MAX_TOKENS)
    return None if content is None else str(content["pitch"])
