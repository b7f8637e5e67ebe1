"""What occurs in which document, and who is suppressed, in PostgreSQL."""

from sqlalchemy import Column, Engine, String, Table, Text, delete, select
from sqlalchemy.dialects.postgresql import insert

from services.anonymization.adapters.sql import ENTRIES, METADATA
from tailor.sql import transaction

OCCURRENCES = Table(
    "occurrences",
    METADATA,
    Column("document_id", String(64), primary_key=True),
    Column("entity_type", String(40), primary_key=True),
    Column("surrogate", Text, primary_key=True),
)
# By keyed hash. The surrogate, which says nothing any more, finds the documents when the same person is asked for again.
SUPPRESSIONS = Table(
    "suppressions",
    METADATA,
    Column("subject_hash", String(64), primary_key=True),
    Column("entity_type", String(40), nullable=False),
    Column("surrogate", Text, nullable=False),
)


class SqlSubjects:
    """The two tables."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def keep(self, document_id: str, values: frozenset[tuple[str, str]]) -> None:
        """Remember what a document holds."""
        rows = [
            {"document_id": document_id, "entity_type": entity_type, "surrogate": surrogate}
            for entity_type, surrogate in sorted(values)
        ]
        if rows:
            with transaction(self._engine) as connection:
                connection.execute(insert(OCCURRENCES).on_conflict_do_nothing(), rows)

    def documents_with(self, entity_type: str, surrogate: str) -> list[str]:
        """Ids of the documents that hold a surrogate, sorted."""
        query = select(OCCURRENCES.c.document_id).where(
            OCCURRENCES.c.entity_type == entity_type, OCCURRENCES.c.surrogate == surrogate
        )
        with transaction(self._engine) as connection:
            return sorted(connection.scalars(query))

    def values_of(self, document_id: str) -> list[tuple[str, str]]:
        """Types and surrogates that a document holds."""
        query = select(OCCURRENCES.c.entity_type, OCCURRENCES.c.surrogate).where(
            OCCURRENCES.c.document_id == document_id
        )
        with transaction(self._engine) as connection:
            return [(entity_type, surrogate) for entity_type, surrogate in connection.execute(query)]

    def drop(self, document_id: str) -> None:
        """Forget what a document held."""
        with transaction(self._engine) as connection:
            connection.execute(delete(OCCURRENCES).where(OCCURRENCES.c.document_id == document_id))

    def has_entry(self, entity_type: str, surrogate: str) -> bool:
        """True where the vault holds an entry."""
        query = select(ENTRIES.c.surrogate).where(
            ENTRIES.c.entity_type == entity_type, ENTRIES.c.surrogate == surrogate
        )
        with transaction(self._engine) as connection:
            return connection.scalar(query) is not None

    def suppress(self, subject_hash: str, entity_type: str, surrogate: str) -> None:
        """Remember that a value is suppressed, once."""
        row = {"subject_hash": subject_hash, "entity_type": entity_type, "surrogate": surrogate}
        with transaction(self._engine) as connection:
            connection.execute(insert(SUPPRESSIONS).values(row).on_conflict_do_nothing())

    def lift(self, subject_hash: str) -> bool:
        """Forget that a value is suppressed; False where it is not."""
        with transaction(self._engine) as connection:
            gone = delete(SUPPRESSIONS).where(SUPPRESSIONS.c.subject_hash == subject_hash)
            return connection.execute(gone).rowcount > 0

    def suppressed(self) -> frozenset[str]:
        """The hashes of all suppressed values."""
        with transaction(self._engine) as connection:
            return frozenset(connection.scalars(select(SUPPRESSIONS.c.subject_hash)))

    def surrogate_of(self, subject_hash: str) -> str:
        """The surrogate that a suppressed value had; empty where it had none or is not suppressed."""
        query = select(SUPPRESSIONS.c.surrogate).where(SUPPRESSIONS.c.subject_hash == subject_hash)
        with transaction(self._engine) as connection:
            return connection.scalar(query) or ""
