"""Ingestion's values and rules: submissions and what becomes of them. Imports no library."""

import hashlib
import hmac
import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from services.ingestion.spans import find_sections, limit_spans
from tailor.storage.ref import Ref
from tailor.values import Labels, Span

MAX_EXTERNAL_ID = 512
MAX_FILE_NAME = 512
# PostgreSQL and UTF-8 accept neither zero bytes nor lone surrogates, but JSON can contain both.
# Also what slides, Word and PDF put between lines and pages. Without them, the words on both sides would become one.
LINE_END = re.compile(r"\r\n|[\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ufeff\u200b\u2028\u2029\ud800-\udfff\ufdd0-\ufdef]")
NOT_IN_A_NAME = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
# Runs of characters that are neither ASCII nor letters. Combining marks are among them.
SIGNS = re.compile(r"[^\w\s\x00-\x7f]{31,}")
MAX_MARKS = 30
MANY_LINES = re.compile(r"\n{3,}")
SLUG = re.compile(r"[a-z0-9-]{0,64}")
SLUG_RULE = "must have at most 64 characters, each of them a-z, 0-9 or '-'"
DRAFT_ID = re.compile(r"(?:drf_[0-9a-f]{32})?")
DRAFT_ID_RULE = "must be `drf_` and 32 hexadecimal digits"


# Statements by kind: the key insights that an answer to a golden document's prompt should have.
Insights = Mapping[str, tuple[str, ...]]


class DocumentKind(StrEnum):
    """The kind of a published document."""

    DOCUMENT = "document"
    DELIVERABLE = "deliverable"
    EXAMPLE = "example"
    TEST = "test"


class RejectionReason(StrEnum):
    """Why a document goes no further: the names of `RejectionReason` in documents.proto that ingestion publishes."""

    DUPLICATE = "DUPLICATE"
    EMPTY = "EMPTY"
    CORRUPT = "CORRUPT"
    ENCRYPTED = "ENCRYPTED"
    UNSUPPORTED_FORMAT = "UNSUPPORTED_FORMAT"
    TOO_LARGE = "TOO_LARGE"
    NO_TEXT = "NO_TEXT"
    MALFORMED = "MALFORMED"
    TIMEOUT = "TIMEOUT"
    NOT_ALLOWED = "NOT_ALLOWED"
    UNREACHABLE = "UNREACHABLE"
    UNKNOWN_DOCUMENT = "UNKNOWN_DOCUMENT"
    ERASED = "ERASED"


class Rejected(Exception):
    """A submission cannot become a version. `hint` says what to do; it never quotes the document."""

    def __init__(self, reason: RejectionReason, hint: str, format: str = "") -> None:
        super().__init__(f"{reason}: {hint}")
        self.reason = reason
        self.hint = hint
        self.format = format


@dataclass(frozen=True)
class File:
    """Bytes as they were published. `name` and `content_type` may be empty or wrong."""

    data: bytes
    name: str = ""
    content_type: str = ""


@dataclass(frozen=True)
class FileReference:
    """The location of a file that its publisher stores. `uri` may contain a secret, such as a signature: never log, publish or store it.

    `sha256` is empty and `size_bytes` None if the publisher did not send them.
    """

    uri: str
    name: str = ""
    content_type: str = ""
    sha256: str = ""
    size_bytes: int | None = None

    @property
    def is_storable(self) -> bool:
        """True unless the address may contain a secret: a query, such as a signature, or a user."""
        return "?" not in self.uri and "@" not in self.uri.partition("://")[2].partition("/")[0]


@dataclass(frozen=True)
class ParsedText:
    """Clean Markdown and the format it came from. `spans` locate the parts of the file in `text`.

    Only examples and golden documents have a `prompt`; only the latter have `insights`, which may be empty. `removed` counts the characters
    that are not content and were left out, by kind, such as `navigation`.
    """

    text: str
    format: str
    prompt: str | None = None
    spans: tuple[Span, ...] = ()
    insights: Insights | None = None
    removed: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_golden(self) -> bool:
        """True for a golden document."""
        return self.insights is not None

    @property
    def chars(self) -> int:
        """The characters of all its texts."""
        statements = [entry for entries in (self.insights or {}).values() for entry in entries]
        return len(self.text) + len(self.prompt or "") + sum(map(len, statements))


@dataclass(frozen=True)
class Submission:
    """One document as published: a file to parse, a reference to fetch, or text that is already clean."""

    external_id: str
    kind: DocumentKind
    labels: Labels
    content: File | FileReference | ParsedText
    draft_id: str = ""


@dataclass(frozen=True)
class Receipt:
    """The identity of a submission. Every redelivery has the same `key`, from which the ids are derived.

    `spare_document_id` stands for the document if the submission does not reveal which document it belongs to. `claimed_id` is the
    publisher's id as far as it can be read, also from a malformed submission; `publisher` the key that submitted it, if one did.
    """

    key: str
    submission_id: str
    spare_document_id: str
    claimed_id: str = ""
    publisher: str = ""


