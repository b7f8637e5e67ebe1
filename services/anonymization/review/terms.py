"""Finding in a text what reviews decided about, by keyed hash: no decided text is stored or held in memory."""

import hashlib
import hmac
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from services.anonymization.domain import Finding
from services.anonymization.review.domain import WORD, ReviewTerm, term_words
from services.anonymization.review.queue import SqlReviewQueue
from services.anonymization.vault.keyring import INDEX, subkey
from services.anonymization.vault.vault import SqlVault

# Above the recognisers' scores: a person has decided.
SCORE = 1.0


@dataclass(frozen=True)
class TermTable:
    """All decided terms by their hash. `version` changes whenever they do."""

    version: str = ""
    terms: Mapping[str, ReviewTerm] = field(default_factory=dict)

    @cached_property
    def lengths(self) -> list[int]:
        return sorted({term.words for term in self.terms.values()})

    @cached_property
    def digest(self) -> str:
        content = "\n".join(sorted(f"{term.term_hash} {term.entity_type}" for term in self.terms.values()))
        return hashlib.sha256(content.encode()).hexdigest() if content else ""


class HashedTerms:
    """What people decided in reviews about texts. Hashes every sequence of words of a text that is as long as some term. Thread-safe.

    `read_version` is asked for every text, and `read_terms` after a change.
    """

    def __init__(
        self, key: bytes, read_version: Callable[[], str], read_terms: Callable[[], Iterable[ReviewTerm]]
    ) -> None:
        self._key = key
        self._read_version = read_version
        self._read_terms = read_terms
        self._table = TermTable()

    def hash(self, value: str) -> str:
        """The keyed hash of a term in any spelling."""
        return self._hash(term_words(value))

    @property
    def digest(self) -> str:
        """The SHA-256 of all decisions; empty if there are none. It changes with every new one."""
        return self._current().digest

    def search(self, text: str) -> tuple[list[Finding], list[tuple[int, int]]]:
        """The terms that are always personal, wherever the text has them, and the [start, end) stretches that never are."""
        matches = self._matches(text)
        personal = [Finding(start, end, term.entity_type, SCORE) for start, end, term in matches if term.entity_type]
        return personal, [(start, end) for start, end, term in matches if not term.entity_type]

    def _matches(self, text: str) -> list[tuple[int, int, ReviewTerm]]:
        table = self._current()
        if not table.terms:
            return []
        tokens = list(WORD.finditer(text))
        words = [unicodedata.normalize("NFKC", token[0]) for token in tokens]
        folded = [word.casefold() for word in words]
        matches = []
        for length in table.lengths:
            spelt = folded if length > 1 else words
            for first in range(len(tokens) - length + 1):
                term = table.terms.get(self._hash(spelt[first : first + length]))
                if term is not None and _is_phrase(text, tokens[first : first + length]):
                    matches.append((tokens[first].start(), tokens[first + length - 1].end(), term))
        return matches

    def _hash(self, words: list[str]) -> str:
        return hmac.digest(self._key, " ".join(words).encode(), hashlib.sha256).hex()

    def _current(self) -> TermTable:
        version = self._read_version()
        if version != self._table.version:
            self._table = TermTable(version, {term.term_hash: term for term in self._read_terms()})
        return self._table


def open_terms(vault: SqlVault) -> HashedTerms:
    """The terms that reviews decided about."""
    queue = SqlReviewQueue(vault.engine)
    return HashedTerms(subkey(vault.secret(INDEX), "review terms"), queue.terms_version, queue.terms)


NO_TERMS = HashedTerms(b"", lambda: "", tuple)


def _is_phrase(text: str, tokens: list[re.Match[str]]) -> bool:
    """False if a paragraph ends between the words."""
    return "\n\n" not in text[tokens[0].end() : tokens[-1].start()]
