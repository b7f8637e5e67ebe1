"""What anonymization does on each event and command: one function each."""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from services.anonymization.domain import (
    LANGUAGE_NOT_COVERED,
    MAX_CHARS,
    MAX_POLICY_CHARS,
    MAX_PREVIEW_CHARS,
    MAX_PROMPT_CHARS,
    MAX_PROMPT_TEXTS,
    MAX_PURPOSE_CHARS,
    MAX_SEARCH_CHARS,
    MAX_SEARCH_IDS,
    MAX_SEARCH_TEXTS,
    MAX_SUBJECT_CHARS,
    MAX_SURROGATE_CHARS,
    MAX_TYPE_CHARS,
    MIN_PURPOSE_CHARS,
    NO_LABELS,
    TIMEOUT,
    TOO_EXPENSIVE,
    UNREADABLE,
    Anonymized,
    AnonymizedPrompt,
    DocumentOutcome,
    DocumentText,
    HeldDocument,
    HeldSubject,
    Ingested,
    Passed,
    RefusedDocument,
    Resolved,
    TrueValue,
    move_spans,
)
from services.anonymization.ledger import SqlAuditLog, SqlLedger
from services.anonymization.policy.preview import Preview
from services.anonymization.ports import Anonymizer
from services.anonymization.prompts import EphemeralPromptAnonymizer
from services.anonymization.review.recorder import DocumentRecorder
from services.anonymization.stored_texts import StoredCorpus, StoredTexts
from services.anonymization.vault.subjects import SubjectIndex
from services.anonymization.vault.true_values import TrueValueFinder
from services.anonymization.vault.vault import SqlVault
from tailor.codec import load
from tailor.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Reason,
    ResourceExhausted,
    TailorError,
)
from tailor.events.erased import Erased, Forgotten
from tailor.values import Labels

EXPIRED = "The quarantined text no longer exists; publish the document again."
ROW_ID = re.compile(r"txt_[0-9a-f]{32}")
TOO_SLOW = "Finding personal values in the text took too long (TAILOR_SECONDS_PER_TEXT); publish it in smaller parts."
ENDED = "Work on the document ended the service twice; look at its log, and publish the document in smaller parts."
# A document that was begun so often, and neither passed nor failed, ends the service.
MAX_STARTS = 2
DAMAGED = "The quarantined text does not verify; check TAILOR_QUARANTINE_KEY, then publish the document again."


@dataclass(frozen=True)
class Barrier:
    """The collaborators of the handlers of events. `publish` sends an outcome and blocks until the broker has it."""

    quarantine: StoredTexts
    corpus: StoredCorpus
    subjects: SubjectIndex
    ledger: SqlLedger
    recorder: DocumentRecorder
    anonymizer: Anonymizer
    language_of: Callable[[str], str]
    publish: Callable[[DocumentOutcome], None]


def _now_ms() -> int:
    return int(time.time() * 1000)


def pass_document(barrier: Barrier, ingested: Ingested) -> DocumentOutcome:
    """Take a document through the barrier, publish its outcome, then delete its quarantined bytes.

    Idempotent: a redelivery publishes the recorded outcome again.
    """
    ledger, version = barrier.ledger, (ingested.document_id, ingested.sequence)
    outcome = ledger.find(*version)
    if outcome is None:
        if ledger.start(*version) > MAX_STARTS:
            outcome = RefusedDocument(ingested, ENDED, _now_ms(), TOO_EXPENSIVE)
        else:
            try:
                outcome = _read_and_pass(barrier, ingested)
            except TailorError:
                # It will be tried again for another reason than this document.
                ledger.forget_starts(*version)
                raise
        outcome = ledger.record(outcome)
    barrier.publish(outcome)
    barrier.quarantine.delete(ingested.text)
    return outcome


