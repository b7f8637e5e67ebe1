"""Quarantine in object storage: AES-256-GCM, bound to document and sequence.

The nonce is a keyed hash of what is encrypted (as in a synthetic IV, RFC 5297), so that a version taken in again after a crash
overwrites the object that the first try left behind: none stays that no event names.
"""

import hashlib
import hmac

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
        self._nonce_key = hmac.digest(key, b"quarantine nonce", "sha256")

    def write(self, document_id: str, sequence: int, parsed: Parsed) -> Ref:
        """Encrypt and store."""
        bound = f"{document_id}/{sequence}".encode()
        text = encode_text(parsed)
        nonce = hmac.digest(self._nonce_key, bound + b"\0" + text, "sha256")[:NONCE_BYTES]
        data = nonce + self._cipher.encrypt(nonce, text, bound)
        key = f"documents/{document_id}/{sequence}-{hashlib.sha256(data).hexdigest()}"
        return self._store.put(QUARANTINE, key, data)
