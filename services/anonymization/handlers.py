"""What anonymization does on each event and command: one function each."""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial

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
from services.anonymization.ledger import SqlLedger
from services.anonymization.ports import (
    Anonymizer,
    AuditLog,
    Corpus,
    OutcomePublisher,
    Previewer,
    PromptAnonymizer,
    QuarantinedTexts,
    Revealer,
    ReviewRecorder,
    Subjects,
    TrueValues,
)
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


def _now_ms() -> int:
    return int(time.time() * 1000)


def pass_document(
    ingested: Ingested,
    *,
    quarantine: QuarantinedTexts,
    corpus: Corpus,
    subjects: Subjects,
    ledger: SqlLedger,
    publisher: OutcomePublisher,
    anonymizer: Anonymizer,
    recorder: ReviewRecorder,
    language_of: Callable[[str], str],
    now_ms: Callable[[], int] = _now_ms,
) -> DocumentOutcome:
    """Take a document through the barrier, publish its outcome, then delete its quarantined bytes.

    Idempotent: a redelivery publishes the recorded outcome again.
    """
    outcome = ledger.find(ingested.document_id, ingested.sequence)
    if outcome is None:
        pass_text = partial(
            _anonymize_document,
            ingested,
            corpus=corpus,
            subjects=subjects,
            anonymizer=anonymizer,
            recorder=recorder,
            language_of=language_of,
            now_ms=now_ms,
        )
        if ledger.start(ingested.document_id, ingested.sequence) > MAX_STARTS:
            outcome = RefusedDocument(ingested, ENDED, now_ms(), TOO_EXPENSIVE)
        else:
            try:
                outcome = _read_and_pass(ingested, quarantine, pass_text, now_ms)
            except TailorError:
                # It will be tried again for another reason than this document.
                ledger.forget_starts(ingested.document_id, ingested.sequence)
                raise
        outcome = ledger.record(outcome)
    publisher.publish(outcome)
    quarantine.delete(ingested.text)
    return outcome


def _read_and_pass(
    ingested: Ingested,
    quarantine: QuarantinedTexts,
    pass_text: Callable[[DocumentText], Passed],
    now_ms: Callable[[], int],
) -> DocumentOutcome:
    try:
        text = quarantine.read(ingested)
    except NotFound:
        return RefusedDocument(ingested, EXPIRED, now_ms())
    except (FailedPrecondition, InvalidArgument):
        return RefusedDocument(ingested, DAMAGED, now_ms())
    try:
        return pass_text(text)
    except DeadlineExceeded:
        return RefusedDocument(ingested, TOO_SLOW, now_ms(), TIMEOUT)
    except (InvalidArgument, ResourceExhausted) as error:
        reasons = {
            Reason.LANGUAGE_NOT_COVERED: LANGUAGE_NOT_COVERED,
            Reason.TOO_EXPENSIVE: TOO_EXPENSIVE,
            Reason.CHILD_FAILED: UNREADABLE,
        }
        if error.reason not in reasons:
            raise
        return RefusedDocument(ingested, error.message, now_ms(), reasons[error.reason])


