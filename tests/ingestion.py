"""Ingestion over a database: what it stores, publishes and asks for."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.protobuf.message import Message
from sqlalchemy import Engine

from services.ingestion.adapters.quarantine import NONCE_BYTES, Quarantine
from services.ingestion.adapters.sql import SqlCatalogue
from services.ingestion.adapters.tables import OUTBOX
from services.ingestion.consumers import make_handlers
from services.ingestion.domain import (
    DocumentKind,
    File,
    FileReference,
    Outcome,
    ParsedText,
    Receipt,
    Rejected,
    RejectionReason,
    Submission,
    decode_text,
)
from services.ingestion.formats.read import read
from services.ingestion.handlers import Intake, ingest
from services.ingestion.ports import Fetcher
from services.ingestion.schema import SUBMITTED
from services.ingestion.wire import to_receipt, to_submission
from tailor.events.envelope import Event
from tailor.events.memory import MemoryProducer
from tailor.events.outbox import Outbox
from tailor.storage.memory import MemoryStore
from tailor.values import Labels

DIGEST_KEY = b"d" * 32
KEY = b"q" * 32
LABELS = Labels("wiki", "risk", "internal")


class MemoryFetcher(Fetcher):
    """Files by address. Raises each of the given failures first, one per call."""

    def __init__(self, files: dict[str, File] | None = None, *failures: Exception) -> None:
        self.files = files or {}
        self.failures = list(failures)
        self.calls: list[FileReference] = []

    def fetch(self, reference: FileReference, max_bytes: int) -> File:
        self.calls.append(reference)
        if self.failures:
            raise self.failures.pop(0)
        if reference.uri not in self.files:
            raise Rejected(RejectionReason.NOT_ALLOWED, "It is not allowed.")
        return self.files[reference.uri]


class Ingestion:
    """A replica of ingestion. `erasures` has the document ids of its requests by request id; `changes` are those of its intake."""

    def __init__(
        self,
        engine: Engine,
        store: MemoryStore | None = None,
        *,
        quarantine: Quarantine | None = None,
        catalogue: Callable[[Outbox], SqlCatalogue] | None = None,
        **changes: Any,
    ) -> None:
        self.store = MemoryStore() if store is None else store
        self.producer = MemoryProducer("ingestion")
        self.outbox = Outbox(engine, OUTBOX, self.producer)
        self.erasures: dict[str, str] = {}
        intake = Intake(
            parse=read,
            quarantine=quarantine or Quarantine(self.store, KEY),
            catalogue=catalogue(self.outbox) if catalogue else SqlCatalogue(engine, self.outbox, DIGEST_KEY),
            digest_key=DIGEST_KEY,
            max_file_bytes=20 * 2**20,
            max_chars=6_000_000,
            fetcher=MemoryFetcher(),
            sleep=lambda _: None,
        )
        self.intake = replace(intake, **changes)
        self._offset = 0

    @property
    def catalogue(self) -> SqlCatalogue:
        return self.intake.catalogue

    def handle(self, topic: str, value: bytes | None, headers: dict[str, str] | None = None, key: str = "k") -> None:
        """Handle a new event of a topic."""
        self._offset += 1
        event = Event(topic, key, value, headers or {}, 0, self._offset, 1)
        make_handlers(self.intake, self.request_erasure)[topic](event)

    def request_erasure(self, document_id: str, request_id: str) -> None:
        self.erasures[request_id] = document_id

    def ingest(self, offset: int, document_id: str, text: str) -> Outcome:
        """Handle an event with a text file, again if the offset is the same."""
        headers = {"document-id": document_id, "file-name": "note.txt"}
        event = Event(SUBMITTED, document_id, text.encode(), headers, 0, offset, 1_700_000_000_000)
        return ingest(self.intake, to_receipt(event, DIGEST_KEY), to_submission(event))

    def submit(
        self,
        key: str,
        content: File | FileReference | ParsedText,
        kind: DocumentKind = DocumentKind.DOCUMENT,
        external_id: str = "memo-7",
    ) -> Outcome:
        """Ingest a submission, again if the key is the same."""
        receipt = Receipt(key, f"sub_{key}", f"doc_spare_{key}", external_id)
        return ingest(self.intake, receipt, Submission(external_id, kind, LABELS, content))

    def published(self) -> list[tuple[str, Message, str]]:
        """Topics, messages and event ids."""
        while self.outbox.relay():
            continue
        return [(topic, message, event_id) for topic, _, message, event_id in self.producer.sent]

    def texts(self) -> list[ParsedText]:
        """The texts in quarantine, without their spans."""
        texts = []
        for (_, name), data in self.store.objects.items():
            folder, document_id, version = name.split("/")
            if folder == "documents":
                bound = f"{document_id}/{version.partition('-')[0]}".encode()
                plain = AESGCM(KEY).decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], bound)
                texts.append(decode_text(plain, "", ()))
        return texts
