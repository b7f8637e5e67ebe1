"""What ingestion knows: submissions, outcomes, their rules, and what it needs from outside."""

import hashlib
import hmac
import json
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

from services.ingestion.spans import Span, bounded, sections
from tailor.storage.ref import Ref

MAX_EXTERNAL_ID = 512
MAX_FILE_NAME = 512
# Neither a database nor UTF-8 takes zero bytes or halves of a surrogate pair, which JSON may hold.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ufeff\u200b\u2028\u2029\ud800-\udfff\ufdd0-\ufdef]")
NOT_IN_A_NAME = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
# Signs that are no ASCII and no letters: among them are the marks that combine with a letter.
SIGNS = re.compile(r"[^\w\s\x00-\x7f]{31,}")
MAX_MARKS = 30
MANY_LINES = re.compile(r"\n{3,}")
SLUG = re.compile(r"[a-z0-9-]{0,64}")
DRAFT_ID = re.compile(r"(?:drf_[0-9a-f]{32})?")

T = TypeVar("T")


class Kind(StrEnum):
    """What a published document is."""

    DOCUMENT = "document"
    DELIVERABLE = "deliverable"
    EXAMPLE = "example"


class RejectionReason(StrEnum):
    """Why a document goes no further; the names of the contract."""

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
    """A submission goes no further. `hint` says what to do and holds nothing of the document."""

    def __init__(self, reason: RejectionReason, hint: str, format: str = "") -> None:
        super().__init__(f"{reason}: {hint}")
        self.reason = reason
        self.hint = hint
        self.format = format


@dataclass(frozen=True)
class Labels:
    """Slugs that say where a document belongs; never personal."""

    source: str = ""
    department: str = ""
    confidentiality: str = ""


@dataclass(frozen=True)
class File:
    """Bytes as they were published. `content_type` and `name` may be empty, or wrong."""

    data: bytes
    name: str = ""
    content_type: str = ""


@dataclass(frozen=True)
class Reference:
    """A file that lies where its publisher keeps it. `uri` may hold a secret, such as a signature: it is never logged, stated or kept.
    `sha256` is empty and `size_bytes` None where they were not told."""

    uri: str
    name: str = ""
    content_type: str = ""
    sha256: str = ""
    size_bytes: int | None = None


@dataclass(frozen=True)
class Parsed:
    """Clean Markdown, and the format it came from; `prompt` for examples alone. `spans` are the parts of the text."""

    text: str
    format: str
    prompt: str | None = None
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Submission:
    """One document as a publisher handed it in: a file to parse or to fetch, or text that is clean already."""

    external_id: str
    kind: Kind
    labels: Labels
    content: File | Reference | Parsed
    draft_id: str = ""


@dataclass(frozen=True)
class Receipt(Generic[T]):
    """What is known before a submission is read: its key, which a redelivery repeats, ids derived from the key, and how to read it
    (may raise Rejected). `spare_document_id` serves where the submission does not tell which document it is."""

    key: str
    submission_id: str
    spare_document_id: str
    read: Callable[[], T]


@dataclass(frozen=True)
class Accepted:
    """A new version, its text in quarantine."""

    submission_id: str
    document_id: str
    sequence: int
    digest: str
    kind: Kind
    labels: Labels
    text: Ref
    format: str
    char_count: int
    draft_id: str
    time_ms: int
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Refused:
    """A submission that goes no further."""

    submission_id: str
    document_id: str
    reason: RejectionReason
    hint: str
    duplicate_of: str
    labels: Labels
    format: str
    time_ms: int


Outcome = Accepted | Refused


@dataclass(frozen=True)
class Candidate:
    """A parsed submission that may become a version."""

    key: str
    submission_id: str
    submission: Submission
    parsed: Parsed
    digest: str
    time_ms: int

    def accepted(self, document_id: str, sequence: int, text: Ref) -> Accepted:
        """The outcome where it becomes a version."""
        submission = self.submission
        chars = len(self.parsed.text) + len(self.parsed.prompt or "")
        return Accepted(
            submission_id=self.submission_id,
            document_id=document_id,
            sequence=sequence,
            digest=self.digest,
            kind=submission.kind,
            labels=submission.labels,
            text=text,
            format=self.parsed.format,
            char_count=chars,
            draft_id=submission.draft_id,
            time_ms=self.time_ms,
            spans=self.parsed.spans,
        )

    def erased(self, document_id: str) -> Refused:
        """The outcome where the document is erased."""
        hint = "The document is erased; data protection can lift that with `tailor erase --lift`."
        return Refused(
            self.submission_id,
            document_id,
            RejectionReason.ERASED,
            hint,
            "",
            self.submission.labels,
            self.parsed.format,
            self.time_ms,
        )

    def duplicate(self, document_id: str, of: str) -> Refused:
        """The outcome where the same text is current already."""
        hint = "The same text is already current; nothing has to be done."
        return Refused(
            self.submission_id,
            document_id,
            RejectionReason.DUPLICATE,
            hint,
            of,
            self.submission.labels,
            self.parsed.format,
            self.time_ms,
        )


class Parser(Protocol):
    """Turns a file into clean text."""

    def parse(self, file: File) -> Parsed:
        """The file's text; raises Rejected. May block as long as its time limit."""
        ...


class Fetcher(Protocol):
    """Gets files from where their publishers keep them."""

    def fetch(self, reference: Reference, max_bytes: int) -> File:
        """The file; Rejected where it may not or can not be had, Unavailable where it does not answer for now. May block as long as its
        time limit."""
        ...


class Erasure(Protocol):
    """Has documents erased everywhere."""

    def request(self, document_id: str, request_id: str) -> None:
        """Ask for it; the same request id again changes nothing. May block; Unavailable where nobody answers."""
        ...


