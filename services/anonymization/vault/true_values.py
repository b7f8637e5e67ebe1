"""Finding true values of documents in texts, by keyed hash: no entry is decrypted, and nothing is stored.

A value counts if the vault has an entry for it whose surrogate occurs in one of the documents. Names count only in full: a given name and a
surname, or every word of an organisation's own name. A surname by itself proves nothing.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import TypeVar

from sqlalchemy import Row, tuple_

from services.anonymization.domain import Finding, TrueValue
from services.anonymization.recognise.lexicon import fold
from services.anonymization.recognise.ports import TextAnalyzer
from services.anonymization.recognise.tokens import Token, is_space, tokenise
from services.anonymization.surrogates.forms import FAMILY, GIVEN, PERSON, WORD, normal
from services.anonymization.vault.tables import ENTRIES, OCCURRENCES
from services.anonymization.vault.vault import SqlVault
from tailor.rows import Rows

T = TypeVar("T")
Pair = tuple[str, str]

CLIENT = "CLIENT"
BATCH = 1_000
# Numbers that no recogniser finds are looked for too: stretches of words with digits, of at most this many words.
MAX_WORDS = 8
NUMBER_TYPES = (
    "PHONE_NUMBER", "IBAN", "CREDIT_CARD", "NATIONAL_ID", "ACCOUNT_NUMBER", "EMPLOYEE_CODE", "PROJECT_CODE", "VEHICLE",
)  # fmt: skip
# A number with fewer letters and digits could occur in a text by chance.
SHORTEST_NUMBER = 6
WORD_OR_NUMBER, DIGIT = re.compile(r"[^\s,;:!?]+"), re.compile(r"\d")


@dataclass(frozen=True)
class PossibleValue:
    """A possible true value: its type, and the (type, normal form) pairs of the entries that it needs."""

    entity_type: str
    parts: tuple[tuple[str, str], ...]


class TrueValueFinder:
    """Finds true values in texts. Thread-safe. The analyzer's cache holds nothing of the texts."""

    def __init__(self, vault: SqlVault, analyzer: TextAnalyzer) -> None:
        self._vault = vault
        self._lexicon = analyzer.lexicon
        self._analyzer = analyzer.with_policy(analyzer.policy, cache_size=0).accepting_all()

    def find(self, texts: Sequence[str]) -> frozenset[TrueValue]:
        """The true values in the texts that the vault has."""
        candidates = {candidate for text in set(texts) for candidate in self._candidates(text)}
        hashes = {part: (part[0], self._vault.hash(*part)) for candidate in candidates for part in candidate.parts}
        known = self._surrogates(set(hashes.values()))
        surrogates = {part: known[place] for part, place in hashes.items() if place in known}
        return frozenset(
            _true_value(candidate, surrogates)
            for candidate in candidates
            if all(part in surrogates for part in candidate.parts)
        )

    def occurring(self, values: frozenset[TrueValue], document_ids: Sequence[str]) -> frozenset[TrueValue]:
        """Those of the values that occur in any of the documents, without values that are also a surrogate in them."""
        pairs = {pair for value in values for pair in (*value.surrogates, *value.as_surrogate)}
        occurring = self._occurring(pairs, document_ids)
        return frozenset(
            value
            for value in values
            # A model that writes what is also a surrogate of these documents may have learned the surrogate.
            if occurring.issuperset(value.surrogates) and not occurring.intersection(value.as_surrogate)
        )

    def _surrogates(self, hashes: Collection[Pair]) -> dict[Pair, str]:
        """The surrogates of the (type, value hash) pairs that the vault has."""
        entries = Rows(self._vault.engine, ENTRIES, Row)
        key = tuple_(ENTRIES.c.entity_type, ENTRIES.c.value_hash)
        query = entries.select().with_only_columns(*key.clauses, ENTRIES.c.surrogate)
        rows = (row for batch in _batches(sorted(hashes)) for row in entries.fetch_rows(query.where(key.in_(batch))))
        return {(row.entity_type, row.value_hash): row.surrogate for row in rows}

    def _occurring(self, pairs: Collection[Pair], document_ids: Sequence[str]) -> set[Pair]:
        """Those of the (type, surrogate) pairs that occur in any of the documents."""
        occurrences, columns = (
            Rows(self._vault.engine, OCCURRENCES, Row),
            (OCCURRENCES.c.entity_type, OCCURRENCES.c.surrogate),
        )
        query = occurrences.select(document_id=[*document_ids]).with_only_columns(*columns).distinct()
        batches = _batches(sorted(pairs))
        return {
            (row.entity_type, row.surrogate)
            for batch in batches
            for row in occurrences.fetch_rows(query.where(tuple_(*columns).in_(batch)))
        }

    def _candidates(self, text: str) -> Iterator[PossibleValue]:
        for finding in self._analyzer.find(text):
            yield from self._of_finding(text[finding.start : finding.end], finding)
        tokens = tokenise(text)
        for first, second in pairwise(tokens):
            if is_space(second.gap) and self._is_name(first) and self._is_name(second):
                yield _person(first, second)
        for stretch in _numbers(text):
            yield from (PossibleValue(kind, ((kind, normal(kind, stretch)),)) for kind in NUMBER_TYPES)

    def _of_finding(self, value: str, finding: Finding) -> Iterator[PossibleValue]:
        """The candidates of one finding, in the forms in which surrogates are issued (`surrogates/surrogates.py`)."""
        kind, tokens = finding.entity_type, tokenise(value)
        if kind == PERSON:
            names = [token for token in tokens if self._is_name(token)]
            if len(names) > 1:
                yield _person(names[0], names[-1])
        elif kind == CLIENT:
            words = tuple((WORD, fold(token.bare)) for token in tokens if self._is_own_word(token))
            if len(words) > 1:
                yield PossibleValue(CLIENT, words)
        else:
            yield PossibleValue(kind, ((kind, normal(kind, value)),))

    def _is_name(self, token: Token) -> bool:
        return token.is_capitalised and not token.is_initial and not self._lexicon.has_title(token.bare)

    def _is_own_word(self, token: Token) -> bool:
        lists = ("kinds_last", "kinds_first", "connectors", "legal_forms", "never")
        return token.is_capitalised and not self._lexicon.has_any(lists, token.bare)


