"""The newest version of every document, and rare combinations of quasi-identifiers, in PostgreSQL."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, Select, delete, func, select
from sqlalchemy.dialects.postgresql import insert

from services.anonymization.review.domain import (
    RARE_BELOW,
    Combination,
    QueuedPassage,
    RareCombination,
    ReviewedDocument,
)
from services.anonymization.review.ports import ReviewedDocuments
from services.anonymization.review.tables import COMBINATIONS, DOCUMENTS, MARKS, PASSAGES, REPLACED
from tailor.sql import transaction

BATCH = 2_000


class SqlReviewedDocuments(ReviewedDocuments):
    """One row per document."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def keep(
        self,
        document: ReviewedDocument,
        terms_digest: str,
        disagreements: Sequence[QueuedPassage],
        combinations: Sequence[Combination],
        surrogates: Mapping[tuple[str, str], int],
    ) -> None:
        with transaction(self._engine) as connection:
            if not _upsert(connection, document, terms_digest):
                return
            # A passage of an older version is no longer in the corpus. What was decided about one still counts.
            older = PASSAGES.c.document_id == document.document_id, PASSAGES.c.sequence < document.sequence
            connection.execute(delete(PASSAGES).where(*older, ~PASSAGES.c.is_decided))
            for table in (COMBINATIONS, REPLACED):
                connection.execute(delete(table).where(table.c.document_id == document.document_id))
            if disagreements:
                rows = [passage_row(passage, "", position) for position, passage in enumerate(disagreements)]
                connection.execute(insert(PASSAGES).on_conflict_do_nothing(), rows)
            if combinations:
                connection.execute(insert(COMBINATIONS), [_combination_row(document, item) for item in combinations])
            if surrogates:
                rows = [
                    {"document_id": document.document_id, "entity_type": kind, "surrogate": name, "times": times}
                    for (kind, name), times in surrogates.items()
                ]
                connection.execute(insert(REPLACED), rows)

    def all(self) -> Iterator[ReviewedDocument]:
        columns = (
            DOCUMENTS.c.document_id,
            DOCUMENTS.c.sequence,
            DOCUMENTS.c.source,
            DOCUMENTS.c.language,
            DOCUMENTS.c.passages,
        )
        with transaction(self._engine) as connection:
            rows = connection.execution_options(yield_per=BATCH).execute(
                select(*columns).order_by(DOCUMENTS.c.document_id)
            )
            for row in rows:
                yield ReviewedDocument(*row)

    def find(self, document_id: str) -> ReviewedDocument | None:
        with transaction(self._engine) as connection:
            row = connection.execute(select(DOCUMENTS).where(DOCUMENTS.c.document_id == document_id)).one_or_none()
        if row is None:
            return None
        replaced = None if row.replaced is None else tuple((start, end) for start, end in json.loads(row.replaced))
        languages = tuple(filter(None, row.rules_only_languages.split(",")))
        return ReviewedDocument(
            row.document_id,
            row.sequence,
            row.source,
            row.language,
            row.passages,
            replaced,
            languages,
            row.department,
            row.words,
        )

    def count_passages(self, sources: Sequence[str]) -> int:
        query = select(func.coalesce(func.sum(DOCUMENTS.c.passages), 0))
        if sources:
            query = query.where(DOCUMENTS.c.source.in_(sources))
        with transaction(self._engine) as connection:
            return int(connection.execute(query).scalar_one())

    def count_rules_only(self, sources: Sequence[str]) -> dict[str, int]:
        query = select(DOCUMENTS.c.rules_only_languages, func.count()).where(DOCUMENTS.c.rules_only_languages != "")
        if sources:
            query = query.where(DOCUMENTS.c.source.in_(sources))
        counts = Counter[str]()
        with transaction(self._engine) as connection:
            for languages, documents in connection.execute(query.group_by(DOCUMENTS.c.rules_only_languages)):
                counts.update(dict.fromkeys(languages.split(","), documents))
        return dict(sorted(counts.items()))

    def outdated(self, terms_digest: str) -> Iterator[str]:
        query = select(DOCUMENTS.c.document_id).where(DOCUMENTS.c.terms_digest != terms_digest)
        with transaction(self._engine) as connection:
            yield from connection.execution_options(yield_per=BATCH).scalars(query)

    def list_rare(self, offset: int, limit: int) -> list[RareCombination]:
        counts = _rare().subquery()
        query = (
            select(COMBINATIONS.c.document_id, COMBINATIONS.c.entity_types, counts.c.documents, COMBINATIONS.c.number)
            .join(counts, COMBINATIONS.c.value_hash == counts.c.value_hash)
            .order_by(counts.c.documents, COMBINATIONS.c.document_id, COMBINATIONS.c.value_hash)
            .offset(offset)
            .limit(limit)
        )
        with transaction(self._engine) as connection:
            rows = connection.execute(query).all()
        return [RareCombination(row[0], tuple(row[1].split(",")), row[2], row[3]) for row in rows]

    def count_rare(self) -> int:
        with transaction(self._engine) as connection:
            return int(connection.execute(select(func.count()).select_from(_rare().subquery())).scalar_one())

    def forget(self, document_id: str) -> int:
        ids = select(PASSAGES.c.passage_id).where(PASSAGES.c.document_id == document_id)
        with transaction(self._engine) as connection:
            connection.execute(delete(MARKS).where(MARKS.c.passage_id.in_(ids)))
            for table in (COMBINATIONS, REPLACED, DOCUMENTS):
                connection.execute(delete(table).where(table.c.document_id == document_id))
            return connection.execute(delete(PASSAGES).where(PASSAGES.c.document_id == document_id)).rowcount


def passage_row(passage: QueuedPassage, sample_id: str, position: int) -> dict[str, Any]:
    """The row of a passage that waits. Disagreements have no sample."""
    return {
        "passage_id": passage.passage_id,
        "sample_id": sample_id,
        "document_id": passage.document_id,
        "sequence": passage.sequence,
        "number": passage.number,
        "source": passage.source,
        "language": passage.language,
        "position": position,
        "stretches": json.dumps([(item.start, item.end, item.entity_type) for item in passage.stretches]),
    }


def _upsert(connection: Connection, document: ReviewedDocument, terms_digest: str) -> bool:
    """Store the version; False if a newer one is known."""
    row = {
        "document_id": document.document_id,
        "sequence": document.sequence,
        "source": document.source,
        "language": document.language,
        "passages": document.passages,
        "replaced": None if document.replaced is None else json.dumps(document.replaced),
        "terms_digest": terms_digest,
        "rules_only_languages": ",".join(document.rules_only_languages),
        "department": document.department,
        "words": document.words,
    }
    statement = insert(DOCUMENTS).values(row)
    statement = statement.on_conflict_do_update(
        index_elements=[DOCUMENTS.c.document_id], set_=row, where=DOCUMENTS.c.sequence <= document.sequence
    )
    return connection.execute(statement.returning(DOCUMENTS.c.document_id)).first() is not None


def _combination_row(document: ReviewedDocument, item: Combination) -> dict[str, Any]:
    return {
        "document_id": document.document_id,
        "value_hash": item.value_hash,
        "entity_types": ",".join(item.entity_types),
        "number": item.number,
    }


def _rare() -> Select[Any]:
    """Rare combinations with the number of documents that share each."""
    documents = func.count().label("documents")
    return (
        select(COMBINATIONS.c.value_hash, documents).group_by(COMBINATIONS.c.value_hash).having(documents < RARE_BELOW)
    )
