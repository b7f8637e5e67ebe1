"""Forgetting documents and people at the barrier, without stores."""

import pytest

from services.anonymization.handlers import lift_subject, resolve_subject
from services.anonymization.wire import to_ingested
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import documents_pb2
from tailor.errors import InvalidArgument, NotFound
from tailor.events.erased import Erased
from tests.unit.anonymization.fakes import REF, MemoryAuditLog, MemorySubjects
from tests.unit.anonymization.test_handlers import World


def test_an_erased_document_is_forgotten_on_both_sides_and_only_once() -> None:
    world = World()
    world.pass_document()
    counts = world.forget(Erased("doc_1", "ers_1")).counts
    assert (counts["corpus_objects"], counts["versions"]) == (1, 1)
    assert len(world.corpus.deleted) == 1
    assert not any(world.forget(Erased("doc_1", "ers_1")).counts.values())


def test_an_erased_document_that_arrives_late_leaves_quarantine_and_goes_no_further() -> None:
    world = World()
    message = documents_pb2.DocumentIngested(
        document_id="doc_1",
        version=common_pb2.Version(sequence=1),
        text=common_pb2.ObjectRef(uri=REF.uri, sha256=REF.sha256, size_bytes=REF.size_bytes),
    )
    world.consume(message.SerializeToString(), erased=("doc_1",))
    assert world.quarantine.deleted == [to_ingested(message).text]
    assert not world.producer.sent and not world.corpus.texts


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