def _read_and_pass(barrier: Barrier, ingested: Ingested) -> DocumentOutcome:
    try:
        text = barrier.quarantine.read(ingested)
    except NotFound:
        return RefusedDocument(ingested, EXPIRED, _now_ms())
    except (FailedPrecondition, InvalidArgument):
        return RefusedDocument(ingested, DAMAGED, _now_ms())
    try:
        return _anonymize_document(barrier, ingested, text)
    except DeadlineExceeded:
        return RefusedDocument(ingested, TOO_SLOW, _now_ms(), TIMEOUT)
    except (InvalidArgument, ResourceExhausted) as error:
        reasons = {
            Reason.LANGUAGE_NOT_COVERED: LANGUAGE_NOT_COVERED,
            Reason.TOO_EXPENSIVE: TOO_EXPENSIVE,
            Reason.CHILD_FAILED: UNREADABLE,
        }
        if error.reason not in reasons:
            raise
        return RefusedDocument(ingested, error.message, _now_ms(), reasons[error.reason])


def _anonymize_document(barrier: Barrier, ingested: Ingested, text: DocumentText) -> Passed:
    result = barrier.anonymizer.anonymize(text.parts, ingested.labels)
    clean = text.with_parts(result.texts)
    # Index subjects before writing the text, so that anything in the corpus can be found by data subject.
    barrier.subjects.keep(ingested.document_id, result.values)
    ref, language = barrier.corpus.write(clean), barrier.language_of(clean.text)
    barrier.recorder.record(ingested, clean, result, language)
    return load(
        Passed,
        vars(result),
        ingested=ingested,
        text=ref,
        char_count=sum(map(len, clean.parts)),
        time_ms=_now_ms(),
        language=language,
        spans=move_spans(ingested.spans, result.changes[-1]),
    )


def anonymize_texts(anonymizer: Anonymizer, texts: tuple[str, ...], labels: Labels = NO_LABELS) -> Anonymized:
    """Anonymise typed texts that belong together, under the rules for their labels. Raises InvalidArgument (TEXT_TOO_LONG)."""
    if len(texts) > MAX_PROMPT_TEXTS or sum(map(len, texts)) > MAX_CHARS:
        raise InvalidArgument(
            Reason.TEXT_TOO_LONG,
            f"There are over {MAX_PROMPT_TEXTS} texts or {MAX_CHARS} characters; publish longer texts as documents.",
        )
    return anonymizer.anonymize(texts, labels)


def anonymize_row(
    anonymizer: Anonymizer, subjects: SubjectIndex, row_id: str, texts: tuple[str, ...], labels: Labels
) -> Anonymized:
    """Anonymise the texts of a row, and record which surrogates they contain. Idempotent.

    Raises InvalidArgument (TEXT_TOO_LONG, INVALID_ROW_ID).
    """
    _check_row_id(row_id)
    if sum(map(len, texts)) > MAX_CHARS:
        raise InvalidArgument(Reason.TEXT_TOO_LONG, f"The row has over {MAX_CHARS} characters; leave it out.")
    result = anonymizer.anonymize(texts, labels)
    subjects.keep(row_id, result.values)
    return result


def anonymize_edit(
    anonymizer: Anonymizer, subjects: SubjectIndex, row_id: str, text: str, *, passed: tuple[str, ...], labels: Labels
) -> Anonymized:
    """Anonymise what a person added to texts that passed before, and record which surrogates the whole text contains. Idempotent.

    Raises InvalidArgument (TEXT_TOO_LONG, INVALID_ROW_ID).
    """
    _check_row_id(row_id)
    if len(passed) > MAX_PROMPT_TEXTS or len(text) + sum(map(len, passed)) > MAX_CHARS:
        raise InvalidArgument(
            Reason.TEXT_TOO_LONG,
            f"There are over {MAX_PROMPT_TEXTS} texts or {MAX_CHARS} characters; publish the text as a deliverable.",
        )
    result = anonymizer.anonymize((text,), labels, passed)
    subjects.keep(row_id, result.values)
    return result


def _check_row_id(row_id: str) -> None:
    if not ROW_ID.fullmatch(row_id):
        raise InvalidArgument(Reason.INVALID_ROW_ID, "The row's id must be `txt_` and 32 hexadecimal digits.")


