"""The vault's keys: the current one encrypts, earlier ones still decrypt. Secrets that outlive them are encrypted in the database.

Stored rows depend on how keys and places are derived here: a change makes them unreadable.
"""

import hashlib
import hmac
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Connection, Engine, Row, Table, bindparam, select, update

from services.anonymization.vault.tables import ENTRIES, SECRETS
from tailor.errors import FailedPrecondition, Reason
from tailor.rows import Rows
from tailor.sql import transaction

NONCE_BYTES = 12
SECRET_BYTES = 32
BATCH = 500
# Secrets that hash values, seed draws and hash suppressed people. They never change during the vault's life.
INDEX = "index"
DRAW = "draw"
SUPPRESS = "suppress"


def subkey(key: bytes, purpose: str) -> bytes:
    """A key for one purpose, derived from the vault's key."""
    return hmac.digest(key, f"tailor vault {purpose}".encode(), hashlib.sha256)


def key_id(key: bytes) -> str:
    """The mark of rows encrypted under a key; reveals nothing about the key."""
    return subkey(key, "id").hex()[:16]


@dataclass(frozen=True)
class Sealed:
    """Encrypted bytes, and the id of the key that decrypts them: two columns of a row."""

    key_id: str
    ciphertext: bytes


class Keyring:
    """The current key of the vault and earlier ones."""

    def __init__(self, current: bytes, previous: Iterable[bytes] = ()) -> None:
        self.current_id = key_id(current)
        self._ciphers = {key_id(key): AESGCM(subkey(key, "encrypt")) for key in (current, *previous)}

    def seal(self, data: bytes, bound: str) -> Sealed:
        """Encrypt with the current key (AES-256-GCM), bound to a place."""
        nonce = os.urandom(NONCE_BYTES)
        return Sealed(self.current_id, nonce + self._ciphers[self.current_id].encrypt(nonce, data, bound.encode()))

    def open(self, sealed: Sealed | Row[Any], bound: str) -> bytes:
        """Decrypt. Raises FailedPrecondition (VAULT_KEY_DIFFERS) if no key fits."""
        if cipher := self._ciphers.get(sealed.key_id):
            with suppress(InvalidTag):
                data = sealed.ciphertext
                return cipher.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], bound.encode())
        raise FailedPrecondition(
            Reason.VAULT_KEY_DIFFERS,
            "A vault entry needs a key that is missing; set TAILOR_VAULT_KEY to the newest key, TAILOR_VAULT_PREVIOUS_KEYS to the others.",
        )


def open_secrets(engine: Engine, keys: Keyring) -> dict[str, bytes]:
    """The vault's secrets, created on first use; replicas may call at the same time. Raises FailedPrecondition (VAULT_KEY_DIFFERS)."""
    with transaction(engine) as connection:
        _check(connection, keys)
        for name in (INDEX, DRAW, SUPPRESS):
            sealed = keys.seal(os.urandom(SECRET_BYTES), f"secret/{name}")
            Rows(connection, SECRETS, Row).add(name=name, **vars(sealed))
    return {row.name: keys.open(row, _place_of_secret(row)) for row in Rows(engine, SECRETS, Row).all()}


def rotate(engine: Engine, keys: Keyring, batch: int = BATCH) -> dict[str, int]:
    """Encrypt the vault with the current key, batch by batch. May be killed and run again. Returns counts."""
    entries = 0
    while count := reseal(engine, keys, ENTRIES, _place_of_entry, batch):
        entries += count
    secrets = reseal(engine, keys, SECRETS, _place_of_secret)
    left = Rows(engine, ENTRIES, Row).count(ENTRIES.c.key_id != keys.current_id)
    return {"entries": entries, "secrets": secrets, "left": left}


def reseal(
    engine: Engine, keys: Keyring, table: Table, place_of: Callable[[Row[Any]], str], limit: int | None = None
) -> int:
    """Encrypt the rows of a table with the current key, at most `limit` that nobody else changes; returns their number."""
    with transaction(engine) as connection:
        rows = Rows(connection, table, Row)
        query = rows.select(table.c.key_id != keys.current_id).limit(limit)
        old = rows.fetch(query.with_for_update(skip_locked=limit is not None))
        changes = []
        for row in old:
            place = place_of(row)
            key = {f"old_{column.name}": row._mapping[column.name] for column in table.primary_key}
            changes.append(key | vars(keys.seal(keys.open(row, place), place)))
        if changes:
            is_old = (column == bindparam(f"old_{column.name}") for column in table.primary_key)
            connection.execute(update(table).where(*is_old), changes)
    return len(old)


def entry_place(entity_type: str, value_hash: str) -> str:
    """The place to which an entry's ciphertext is bound."""
    return f"{entity_type}/{value_hash}"


def _place_of_entry(row: Row[Any]) -> str:
    return entry_place(row.entity_type, row.value_hash)


def _place_of_secret(row: Row[Any]) -> str:
    return f"secret/{row.name}"


def _check(connection: Connection, keys: Keyring) -> None:
    """Check that every key that an entry needs is available and decrypts one. Raises FailedPrecondition (VAULT_KEY_DIFFERS)."""
    entries = Rows(connection, ENTRIES, Row)
    for (used,) in entries.fetch_rows(select(ENTRIES.c.key_id).distinct()):
        row = entries.find(key_id=used)
        if row is not None:
            keys.open(row, _place_of_entry(row))
