"""What ingestion does on each command: ingest a submission, withdraw a document."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from services.ingestion.adapters.quarantine import Quarantine
from services.ingestion.adapters.sql import SqlCatalogue
from services.ingestion.domain import (
    DocumentKind,
    File,
    FileReference,
    Outcome,
    ParsedSubmission,
    ParsedText,
    Receipt,
    Rejected,
    Rejection,
    RejectionReason,
    Submission,
    SubmissionRecord,
    add_sections,
    check_fetched,
    check_text,
    make_rejection,
    malformed,
    text_digest,
)
from services.ingestion.ports import Fetcher, RequestErasure
from tailor.errors import NotFound, Reason, Unavailable
from tailor.retry import retry
from tailor.values import Labels

MAX_SUBMISSIONS = 20
FETCH_ATTEMPTS = 4
# Seconds between the attempts, less up to half at random: 1, 3, 9. Documents behind this one wait meanwhile.
FIRST_PAUSE_SECONDS, PAUSE_FACTOR, MAX_PAUSE_SECONDS = 1.0, 3.0, 9.0


def now_ms() -> int:
    """The current time in milliseconds since 1970."""
    return int(time.time() * 1000)


@dataclass(frozen=True)
class Intake:
    """What `ingest` uses. `parse` raises Rejected, and blocks at most for its time limit. `digest_key` keys the digests of texts."""

    parse: Callable[[File], ParsedText]
    quarantine: Quarantine
    catalogue: SqlCatalogue
    digest_key: bytes
    max_file_bytes: int
    max_chars: int
    fetcher: Fetcher
    now_ms: Callable[[], int] = now_ms
    sleep: Callable[[float], None] = time.sleep


def ingest(intake: Intake, receipt: Receipt, submission: Submission | Rejected) -> Outcome:
    """Create a version from a submission or reject it. Idempotent: a redelivery publishes the same outcome again."""
    catalogue = intake.catalogue
    known = catalogue.find(receipt.key)
    if known is not None:
        catalogue.republish(known)
        return known
    if isinstance(submission, Rejected):
        return catalogue.reject(receipt, None, make_rejection(receipt, submission, Labels(), intake.now_ms()))
    try:
        content = _resolve(intake, submission.content)
        parsed = add_sections(_parse(intake, content, submission.kind))
    except Rejected as rejected:
        rejection = make_rejection(receipt, rejected, submission.labels, intake.now_ms())
        return catalogue.reject(receipt, submission.external_id, rejection)
    digest = text_digest(intake.digest_key, parsed)
    reference = submission.content if isinstance(submission.content, FileReference) else None
    submission = replace(submission, content=content)
    version = ParsedSubmission(receipt, submission, parsed, digest, intake.now_ms(), reference)
    return catalogue.accept(
        version, lambda document_id, sequence: intake.quarantine.write(document_id, sequence, parsed)
    )


def fetch_again(intake: Intake, reference: FileReference, kind: DocumentKind) -> ParsedText:
    """The text of a file that was published by reference, read like the first time. Blocks. Raises Rejected."""
    return add_sections(_parse(intake, _resolve(intake, reference), kind))


def withdraw(
    catalogue: SqlCatalogue,
    request_erasure: RequestErasure,
    receipt: Receipt,
    external_id: str | Rejected,
    *,
    kind: DocumentKind,
    now_ms: Callable[[], int] = now_ms,
) -> Rejection | None:
    """Request the erasure of the document of a kind that a tombstone names. Returns the rejection if there is no such document.

    Idempotent: a redelivery repeats the same request or publishes the same rejection again. Raises Unavailable without the registry.
    """
    known = catalogue.find(receipt.key)
    if isinstance(known, Rejection):
        catalogue.republish(known)
        return known
    if isinstance(external_id, Rejected):
        rejected = external_id
    elif document_id := catalogue.resolve(external_id, kind):
        request_erasure(document_id, receipt.submission_id)
        return None
    else:
        hint = "No document was published under this id on this topic. Nothing is erased."
        rejected = Rejected(RejectionReason.UNKNOWN_DOCUMENT, hint)
    rejection = make_rejection(receipt, rejected, Labels(), now_ms())
    catalogue.reject(receipt, None, rejection)
    return rejection


def find_submissions(catalogue: SqlCatalogue, external_id: str, publisher: str | None) -> Sequence[SubmissionRecord]:
    """The last submissions under a publisher's own id, the newest first. A `publisher` does not see what another key submitted.

    Raises NotFound if there is none.
    """
    records = catalogue.find_submissions(external_id, MAX_SUBMISSIONS)
    visible = [record for record in records if publisher is None or record.publisher in ("", publisher)]
    if not visible:
        raise NotFound(
            Reason.UNKNOWN_DOCUMENT,
            "Nothing was published under this id, or ingestion has not read it yet. Check the id and the topic's name.",
        )
    return visible


def _resolve(intake: Intake, content: File | FileReference | ParsedText) -> File | ParsedText:
    """The content itself, fetched if it is a reference."""
    if not isinstance(content, FileReference):
        return content
    if (content.size_bytes or 0) > intake.max_file_bytes:
        raise _too_large(intake)
    return check_fetched(content, _fetch(intake, content))


def _fetch(intake: Intake, reference: FileReference) -> File:
    try:
        return retry(
            lambda: intake.fetcher.fetch(reference, intake.max_file_bytes),
            attempts=FETCH_ATTEMPTS,
            initial_seconds=FIRST_PAUSE_SECONDS,
            factor=PAUSE_FACTOR,
            max_seconds=MAX_PAUSE_SECONDS,
            sleep=intake.sleep,
        )
    except Unavailable:
        hint = f"The host of `uri` did not answer {FETCH_ATTEMPTS} times. Publish the document again later."
        raise Rejected(RejectionReason.UNREACHABLE, hint) from None


def _parse(intake: Intake, content: File | ParsedText, kind: DocumentKind) -> ParsedText:
    if isinstance(content, ParsedText):
        return check_text(content, intake.max_chars)
    parsed = check_text(_parse_file(intake, content), intake.max_chars)
    is_golden = parsed.is_golden
    if is_golden != (kind is DocumentKind.TEST):
        raise malformed(
            "A test must be a JSON file with `prompt` and `reference`, and such a file needs the kind `test`."
        )
    is_example = parsed.prompt is not None and not is_golden
    if kind is DocumentKind.EXAMPLE and not is_example:
        raise malformed("The file of an example must be a JSON object with `prompt` and `answer`.")
    if is_example and kind is not DocumentKind.EXAMPLE:
        raise malformed("A JSON file with `prompt` and `answer` needs the kind `example`.")
    return parsed


def _parse_file(intake: Intake, file: File) -> ParsedText:
    if not file.data:
        raise Rejected(RejectionReason.EMPTY, "The file is empty. Check the export.")
    if len(file.data) > intake.max_file_bytes:
        raise _too_large(intake)
    return intake.parse(file)


def _too_large(intake: Intake) -> Rejected:
    hint = f"The file is larger than {intake.max_file_bytes // 2**20} MiB. Publish it in parts."
    return Rejected(RejectionReason.TOO_LARGE, hint)
