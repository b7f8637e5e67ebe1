"""The vault's keys: the current one encrypts, earlier ones still decrypt. Secrets that outlive them are encrypted in the database.

Stored rows depend on how keys and places are derived here: a change makes them unreadable.
"""

import hashlib
import hmac
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Connection, Engine, bindparam, func, select, update
from sqlalchemy.dialects.postgresql import insert

from services.anonymization.vault.tables import ENTRIES, SECRETS
from tailor.errors import FailedPrecondition, Reason
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
    """Encrypted bytes, and the id of the key that decrypts them."""

    key_id: str
    data: bytes


class Keyring:
    """The current key of the vault and earlier ones."""

    def __init__(self, current: bytes, previous: Iterable[bytes] = ()) -> None:
        self.current_id = key_id(current)
        self._ciphers = {key_id(key): AESGCM(subkey(key, "encrypt")) for key in (current, *previous)}

    def seal(self, data: bytes, bound: str) -> Sealed:
        """Encrypt with the current key (AES-256-GCM), bound to a place."""
        nonce = os.urandom(NONCE_BYTES)
        return Sealed(self.current_id, nonce + self._ciphers[self.current_id].encrypt(nonce, data, bound.encode()))

    def open(self, sealed: Sealed, bound: str) -> bytes:
        """Decrypt. Raises FailedPrecondition (VAULT_KEY_DIFFERS) if no key fits."""
        if cipher := self._ciphers.get(sealed.key_id):
            with suppress(InvalidTag):
                return cipher.decrypt(sealed.data[:NONCE_BYTES], sealed.data[NONCE_BYTES:], bound.encode())
        raise FailedPrecondition(
            Reason.VAULT_KEY_DIFFERS,
            "A vault entry needs a key that is missing; set TAILOR_VAULT_KEY to the newest key, TAILOR_VAULT_PREVIOUS_KEYS to the others.",
        )


def open_secrets(engine: Engine, keys: Keyring) -> dict[str, bytes]:
    """The vault's secrets, created on first use; replicas may call at the same time. Raises FailedPrecondition (VAULT_KEY_DIFFERS)."""
    with transaction(engine) as connection:
        _check(connection, keys)
        for name in (INDEX, DRAW, SUPPRESS):
            sealed = keys.seal(os.urandom(SECRET_BYTES), _secret_place(name))
            row = {"name": name, "key_id": sealed.key_id, "ciphertext": sealed.data}
            connection.execute(insert(SECRETS).values(row).on_conflict_do_nothing())
    with transaction(engine) as connection:
        rows = connection.execute(select(SECRETS)).all()
    return {row.name: keys.open(Sealed(row.key_id, row.ciphertext), _secret_place(row.name)) for row in rows}


def rotate(engine: Engine, keys: Keyring, batch: int = BATCH) -> dict[str, int]:
    """Encrypt everything with the current key, batch by batch. May be killed and run again. Returns counts."""
    counts = {"entries": 0, "secrets": 0}
    while count := _rotate_batch(engine, keys, batch):
        counts["entries"] += count
    with transaction(engine) as connection:
        for row in connection.execute(
            select(SECRETS).where(SECRETS.c.key_id != keys.current_id).with_for_update()
        ).all():
            place = _secret_place(row.name)
            sealed = keys.seal(keys.open(Sealed(row.key_id, row.ciphertext), place), place)
            changed = {"key_id": sealed.key_id, "ciphertext": sealed.data}
            connection.execute(update(SECRETS).where(SECRETS.c.name == row.name).values(changed))
            counts["secrets"] += 1
        left = select(func.count()).select_from(ENTRIES).where(ENTRIES.c.key_id != keys.current_id)
        return counts | {"left": connection.execute(left).scalar_one()}


def entry_place(entity_type: str, value_hash: str) -> str:
    """The place to which an entry's ciphertext is bound."""
    return f"{entity_type}/{value_hash}"


def _rotate_batch(engine: Engine, keys: Keyring, batch: int) -> int:
    old = select(ENTRIES).where(ENTRIES.c.key_id != keys.current_id).limit(batch).with_for_update(skip_locked=True)
    with transaction(engine) as connection:
        changes = []
        for row in connection.execute(old).all():
            place = entry_place(row.entity_type, row.value_hash)
            sealed = keys.seal(keys.open(Sealed(row.key_id, row.ciphertext), place), place)
            changes.append({"type": row.entity_type, "hash": row.value_hash, "key": sealed.key_id, "data": sealed.data})
        if changes:
            change = (
                update(ENTRIES)
                .where(ENTRIES.c.entity_type == bindparam("type"), ENTRIES.c.value_hash == bindparam("hash"))
                .values(key_id=bindparam("key"), ciphertext=bindparam("data"))
            )
            connection.execute(change, changes)
    return len(changes)


def _check(connection: Connection, keys: Keyring) -> None:
    """Check that every key that an entry needs is available and decrypts one. Raises FailedPrecondition (VAULT_KEY_DIFFERS)."""
    for (used,) in connection.execute(select(ENTRIES.c.key_id).distinct()).all():
        row = connection.execute(select(ENTRIES).where(ENTRIES.c.key_id == used).limit(1)).one_or_none()
        if row is not None:
            keys.open(Sealed(row.key_id, row.ciphertext), entry_place(row.entity_type, row.value_hash))


def _secret_place(name: str) -> str:
    return f"secret/{name}"
