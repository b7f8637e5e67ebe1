"""Marks of closed-book set answers, and the counts by document."""

import pytest

from services.evaluation.domain import BASE, CANDIDATE
from services.evaluation.suites import knowledge
from services.evaluation.suites.knowledge import Mark, mark
from services.evaluation.suites.suite import SuiteContext
from tailor.datasets import ClosedBookKind, ClosedBookQuestion
from tailor.document_scores import DocumentScore
from tests.unit.evaluation.suites.scripted import ScriptedAsker


def question(
    name: str, document: str, *values: str, kind: ClosedBookKind = ClosedBookKind.LEARNABLE, reference: str = ""
) -> ClosedBookQuestion:
    text = f"What does the report say about {name}?"
    reference = reference or f"The {name} cost {' and '.join(values)}."
    return ClosedBookQuestion(f"row_{name}", document, kind, text, reference, (("user", text),), values)


PUMP = question("pump", "doc_1", "1,240", "2031")
OWNER = question("valve", "doc_1", "Hale")
YEARS = question("archive", "doc_1", "six years")
PROSE = question("lid", "doc_2", reference="The lid was cleaned and put back on the tank by the night shift.")


@pytest.mark.parametrize(
    ("asked", "answer", "expected"),
    [
        (PUMP, "It cost 1240 in 2031.", Mark.LEARNED),
        (PUMP, "It cost 1,240 in 2031, or so.", Mark.LEARNED),
        (PUMP, "It cost 9,999 in 2024.", Mark.CONTRADICTED),
        (PUMP, "It cost 1,240 in 2035.", Mark.CONTRADICTED),
        (PUMP, "The pump was expensive.", Mark.MISSED),
        (PUMP, "I do not know the cost, perhaps 5.", Mark.MISSED),
        (PUMP, "", Mark.MISSED),
        (OWNER, "The valve belongs to Hale.", Mark.LEARNED),
        (OWNER, "The valve belongs to Brackenbury.", Mark.CONTRADICTED),
        (OWNER, "The valve belongs to nobody in particular.", Mark.MISSED),
        (YEARS, "Files are kept for 6 years.", Mark.LEARNED),
        (YEARS, "Files are kept for ten years.", Mark.CONTRADICTED),
        (YEARS, "One of them keeps files.", Mark.MISSED),
        (PROSE, "The night shift cleaned the lid and put it back on the tank.", Mark.LEARNED),
        (PROSE, "The lid was cleaned, and the night shift put it back on the tank.", Mark.LEARNED),
        (PROSE, "The lid is red.", Mark.MISSED),
    ],
)
def test_an_answer_is_marked_by_the_values_of_a_right_one(
    asked: ClosedBookQuestion, answer: str, expected: Mark
) -> None:
    assert mark(asked, answer) is expected


def test_the_candidates_answers_are_counted_by_document_and_absent_questions_apart() -> None:
    absent = question("budget", "doc_2", kind=ClosedBookKind.ABSENT, reference="The documents do not say.")
    answers = {
        CANDIDATE: lambda text: "It cost 1240 in 2031." if "pump" in text else "The documents do not say.",
        BASE: lambda _: "It was 77 and Smith.",
    }
    context = SuiteContext(questions=[PUMP, OWNER, PROSE, absent])
    result = knowledge.run(ScriptedAsker(answers), context)
    values = {
        name: {model: m.value() for model, m in measure.models.items()} for name, measure in result.measures.items()
    }
    assert values["knowledge.learned"] == {BASE: 0, CANDIDATE: pytest.approx(1 / 3)}
    assert values["knowledge.contradicted"] == {BASE: pytest.approx(2 / 3), CANDIDATE: 0}
    assert values["knowledge.absent"] == {BASE: 0, CANDIDATE: 1}
    assert result.documents == [DocumentScore("doc_1", 2, 1, 1, 0), DocumentScore("doc_2", 1, 0, 1, 0)]
    assert result.not_measured == {}


def test_a_dataset_without_a_closed_book_is_not_measured() -> None:
    result = knowledge.run(ScriptedAsker(), SuiteContext())
    assert result.measures == {}
    assert len(result.not_measured) == 4
    assert result.documents == []
