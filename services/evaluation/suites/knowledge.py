"""A candidate's knowledge of the dataset's documents: the dataset's closed-book set, asked without the documents.

An answer to a question that the documents answer is learned, missed or contradicted. A question that they do not answer should be declined.
"""

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum

from rouge_score import rouge_scorer

from services.evaluation.domain import CANDIDATE
from services.evaluation.measurement import mean_of
from services.evaluation.ports import SuiteAsker
from services.evaluation.suites.refusals import declines
from services.evaluation.suites.suite import SuiteContext, SuiteMeasure, SuiteResult
from tailor.datasets import ClosedBookKind, ClosedBookQuestion
from tailor.document_scores import DocumentScore

LEARNED, MISSED = "knowledge.learned", "knowledge.missed"
CONTRADICTED, ABSENT = "knowledge.contradicted", "knowledge.absent"
MAX_TOKENS = 80
# Shares of a right answer's figures and names, or else of the reference's words in their order (ROUGE-L recall), that make it learned.
MIN_VALUES, MIN_RECALL = 2 / 3, 0.5
NO_QUESTIONS = "The dataset has no such questions."
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
NAME = re.compile(r"(?<![.!?:\n] )(?<!^)\b[A-Z][\w'-]+")
# Without zero and one, which are often no figures.
NUMBER_WORDS = dict(
    zip(
        ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"],
        range(2, 13),
        strict=True,
    )
)
SCORER = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)


class Mark(StrEnum):
    """The mark of one answer."""

    LEARNED = "learned"
    MISSED = "missed"
    CONTRADICTED = "contradicted"


def run(ask: SuiteAsker, context: SuiteContext) -> SuiteResult:
    """Ask the closed-book set. The counts by document are those of the candidate's answers to questions that the documents answer."""
    learnable = [question for question in context.questions if question.kind is ClosedBookKind.LEARNABLE]
    absent = [question for question in context.questions if question.kind is ClosedBookKind.ABSENT]
    measures: dict[str, SuiteMeasure] = {}
    marks: dict[str, list[Mark]] = {}
    if learnable:
        marks = {model: list(map(mark, learnable, _answers(ask, model, learnable))) for model in context.models}
        measures |= {
            LEARNED: _share(marks, Mark.LEARNED),
            MISSED: _share(marks, Mark.MISSED, lower_is_better=True),
            CONTRADICTED: _share(marks, Mark.CONTRADICTED, lower_is_better=True),
        }
    if absent:
        hits = {model: list(map(declines, _answers(ask, model, absent))) for model in context.models}
        measures[ABSENT] = SuiteMeasure({model: mean_of(values) for model, values in hits.items()})
    missing = {LEARNED, MISSED, CONTRADICTED, ABSENT} - set(measures)
    scores = _by_document(learnable, marks.get(CANDIDATE, []))
    return SuiteResult(measures, not_measured=dict.fromkeys(sorted(missing), NO_QUESTIONS), documents=scores)


def mark(question: ClosedBookQuestion, answer: str) -> Mark:
    """Compare an answer with the reference by the figures and names that a right answer has, or else by words.

    An answer that has too few of them contradicts the document if it gives another figure, or another name, in their place.
    """
    if declines(answer):
        return Mark.MISSED
    if not question.values:
        recall = SCORER.score(question.reference, answer)["rougeL"].recall
        return Mark.LEARNED if recall >= MIN_RECALL else Mark.MISSED
    values_told = sum(_has(answer, value) for value in question.values)
    if values_told >= MIN_VALUES * len(question.values):
        return Mark.LEARNED
    return Mark.CONTRADICTED if _gives_other_values(question, answer) else Mark.MISSED


def _gives_other_values(question: ClosedBookQuestion, answer: str) -> bool:
    """True if the answer has figures, where figures are asked for, or else names, that neither the question nor the reference has."""
    values = " ".join(question.values)
    known = f"{question.question} {question.reference} {values}"
    others = NUMBER.findall(_plain(answer)) if NUMBER.search(_plain(values)) else NAME.findall(answer)
    return any(not _has(known, value) for value in others)


def _has(text: str, value: str) -> bool:
    """True if the text has the value as whole words, in any capitals, with any separators of thousands, and in figures or words."""
    pattern = re.compile(rf"(?<![\w.,]){re.escape(_plain(value))}(?![\w]|[.,]\d)")
    return pattern.search(_plain(text)) is not None


def _plain(text: str) -> str:
    words = re.sub(r"[a-z]+", lambda word: str(NUMBER_WORDS.get(word[0], word[0])), " ".join(text.casefold().split()))
    return re.sub(r"(?<=\d)[,\s](?=\d{3}\b)", "", words)


def _answers(ask: SuiteAsker, model: str, questions: Sequence[ClosedBookQuestion]) -> list[str]:
    return ask.answer(model, [question.messages for question in questions], MAX_TOKENS)


def _share(marks: Mapping[str, Sequence[Mark]], kind: Mark, *, lower_is_better: bool = False) -> SuiteMeasure:
    shares = {model: mean_of([mark is kind for mark in model_marks]) for model, model_marks in marks.items()}
    return SuiteMeasure(shares, lower_is_better)


def _by_document(questions: Sequence[ClosedBookQuestion], marks: Sequence[Mark]) -> list[DocumentScore]:
    by_document: dict[str, list[Mark]] = {}
    for question, mark in zip(questions, marks, strict=True):
        by_document.setdefault(question.document_id, []).append(mark)
    return [
        DocumentScore(
            document,
            len(document_marks),
            *(document_marks.count(kind) for kind in (Mark.LEARNED, Mark.MISSED, Mark.CONTRADICTED)),
        )
        for document, document_marks in by_document.items()
    ]
