"""Anonymization over a template database, with object storage and events in memory."""

from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import grpc
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Engine, Row

from services.anonymization import ledger, wire
from services.anonymization.domain import DocumentOutcome, DocumentText, Ingested
from services.anonymization.handlers import Barrier, pass_document
from services.anonymization.ledger import AUDIT, SqlLedger
from services.anonymization.recognise.lexicon import Lexicon
from services.anonymization.review.recorder import DocumentRecorder
from services.anonymization.review.terms import open_terms
from services.anonymization.stored_texts import NONCE_BYTES, StoredCorpus, StoredTexts
from services.anonymization.vault.subjects import SubjectIndex
from services.anonymization.vault.vault import SqlVault
from tailor.events.memory import MemoryProducer
from tailor.rows import Rows
from tailor.rpc.auth import Authenticator, Caller
from tailor.rpc.channel import open_channel
from tailor.rpc.identity import Trust
from tailor.rpc.server import RpcServer
from tailor.settings import ServiceSettings
from tailor.storage.buckets import CORPUS, QUARANTINE
from tailor.storage.memory import MemoryStore
from tests.unit.anonymization.fakes import INGESTED, OneNameAnonymizer

# Not from `bootstrap`, which loads the model libraries.
MIGRATIONS = Path(ledger.__file__).parent / "adapters" / "migrations"
KEY = b"k" * 32
ROLES = ("CALLER", "EXPERT", "ENGINEER", "OPERATOR", "DATA_PROTECTION")
SERVICES = ("inference", "console", "registry", "synthetic", "evaluation", "training", "ingestion")


class BarrierHouse:
    """The barrier, whose anonymizer knows one name."""

    def __init__(self, engine: Engine, lexicon: Lexicon | None = None) -> None:
        self.engine, self.vault, self.lexicon = engine, SqlVault(engine, KEY), lexicon or Lexicon.load(["the"])
        self.store, self.producer = MemoryStore(), MemoryProducer("anonymization")
        self.subjects, self.terms = SubjectIndex(self.vault, self.lexicon), open_terms(self.vault)
        self.corpus, self.ledger = StoredCorpus(self.store), SqlLedger(engine)
        self.barrier = Barrier(
            quarantine=StoredTexts(self.store, KEY),
            corpus=self.corpus,
            subjects=self.subjects,
            ledger=self.ledger,
            recorder=DocumentRecorder(self.vault, self.terms, self.lexicon),
            anonymizer=OneNameAnonymizer(),
            language_of=lambda _: "en",
            publish=partial(wire.publish, self.producer),
        )

    def submit(self, text: DocumentText, ingested: Ingested = INGESTED) -> Ingested:
        """Put a text into quarantine, as ingestion does."""
        nonce, bound = b"n" * NONCE_BYTES, f"{ingested.document_id}/{ingested.sequence}".encode()
        data = nonce + AESGCM(KEY).encrypt(nonce, text.encode(), bound)
        key = f"documents/{ingested.document_id}/{ingested.sequence}"
        return replace(ingested, text=self.store.put(QUARANTINE, key, data))

    def pass_text(self, text: DocumentText, ingested: Ingested = INGESTED) -> DocumentOutcome:
        return pass_document(self.barrier, self.submit(text, ingested))

    def quarantined(self) -> list[str]:
        return self.store.list_keys(QUARANTINE, "")

    def texts(self) -> list[DocumentText]:
        """The texts in the corpus."""
        return [DocumentText.decode(self.store.read(CORPUS, key)) for key in self.store.list_keys(CORPUS, "")]

    def audited(self) -> list[tuple[str, str, str, str]]:
        calls = Rows(self.engine, AUDIT, Row).all(order=AUDIT.c.id)
        return [(call.caller, call.entity_type, call.surrogate, call.purpose) for call in calls]


def serve(*servicers: Any) -> RpcServer:
    """Anonymization's gRPC services, with their adders, on a port."""
    authenticator = Authenticator("anonymization", Trust({}), CALLERS.__getitem__)
    server = RpcServer(
        ServiceSettings(rpc_port=0), "anonymization", servicers=list(servicers), authenticator=authenticator
    )
    server.start()
    return server


def channel(server: RpcServer, caller: str) -> grpc.Channel:
    """A channel of a role, such as `ENGINEER`, or of a service, such as `inference`."""
    return open_channel(f"127.0.0.1:{server.port}", lambda: f"tlr_{caller}")


CALLERS = {
    sha256(f"tlr_{name}".encode()).hexdigest(): Caller("service", name)
    if name in SERVICES
    else Caller("key", name.lower(), f"ROLE_{name}", key_id=f"key_{name.lower()}")
    for name in (*ROLES, *SERVICES)
}
