"""Finding a person's documents, and suppressing people.

Occurrences are stored by surrogate, which reveals nothing without the vault. Suppressed values are stored as keyed hashes.
"""

import hashlib
import hmac
import re

from sqlalchemy import Row

from services.anonymization.domain import Resolved
from services.anonymization.recognise.lexicon import Lexicon, fold
from services.anonymization.recognise.tokens import tokenise
from services.anonymization.surrogates.forms import FAMILY, GIVEN, MAIL, PERSON, PHONE, normal
from services.anonymization.surrogates.surrogates import IsSuppressed
from services.anonymization.vault.keyring import SUPPRESS
from services.anonymization.vault.tables import ENTRIES, OCCURRENCES, SUPPRESSIONS
from services.anonymization.vault.vault import SqlVault
from tailor.errors import InvalidArgument, Reason
from tailor.rows import Rows

# A phone number has at least this many digits, and no word.
MIN_PHONE_DIGITS = 6
NOT_PHONE = re.compile(r"[^\W\d]{4,}")


class SubjectIndex:
    """Which documents, and rows that come from none, contain which surrogates, and which values are suppressed.

    The lexicon distinguishes titles from names.
    """

    def __init__(self, vault: SqlVault, lexicon: Lexicon) -> None:
        self._entries = Rows(vault.engine, ENTRIES, Row)
        self._occurrences = Rows(vault.engine, OCCURRENCES, Row)
        self._suppressions = Rows(vault.engine, SUPPRESSIONS, Row)
        self._vault = vault
        self._lexicon = lexicon
        self._key = vault.secret(SUPPRESS)

    def suppressed(self) -> IsSuppressed:
        """Who is suppressed at the time of the call. One query."""
        hashes = frozenset(self._suppressions.values(SUPPRESSIONS.c.subject_hash))
        return lambda entity_type, form: bool(hashes) and self._hash(entity_type, form) in hashes

    def resolve(self, subject: str, *, dry_run: bool) -> Resolved:
        """The documents of a name, mail address or phone number. Unless `dry_run`, suppress it and destroy its vault entries.

        Raises InvalidArgument (INVALID_SUBJECT) if the subject names nobody.
        """
        entity_type, form = self._form(subject)
        subject_hash = self._hash(entity_type, form)
        # A suppressed value may have had a surrogate, which finds its documents although its entry is destroyed.
        known = self._suppressions.value(SUPPRESSIONS.c.surrogate, subject_hash=subject_hash)
        surrogate = known or self._surrogate(entity_type, form)
        documents = self._documents_with(entity_type, surrogate) if surrogate else []
        # An entry stays if a document of somebody else needs it.
        entries = [
            entry
            for entry in self._parts(entity_type, surrogate)
            if set(self._documents_with(*entry)) <= set(documents)
        ]
        if dry_run:
            return Resolved(
                tuple(documents), sum(self._entries.has(entity_type=kind, surrogate=name) for kind, name in entries)
            )
        self._suppressions.add(subject_hash=subject_hash, entity_type=entity_type, surrogate=surrogate)
        return Resolved(tuple(documents), sum(self._vault.destroy(*entry) for entry in entries))

    def describe(self, subject: str) -> tuple[str, Resolved, bool]:
        """The type of a subject, its documents and vault entries, and whether it is suppressed.

        Raises InvalidArgument (INVALID_SUBJECT).
        """
        entity_type, form = self._form(subject)
        is_suppressed = self._suppressions.has(subject_hash=self._hash(entity_type, form))
        return entity_type, self.resolve(subject, dry_run=True), is_suppressed

    def lift(self, subject: str) -> bool:
        """End a suppression; False if there was none. Raises InvalidArgument (INVALID_SUBJECT) if the subject names nobody."""
        return self._suppressions.delete(subject_hash=self._hash(*self._form(subject))) > 0

    def forget(self, document_id: str) -> int:
        """Remove a document's pairs, destroy the vault entries that no other document needs, and return their number."""
        values = [(row.entity_type, row.surrogate) for row in self._occurrences.all(document_id=document_id)]
        entries = [value for value in values if self._documents_with(*value) == [document_id]]
        destroyed = sum(self._vault.destroy(*entry) for entry in entries)
        self._occurrences.delete(document_id=document_id)
        return destroyed

    def keep(self, document_id: str, values: frozenset[tuple[str, str]]) -> None:
        """Record the (type, surrogate) pairs that a document contains. Idempotent."""
        rows = ({"document_id": document_id, "entity_type": kind, "surrogate": name} for kind, name in sorted(values))
        self._occurrences.add_all(rows)

    def _documents_with(self, entity_type: str, surrogate: str) -> list[str]:
        """Ids of the documents that contain a surrogate, sorted."""
        found = {"entity_type": entity_type, "surrogate": surrogate}
        return sorted(self._occurrences.values(OCCURRENCES.c.document_id, **found))

    def _form(self, subject: str) -> tuple[str, str]:
        """The type and normal form of a subject."""
        text = subject.strip()
        if "@" in text:
            return MAIL, normal(MAIL, text)
        if sum(letter.isdigit() for letter in text) >= MIN_PHONE_DIGITS and not NOT_PHONE.search(text):
            return PHONE, normal(PHONE, text)
        words = [token.bare for token in tokenise(text) if token.text[0].isalpha() and not token.is_initial]
        names = [word for word in words if not self._lexicon.has_title(word)]
        if len(names) < 2:
            raise InvalidArgument(
                Reason.INVALID_SUBJECT, "Name a given name and a surname, a mail address or a phone number."
            )
        return PERSON, f"{fold(names[0])} {fold(names[-1])}"

    def _surrogate(self, entity_type: str, form: str) -> str:
        """The surrogate of a normal form; empty if it has none."""
        if entity_type != PERSON:
            return self._vault.find(entity_type, form) or ""
        given, _, family = form.partition(" ")
        words = self._vault.find(GIVEN, given), self._vault.find(FAMILY, family)
        return " ".join(word for word in words if word) if all(words) else ""

    def _parts(self, entity_type: str, surrogate: str) -> list[tuple[str, str]]:
        """The vault entries that make up a surrogate."""
        if not surrogate:
            return []
        if entity_type != PERSON:
            return [(entity_type, surrogate)]
        given, _, family = surrogate.partition(" ")
        return [(GIVEN, given), (FAMILY, family)]

    def _hash(self, entity_type: str, form: str) -> str:
        return hmac.digest(self._key, f"{entity_type}\x1f{form}".encode(), hashlib.sha256).hex()