def anonymize_prompt(
    anonymizer: EphemeralPromptAnonymizer, texts: tuple[str, ...], labels: Labels, beside: tuple[str, ...]
) -> AnonymizedPrompt:
    """Replace the personal values of a prompt, and return the value of each surrogate. Raises InvalidArgument (PROMPT_TOO_LONG)."""
    if len(texts) + len(beside) > MAX_PROMPT_TEXTS or sum(map(len, (*texts, *beside))) > MAX_PROMPT_CHARS:
        message = f"A prompt may have at most {MAX_PROMPT_TEXTS} texts and {MAX_PROMPT_CHARS} characters in all."
        raise InvalidArgument(Reason.PROMPT_TOO_LONG, message, field_violations={"texts": message})
    return anonymizer.anonymize(texts, labels, beside)


def preview_text(previewer: Preview, text: str, policy: str, labels: Labels) -> Anonymized:
    """Show what a text would become under a policy, and store nothing. Raises InvalidArgument (TOO_LONG, INVALID_POLICY)."""
    problems = {}
    if len(text) > MAX_PREVIEW_CHARS:
        problems["text"] = f"has over {MAX_PREVIEW_CHARS} characters; send a part of it"
    if len(policy) > MAX_POLICY_CHARS:
        problems["policy"] = f"has over {MAX_POLICY_CHARS} characters"
    if problems:
        raise InvalidArgument(Reason.TOO_LONG, "The request is too long.", field_violations=problems)
    return previewer.preview(text, policy, labels)


def check_reidentification(entity_type: str, surrogate: str, purpose: str) -> None:
    """Raises InvalidArgument (NO_PURPOSE, NO_SURROGATE, TOO_LONG)."""
    if len(purpose.strip()) < MIN_PURPOSE_CHARS:
        raise InvalidArgument(
            Reason.NO_PURPOSE,
            f"Give the purpose in at least {MIN_PURPOSE_CHARS} characters; it is recorded in the audit log.",
        )
    if not entity_type or not surrogate.strip():
        raise InvalidArgument(Reason.NO_SURROGATE, "Name the type and the surrogate as it is written in a text.")
    limits = {"entity_type": MAX_TYPE_CHARS, "surrogate": MAX_SURROGATE_CHARS, "purpose": MAX_PURPOSE_CHARS}
    lengths = {"entity_type": len(entity_type), "surrogate": len(surrogate), "purpose": len(purpose)}
    violations = {name: f"at most {most} characters" for name, most in limits.items() if lengths[name] > most}
    if violations:
        raise InvalidArgument(Reason.TOO_LONG, "The request is too long.", field_violations=violations)


def reidentify(
    vault: SqlVault, audit: SqlAuditLog, *, caller: str, entity_type: str, surrogate: str, purpose: str
) -> str:
    """The true value of a surrogate. The call is recorded before it is answered, even if no value is found.

    Raises what `check_reidentification` raises, and NotFound (UNKNOWN_SURROGATE).
    """
    check_reidentification(entity_type, surrogate, purpose)
    audit.record(caller, entity_type, surrogate, purpose)
    value = vault.reveal(entity_type, surrogate.strip())
    if value is None:
        raise NotFound(Reason.UNKNOWN_SURROGATE, "The vault has no such surrogate of this type.")
    return value


def forget(barrier: Barrier, erased: Erased) -> Forgotten:
    """Delete an erased document's texts on both sides of the barrier, then everything recorded about it. Idempotent."""
    document_id = erased.document_id
    # The raw text goes first, whether or not the database answers.
    objects = barrier.quarantine.delete_all(document_id)
    texts = barrier.ledger.texts_of(document_id)
    for ref in texts:
        barrier.corpus.delete(ref)
    counts = {
        "quarantine_objects": objects,
        "corpus_objects": len(texts),
        "vault_entries": barrier.subjects.forget(document_id),
        "review_passages": barrier.recorder.forget(document_id),
        "versions": barrier.ledger.forget(document_id),
    }
    return Forgotten(counts)


def supersede(barrier: Barrier, superseded: Erased) -> Forgotten:
    """Delete the corpus texts of a document's versions before the one that a replay made. Idempotent."""
    texts = barrier.ledger.texts_before(superseded.document_id, superseded.sequence)
    for ref in texts:
        barrier.corpus.delete(ref)
    versions = barrier.ledger.forget(superseded.document_id, superseded.sequence)
    return Forgotten({"corpus_objects": len(texts), "versions": versions})


