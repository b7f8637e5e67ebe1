"""Quarantine in object storage: AES-256-GCM, bound to document and sequence.

The nonce is a keyed hash of the plaintext (a synthetic IV, RFC 5297). So a version that is ingested again after a crash overwrites the
object of the first attempt, and no object stays behind that no event names.

Anonymization reads it (`services/anonymization/adapters/objects.py`). Change both together, and still read the old form.
"""

import hashlib
import hmac

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.ingestion.domain import ParsedText, encode_text
from services.ingestion.ports import QuarantineWriter
from tailor.storage.buckets import QUARANTINE
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref

NONCE_BYTES = 12


class EncryptedQuarantine(QuarantineWriter):
    """Writes nonce and ciphertext under the digest of both."""

    def __init__(self, store: ObjectStore, key: bytes) -> None:
        self._store = store
        self._cipher = AESGCM(key)
        self._nonce_key = hmac.digest(key, b"quarantine nonce", "sha256")

    def write(self, document_id: str, sequence: int, parsed: ParsedText) -> Ref:
        bound = f"{document_id}/{sequence}".encode()
        text = encode_text(parsed)
        nonce = hmac.digest(self._nonce_key, bound + b"\0" + text, "sha256")[:NONCE_BYTES]
        data = nonce + self._cipher.encrypt(nonce, text, bound)
        key = f"documents/{document_id}/{sequence}-{hashlib.sha256(data).hexdigest()}"
        return self._store.put(QUARANTINE, key, data)
