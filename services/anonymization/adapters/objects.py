"""Quarantine and corpus in object storage."""

import hashlib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.anonymization.domain import Ingested, Text
from tailor.errors import InvalidArgument, Reason
from tailor.storage.buckets import CORPUS, QUARANTINE
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref

NONCE_BYTES = 12


class StoredQuarantine:
    """Reads what ingestion encrypted: nonce and AES-256-GCM ciphertext, bound to document and sequence."""

    def __init__(self, store: ObjectStore, key: bytes) -> None:
        self._store = store
        self._cipher = AESGCM(key)

    def read(self, ingested: Ingested) -> Text:
        """The decrypted text."""
        if ingested.text.bucket != QUARANTINE:
            raise InvalidArgument(Reason.UNREADABLE, "The text does not lie in quarantine.")
        data = self._store.get(ingested.text)
        bound = f"{ingested.document_id}/{ingested.sequence}".encode()
        try:
            return Text.decode(self._cipher.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], bound))
        except (InvalidTag, ValueError):
            raise InvalidArgument(
                Reason.UNREADABLE, "The quarantined object was made under another key or for another document."
            ) from None

    def delete(self, ref: Ref) -> None:
        """Remove a text; what does not lie in quarantine is left alone."""
        if ref.bucket == QUARANTINE:
            self._store.delete(QUARANTINE, ref.key)

    def delete_all(self, document_id: str) -> int:
        """Remove every object of a document."""
        keys = self._store.list_keys(QUARANTINE, f"documents/{document_id}/")
        for key in keys:
            self._store.delete(QUARANTINE, key)
        return len(keys)


class StoredCorpus:
    """Writes anonymised texts under the digest of their bytes."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def write(self, text: Text) -> Ref:
        """Store one text."""
        data = text.encode()
        return self._store.put(CORPUS, f"documents/{hashlib.sha256(data).hexdigest()}", data, "application/json")

    def delete(self, ref: Ref) -> None:
        """Remove one text."""
        self._store.delete(CORPUS, ref.key)
