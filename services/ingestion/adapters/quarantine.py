"""Quarantine in object storage: AES-256-GCM, bound to document and sequence."""

import hashlib
import os

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.ingestion.domain import Parsed, encode_text
from tailor.storage.buckets import QUARANTINE
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref

NONCE_BYTES = 12


class StoredQuarantine:
    """Writes nonce and ciphertext under the digest of both."""

    def __init__(self, store: ObjectStore, key: bytes) -> None:
        self._store = store
        self._cipher = AESGCM(key)

    def write(self, document_id: str, sequence: int, parsed: Parsed) -> Ref:
        """Encrypt and store."""
        nonce = os.urandom(NONCE_BYTES)
        data = nonce + self._cipher.encrypt(nonce, encode_text(parsed), f"{document_id}/{sequence}".encode())
        key = f"documents/{document_id}/{sequence}-{hashlib.sha256(data).hexdigest()}"
        return self._store.put(QUARANTINE, key, data)
