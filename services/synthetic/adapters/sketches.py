"""Sketches of texts: MinHash by datasketch, kept in PostgreSQL, which finds those that share a band."""

import hashlib
from collections.abc import Iterator, Sequence

import numpy
from sqlalchemy import ColumnElement, Engine, and_, func, literal, select
from sqlalchemy.dialects.postgresql import insert

from services.synthetic.adapters import tables
from services.synthetic.adapters.minhash import minhash
from services.synthetic.adapters.sql import selected, to_document
from services.synthetic.comparing import Pair, Sketch
from services.synthetic.domain import Document, Selection
from tailor.sql import transaction

# Texts of similarity 0.8 share one of 20 bands of 6 hashes with probability 0.998, texts of 0.3 with 0.01.
BANDS = 20
BAND_HASHES = 6
STREAMED_ROWS = 1000


class MinHashSketcher:
    """Satisfies `comparing.Sketcher`."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def sketch(self, document: Document, text: str) -> Sketch:
        """The sketch of a text."""
        values = minhash(text).hashvalues.astype("<u8")
        bands = tuple(_band(number, values) for number in range(BANDS))
        return Sketch(document.document_id, document.text.sha256, values.tobytes(), bands)

    def alike(self, pair: Pair) -> bool:
        """True if the two agree in so large a share of their hashes."""
        first, other = (numpy.frombuffer(one, dtype="<u8") for one in (pair.first_minhash, pair.other_minhash))
        return bool(numpy.mean(first == other) >= self.threshold)


class SqlSketches:
    """Satisfies `comparing.Sketches`. Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def missing(self, selection: Selection, limit: int) -> list[Document]:
        """Selected documents whose current text has no sketch."""
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
        """Keep sketches of documents that are still there."""
        documents, table = tables.documents, tables.sketches
        ids = [one.document_id for one in sketches]
        # Whoever forgets a document waits until its sketch is kept, and takes it along.
        there = (
            select(documents.c.document_id)
            .where(documents.c.document_id.in_(ids))
            .with_for_update(read=True, key_share=True)
        )
        statement = insert(table)
        changed = {name: statement.excluded[name] for name in ("text_sha256", "minhash", "bands")}
        statement = statement.on_conflict_do_update(index_elements=["document_id"], set_=changed)
        with transaction(self._engine) as connection:
            known = set(connection.scalars(there))
            rows = [_row(one) for one in sketches if one.document_id in known]
            if rows:
                connection.execute(statement, rows)

    def counts(self, selection: Selection) -> tuple[int, int]:
        """Selected documents, and those of them whose current text has a sketch."""
        documents, sketches = tables.documents, tables.sketches
        query = (
            select(func.count(), func.count(sketches.c.document_id))
            .select_from(documents.outerjoin(sketches, _current()))
            .where(selected(selection))
        )
        with transaction(self._engine) as connection:
            total, compared = connection.execute(query).one()
        return total, compared

    def pairs(self, selection: Selection) -> Iterator[Pair]:
        """Documents that share a band with an earlier one: compared with the first of the band alone, so that a thousand copies are a
        thousand pairs."""
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
                yield Pair(*row)


def _current() -> ColumnElement[bool]:
    documents, sketches = tables.documents.c, tables.sketches.c
    return and_(
        literal(True),
        sketches.document_id == documents.document_id,
        sketches.text_sha256 == documents.text_sha256,
    )


def _band(number: int, values: "numpy.typing.NDArray[numpy.uint64]") -> int:
    part = values[number * BAND_HASHES : (number + 1) * BAND_HASHES].tobytes()
    digest = hashlib.blake2b(bytes([number]) + part, digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def _row(sketch: Sketch) -> dict[str, object]:
    return {
        "document_id": sketch.document_id,
        "text_sha256": sketch.text_sha256,
        "minhash": sketch.minhash,
        "bands": list(sketch.bands),
    }
