"""Quarantine in object storage: AES-256-GCM, bound to document and sequence.

The nonce is a keyed hash of the plaintext (a synthetic IV, RFC 5297). So a version that is ingested again after a crash overwrites the
object of the first attempt, and no object stays behind that no event names.

Texts can also stay there for replays: the newest of each document, encrypted, for as many days as the operator says.

Anonymization reads it (`services/anonymization/stored_texts.py`). Change both together, and still read the old form.
"""

import hashlib
import hmac
import os
import time
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.ingestion.domain import Acceptance, ParsedText, decode_text, encode_text
from tailor.jobs import HeldJob
from tailor.logging import get_logger
from tailor.storage.buckets import QUARANTINE
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref, corrupt_object

log = get_logger(__name__)

NONCE_BYTES = 12
DAY_SECONDS = 86_400


class Quarantine:
    """Writes nonce and ciphertext under the digest of both, and also keeps the text if `days` is above 0.

    Keys of kept texts are `kept/DOCUMENT/SEQUENCE-DAY`, the day since 1970.
    """

    def __init__(self, store: ObjectStore, key: bytes, days: int = 0, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._cipher = AESGCM(key)
        self._nonce_key = hmac.digest(key, b"quarantine nonce", "sha256")
        self._kept_cipher = AESGCM(hmac.digest(key, b"kept texts", "sha256"))
        self._days = days
        self._clock = clock

    def write(self, document_id: str, sequence: int, parsed: ParsedText) -> Ref:
        """Encrypt and store a text. A repeated call overwrites the same object. A kept text of an earlier version is deleted."""
        bound = f"{document_id}/{sequence}".encode()
        text = encode_text(parsed)
        nonce = hmac.digest(self._nonce_key, bound + b"\0" + text, "sha256")[:NONCE_BYTES]
        data = nonce + self._cipher.encrypt(nonce, text, bound)
        key = f"documents/{document_id}/{sequence}-{hashlib.sha256(data).hexdigest()}"
        ref = self._store.put(QUARANTINE, key, data)
        self._keep(document_id, sequence, text)
        return ref

    def _keep(self, document_id: str, sequence: int, text: bytes) -> None:
        earlier = self._store.list_keys(QUARANTINE, f"kept/{document_id}/")
        if self._days:
            nonce = os.urandom(NONCE_BYTES)
            data = nonce + self._kept_cipher.encrypt(nonce, text, _bound(document_id, sequence))
            key = f"kept/{document_id}/{sequence}-{self._today()}"
            self._store.put(QUARANTINE, key, data)
            earlier = [other for other in earlier if other != key]
        for key in earlier:
            self._store.delete(QUARANTINE, key)

    def read_kept(self, document_id: str, sequence: int, acceptance: Acceptance) -> ParsedText | None:
        """The text of a version; None if it is not kept. Raises FailedPrecondition (CORRUPT_OBJECT) if it does not verify."""
        keys = self._store.list_keys(QUARANTINE, f"kept/{document_id}/{sequence}-")
        if not keys:
            return None
        data = self._store.read(QUARANTINE, keys[-1])
        try:
            plain = self._kept_cipher.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], _bound(document_id, sequence))
            return decode_text(plain, acceptance.format, acceptance.spans)
        except (InvalidTag, ValueError, KeyError):
            raise corrupt_object(f"s3://{QUARANTINE}/{keys[-1]}") from None

    def sweep(self) -> int:
        """Delete the texts that were kept for longer than the operator says now; returns their number."""
        oldest = self._today() - self._days
        keys = [key for key in self._store.list_keys(QUARANTINE, "kept/") if not self._days or _day(key) < oldest]
        for key in keys:
            self._store.delete(QUARANTINE, key)
        return len(keys)

    def run(self, job: HeldJob) -> None:
        """Sweep (a `jobs.Handle`)."""
        if count := self.sweep():
            log.info("kept texts deleted", texts=count)

    def _today(self) -> int:
        return int(self._clock()) // DAY_SECONDS


def _bound(document_id: str, sequence: int) -> bytes:
    return f"kept/{document_id}/{sequence}".encode()


def _day(key: str) -> int:
    day = key.rpartition("-")[2]
    return int(day) if day.isdecimal() else 0
