"""Knowing where a person occurs, and forgetting them: which document holds which surrogate, and who is masked from now on.

What occurs where is kept by surrogate, which says nothing without the vault. Who is suppressed is kept by a keyed hash.
"""

import hashlib
import hmac
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise

from services.anonymization.domain import NO_LABELS, Anonymized, Anonymizer, Labels, Resolved
from services.anonymization.recognise.lexicon import Lexicon, fold
from services.anonymization.recognise.tokens import tokenise
from services.anonymization.surrogates.forms import FAMILY, GIVEN, normal
from services.anonymization.surrogates.surrogates import People, Surrogates
from services.anonymization.vault.subject_tables import SqlSubjects
from services.anonymization.vault.vault import SqlVault
from tailor.errors import InvalidArgument, Reason

PERSON, MAIL, PHONE = "PERSON", "EMAIL_ADDRESS", "PHONE_NUMBER"
# A phone number has so many digits, and little else.
PHONE_DIGITS = 6
NOT_PHONE = re.compile(r"[^\W\d]{4,}")


class NotedVault:
    """A vault that notes which surrogates a thread was given, between `noting` and its end."""

    def __init__(self, vault: SqlVault) -> None:
        self._vault = vault
        self._local = threading.local()

    @contextmanager
    def noting(self) -> Iterator[set[tuple[str, str]]]:
        """The types and surrogates that this thread is given from now on."""
        noted: set[tuple[str, str]] = set()
        self._local.noted = noted
        try:
            yield noted
        finally:
            self._local.noted = None

    def note(self, entity_type: str, surrogate: str) -> None:
        """Note one more."""
        noted = getattr(self._local, "noted", None)
        if noted is not None:
            noted.add((entity_type, surrogate))

    def issue(self, entity_type: str, key: str, value: str, propose: Callable[[int], str]) -> str:
        """The surrogate of a value, noted."""
        surrogate = self._vault.issue(entity_type, key, value, propose)
        self.note(entity_type, surrogate)
        return surrogate

    def reveal(self, entity_type: str, surrogate: str) -> str | None:
        """The true value."""
        return self._vault.reveal(entity_type, surrogate)


class RememberingSurrogates(Surrogates):
    """Masks who is suppressed, and notes full names beside their words."""

    def __init__(self, vault: NotedVault, lexicon: Lexicon, key: bytes, index: "SubjectIndex") -> None:
        super().__init__(vault, lexicon, key)
        self._noted = vault
        self._index = index

    def person(self, value: str, title: str, people: People) -> str:
        """A name, or its mask where the document's suppressed people may bear it."""
        words = [token.bare for token in tokenise(value) if self._is_name(token)]
        if self._is_suppressed(words, value, people):
            return f"[{PERSON}]"
        surrogate = super().person(value, title, people)
        if len(words) > 1:
            first, last = (word.capitalize() if word.isupper() else word for word in (words[0], words[-1]))
            self._noted.note(PERSON, f"{self._given(first, title)} {self._family(last)}")
        return surrogate

    def mail(self, value: str, people: People) -> str:
        """An address, or its mask where it is suppressed or made of a suppressed person's names."""
        parts = re.split(r"[._+-]", fold(value.rpartition("@")[0]))
        named = any(self._index.is_suppressed(PERSON, f"{one} {other}") for one, other in pairwise(parts))
        short = any(
            f"{given[0]}{family}" in parts or {given[0], family} <= set(parts) for given, family in self._gone(people)
        )
        if named or short or self._index.is_suppressed(MAIL, normal(MAIL, value)):
            return f"[{MAIL}]"
        return super().mail(value, people)

    def other(self, entity_type: str, value: str) -> str:
        """A value of a form of its own, or its mask where it is suppressed."""
        if entity_type == PHONE and self._index.is_suppressed(PHONE, normal(PHONE, value)):
            return f"[{PHONE}]"
        return super().other(entity_type, value)

    def _gone(self, people: People) -> list[tuple[str, str]]:
        """Suppressed given and family names among the document's people."""
        bearers = ((fold(given), family) for (_, family), given in people.bearers.items())
        return [pair for pair in bearers if self._index.is_suppressed(PERSON, " ".join(pair))]

    def _is_suppressed(self, words: list[str], value: str, people: People) -> bool:
        if len(words) > 1:
            return self._index.is_suppressed(PERSON, f"{fold(words[0])} {fold(words[-1])}")
        gone = self._gone(people)
        mine = {fold(token.bare) for token in tokenise(value)}
        return any(given in mine or family in mine for given, family in gone)