def _person(given: Token, family: Token) -> PossibleValue:
    return PossibleValue(PERSON, ((GIVEN, fold(given.bare)), (FAMILY, fold(family.bare))))


def _true_value(candidate: PossibleValue, surrogates: Mapping[tuple[str, str], str]) -> TrueValue:
    """The value's surrogates as occurrences have them, and the value itself as if it were a surrogate."""
    words = [surrogates[part] for part in candidate.parts]
    if candidate.entity_type == PERSON:
        spelt = " ".join(form.title() for _, form in candidate.parts)
        return TrueValue(PERSON, ((PERSON, " ".join(words)),), ((PERSON, spelt),))
    kinds = [kind for kind, _ in candidate.parts]
    as_surrogate = () if candidate.entity_type == CLIENT else candidate.parts
    return TrueValue(candidate.entity_type, tuple(zip(kinds, words, strict=True)), as_surrogate)


def _numbers(text: str) -> Iterator[str]:
    """Stretches of neighbouring words with digits, from one word to `MAX_WORDS`."""
    run: list[re.Match[str]] = []
    # A word without a digit is skipped afterwards: a pattern that looks for one takes quadratic time for a long word.
    for match in (word for word in WORD_OR_NUMBER.finditer(text) if DIGIT.search(word[0])):
        if run and text[run[-1].end() : match.start()].strip(" "):
            run.clear()
        run = [*run[-MAX_WORDS + 1 :], match]
        for first in run:
            stretch = text[first.start() : match.end()].rstrip(".")
            if sum(map(str.isalnum, stretch)) >= SHORTEST_NUMBER:
                yield stretch


def _batches(values: Iterable[T]) -> Iterator[list[T]]:
    remaining = iter(values)
    while batch := list(islice(remaining, BATCH)):
        yield batch