@dataclass(frozen=True)
class Acceptance:
    """A submission that became a version, whose text is in quarantine."""

    submission_id: str
    document_id: str
    sequence: int
    digest: str
    kind: DocumentKind
    labels: Labels
    text: Ref
    format: str
    char_count: int
    draft_id: str
    time_ms: int
    spans: tuple[Span, ...] = ()
    # Set if the same text passes the barrier again: what was derived from the earlier version is superseded under this id (`ers_`).
    supersede_id: str = ""
    removed: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Rejection:
    """A submission that goes no further."""

    submission_id: str
    document_id: str
    reason: RejectionReason
    hint: str
    duplicate_of: str
    labels: Labels
    format: str
    time_ms: int


Outcome = Acceptance | Rejection


@dataclass(frozen=True)
class LaterRejection:
    """Why anonymization rejected a version that ingestion had accepted."""

    reason: str
    hint: str


@dataclass(frozen=True)
class SubmissionRecord:
    """A stored outcome, and what became of it later. `publisher` is empty for an event."""

    outcome: Outcome
    publisher: str
    later: LaterRejection | None = None


def make_rejection(
    receipt: Receipt,
    rejected: Rejected,
    labels: Labels,
    time_ms: int,
    *,
    document_id: str = "",
    duplicate_of: str = "",
) -> Rejection:
    """The outcome of a rejected submission, under the receipt's spare document id unless the document is known."""
    return Rejection(
        submission_id=receipt.submission_id,
        document_id=document_id or receipt.spare_document_id,
        reason=rejected.reason,
        hint=rejected.hint,
        duplicate_of=duplicate_of,
        labels=labels,
        format=rejected.format,
        time_ms=time_ms,
    )


@dataclass(frozen=True)
class ParsedSubmission:
    """A submission whose text is known; the catalogue decides whether it becomes a version.

    `reference` is where a fetched file came from.
    """

    receipt: Receipt
    submission: Submission
    parsed: ParsedText
    digest: str
    time_ms: int
    reference: FileReference | None = None

    def accept(
        self, document_id: str, sequence: int, text: Ref, digest: str = "", supersede_id: str = ""
    ) -> Acceptance:
        """The outcome if it becomes a version. A version that supersedes another one with the same text has its own `digest`."""
        return Acceptance(
            submission_id=self.receipt.submission_id,
            document_id=document_id,
            sequence=sequence,
            digest=digest or self.digest,
            kind=self.submission.kind,
            labels=self.submission.labels,
            text=text,
            format=self.parsed.format,
            char_count=self.parsed.chars,
            draft_id=self.submission.draft_id,
            time_ms=self.time_ms,
            spans=self.parsed.spans,
            supersede_id=supersede_id,
            removed=self.parsed.removed,
        )

    def reject_erased(self, document_id: str) -> Rejection:
        """The outcome if the document has been erased."""
        hint = f"The document is erased. Data protection can lift the erasure with `tailor erasure lift {document_id}`."
        return self._reject(document_id, RejectionReason.ERASED, hint)

    def reject_other_kind(self, document_id: str, kind: str) -> Rejection:
        """The outcome if the publisher's id belongs to a document of another kind."""
        hint = f"This id belongs to a document of the kind `{kind}`. Use another id."
        return self._reject(document_id, RejectionReason.MALFORMED, hint)

    def reject_duplicate(self, document_id: str, duplicate_of: str) -> Rejection:
        """The outcome if the same text is already current."""
        hint = "The same text is already current. Nothing needs to be done."
        return self._reject(document_id, RejectionReason.DUPLICATE, hint, duplicate_of)

    def _reject(self, document_id: str, reason: RejectionReason, hint: str, duplicate_of: str = "") -> Rejection:
        return make_rejection(
            self.receipt,
            Rejected(reason, hint, self.parsed.format),
            self.submission.labels,
            self.time_ms,
            document_id=document_id,
            duplicate_of=duplicate_of,
        )


def clean(text: str) -> str:
    """Normalise text: `\\n` line ends, composed letters (NFC), no control characters, no long runs of combining marks or empty lines.

    Takes time linear in the length of the text.
    """
    marked = text if text.isascii() else SIGNS.sub(_limit_marks, text)
    plain = unicodedata.normalize("NFC", LINE_END.sub("\n", marked).replace("\u00a0", " "))
    lines = [line.rstrip(" \t") for line in CONTROL.sub("", plain).split("\n")]
    return MANY_LINES.sub("\n\n", "\n".join(lines)).strip() + "\n"


def _limit_marks(signs: re.Match[str]) -> str:
    """Composing takes time quadratic in the marks on one letter, and no script needs more than MAX_MARKS."""
    signs_to_keep, marks = [], 0
    for sign in signs[0]:
        marks = marks + 1 if unicodedata.combining(sign) else 0
        if marks <= MAX_MARKS:
            signs_to_keep.append(sign)
    return "".join(signs_to_keep)


