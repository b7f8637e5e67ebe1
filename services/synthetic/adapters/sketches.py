"""Sketches in PostgreSQL, which finds those that share a band."""

from collections.abc import Iterator, Sequence

from sqlalchemy import ColumnElement, Engine, and_, func, literal, select
from sqlalchemy.dialects.postgresql import insert

from services.synthetic.adapters import tables
from services.synthetic.adapters.sql import selected, to_document
from services.synthetic.domain import Document, Sketch, SketchPair
from services.synthetic.ports import Sketches
from tailor.sql import transaction
from tailor.words import Selection

STREAMED_ROWS = 1000


class SqlSketches(Sketches):
    """Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def missing(self, selection: Selection, limit: int) -> list[Document]:
        documents, sketches = tables.documents, tables.sketches
        query = (
            select(documents)
            .outerjoin(sketches, documents.c.document_id == sketches.c.document_id)
            .where(selected(selection), sketches.c.text_sha256.is_distinct_from(documents.c.text_sha256))
            .order_by(documents.c.document_id)
            .limit(limit)
        )
        with transaction(self._engine) as connection:
            return [to_document(row) for row in connection.execute(query)]

    def keep(self, sketches: Sequence[Sketch]) -> None:
        documents, table = tables.documents, tables.sketches
        ids = [sketch.document_id for sketch in sketches]
        # The lock makes an erasure wait until the sketch is stored; then it deletes both.
        existing = (
            select(documents.c.document_id)
            .where(documents.c.document_id.in_(ids))
            .with_for_update(read=True, key_share=True)
        )
        statement = insert(table)
        changed = {name: statement.excluded[name] for name in ("text_sha256", "minhash", "bands")}
        statement = statement.on_conflict_do_update(index_elements=["document_id"], set_=changed)
        with transaction(self._engine) as connection:
            known = set(connection.scalars(existing))
            rows = [_row(sketch) for sketch in sketches if sketch.document_id in known]
            if rows:
                connection.execute(statement, rows)

    def counts(self, selection: Selection) -> tuple[int, int]:
        documents, sketches = tables.documents, tables.sketches
        query = (
            select(func.count(), func.count(sketches.c.document_id))
            .select_from(documents.outerjoin(sketches, _current()))
            .where(selected(selection))
        )
        with transaction(self._engine) as connection:
            total, compared = connection.execute(query).one()
        return total, compared

    def pairs(self, selection: Selection) -> Iterator[SketchPair]:
        """Pair each document with the first document of its band only, so that a thousand copies give a thousand pairs."""
        documents, sketches = tables.documents, tables.sketches
        banded = (
            select(sketches.c.document_id, func.unnest(sketches.c.bands).label("band"))
            .join(documents, _current())
            .where(selected(selection))
            .subquery()
        )
        lowest = func.min(banded.c.document_id).over(partition_by=banded.c.band).label("first")
        shared = select(banded.c.document_id, lowest).subquery()
        pairs = select(shared).where(shared.c.first != shared.c.document_id).distinct().subquery()
        first, other = sketches.alias(), sketches.alias()
        query = (
            select(first.c.document_id, first.c.minhash, other.c.document_id, other.c.minhash)
            .join_from(pairs, first, first.c.document_id == pairs.c.first)
            .join(other, other.c.document_id == pairs.c.document_id)
        )
        with transaction(self._engine) as connection:
            for row in connection.execution_options(yield_per=STREAMED_ROWS).execute(query):
                yield SketchPair(*row)


def _current() -> ColumnElement[bool]:
    documents, sketches = tables.documents.c, tables.sketches.c
    return and_(
        literal(True),
        sketches.document_id == documents.document_id,
        sketches.text_sha256 == documents.text_sha256,
    )


def _row(sketch: Sketch) -> dict[str, object]:
    return {
        "document_id": sketch.document_id,
        "text_sha256": sketch.text_sha256,
        "minhash": sketch.minhash,
        "bands": list(sketch.bands),
    }
