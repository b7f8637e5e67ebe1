"""Forgetting documents and people."""

from dataclasses import dataclass

from services.anonymization.domain import Audit, Corpus, Ledger, Quarantine, Resolved, Subjects
from tailor.errors import InvalidArgument, NotFound, Reason
from tailor.events.erased import Erased, Forgotten

MAX_SUBJECT = 256


@dataclass(frozen=True)
class Holdings:
    """Where anonymization holds something of a document."""

    quarantine: Quarantine
    corpus: Corpus
    ledger: Ledger
    subjects: Subjects


def forget(holdings: Holdings, erased: Erased) -> Forgotten:
    """Delete a document's texts on both sides of the barrier, then what is known of them. Again, it changes nothing."""
    objects = holdings.quarantine.delete_all(erased.document_id)
    texts = holdings.ledger.texts_of(erased.document_id)
    for ref in texts:
        holdings.corpus.delete(ref)
    entries = holdings.subjects.forget(erased.document_id)
    versions = holdings.ledger.forget(erased.document_id)
    counts = {
        "quarantine_objects": objects,
        "corpus_objects": len(texts),
        "versions": versions,
        "vault_entries": entries,
    }
    return Forgotten(counts)


def resolve_subject(subjects: Subjects, audit: Audit, *, caller: str, subject: str, dry_run: bool) -> Resolved:
    """A person's documents. The call is kept before it is answered, without the person."""
    _check_subject(subject)
    audit.record(caller, "SUBJECT", "", "looks for a subject's documents" if dry_run else "erases a subject")
    return subjects.resolve(subject, dry_run=dry_run)


def lift_subject(subjects: Subjects, audit: Audit, *, caller: str, subject: str) -> None:
    """End a person's suppression; NotFound where there is none. The call is kept before it is answered, without the person."""
    _check_subject(subject)
    audit.record(caller, "SUBJECT", "", "lifts a subject's suppression")
    if not subjects.lift(subject):
        raise NotFound(
            Reason.NOT_SUPPRESSED, "This name, mail or phone is not suppressed; each of a person's is lifted by itself."
        )


def _check_subject(subject: str) -> None:
    if not subject.strip() or len(subject) > MAX_SUBJECT:
        raise InvalidArgument(
            Reason.INVALID_SUBJECT, f"Name a person, mail or phone in at most {MAX_SUBJECT} characters."
        )