class Quarantine(Protocol):
    """Keeps encrypted text until anonymization has read it."""

    def write(self, document_id: str, sequence: int, parsed: Parsed) -> Ref:
        """Encrypt and store."""
        ...


class Catalogue(Protocol):
    """Documents, versions and what became of every submission. What it keeps, it also states: in the same transaction, once."""

    def find(self, key: str) -> Outcome | None:
        """What became of a submission."""
        ...

    def restate(self, outcome: Outcome) -> None:
        """State a kept outcome again, by the same event id."""
        ...

    def refuse(self, key: str, external_id: str | None, refused: Refused) -> Outcome:
        """Keep a rejection; for a readable external id under its document's id. Returns what another replica kept first, if one did."""
        ...

    def accept(self, candidate: Candidate, store: Callable[[str, int], Ref]) -> Outcome:
        """Make a version, unless its digest is current; `store(document id, sequence)` is called at most once."""
        ...

    def resolve(self, external_id: str) -> str | None:
        """The id of the document that a publisher calls by this id; None where there is none."""
        ...

    def release(self, document_id: str, submission_id: str) -> None:
        """Let the text of a version that went no further be published again: it is not current any more. Nothing happens where a newer
        version is, or where the submission made none."""
        ...


def clean(text: str) -> str:
    """Text with one kind of line end, composed letters, no control characters and no heaps of marks or empty lines. Takes time in
    proportion to the text, whatever it holds."""
    marked = text if text.isascii() else SIGNS.sub(_with_few_marks, text)
    plain = unicodedata.normalize("NFC", marked.replace("\r\n", "\n").replace("\r", "\n").replace("\u00a0", " "))
    lines = [line.rstrip(" \t") for line in CONTROL.sub("", plain).split("\n")]
    return MANY_LINES.sub("\n\n", "\n".join(lines)).strip() + "\n"


def _with_few_marks(signs: re.Match[str]) -> str:
    """Composing takes the square of the marks on one letter; no script needs as many as are kept."""
    kept, marks = [], 0
    for sign in signs[0]:
        marks = marks + 1 if unicodedata.combining(sign) else 0
        if marks <= MAX_MARKS:
            kept.append(sign)
    return "".join(kept)


def check_text(parsed: Parsed, max_chars: int) -> Parsed:
    """Refuse what holds no words, or too many."""
    if not any(letter.isalnum() for letter in parsed.text):
        raise Rejected(
            RejectionReason.NO_TEXT,
            "The file holds no text; if it is a scan, publish it with recognised text.",
            parsed.format,
        )
    if len(parsed.text) + len(parsed.prompt or "") > max_chars:
        raise Rejected(
            RejectionReason.TOO_LARGE,
            f"The text has over {max_chars:,} characters; publish it in parts.",
            parsed.format,
        )
    return parsed


def with_sections(parsed: Parsed) -> Parsed:
    """The same text with its sections among its spans."""
    return replace(parsed, spans=bounded((*parsed.spans, *sections(parsed.text))))


def check_labels(source: str, department: str, confidentiality: str) -> Labels:
    """Labels that are slugs; Rejected otherwise."""
    if not all(SLUG.fullmatch(label) for label in (source, department, confidentiality)):
        raise malformed("Labels are slugs of at most 64 characters from a-z, 0-9 and '-'.")
    return Labels(source, department, confidentiality)


def check_external_id(external_id: str) -> str:
    """An id of 1 to 512 characters; Rejected otherwise."""
    if not external_id.strip() or len(external_id) > MAX_EXTERNAL_ID or NOT_IN_A_NAME.search(external_id):
        raise malformed(f"A document id has 1 to {MAX_EXTERNAL_ID} characters, none of them a control character.")
    return external_id


def plain_name(name: str) -> str:
    """A file's name without directories and control characters, cut to what is kept."""
    return NOT_IN_A_NAME.sub("", re.split(r"[/\\]", name)[-1])[-MAX_FILE_NAME:]


def check_fetched(reference: Reference, file: File) -> File:
    """Refuse bytes that are not those that were announced."""
    is_other = reference.sha256 and hashlib.sha256(file.data).hexdigest() != reference.sha256.lower()
    if is_other or reference.size_bytes not in (None, len(file.data)):
        raise Rejected(
            RejectionReason.CORRUPT,
            "The fetched bytes are not those that sha256 and size_bytes announce; publish it again.",
        )
    return file


def check_draft_id(draft_id: str, kind: Kind) -> str:
    """An empty draft id, or one of a deliverable; Rejected otherwise."""
    if not DRAFT_ID.fullmatch(draft_id) or (draft_id and kind is not Kind.DELIVERABLE):
        raise malformed("A draft id has the form drf_ and 32 hexadecimal digits, and belongs to a deliverable.")
    return draft_id


def malformed(hint: str) -> Rejected:
    """A rejection of the submission itself."""
    return Rejected(RejectionReason.MALFORMED, hint)


def encode_text(parsed: Parsed) -> bytes:
    """The JSON object that quarantine keeps: {"prompt": string or null, "text": Markdown}."""
    return json.dumps({"prompt": parsed.prompt, "text": parsed.text}, ensure_ascii=False, sort_keys=True).encode()


def keyed_digest(key: bytes, purpose: str, data: bytes) -> str:
    """A digest that says nothing to who lacks the key; 64 hexadecimal digits."""
    return hmac.digest(key, purpose.encode() + b"\x1f" + data, hashlib.sha256).hex()


def text_digest(key: bytes, parsed: Parsed) -> str:
    """The digest of a version: equal for equal text and prompt."""
    return keyed_digest(key, "text", encode_text(parsed))
