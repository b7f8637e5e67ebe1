"""The vault in PostgreSQL: true values encrypted, found by a keyed hash, unique within a type on both sides."""

import hashlib
import hmac
import os
import threading
from collections import OrderedDict
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Connection, Engine, select
from sqlalchemy.dialects.postgresql import insert

from services.anonymization.adapters.recognisers.tokens import tokenise
from services.anonymization.adapters.sql import ENTRIES
from tailor.errors import FailedPrecondition, ResourceExhausted
from tailor.sql import transaction

NONCE_BYTES = 12
MAX_ATTEMPTS = 400
REMEMBERED = 50_000
# A name is kept word by word: the types that a word of it may have, in the order in which they are tried.
PARTS = {"PERSON": ("PERSON_GIVEN", "PERSON_FAMILY"), "CLIENT": ("CLIENT_WORD",)}


def subkey(key: bytes, purpose: str) -> bytes:
    """A key for one purpose, made of the vault's key."""
    return hmac.digest(key, f"tailor vault {purpose}".encode(), hashlib.sha256)


class SqlVault:
    """Several replicas may issue at once: the database's unique constraints decide who was first."""

    def __init__(self, engine: Engine, key: bytes) -> None:
        self._engine = engine
        self._cipher = AESGCM(subkey(key, "encrypt"))
        self._index = subkey(key, "index")
        self._known: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._lock = threading.Lock()

    def issue(self, entity_type: str, key: str, value: str, propose: Callable[[int], str]) -> str:
        """The surrogate of a value, issued at first sight."""
        value_hash = self._hash(entity_type, key)
        with self._lock:
            known = self._known.get((entity_type, value_hash))
        surrogate = known or self._issue(entity_type, value_hash, value, propose)
        with self._lock:
            self._known[entity_type, value_hash] = surrogate
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return surrogate

    def reveal(self, entity_type: str, surrogate: str) -> str | None:
        """The true value; a name is put together from its words, and None where one of them was never issued."""
        # An address is kept on one line, and may stand on two.
        whole = self._reveal_one(entity_type, surrogate.replace("\n", ", ") if entity_type == "ADDRESS" else surrogate)
        if whole is not None or entity_type not in PARTS:
            return whole
        revealed, end, known = [], 0, 0
        for token in tokenise(surrogate):
            true = next(
                (found for part in PARTS[entity_type] if (found := self._reveal_one(part, token.bare)) is not None),
                None,
            )
            known += true is not None
            revealed += [surrogate[end : token.start], true or token.bare]
            end = token.bare_end
        return "".join(revealed) + surrogate[end:] if known else None

    def _reveal_one(self, entity_type: str, surrogate: str) -> str | None:
        query = select(ENTRIES).where(ENTRIES.c.entity_type == entity_type, ENTRIES.c.surrogate == surrogate)
        with transaction(self._engine) as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else self._decrypt(entity_type, row.value_hash, row.ciphertext)

    def _issue(self, entity_type: str, value_hash: str, value: str, propose: Callable[[int], str]) -> str:
        row = {
            "entity_type": entity_type,
            "value_hash": value_hash,
            "ciphertext": self._encrypt(entity_type, value_hash, value),
        }
        for attempt in range(MAX_ATTEMPTS):
            surrogate = propose(attempt)
            true_forms = {self._hash(entity_type, form) for form in _forms(surrogate)}
            with transaction(self._engine) as connection:
                known = self._read(connection, entity_type, {value_hash, *true_forms})
                if value_hash in known:
                    return known[value_hash]
                # A candidate that somebody really bears is passed over, the value itself among them.
                if known or value_hash in true_forms or surrogate.casefold() == value.casefold():
                    continue
                issue = (
                    insert(ENTRIES)
                    .values({**row, "surrogate": surrogate})
                    .on_conflict_do_nothing()
                    .returning(ENTRIES.c.surrogate)
                )
                if connection.execute(issue).scalar() is not None:
                    return surrogate
                # Another replica issued this value meanwhile, or the surrogate is taken.
                known = self._read(connection, entity_type, {value_hash})
                if value_hash in known:
                    return known[value_hash]
        raise ResourceExhausted("NO_SURROGATE_LEFT", f"No unused surrogate of type {entity_type} was found.")

    def _read(self, connection: Connection, entity_type: str, hashes: set[str]) -> dict[str, str]:
        """Surrogates by value hash."""
        wanted = (ENTRIES.c.entity_type == entity_type, ENTRIES.c.value_hash.in_(hashes))
        rows = connection.execute(select(ENTRIES.c.value_hash, ENTRIES.c.surrogate).where(*wanted))
        return {row.value_hash: row.surrogate for row in rows}

    def _hash(self, entity_type: str, key: str) -> str:
        return hmac.digest(self._index, f"{entity_type}\x1f{key}".encode(), hashlib.sha256).hex()

    def _encrypt(self, entity_type: str, value_hash: str, value: str) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, value.encode(), f"{entity_type}/{value_hash}".encode())

    def _decrypt(self, entity_type: str, value_hash: str, data: bytes) -> str:
        try:
            return self._cipher.decrypt(
                data[:NONCE_BYTES], data[NONCE_BYTES:], f"{entity_type}/{value_hash}".encode()
            ).decode()
        except InvalidTag:
            raise FailedPrecondition("VAULT_KEY_DIFFERS", "The entry was made under another vault key.") from None


def _forms(surrogate: str) -> set[str]:
    """The normal forms that a surrogate would have if it were a true value."""
    return {surrogate.casefold(), "".join(letter for letter in surrogate.upper() if letter.isalnum())}
