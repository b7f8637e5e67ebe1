"""The newest version of every document, and rare combinations of quasi-identifiers, in PostgreSQL."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, Row, Select, and_, func, select

from services.anonymization.ledger import PROCESSED
from services.anonymization.review.domain import (
    RARE_BELOW,
    Combination,
    QueuedPassage,
    RareCombination,
    ReviewedDocument,
)
from services.anonymization.review.tables import COMBINATIONS, DOCUMENTS, MARKS, PASSAGES, REPLACED
from tailor.api.anonymization.v1.review_pb2 import ListRareCombinationsRequest
from tailor.listing import Listing, ListPage
from tailor.rows import Rows

BATCH = 2_000


class SqlReviewedDocuments(Rows[ReviewedDocument]):
    """The newest version of every document, as a sample sees it: one row per document."""

    def __init__(self, database: Engine | Connection) -> None:
        super().__init__(database, DOCUMENTS, ReviewedDocument)

    def keep(
        self,
        document: ReviewedDocument,
        terms_digest: str,
        disagreements: Sequence[QueuedPassage],
        combinations: Sequence[Combination],
        surrogates: Mapping[tuple[str, str], int],
    ) -> None:
        """Record a version unless a newer one is known, and queue its disagreements; remove what waits of older ones. Idempotent.

        `surrogates` says how often each (type, surrogate) occurs in it.
        """
        with self._connect() as connection:
            documents, document_id = SqlReviewedDocuments(connection), document.document_id
            is_newer = documents.c.sequence <= document.sequence
            if not documents.upsert(document, where=is_newer, terms_digest=terms_digest):
                return
            # A passage of an older version is no longer in the corpus. What was decided about one still counts.
            passages = Rows(connection, PASSAGES, QueuedPassage)
            passages.delete(passages.c.sequence < document.sequence, document_id=document_id, is_decided=False)
            queued = enumerate(disagreements)
            passages.add_all(passages.write(passage, sample_id="", position=position) for position, passage in queued)
            rare, replaced = Rows(connection, COMBINATIONS, Combination), Rows(connection, REPLACED, Row)
            rare.delete(document_id=document_id)
            rare.add_all(rare.write(combination, document_id=document_id) for combination in combinations)
            replaced.delete(document_id=document_id)
            replaced.add_all(
                {"document_id": document_id, "entity_type": kind, "surrogate": name, "times": times}
                for (kind, name), times in surrogates.items()
            )

    def stream(self) -> Iterator[ReviewedDocument]:
        """Every document without its replaced values, sorted by id."""
        names = ("document_id", "sequence", "source", "language", "passages")
        query = select(*(self.c[name] for name in names)).order_by(self.c.document_id)
        with self._connect() as connection:
            for row in connection.execution_options(yield_per=BATCH).execute(query):
                yield self.read(row)

    def count_passages(self, sources: Sequence[str]) -> int:
        """The passages of the sources' documents, of all if none is named."""
        return int(self.value(func.coalesce(func.sum(self.c.passages), 0), **_of(sources)))

    def count_rules_only(self, sources: Sequence[str]) -> dict[str, int]:
        """By language, the sources' documents with passages that were masked by rules only; of all documents if no source is named."""
        language = func.jsonb_array_elements_text(PROCESSED.c.outcome["rules_only_languages"]).label("language")
        is_newest = and_(PROCESSED.c.document_id == self.c.document_id, PROCESSED.c.sequence == self.c.sequence)
        languages = self.select(is_newest, **_of(sources)).with_only_columns(language).subquery().c.language
        query = select(languages, func.count()).group_by(languages).order_by(languages)
        with self._connect() as connection:
            return dict(connection.execute(query).all())

    def outdated(self, terms_digest: str) -> Iterator[str]:
        """Ids of the documents that passed under other decisions of reviews. Streams."""
        query = select(self.c.document_id).where(self.c.terms_digest != terms_digest)
        with self._connect() as connection:
            yield from connection.execution_options(yield_per=BATCH).scalars(query)

    def list_rare(self, request: ListRareCombinationsRequest) -> ListPage[RareCombination]:
        """Combinations of quasi-identifiers that fewer than five documents share, rarest first."""
        counts, table = _rare().subquery(), COMBINATIONS.c
        query = select(table.document_id, table.entity_types, counts.c.documents, table.number)
        key, columns = func.concat(table.document_id, " ", table.value_hash), {"documents": counts.c.documents}
        with self._connect() as connection:
            rows = Rows(connection, COMBINATIONS, RareCombination)
            listing = Listing(rows, request, key, order_by="documents", columns=columns)
            return listing.page(query.join(counts, table.value_hash == counts.c.value_hash))

    def count_rare(self) -> int:
        with self._connect() as connection:
            return int(connection.execute(select(func.count()).select_from(_rare().subquery())).scalar_one())

    def forget(self, document_id: str) -> int:
        """Remove a document with its passages in the queue, and return their number. Idempotent."""
        with self._connect() as connection:
            marks = Rows(connection, MARKS, Row)
            ids = select(PASSAGES.c.passage_id).where(PASSAGES.c.document_id == document_id)
            marks.delete(marks.c.passage_id.in_(ids))
            for table in (COMBINATIONS, REPLACED, DOCUMENTS):
                Rows(connection, table, Row).delete(document_id=document_id)
            return Rows(connection, PASSAGES, Row).delete(document_id=document_id)


def _of(sources: Sequence[str]) -> dict[str, Any]:
    return {"source": [*sources]} if sources else {}


def _rare() -> Select[Any]:
    """Rare combinations with the number of documents that share each."""
    documents = func.count().label("documents")
    return (
        select(COMBINATIONS.c.value_hash, documents).group_by(COMBINATIONS.c.value_hash).having(documents < RARE_BELOW)
    )