def resolve_subject(
    subjects: SubjectIndex, audit: SqlAuditLog, *, caller: str, subject: str, dry_run: bool
) -> Resolved:
    """A person's documents. The call is recorded before it is answered, without the person. Raises InvalidArgument (INVALID_SUBJECT)."""
    _check_subject(subject)
    audit.record(caller, "SUBJECT", "", "looks for a subject's documents" if dry_run else "erases a subject")
    return subjects.resolve(subject, dry_run=dry_run)


def describe_subject(
    subjects: SubjectIndex, ledger: SqlLedger, audit: SqlAuditLog, *, caller: str, subject: str
) -> HeldSubject:
    """What is held about a person: ids, labels and counts. The call is recorded before it is answered, without the person.

    Raises InvalidArgument (INVALID_SUBJECT).
    """
    _check_subject(subject)
    audit.record(caller, "SUBJECT", "", "exports what is held about a subject")
    entity_type, resolved, suppressed = subjects.describe(subject)
    newest = ledger.newest(resolved.document_ids) if resolved.document_ids else {}
    documents = tuple(HeldDocument(document_id, newest.get(document_id)) for document_id in resolved.document_ids)
    return HeldSubject(entity_type, documents, resolved.vault_entries, suppressed)


def lift_subject(subjects: SubjectIndex, audit: SqlAuditLog, *, caller: str, subject: str) -> None:
    """End a person's suppression. The call is recorded before it is answered, without the person.

    Raises InvalidArgument (INVALID_SUBJECT) and NotFound (NOT_SUPPRESSED).
    """
    _check_subject(subject)
    audit.record(caller, "SUBJECT", "", "lifts a subject's suppression")
    if not subjects.lift(subject):
        raise NotFound(
            Reason.NOT_SUPPRESSED,
            "This name, mail address or phone number is not suppressed; lift each value of a person separately.",
        )


def count_true_values(
    index: TrueValueFinder,
    audit: SqlAuditLog,
    *,
    caller: str,
    texts: Sequence[str],
    known_texts: Sequence[str],
    document_ids: Iterable[Sequence[str]],
) -> dict[str, int]:
    """Count, by type, the true values of the documents that occur in the texts and in none of the known texts.

    Each value counts once. The call is recorded before it is answered, without texts and values. The ids come in batches, which are read
    one at a time. Raises InvalidArgument (TOO_LONG).
    """
    check_search(texts, known_texts)
    audit.record(caller, "TRUE_VALUES", "", f"counts true values in {len(texts)} answers of a model")
    candidates = index.find(texts)
    candidates = candidates - index.find(known_texts) if candidates else candidates
    occurring: set[TrueValue] = set()
    for batch in document_ids:
        if len(batch) > MAX_SEARCH_IDS:
            raise _too_long("document_ids", f"has over {MAX_SEARCH_IDS} ids in one message")
        if candidates:
            occurring |= index.occurring(candidates, batch)
    return dict(Counter(value.entity_type for value in occurring))


def check_search(texts: Sequence[str], known_texts: Sequence[str]) -> None:
    """Raises InvalidArgument (TOO_LONG)."""
    if len(texts) + len(known_texts) > MAX_SEARCH_TEXTS:
        raise _too_long("texts", f"are over {MAX_SEARCH_TEXTS} together with `known_texts`")
    if sum(map(len, (*texts, *known_texts))) > MAX_SEARCH_CHARS:
        raise _too_long("texts", f"have over {MAX_SEARCH_CHARS} characters together with `known_texts`")


def _too_long(field: str, violation: str) -> InvalidArgument:
    return InvalidArgument(Reason.TOO_LONG, "The request is too long.", field_violations={field: violation})


def _check_subject(subject: str) -> None:
    if not subject.strip() or len(subject) > MAX_SUBJECT_CHARS:
        raise InvalidArgument(
            Reason.INVALID_SUBJECT,
            f"Give a person's name, a mail address or a phone number in at most {MAX_SUBJECT_CHARS} characters.",
        )
