"""Where documents were fetched from, encrypted in the database with the key of quarantine."""

import json
import os
from dataclasses import asdict

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.ingestion.domain import FileReference

NONCE_BYTES = 12


class ReferenceCipher:
    """AES-256-GCM, bound to the document."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, document_id: str, reference: FileReference | None) -> bytes:
        """Encrypt a reference; empty for none, and for an address that may contain a secret."""
        if reference is None or not reference.is_storable:
            return b""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, json.dumps(asdict(reference)).encode(), _bound(document_id))

    def open(self, document_id: str, data: bytes) -> FileReference | None:
        """Decrypt a reference; None for none, or if it was encrypted with another key."""
        if not data:
            return None
        try:
            plain = self._cipher.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], _bound(document_id))
        except InvalidTag:
            return None
        return FileReference(**json.loads(plain))


def _bound(document_id: str) -> bytes:
    return f"reference/{document_id}".encode()