def check_text(parsed: ParsedText, max_chars: int) -> ParsedText:
    """Return the text unchanged. Raises Rejected if it has no words (NO_TEXT) or too many characters (TOO_LARGE)."""
    if not any(letter.isalnum() for letter in parsed.text):
        raise Rejected(
            RejectionReason.NO_TEXT,
            "The file contains no text. If it is a scan, publish it with recognised text.",
            parsed.format,
        )
    if parsed.chars > max_chars:
        raise Rejected(
            RejectionReason.TOO_LARGE,
            f"The text has more than {max_chars:,} characters. Publish it in parts.",
            parsed.format,
        )
    return parsed


def add_sections(parsed: ParsedText) -> ParsedText:
    """The same text, with its sections among its spans."""
    return replace(parsed, spans=limit_spans((*parsed.spans, *find_sections(parsed.text))))


def check_label(label: str, field: str) -> str:
    """Return the label. Raises Rejected, naming the field, unless it is a slug or empty."""
    if not SLUG.fullmatch(label):
        raise malformed(f"`{field}` {SLUG_RULE}.")
    return label


def check_external_id(external_id: str, field: str) -> str:
    """Return the publisher's id. Raises Rejected, naming the field, unless it has 1 to 512 printable characters."""
    if not external_id.strip():
        raise malformed(f"`{field}` must not be empty.")
    if len(external_id) > MAX_EXTERNAL_ID:
        raise malformed(f"`{field}` must have at most {MAX_EXTERNAL_ID} characters.")
    if NOT_IN_A_NAME.search(external_id):
        raise malformed(f"`{field}` must not contain control characters.")
    return external_id


def check_draft_id(draft_id: str, kind: DocumentKind, field: str) -> str:
    """Return the draft id. Raises Rejected, naming the field, if it is invalid or the document is not a deliverable."""
    if not DRAFT_ID.fullmatch(draft_id):
        raise malformed(f"`{field}` {DRAFT_ID_RULE}.")
    if draft_id and kind is not DocumentKind.DELIVERABLE:
        raise malformed(f"`{field}` is allowed only for deliverables.")
    return draft_id


def base_name(name: str) -> str:
    """The name of a file without its folders and without control characters, cut to its last 512 characters."""
    return NOT_IN_A_NAME.sub("", re.split(r"[/\\]", name)[-1])[-MAX_FILE_NAME:]


def check_fetched(reference: FileReference, file: File) -> File:
    """Return the file. Raises Rejected (CORRUPT) unless it has the announced digest and size."""
    if reference.size_bytes not in (None, len(file.data)):
        raise Rejected(
            RejectionReason.CORRUPT, "The fetched file does not have the size given in `size_bytes`. Publish it again."
        )
    if reference.sha256 and hashlib.sha256(file.data).hexdigest() != reference.sha256.lower():
        raise Rejected(
            RejectionReason.CORRUPT, "The fetched file does not have the digest given in `sha256`. Publish it again."
        )
    return file


def malformed(hint: str) -> Rejected:
    """A rejection of the submission itself, not of its document."""
    return Rejected(RejectionReason.MALFORMED, hint)


def encode_text(parsed: ParsedText) -> bytes:
    """The JSON object that quarantine stores: {"prompt": string or null, "text": Markdown}, and for golden documents "key_insights"."""
    content: dict[str, object] = {"prompt": parsed.prompt, "text": parsed.text}
    if parsed.insights is not None:
        content["key_insights"] = parsed.insights
    return json.dumps(content, ensure_ascii=False, sort_keys=True).encode()


def keyed_digest(key: bytes, purpose: str, data: bytes) -> str:
    """HMAC-SHA256 of the data for one purpose, as 64 hexadecimal digits. Reveals nothing to anybody without the key."""
    return hmac.digest(key, purpose.encode() + b"\x1f" + data, hashlib.sha256).hex()


def text_digest(key: bytes, parsed: ParsedText) -> str:
    """The digest of a version; equal for equal text, prompt and insights."""
    return keyed_digest(key, "text", encode_text(parsed))


def replayed_digest(key: bytes, digest: str, document_id: str, sequence: int) -> str:
    """The digest of a version that repeats an earlier text. It differs, because the barrier may make another text of it."""
    return keyed_digest(key, "replayed", f"{digest}\x1f{document_id}\x1f{sequence}".encode())


def decode_text(data: bytes, format: str, spans: tuple[Span, ...]) -> ParsedText:
    """Read what `encode_text` wrote. Raises ValueError for anything else."""
    content = json.loads(data)
    insights = content.get("key_insights")
    if insights is not None:
        insights = {str(kind): tuple(entries) for kind, entries in insights.items()}
    return ParsedText(content["text"], format, content["prompt"], spans, insights)
