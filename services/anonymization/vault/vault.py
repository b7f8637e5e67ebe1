"""The vault in PostgreSQL: true values encrypted, found by a keyed hash; values and surrogates are unique within a type."""

import hashlib
import hmac
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable

from sqlalchemy import Connection, Engine, Row, func, or_, tuple_

from services.anonymization.ports import Issuer
from services.anonymization.recognise.tokens import tokenise
from services.anonymization.surrogates.forms import PARTS, normal, true_forms
from services.anonymization.vault.keyring import INDEX, Keyring, entry_place, open_secrets
from services.anonymization.vault.tables import ENTRIES
from tailor.errors import Reason, ResourceExhausted
from tailor.rows import Rows
from tailor.sql import transaction

MAX_ATTEMPTS = 400
MAX_CACHED = 50_000


class SqlVault(Issuer):
    """Thread-safe, also across replicas: the database's unique constraints decide which replica was first."""

    def __init__(self, engine: Engine, key: bytes, previous: Iterable[bytes] = ()) -> None:
        """Open the vault. Raises FailedPrecondition (VAULT_KEY_DIFFERS) if an entry needs a key that is not given."""
        self.engine = engine
        self._entries = Rows(engine, ENTRIES, Row)
        self._keys = Keyring(key, previous)
        self._secrets = open_secrets(engine, self._keys)
        self._cache: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._lock = threading.Lock()

    def secret(self, name: str) -> bytes:
        """A secret that stays the same for the vault's whole life, independent of its key."""
        return self._secrets[name]

    def issue(self, entity_type: str, key: str, value: str, propose: Callable[[int], str]) -> str:
        value_hash = self.hash(entity_type, key)
        with self._lock:
            cached = self._cache.get((entity_type, value_hash))
        surrogate = cached or self._issue(entity_type, value_hash, value, propose)
        with self._lock:
            self._cache[entity_type, value_hash] = surrogate
            if len(self._cache) > MAX_CACHED:
                self._cache.popitem(last=False)
        return surrogate

    def reveal(self, entity_type: str, surrogate: str) -> str | None:
        """The true value. A name is put together from its words; None if none of them was ever issued."""
        # Addresses are stored on one line, but a text may break them over two.
        whole = self._reveal_entry(
            entity_type, surrogate.replace("\n", ", ") if entity_type == "ADDRESS" else surrogate
        )
        if whole is not None or entity_type not in PARTS:
            return whole
        parts, end, is_known = [], 0, False
        for token in tokenise(surrogate):
            values = (self._reveal_entry(part, token.bare) for part in PARTS[entity_type])
            value = next((value for value in values if value is not None), None)
            is_known = is_known or value is not None
            parts += [surrogate[end : token.start], value or token.bare]
            end = token.bare_end
        return "".join(parts) + surrogate[end:] if is_known else None

    def find(self, entity_type: str, key: str) -> str | None:
        """The surrogate of a value in normal form, or None if none was issued."""
        named = {"entity_type": entity_type, "value_hash": self.hash(entity_type, key)}
        surrogate: str | None = self._entries.value(ENTRIES.c.surrogate, **named)
        return surrogate

    def is_free(self, entity_type: str, key: str, value: str, surrogate: str) -> bool:
        """True if the surrogate could be issued for the value: it is nobody's true value and was not issued before."""
        with transaction(self.engine) as connection:
            if self._is_true(connection, entity_type, self.hash(entity_type, key), value, surrogate):
                return False
            return not Rows(connection, ENTRIES, Row).has(entity_type=entity_type, surrogate=surrogate)

    def destroy(self, entity_type: str, surrogate: str) -> bool:
        """Destroy an entry; its true value cannot be recovered. False if there was none."""
        is_destroyed = self._entries.delete(entity_type=entity_type, surrogate=surrogate) > 0
        with self._lock:
            self._cache.clear()
        return is_destroyed

    def _reveal_entry(self, entity_type: str, surrogate: str) -> str | None:
        """Finds the surrogate in any capitals and in its other spellings."""
        forms = {surrogate.lower(), normal(entity_type, surrogate).lower()}
        # The exact spelling too, because lower() in the database depends on its locale.
        is_match = or_(ENTRIES.c.surrogate == surrogate, func.lower(ENTRIES.c.surrogate).in_(forms))
        rows = self._entries.all(is_match, entity_type=entity_type)
        row = max(rows, key=lambda row: bool(row.surrogate == surrogate), default=None)
        if row is None:
            return None
        return self._keys.open(row, entry_place(entity_type, row.value_hash)).decode()

    def _issue(self, entity_type: str, value_hash: str, value: str, propose: Callable[[int], str]) -> str:
        sealed = self._keys.seal(value.encode(), entry_place(entity_type, value_hash))
        place = {"entity_type": entity_type, "value_hash": value_hash}
        for attempt in range(MAX_ATTEMPTS):
            surrogate = propose(attempt)
            with transaction(self.engine) as connection:
                entries = Rows(connection, ENTRIES, Row)
                if (known := entries.value(ENTRIES.c.surrogate, **place)) is not None:
                    return str(known)
                if self._is_true(connection, entity_type, value_hash, value, surrogate):
                    continue
                if entries.add(surrogate=surrogate, **place, **vars(sealed)):
                    return surrogate
                # Either another replica has just issued this value, or the surrogate is taken.
                if (known := entries.value(ENTRIES.c.surrogate, **place)) is not None:
                    return str(known)
        raise ResourceExhausted(Reason.NO_SURROGATE_LEFT, f"No unused surrogate of type {entity_type} was found.")

    def hash(self, entity_type: str, key: str) -> str:
        """The keyed hash by which the entry of a value in normal form is found."""
        return hmac.digest(self._secrets[INDEX], f"{entity_type}\x1f{key}".encode(), hashlib.sha256).hex()

    def _is_true(self, connection: Connection, entity_type: str, value_hash: str, value: str, surrogate: str) -> bool:
        """True if a candidate is somebody's true value, the value itself included."""
        forms = [(kind, self.hash(kind, form)) for kind, form in true_forms(entity_type, surrogate)]
        if (entity_type, value_hash) in forms or surrogate.casefold() == value.casefold():
            return True
        return Rows(connection, ENTRIES, Row).has(tuple_(ENTRIES.c.entity_type, ENTRIES.c.value_hash).in_(forms))