class SubjectIndex:
    """Finds the documents of a person, and remembers by keyed hashes who is suppressed. `lexicon` tells titles from names."""

    def __init__(self, table: SqlSubjects, vault: SqlVault, lexicon: Lexicon, key: bytes) -> None:
        self._table = table
        self._vault = vault
        self._lexicon = lexicon
        self._key = key
        self._hashes: frozenset[str] = frozenset()

    def refresh(self) -> None:
        """Read who is suppressed by now."""
        self._hashes = self._table.suppressed()

    def is_suppressed(self, entity_type: str, form: str) -> bool:
        """True for a value that was erased, as of the last refresh."""
        return bool(self._hashes) and self._hash(entity_type, form) in self._hashes

    def resolve(self, subject: str, *, dry_run: bool) -> Resolved:
        """The documents of a person; unless it is a dry run, the value is suppressed and its vault entries are destroyed."""
        entity_type, form = self._form(subject)
        subject_hash = self._hash(entity_type, form)
        surrogate = self._table.surrogate_of(subject_hash) or self._surrogate(entity_type, form)
        documents = self._table.documents_with(entity_type, surrogate) if surrogate else []
        parts = self._parts(entity_type, surrogate)
        doomed = [part for part in parts if set(self._table.documents_with(*part)) <= set(documents)]
        if dry_run:
            return Resolved(tuple(documents), sum(self._table.has_entry(*part) for part in doomed))
        self._table.suppress(subject_hash, entity_type, surrogate)
        self.refresh()
        return Resolved(tuple(documents), sum(self._vault.destroy(*part) for part in doomed))

    def lift(self, subject: str) -> bool:
        """End a value's suppression; False where it was not suppressed."""
        is_lifted = self._table.lift(self._hash(*self._form(subject)))
        self.refresh()
        return is_lifted

    def forget(self, document_id: str) -> int:
        """Drop what a document held; the vault's entries that occur in no other document are destroyed, and counted."""
        values = self._table.values_of(document_id)
        doomed = [value for value in values if self._table.documents_with(*value) == [document_id]]
        destroyed = sum(self._vault.destroy(*value) for value in doomed)
        self._table.drop(document_id)
        return destroyed

    def keep(self, document_id: str, values: frozenset[tuple[str, str]]) -> None:
        """Remember what a document holds."""
        self._table.keep(document_id, values)

    def _form(self, subject: str) -> tuple[str, str]:
        text = subject.strip()
        if "@" in text:
            return MAIL, normal(MAIL, text)
        if sum(letter.isdigit() for letter in text) >= PHONE_DIGITS and not NOT_PHONE.search(text):
            return PHONE, normal(PHONE, text)
        lists = ("titles", "titles_male", "titles_female")
        words = [token.bare for token in tokenise(text) if token.text[0].isalpha() and not token.is_initial]
        names = [word for word in words if not any(self._lexicon.has(each, word) for each in lists)]
        if len(names) < 2:
            raise InvalidArgument(
                Reason.INVALID_SUBJECT, "Name a given name and a surname, a mail address or a phone number."
            )
        return PERSON, f"{fold(names[0])} {fold(names[-1])}"

    def _surrogate(self, entity_type: str, form: str) -> str:
        if entity_type != PERSON:
            return self._vault.find(entity_type, form) or ""
        given, _, family = form.partition(" ")
        words = self._vault.find(GIVEN, given), self._vault.find(FAMILY, family)
        return " ".join(word for word in words if word) if all(words) else ""

    def _parts(self, entity_type: str, surrogate: str) -> list[tuple[str, str]]:
        if not surrogate:
            return []
        if entity_type != PERSON:
            return [(entity_type, surrogate)]
        given, _, family = surrogate.partition(" ")
        return [(GIVEN, given), (FAMILY, family)]

    def _hash(self, entity_type: str, form: str) -> str:
        return hmac.digest(self._key, f"{entity_type}\x1f{form}".encode(), hashlib.sha256).hex()


class NotingAnonymizer:
    """An anonymiser that says which surrogates it gave, and knows who is suppressed by now."""

    def __init__(self, anonymizer: Anonymizer, vault: NotedVault, index: SubjectIndex) -> None:
        self._anonymizer = anonymizer
        self._vault = vault
        self._index = index

    def anonymize(self, texts: tuple[str, ...], labels: Labels = NO_LABELS) -> Anonymized:
        """Anonymise texts that belong together."""
        self._index.refresh()
        with self._vault.noting() as noted:
            result = self._anonymizer.anonymize(texts, labels)
        return replace(result, values=frozenset(noted))
