"""Rows of the ledger keep their format, so that replicas of two releases can read each other's."""

import json
from dataclasses import replace

from services.anonymization.adapters.sql import _dump, _load
from services.anonymization.domain import Passed, Unreadable
from tailor.values import Span, SpanKind
from tests.unit.anonymization.fakes import INGESTED, REF

PASSED = Passed(
    replace(INGESTED, spans=(Span(SpanKind.PAGE, 4, 0, 3),)),
    REF,
    3,
    {"PERSON": 2},
    "policy",
    1,
    "en",
    (Span(SpanKind.SECTION, 1, 1, 3, 2),),
)


def test_labels_are_a_list_and_span_kinds_are_numbers() -> None:
    row = json.loads(_dump(PASSED))
    assert row["type"] == "Passed" and row["ingested"]["labels"] == ["wiki", "risk", "internal", ""]
    assert row["ingested"]["spans"] == [{"kind": 1, "number": 4, "level": 0, "start": 0, "end": 3}]
    assert row["spans"] == [{"kind": 2, "number": 1, "level": 2, "start": 1, "end": 3}]


def test_outcomes_are_read_as_they_were_written() -> None:
    unreadable = Unreadable(INGESTED, "hint", 2)
    assert _load(_dump(PASSED)) == PASSED and _load(_dump(unreadable)) == unreadable
