"""The rules of a judgement."""

import pytest

from services.registry.domain import JudgementOutcome
from services.registry.rules.checks import check_judgement
from tailor.errors import InvalidArgument

RANKED, TIE, BOTH_BAD = JudgementOutcome.RANKED, JudgementOutcome.TIE, JudgementOutcome.BOTH_BAD
NO_MARKS = (0, 0, 0)


@pytest.mark.parametrize(
    ("ranking", "marks", "outcome"),
    [
        (("a",), (1, 0, 0), RANKED),
        (("a", "b"), NO_MARKS, RANKED),
        (("a", "b"), NO_MARKS, TIE),
        (("a", "b"), NO_MARKS, BOTH_BAD),
    ],
)
def test_valid_judgement_is_admitted(
    ranking: tuple[str, ...], marks: tuple[int, int, int], outcome: JudgementOutcome
) -> None:
    check_judgement(ranking, marks, "", outcome)


@pytest.mark.parametrize(
    ("ranking", "marks", "outcome", "field"),
    [
        (("a",), NO_MARKS, RANKED, "rubric"),
        (("a", "b"), (3, 0, 0), TIE, "rubric"),
        (("a",), NO_MARKS, BOTH_BAD, "outcome"),
        (("a", "a"), NO_MARKS, TIE, "ranking"),
    ],
)
def test_invalid_judgement_is_refused_by_field(
    ranking: tuple[str, ...], marks: tuple[int, int, int], outcome: JudgementOutcome, field: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check_judgement(ranking, marks, "", outcome)
    assert set(refused.value.field_violations) == {field}
