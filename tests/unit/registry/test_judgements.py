"""The rules of a judgement."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from services.registry.domain import Draft, DraftMark, GivenJudgement, Judgement, JudgementOutcome
from services.registry.rules.judgement_checks import MAX_MARKS, check_judgement, resolve_marks
from services.registry.wire import from_judgement, to_given_judgement, to_judgement
from tailor.api.events.v1 import drafts_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.errors import InvalidArgument
from tailor.values import DEFAULT_JUDGING_CRITERIA

TIE, BOTH_BAD = JudgementOutcome.TIE, JudgementOutcome.BOTH_BAD
MARK = DraftMark("a", "style", 3)
BEST = DraftMark("", "style", 3)


@pytest.mark.parametrize(
    "given",
    [
        GivenJudgement(("a",), (MARK,)),
        GivenJudgement(("a", "b")),
        GivenJudgement(("a", "b"), (BEST,)),
        GivenJudgement(("a", "b"), (MARK,), outcome=TIE),
        GivenJudgement(("a", "b"), outcome=BOTH_BAD),
        GivenJudgement(("a", "b", "c"), places=(1, 2, 2)),
        GivenJudgement(("a", "b", "c"), places=(1, 1, 2)),
        GivenJudgement(("a", "b", "c"), places=(1, 2, 3)),
    ],
)
def test_valid_judgement_is_admitted(given: GivenJudgement) -> None:
    check_judgement(given)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (GivenJudgement(("a",)), "marks"),
        (GivenJudgement(("a", "b"), (BEST,), outcome=TIE), "marks"),
        (GivenJudgement(("a", "b"), (replace(MARK, mark=6),)), "marks"),
        (GivenJudgement(("a", "b"), (replace(MARK, mark=0),)), "marks"),
        (GivenJudgement(("a", "b"), (MARK,) * (MAX_MARKS + 1)), "marks"),
        (GivenJudgement(("a",), outcome=BOTH_BAD), "outcome"),
        (GivenJudgement(("a", "a"), outcome=TIE), "ranking"),
        (GivenJudgement(()), "ranking"),
        (GivenJudgement(("a", "b"), comment="x" * 4001), "comment"),
        (GivenJudgement(("a", "b"), places=(1, 1)), "places"),
        (GivenJudgement(("a", "b"), places=(2, 3)), "places"),
        (GivenJudgement(("a", "b"), places=(1, 3)), "places"),
        (GivenJudgement(("a", "b", "c"), places=(1, 2, 1)), "places"),
        (GivenJudgement(("a", "b"), places=(1,)), "places"),
        (GivenJudgement(("a", "b"), outcome=TIE, places=(1, 2)), "places"),
    ],
)
def test_invalid_judgement_is_refused_by_field(given: GivenJudgement, field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check_judgement(given)
    assert set(refused.value.field_violations) == {field}


def draft(draft_id: str, edit_of: str = "") -> Draft:
    return Draft(draft_id, "memos", "a" * 64, "d" * 64, "key_1", edit_of=edit_of)


def test_marks_without_a_draft_are_for_the_best_one_that_a_model_wrote() -> None:
    drafts = [draft("edited", "a"), draft("a"), draft("b")]
    given = GivenJudgement(("edited", "a", "b"), (BEST, DraftMark("b", "style", 2)))
    marks = resolve_marks(given, drafts, DEFAULT_JUDGING_CRITERIA)
    assert marks == (DraftMark("a", "style", 3), DraftMark("b", "style", 2))


@pytest.mark.parametrize(
    "mark", [DraftMark("edited", "style", 3), DraftMark("c", "style", 3), DraftMark("b", "wit", 3)]
)
def test_marks_are_for_drafts_of_the_ranking_by_the_specialists_criteria(mark: DraftMark) -> None:
    drafts = [draft("edited", "a"), draft("a"), draft("b")]
    for marks in ((mark,), (MARK, MARK), (MARK, BEST)):
        with pytest.raises(InvalidArgument) as refused:
            resolve_marks(GivenJudgement(("edited", "a", "b"), marks), drafts, DEFAULT_JUDGING_CRITERIA)
        assert set(refused.value.field_violations) == {"marks"}


def test_a_rubric_is_marks_of_the_best_draft() -> None:
    request = registry_pb2.RecordJudgementRequest(ranking=["a", "b"], rubric=drafts_pb2.Rubric(style=4))
    assert to_given_judgement(request) == GivenJudgement(("a", "b"), (DraftMark("", "style", 4),))


def test_an_event_has_all_marks_and_the_rubric_of_the_best_draft() -> None:
    marks = (DraftMark("b", "style", 2), DraftMark("a", "style", 4), DraftMark("a", "tone", 5))
    judgement = Judgement(
        "jdg",
        "memos",
        ("edited", "a", "b", "c"),
        marks,
        "",
        datetime(2026, 5, 1, tzinfo=UTC),
        edited=True,
        places=(1, 2, 3, 3),
    )
    message = from_judgement(judgement)
    assert message.rubric == drafts_pb2.Rubric(style=4)
    assert to_judgement(message) == judgement
