"""Queries for entries by keyed hash, and for occurrences in given documents."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from sqlalchemy import Engine, select, tuple_

from services.anonymization.vault.tables import ENTRIES, OCCURRENCES
from tailor.sql import transaction

T = TypeVar("T")

BATCH = 1_000


class TrueValueTables:
    """Surrogates of entries, and documents in which they occur."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def surrogates(self, hashes: Collection[tuple[str, str]]) -> dict[tuple[str, str], str]:
        """The surrogates of the (type, value hash) pairs that the vault has."""
        key = tuple_(ENTRIES.c.entity_type, ENTRIES.c.value_hash)
        columns = select(ENTRIES.c.entity_type, ENTRIES.c.value_hash, ENTRIES.c.surrogate)
        surrogates: dict[tuple[str, str], str] = {}
        with transaction(self._engine) as connection:
            for batch in _batches(sorted(hashes)):
                rows = connection.execute(columns.where(key.in_(batch)))
                surrogates |= {(kind, value_hash): surrogate for kind, value_hash, surrogate in rows}
        return surrogates

    def occurring(self, pairs: Collection[tuple[str, str]], document_ids: Sequence[str]) -> set[tuple[str, str]]:
        """Those of the (type, surrogate) pairs that occur in any of the documents."""
        key = tuple_(OCCURRENCES.c.entity_type, OCCURRENCES.c.surrogate)
        columns = select(OCCURRENCES.c.entity_type, OCCURRENCES.c.surrogate).distinct()
        occurring: set[tuple[str, str]] = set()
        with transaction(self._engine) as connection:
            for batch in _batches(sorted(pairs)):
                among = OCCURRENCES.c.document_id.in_(document_ids)
                rows = connection.execute(columns.where(key.in_(batch), among))
                occurring |= {(kind, surrogate) for kind, surrogate in rows}
        return occurring


def _batches(values: Iterable[T]) -> Iterator[list[T]]:
    remaining = iter(values)
    while batch := list(islice(remaining, BATCH)):
        yield batch
