"""The vault in PostgreSQL: true values encrypted, found by a keyed hash, unique within a type on both sides."""

import hashlib
import hmac
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable

from sqlalchemy import Connection, Engine, delete, func, or_, select, tuple_
from sqlalchemy.dialects.postgresql import insert

from services.anonymization.adapters.sql import ENTRIES
from services.anonymization.recognise.tokens import tokenise
from services.anonymization.surrogates.forms import PARTS, normal, true_forms
from services.anonymization.vault.keyring import INDEX, Keyring, Sealed, entry_place, open_secrets
from tailor.errors import Reason, ResourceExhausted
from tailor.sql import transaction

MAX_ATTEMPTS = 400
REMEMBERED = 50_000


class SqlVault:
    """Several replicas may issue at once: the database's unique constraints decide who was first."""

    def __init__(self, engine: Engine, key: bytes, previous: Iterable[bytes] = ()) -> None:
        """Open the vault; FailedPrecondition (VAULT_KEY_DIFFERS) where it holds entries of a key that is not named."""
        self._engine = engine
        self._keys = Keyring(key, previous)
        self._secrets = open_secrets(engine, self._keys)
        self._known: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._lock = threading.Lock()

    def secret(self, name: str) -> bytes:
        """A secret that holds as long as the vault does, whatever its key."""
        return self._secrets[name]

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

    def find(self, entity_type: str, key: str) -> str | None:
        """The surrogate of a value in its normal form, or None where none was issued."""
        value_hash = self._hash(entity_type, key)
        with transaction(self._engine) as connection:
            return self._read(connection, entity_type, {value_hash}).get(value_hash)

    def is_free(self, entity_type: str, key: str, value: str, surrogate: str) -> bool:
        """True where the surrogate could be issued for the value: nobody bears it, and it was not issued before."""
        taken = select(ENTRIES.c.value_hash).where(
            ENTRIES.c.entity_type == entity_type, ENTRIES.c.surrogate == surrogate
        )
        with transaction(self._engine) as connection:
            if self._is_true(connection, entity_type, self._hash(entity_type, key), value, surrogate):
                return False
            return connection.execute(taken).first() is None

    def destroy(self, entity_type: str, surrogate: str) -> bool:
        """Destroy an entry; True where there was one. Its true value cannot be had back."""
        gone = delete(ENTRIES).where(ENTRIES.c.entity_type == entity_type, ENTRIES.c.surrogate == surrogate)
        with transaction(self._engine) as connection:
            destroyed = connection.execute(gone).rowcount > 0
        self.forget()
        return destroyed

    def forget(self) -> None:
        """Read every entry from the database again."""
        with self._lock:
            self._known.clear()

    def _reveal_one(self, entity_type: str, surrogate: str) -> str | None:
        """The surrogate as it was issued, in other capitals, or written in another way."""
        forms = {surrogate.lower(), normal(entity_type, surrogate).lower()}
        # As it was issued besides: what the database lowers depends on its locale.
        found = or_(ENTRIES.c.surrogate == surrogate, func.lower(ENTRIES.c.surrogate).in_(forms))
        query = select(ENTRIES).where(ENTRIES.c.entity_type == entity_type, found)
        with transaction(self._engine) as connection:
            rows = connection.execute(query).all()
        row = max(rows, key=lambda each: each.surrogate == surrogate, default=None)
        return None if row is None else self._decrypt(entity_type, row.value_hash, row.key_id, row.ciphertext)

    def _issue(self, entity_type: str, value_hash: str, value: str, propose: Callable[[int], str]) -> str:
        sealed = self._keys.seal(value.encode(), entry_place(entity_type, value_hash))
        row = {
            "entity_type": entity_type,
            "value_hash": value_hash,
            "ciphertext": sealed.data,
            "key_id": sealed.key_id,
        }
        for attempt in range(MAX_ATTEMPTS):
            surrogate = propose(attempt)
            with transaction(self._engine) as connection:
                known = self._read(connection, entity_type, {value_hash})
                if value_hash in known:
                    return known[value_hash]
                if self._is_true(connection, entity_type, value_hash, value, surrogate):
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
        raise ResourceExhausted(Reason.NO_SURROGATE_LEFT, f"No unused surrogate of type {entity_type} was found.")

    def _read(self, connection: Connection, entity_type: str, hashes: set[str]) -> dict[str, str]:
        """Surrogates by value hash."""
        wanted = (ENTRIES.c.entity_type == entity_type, ENTRIES.c.value_hash.in_(hashes))
        rows = connection.execute(select(ENTRIES.c.value_hash, ENTRIES.c.surrogate).where(*wanted))
        return {row.value_hash: row.surrogate for row in rows}

    def _hash(self, entity_type: str, key: str) -> str:
        return hmac.digest(self._secrets[INDEX], f"{entity_type}\x1f{key}".encode(), hashlib.sha256).hex()

    def _is_true(self, connection: Connection, entity_type: str, value_hash: str, value: str, surrogate: str) -> bool:
        """True for a candidate that somebody really bears, the value itself among them."""
        true = [(kind, self._hash(kind, form)) for kind, form in true_forms(entity_type, surrogate)]
        if (entity_type, value_hash) in true or surrogate.casefold() == value.casefold():
            return True
        wanted = tuple_(ENTRIES.c.entity_type, ENTRIES.c.value_hash).in_(true)
        return connection.execute(select(ENTRIES.c.value_hash).where(wanted).limit(1)).first() is not None

    def _decrypt(self, entity_type: str, value_hash: str, key_id: str, data: bytes) -> str:
        return self._keys.open(Sealed(key_id, data), entry_place(entity_type, value_hash)).decode()
