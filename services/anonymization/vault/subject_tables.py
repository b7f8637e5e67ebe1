"""Queries over occurrences and suppressions."""

from sqlalchemy import Engine, delete, select
from sqlalchemy.dialects.postgresql import insert

from services.anonymization.vault.tables import ENTRIES, OCCURRENCES, SUPPRESSIONS
from tailor.sql import transaction


class SubjectTables:
    """Which surrogates occur in which documents, and the keyed hashes of suppressed values."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def keep(self, document_id: str, values: frozenset[tuple[str, str]]) -> None:
        """Record (type, surrogate) pairs of a document. Idempotent."""
        rows = [
            {"document_id": document_id, "entity_type": entity_type, "surrogate": surrogate}
            for entity_type, surrogate in sorted(values)
        ]
        if rows:
            with transaction(self._engine) as connection:
                connection.execute(insert(OCCURRENCES).on_conflict_do_nothing(), rows)

    def documents_with(self, entity_type: str, surrogate: str) -> list[str]:
        """Ids of the documents that contain a surrogate, sorted."""
        query = select(OCCURRENCES.c.document_id).where(
            OCCURRENCES.c.entity_type == entity_type, OCCURRENCES.c.surrogate == surrogate
        )
        with transaction(self._engine) as connection:
            return sorted(connection.scalars(query))

    def values_of(self, document_id: str) -> list[tuple[str, str]]:
        """The (type, surrogate) pairs of a document."""
        query = select(OCCURRENCES.c.entity_type, OCCURRENCES.c.surrogate).where(
            OCCURRENCES.c.document_id == document_id
        )
        with transaction(self._engine) as connection:
            return [(entity_type, surrogate) for entity_type, surrogate in connection.execute(query)]

    def drop(self, document_id: str) -> None:
        """Remove a document's pairs."""
        with transaction(self._engine) as connection:
            connection.execute(delete(OCCURRENCES).where(OCCURRENCES.c.document_id == document_id))

    def has_entry(self, entity_type: str, surrogate: str) -> bool:
        """True if the vault has an entry for a surrogate."""
        query = select(ENTRIES.c.surrogate).where(
            ENTRIES.c.entity_type == entity_type, ENTRIES.c.surrogate == surrogate
        )
        with transaction(self._engine) as connection:
            return connection.scalar(query) is not None

    def suppress(self, subject_hash: str, entity_type: str, surrogate: str) -> None:
        """Record a suppressed value. Idempotent."""
        row = {"subject_hash": subject_hash, "entity_type": entity_type, "surrogate": surrogate}
        with transaction(self._engine) as connection:
            connection.execute(insert(SUPPRESSIONS).values(row).on_conflict_do_nothing())

    def lift(self, subject_hash: str) -> bool:
        """End a suppression; False if there was none."""
        query = delete(SUPPRESSIONS).where(SUPPRESSIONS.c.subject_hash == subject_hash)
        with transaction(self._engine) as connection:
            return connection.execute(query).rowcount > 0

    def suppressed(self) -> frozenset[str]:
        """The hashes of all suppressed values."""
        with transaction(self._engine) as connection:
            return frozenset(connection.scalars(select(SUPPRESSIONS.c.subject_hash)))

    def surrogate_of(self, subject_hash: str) -> str:
        """The surrogate that a suppressed value had; empty if it had none or is not suppressed."""
        query = select(SUPPRESSIONS.c.surrogate).where(SUPPRESSIONS.c.subject_hash == subject_hash)
        with transaction(self._engine) as connection:
            return connection.scalar(query) or ""
