"""One function for every way in."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from services.ingestion.domain import (
    Candidate,
    Catalogue,
    Erasure,
    Fetcher,
    File,
    Kind,
    Labels,
    Outcome,
    Parsed,
    Parser,
    Quarantine,
    Receipt,
    Reference,
    Refused,
    Rejected,
    RejectionReason,
    Submission,
    T,
    check_fetched,
    check_text,
    malformed,
    text_digest,
    with_sections,
)
from tailor.errors import Unavailable

# What does not answer for now is asked again after so many seconds, and then no more: the documents behind it wait meanwhile.
FETCH_PAUSES = (1.0, 3.0, 9.0)


@dataclass(frozen=True)
class Intake:
    """What taking documents in needs. `digest_key` makes digests of texts; sizes are in bytes and characters."""

    parser: Parser
    quarantine: Quarantine
    catalogue: Catalogue
    digest_key: bytes
    max_file_bytes: int
    max_chars: int
    fetcher: Fetcher
    now_ms: Callable[[], int] = lambda: int(time.time() * 1000)
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class Withdrawals:
    """What taking documents back needs."""

    catalogue: Catalogue
    erasure: Erasure
    now_ms: Callable[[], int] = lambda: int(time.time() * 1000)


def take_in(intake: Intake, receipt: Receipt[Submission]) -> Outcome:
    """Make a version of a submission, or refuse it with a reason; told again, state the same again."""
    known = intake.catalogue.find(receipt.key)
    if known is not None:
        intake.catalogue.restate(known)
        return known
    try:
        submission = receipt.read()
    except Rejected as rejected:
        refused = _refused(receipt, rejected, Labels(), intake.now_ms())
        return intake.catalogue.refuse(receipt.key, None, refused)
    try:
        content = _present(intake, submission.content)
        parsed = with_sections(_parse(intake, content, submission.kind))
    except Rejected as rejected:
        refused = _refused(receipt, rejected, submission.labels, intake.now_ms())
        return intake.catalogue.refuse(receipt.key, submission.external_id, refused)
    digest = text_digest(intake.digest_key, parsed)
    submission = replace(submission, content=content)
    candidate = Candidate(receipt.key, receipt.submission_id, submission, parsed, digest, intake.now_ms())
    return intake.catalogue.accept(
        candidate, lambda document_id, sequence: intake.quarantine.write(document_id, sequence, parsed)
    )


def withdraw(withdrawals: Withdrawals, receipt: Receipt[str]) -> Refused | None:
    """Have the document erased that a publisher's tombstone names; told again, ask the same again. The rejection where there is none."""
    catalogue = withdrawals.catalogue
    known = catalogue.find(receipt.key)
    if isinstance(known, Refused):
        catalogue.restate(known)
        return known
    try:
        document_id = catalogue.resolve(receipt.read())
        if document_id is None:
            raise Rejected(
                RejectionReason.UNKNOWN_DOCUMENT, "No document was published under this id; nothing is erased."
            )
    except Rejected as rejected:
        refused = _refused(receipt, rejected, Labels(), withdrawals.now_ms())
        catalogue.refuse(receipt.key, None, refused)
        return refused
    withdrawals.erasure.request(document_id, receipt.submission_id)
    return None


def _present(intake: Intake, content: File | Reference | Parsed) -> File | Parsed:
    """The content, fetched where it says only where it is."""
    if not isinstance(content, Reference):
        return content
    if (content.size_bytes or 0) > intake.max_file_bytes:
        raise _too_large(intake)
    return check_fetched(content, _fetch(intake, content))


def _fetch(intake: Intake, reference: Reference) -> File:
    for pause in (*FETCH_PAUSES, None):
        try:
            return intake.fetcher.fetch(reference, intake.max_file_bytes)
        except Unavailable:
            if pause is not None:
                intake.sleep(pause)
    raise Rejected(
        RejectionReason.UNREACHABLE, "What the reference names did not answer, several times; publish it again later."
    )


def _parse(intake: Intake, content: File | Parsed, kind: Kind) -> Parsed:
    if isinstance(content, Parsed):
        return check_text(content, intake.max_chars)
    parsed = check_text(_parse_file(intake, content), intake.max_chars)
    if (parsed.prompt is not None) != (kind is Kind.EXAMPLE):
        raise malformed("An example is JSON with prompt and answer, and only that is an example.")
    return parsed


def _parse_file(intake: Intake, file: File) -> Parsed:
    if not file.data:
        raise Rejected(RejectionReason.EMPTY, "The file has no bytes; check the export.")
    if len(file.data) > intake.max_file_bytes:
        raise _too_large(intake)
    return intake.parser.parse(file)


def _too_large(intake: Intake) -> Rejected:
    return Rejected(
        RejectionReason.TOO_LARGE, f"The file has over {intake.max_file_bytes // 2**20} MiB; publish it in parts."
    )


def _refused(receipt: Receipt[T], rejected: Rejected, labels: Labels, time_ms: int) -> Refused:
    """A rejection under an id of its own, which the catalogue replaces where the document is known."""
    return Refused(
        submission_id=receipt.submission_id,
        document_id=receipt.spare_document_id,
        reason=rejected.reason,
        hint=rejected.hint,
        duplicate_of="",
        labels=labels,
        format=rejected.format,
        time_ms=time_ms,
    )
