"""One function for every way in."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from services.ingestion.domain import (
    Candidate,
    Catalogue,
    File,
    Kind,
    Labels,
    Outcome,
    Parsed,
    Parser,
    Quarantine,
    Reason,
    Receipt,
    Refused,
    Rejected,
    Submission,
    check_text,
    malformed,
    text_digest,
)


@dataclass(frozen=True)
class Intake:
    """What taking documents in needs. `digest_key` makes digests of texts; sizes are in bytes and characters."""

    parser: Parser
    quarantine: Quarantine
    catalogue: Catalogue
    digest_key: bytes
    max_file_bytes: int
    max_chars: int
    now_ms: Callable[[], int] = lambda: int(time.time() * 1000)


def take_in(intake: Intake, receipt: Receipt) -> Outcome:
    """Make a version of a submission, or refuse it with a reason; told again, state the same again."""
    known = intake.catalogue.find(receipt.key)
    if known is not None:
        intake.catalogue.restate(known)
        return known
    try:
        submission = receipt.read()
    except Rejected as rejected:
        return intake.catalogue.refuse(receipt.key, None, _refused(intake, receipt, rejected, Labels()))
    try:
        parsed = _parse(intake, submission)
    except Rejected as rejected:
        refused = _refused(intake, receipt, rejected, submission.labels)
        return intake.catalogue.refuse(receipt.key, submission.external_id, refused)
    digest = text_digest(intake.digest_key, parsed)
    candidate = Candidate(receipt.key, receipt.submission_id, submission, parsed, digest, intake.now_ms())
    return intake.catalogue.accept(
        candidate, lambda document_id, sequence: intake.quarantine.write(document_id, sequence, parsed)
    )


def _parse(intake: Intake, submission: Submission) -> Parsed:
    content = submission.content
    if isinstance(content, Parsed):
        return check_text(content, intake.max_chars)
    parsed = check_text(_parse_file(intake, content), intake.max_chars)
    if (parsed.prompt is not None) != (submission.kind is Kind.EXAMPLE):
        raise malformed("An example is JSON with prompt and answer, and only that is an example.")
    return parsed


def _parse_file(intake: Intake, file: File) -> Parsed:
    if not file.data:
        raise Rejected(Reason.EMPTY, "The file has no bytes; check the export.")
    if len(file.data) > intake.max_file_bytes:
        raise Rejected(
            Reason.TOO_LARGE, f"The file has over {intake.max_file_bytes // 2**20} MiB; publish it in parts."
        )
    return intake.parser.parse(file)


def _refused(intake: Intake, receipt: Receipt, rejected: Rejected, labels: Labels) -> Refused:
    """A rejection under an id of its own, which the catalogue replaces where the document is known."""
    return Refused(
        submission_id=receipt.submission_id,
        document_id=receipt.spare_document_id,
        reason=rejected.reason,
        hint=rejected.hint,
        duplicate_of="",
        labels=labels,
        format=rejected.format,
        time_ms=intake.now_ms(),
    )
