"""The rules of callers' feedback."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.registry.domain import Feedback, FeedbackVerdict
from services.registry.rules.feedback import MAX_EDITED_TEXT, TEXT_LIFETIME, check_feedback, drop_expired_text
from tailor.errors import InvalidArgument

NOW = datetime(2026, 5, 1, tzinfo=UTC)
EDITED = Feedback("fbk_1", "drf_1", "memos", "", FeedbackVerdict.EDITED, "Better.", 5, "Shorter.", NOW)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"edited_text": "", "stars": 0, "comment": ""},
        {"edited_text": "x" * MAX_EDITED_TEXT},
        {"verdict": FeedbackVerdict.REJECTED, "edited_text": ""},
    ],
)
def test_valid_feedback_is_admitted(changes: dict[str, Any]) -> None:
    check_feedback(replace(EDITED, **changes))


@pytest.mark.parametrize(
    ("changes", "field", "hint"),
    [
        ({"verdict": None, "edited_text": ""}, "verdict", "accepted, edited or rejected"),
        ({"verdict": FeedbackVerdict.ACCEPTED}, "edited_text", "left out"),
        ({"edited_text": "x" * (MAX_EDITED_TEXT + 1)}, "edited_text", "at most 100,000 characters"),
        ({"stars": 6}, "stars", "1 to 5"),
        ({"stars": -1}, "stars", "1 to 5"),
        ({"comment": "x" * 4001}, "comment", "at most 4,000 characters"),
    ],
)
def test_invalid_feedback_is_refused_by_field(changes: dict[str, Any], field: str, hint: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check_feedback(replace(EDITED, **changes))
    assert refused.value.reason == "INVALID_FEEDBACK"
    assert hint in refused.value.field_violations[field]
    assert len(refused.value.field_violations) == 1


def test_edited_text_expires_with_the_texts_of_drafts() -> None:
    assert drop_expired_text(EDITED, NOW + TEXT_LIFETIME) == EDITED
    old = drop_expired_text(EDITED, NOW + TEXT_LIFETIME + timedelta(seconds=1))
    assert old == replace(EDITED, edited_text="")
