"""Forgetting documents and people at the barrier, without stores."""

import pytest

from services.anonymization.handlers import lift_subject, resolve_subject
from tailor.errors import InvalidArgument, NotFound
from tests.unit.anonymization.fakes import MemoryAuditLog, MemorySubjects


def test_resolving_a_subject_is_audited_without_the_subject() -> None:
    subjects, audit = MemorySubjects(), MemoryAuditLog()
    subjects.keep("doc_1", frozenset({("PERSON", "Helen Ward")}))
    resolved = resolve_subject(subjects, audit, caller="key_1", subject="Sarah Jenkins", dry_run=True)
    assert resolved.document_ids == ("doc_1",) and not subjects.suppressed
    resolve_subject(subjects, audit, caller="key_1", subject="Sarah Jenkins", dry_run=False)
    assert subjects.suppressed == ["Sarah Jenkins"]
    assert len(audit.calls) == 2 and "Jenkins" not in str(audit.calls)
    with pytest.raises(InvalidArgument):
        resolve_subject(subjects, audit, caller="key_1", subject=" ", dry_run=False)


def test_lifting_a_subject_is_audited_without_the_subject_and_fails_if_nobody_is_suppressed() -> None:
    subjects, audit = MemorySubjects(), MemoryAuditLog()
    resolve_subject(subjects, audit, caller="key_1", subject="Sarah Jenkins", dry_run=False)
    lift_subject(subjects, audit, caller="key_1", subject="Sarah Jenkins")
    assert not subjects.suppressed
    with pytest.raises(NotFound, match="NOT_SUPPRESSED"):
        lift_subject(subjects, audit, caller="key_1", subject="Sarah Jenkins")
    assert len(audit.calls) == 3 and "Jenkins" not in str(audit.calls)
    with pytest.raises(InvalidArgument):
        lift_subject(subjects, audit, caller="key_1", subject=" ")
