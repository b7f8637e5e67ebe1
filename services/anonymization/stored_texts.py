"""Object storage: reads ingested texts from quarantine, and writes anonymised ones to the corpus.

Ingestion encrypts what is in quarantine (`services/ingestion/adapters/quarantine.py`). Change both together, and still read the old form.
"""

import hashlib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.anonymization.domain import DocumentText, Ingested
from tailor.errors import InvalidArgument, Reason
from tailor.storage.buckets import CORPUS, QUARANTINE
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref

NONCE_BYTES = 12


class StoredTexts:
    """Quarantine. Reads what ingestion encrypted: a nonce and AES-256-GCM ciphertext, bound to document and sequence."""

    def __init__(self, store: ObjectStore, key: bytes) -> None:
        self._store = store
        self._cipher = AESGCM(key)

    def read(self, ingested: Ingested) -> DocumentText:
        """The text. Raises FailedPrecondition or InvalidArgument if it does not verify, NotFound if it no longer exists."""
        if ingested.text.bucket != QUARANTINE:
            raise InvalidArgument(Reason.UNREADABLE, "The text is not in the quarantine bucket.")
        data = self._store.get(ingested.text)
        bound = f"{ingested.document_id}/{ingested.sequence}".encode()
        try:
            return DocumentText.decode(self._cipher.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], bound))
        except (InvalidTag, ValueError):
            raise InvalidArgument(
                Reason.UNREADABLE, "The quarantined object was encrypted with another key or for another document."
            ) from None

    def delete(self, ref: Ref) -> None:
        """Remove a text; objects outside of quarantine stay. Idempotent."""
        if ref.bucket == QUARANTINE:
            self._store.delete(QUARANTINE, ref.key)

    def delete_all(self, document_id: str) -> int:
        """Remove every object of a document and return their number."""
        keys = self._store.list_keys(QUARANTINE, f"documents/{document_id}/")
        for key in keys:
            self._store.delete(QUARANTINE, key)
        return len(keys)


class StoredCorpus:
    """The anonymised texts, each under the digest of its bytes."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def write(self, text: DocumentText) -> Ref:
        data = text.encode()
        return self._store.put(CORPUS, f"documents/{hashlib.sha256(data).hexdigest()}", data, "application/json")

    def read(self, ref: Ref) -> DocumentText:
        """Raises NotFound if the text no longer exists."""
        return DocumentText.decode(self._store.get(ref))

    def delete(self, ref: Ref) -> None:
        """Idempotent."""
        self._store.delete(CORPUS, ref.key)