def _anonymize_document(
    ingested: Ingested,
    text: DocumentText,
    *,
    corpus: Corpus,
    subjects: Subjects,
    anonymizer: Anonymizer,
    recorder: ReviewRecorder,
    language_of: Callable[[str], str],
    now_ms: Callable[[], int],
) -> Passed:
    result = anonymizer.anonymize(text.parts, ingested.labels)
    clean = text.with_parts(result.texts)
    # Index subjects before writing the text, so that anything in the corpus can be found by data subject.
    subjects.keep(ingested.document_id, result.values)
    ref, language = corpus.write(clean), language_of(clean.text)
    recorder.record(ingested, clean, result, language)
    return load(
        Passed,
        vars(result),
        ingested=ingested,
        text=ref,
        char_count=sum(map(len, clean.parts)),
        time_ms=now_ms(),
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
    anonymizer: Anonymizer, subjects: Subjects, row_id: str, texts: tuple[str, ...], labels: Labels
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
    anonymizer: Anonymizer, subjects: Subjects, row_id: str, text: str, *, passed: tuple[str, ...], labels: Labels
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
    anonymizer: PromptAnonymizer, texts: tuple[str, ...], labels: Labels, beside: tuple[str, ...]
) -> AnonymizedPrompt:
    """Replace the personal values of a prompt, and return the value of each surrogate. Raises InvalidArgument (PROMPT_TOO_LONG)."""
    if len(texts) + len(beside) > MAX_PROMPT_TEXTS or sum(map(len, (*texts, *beside))) > MAX_PROMPT_CHARS:
        message = f"A prompt may have at most {MAX_PROMPT_TEXTS} texts and {MAX_PROMPT_CHARS} characters in all."
        raise InvalidArgument(Reason.PROMPT_TOO_LONG, message, field_violations={"texts": message})
    return anonymizer.anonymize(texts, labels, beside)


def preview_text(previewer: Previewer, text: str, policy: str, labels: Labels) -> Anonymized:
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


def reidentify(vault: Revealer, audit: AuditLog, *, caller: str, entity_type: str, surrogate: str, purpose: str) -> str:
    """The true value of a surrogate. The call is recorded before it is answered, even if no value is found.

    Raises what `check_reidentification` raises, and NotFound (UNKNOWN_SURROGATE).
    """
    check_reidentification(entity_type, surrogate, purpose)
    audit.record(caller, entity_type, surrogate, purpose)
    value = vault.reveal(entity_type, surrogate.strip())
    if value is None:
        raise NotFound(Reason.UNKNOWN_SURROGATE, "The vault has no such surrogate of this type.")
    return value


def forget(
    erased: Erased,
    *,
    quarantine: QuarantinedTexts,
    corpus: Corpus,
    subjects: Subjects,
    recorder: ReviewRecorder,
    ledger: SqlLedger,
) -> Forgotten:
    """Delete an erased document's texts on both sides of the barrier, then everything recorded about it. Idempotent."""
    objects = quarantine.delete_all(erased.document_id)
    texts = ledger.texts_of(erased.document_id)
    for ref in texts:
        corpus.delete(ref)
    entries = subjects.forget(erased.document_id)
    passages = recorder.forget(erased.document_id)
    versions = ledger.forget(erased.document_id)
    counts = {
        "quarantine_objects": objects,
        "corpus_objects": len(texts),
        "versions": versions,
        "vault_entries": entries,
        "review_passages": passages,
    }
    return Forgotten(counts)


def supersede(superseded: Erased, *, corpus: Corpus, ledger: SqlLedger) -> Forgotten:
    """Delete the corpus texts of a document's versions before the one that a replay made. Idempotent."""
    texts = ledger.texts_before(superseded.document_id, superseded.sequence)
    for ref in texts:
        corpus.delete(ref)
    versions = ledger.forget(superseded.document_id, superseded.sequence)
    return Forgotten({"corpus_objects": len(texts), "versions": versions})


def resolve_subject(subjects: Subjects, audit: AuditLog, *, caller: str, subject: str, dry_run: bool) -> Resolved:
    """A person's documents. The call is recorded before it is answered, without the person. Raises InvalidArgument (INVALID_SUBJECT)."""
    _check_subject(subject)
    audit.record(caller, "SUBJECT", "", "looks for a subject's documents" if dry_run else "erases a subject")
    return subjects.resolve(subject, dry_run=dry_run)


def describe_subject(
    subjects: Subjects, ledger: SqlLedger, audit: AuditLog, *, caller: str, subject: str
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


def lift_subject(subjects: Subjects, audit: AuditLog, *, caller: str, subject: str) -> None:
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
    index: TrueValues,
    audit: AuditLog,
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
