"""Sketches in PostgreSQL, which joins each text to the cluster of a nearly equal one through a band that both have."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy
from sqlalchemy import Connection, Engine, bindparam, delete, func, select, text
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT, insert

from services.synthetic.adapters import tables
from services.synthetic.adapters.conditions import is_one_of, selected
from services.synthetic.adapters.locks import session_lock
from services.synthetic.corpus import NearDuplicateCount, Sketch, TextSketch
from services.synthetic.domain import Document
from tailor.rows import Rows
from tailor.sql import transaction
from tailor.values import Selection

LOCK = "prepare"
# An erasure waits for the batch that is being stored.
STORING = text("SELECT pg_advisory_xact_lock(hashtextextended('prepare: store', 0))")
ADD_BANDS = text("""
    INSERT INTO text_bands SELECT * FROM unnest(:bands, :clusters) ON CONFLICT DO NOTHING
""").bindparams(*(bindparam(name, type_=ARRAY(BIGINT)) for name in ("bands", "clusters")))
DROP_ORPHANS = text("""
    WITH dropped AS (
        DELETE FROM text_clusters t WHERE t.cluster_id = ANY(:clusters)
        AND NOT EXISTS (SELECT FROM cluster_documents c WHERE c.cluster_id = t.cluster_id)
        RETURNING t.cluster_id, t.bands
    )
    DELETE FROM text_bands b USING (SELECT cluster_id, unnest(bands) AS band FROM dropped) d
    WHERE b.band = d.band AND b.cluster_id = d.cluster_id
""").bindparams(bindparam("clusters", type_=ARRAY(BIGINT)))


@dataclass
class _Clusters:
    """The clusters that a batch of texts may join, and those that it makes."""

    owners: dict[int, int]
    minhashes: dict[int, bytes]
    new: dict[int, TextSketch] = field(default_factory=dict)

    def find(self, sketch: TextSketch) -> list[int]:
        """The clusters of nearly equal texts, lowest first."""
        candidates = sorted({self.owners[band] for band in sketch.bands if band in self.owners})
        return [key for key in candidates if similarity(self.minhashes[key], sketch.minhash) >= sketch.threshold]

    def add(self, key: int, sketch: TextSketch) -> None:
        self.new[key] = sketch
        self.minhashes[key] = sketch.minhash
        for band in sketch.bands:
            self.owners.setdefault(band, key)


class SqlSketches:
    """Sketches of documents in the database. Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def preparing(self) -> AbstractContextManager[bool]:
        """Hold the lock of the thread that prepares documents; yields False at once if another thread or replica holds it."""
        return session_lock(self._engine, LOCK)

    def missing(self, selection: Selection, limit: int) -> list[Document]:
        """At most `limit` selected documents whose current text has no sketch, oldest first."""
        documents, pending = tables.documents, tables.pending
        query = (
            select(documents)
            .join(pending, documents.c.document_id == pending.c.document_id)
            .where(selected(selection))
            .order_by(pending.c.position)
            .limit(limit)
        )
        return Rows(self._engine, documents, Document).fetch(query)

    def retry_unreadable(self, selection: Selection) -> None:
        """Let the selected documents be prepared again whose text could not be read."""
        documents, sketches, pending = tables.documents, tables.sketches, tables.pending
        query = (
            select(documents.c.document_id, documents.c.position)
            .join(sketches, documents.c.document_id == sketches.c.document_id)
            .where(sketches.c.cluster_id.is_(None), selected(selection))
        )
        with transaction(self._engine) as connection:
            connection.execute(insert(pending).from_select(["document_id", "position"], query).on_conflict_do_nothing())

    def keep(self, sketches: Sequence[Sketch]) -> None:
        """Keep sketches of texts that are still current, and join them to their clusters, in one transaction. Needs the lock."""
        with transaction(self._engine) as connection:
            connection.execute(STORING)
            current = _current(connection, sketches)
            if current:
                ids = [sketch.document.document_id for sketch in current]
                former = drop_memberships(connection, ids)
                self._join(connection, current)
                drop_orphans(connection, former)
                connection.execute(delete(tables.pending).where(is_one_of(tables.pending.c.document_id, ids)))

    def _join(self, connection: Connection, sketches: Sequence[Sketch]) -> None:
        """Join every text to its clusters, or make a cluster of it."""
        texts = [text for sketch in sketches for text in (sketch.whole, *sketch.passages) if text is not None]
        clusters = _load(connection, texts)
        keys = iter(_new_keys(connection, len(texts)))
        wholes: dict[str, int] = {}
        memberships: set[tuple[int, str]] = set()
        for sketch in sketches:
            document_id = sketch.document.document_id
            for part in (sketch.whole, *sketch.passages):
                if part is None:
                    continue
                cluster_keys = clusters.find(part)
                if not cluster_keys:
                    cluster_keys = [next(keys)]
                    clusters.add(cluster_keys[0], part)
                if part is sketch.whole:
                    wholes[document_id], cluster_keys = cluster_keys[0], cluster_keys[:1]
                memberships.update((key, document_id) for key in cluster_keys)
        _store_clusters(connection, clusters.new, set(wholes.values()))
        rows = [{"cluster_id": key, "document_id": document_id} for key, document_id in sorted(memberships)]
        if rows:
            connection.execute(insert(tables.cluster_documents), rows)
        _store_sketches(connection, sketches, wholes)

    def count(self, selection: Selection) -> NearDuplicateCount:
        """Count the selected documents and the near-duplicates among those with a sketch."""
        documents, sketches = tables.documents, tables.sketches
        total = select(func.count()).select_from(documents).where(selected(selection))
        clusters = (
            select(sketches.c.cluster_id, func.count().label("size"))
            .join(documents, sketches.c.document_id == documents.c.document_id)
            .where(selected(selection), sketches.c.text_sha256 == documents.c.text_sha256)
            .group_by(sketches.c.cluster_id)
            .subquery()
        )
        is_group = clusters.c.cluster_id.is_not(None) & (clusters.c.size > 1)
        query = select(
            func.coalesce(func.sum(clusters.c.size), 0),
            func.coalesce(func.sum(clusters.c.size - 1).filter(is_group), 0),
            func.count().filter(is_group),
        )
        with transaction(self._engine) as connection:
            compared, copies, groups = connection.execute(query).one()
            return NearDuplicateCount(int(connection.scalar(total) or 0), int(compared), int(copies), groups)


def drop_memberships(connection: Connection, document_ids: Sequence[str]) -> list[int]:
    """Take documents out of their clusters. Returns the clusters."""
    table = tables.cluster_documents
    statement = delete(table).where(is_one_of(table.c.document_id, document_ids)).returning(table.c.cluster_id)
    return sorted(set(connection.scalars(statement)))


def drop_orphans(connection: Connection, clusters: Sequence[int]) -> None:
    """Drop those of the clusters that no document has any more."""
    if clusters:
        connection.execute(DROP_ORPHANS, {"clusters": list(clusters)})


def _current(connection: Connection, sketches: Sequence[Sketch]) -> list[Sketch]:
    """The sketches of documents that still have the text. The lock makes an erasure wait until they are stored."""
    table = tables.documents
    ids = [sketch.document.document_id for sketch in sketches]
    query = select(table.c.document_id, table.c.text_sha256).where(is_one_of(table.c.document_id, ids))
    locked = connection.execute(query.order_by(table.c.document_id).with_for_update())
    texts = {row.document_id: row.text_sha256 for row in locked}
    return [sketch for sketch in sketches if texts.get(sketch.document.document_id) == sketch.document.text.sha256]


def _load(connection: Connection, sketches: Sequence[TextSketch]) -> _Clusters:
    bands = bindparam(None, sorted({band for sketch in sketches for band in sketch.bands}), type_=ARRAY(BIGINT))
    owned, clusters = tables.text_bands, tables.text_clusters
    rows = connection.execute(select(owned).where(owned.c.band == func.any(bands)))
    owners = {row.band: row.cluster_id for row in rows}
    keys = bindparam(None, sorted(set(owners.values())), type_=ARRAY(BIGINT))
    query = select(clusters.c.cluster_id, clusters.c.minhash).where(clusters.c.cluster_id == func.any(keys))
    return _Clusters(owners, {row.cluster_id: row.minhash for row in connection.execute(query)})


def _new_keys(connection: Connection, count: int) -> list[int]:
    query = text(
        "SELECT nextval(pg_get_serial_sequence('text_clusters', 'cluster_id')) FROM generate_series(1, :count)"
    )
    return list(connection.scalars(query, {"count": count}))


def _store_clusters(connection: Connection, new: dict[int, TextSketch], wholes: set[int]) -> None:
    if not new:
        return
    rows = [
        {"cluster_id": key, "whole": key in wholes, "minhash": sketch.minhash, "bands": list(sketch.bands)}
        for key, sketch in new.items()
    ]
    connection.execute(insert(tables.text_clusters), rows)
    pairs = [(band, key) for key, sketch in new.items() for band in sketch.bands]
    connection.execute(ADD_BANDS, {"bands": [band for band, _ in pairs], "clusters": [key for _, key in pairs]})


def _store_sketches(connection: Connection, sketches: Sequence[Sketch], wholes: dict[str, int]) -> None:
    """Store the sketches; a document keeps its number when its text changes."""
    table = tables.sketches
    arrival = int(connection.execute(select(func.coalesce(func.max(table.c.arrival), -1))).scalar_one())
    known = is_one_of(table.c.document_id, [sketch.document.document_id for sketch in sketches])
    arrivals = {row.document_id: row.arrival for row in connection.execute(select(table).where(known))}
    for sketch in sketches:
        if sketch.document.document_id not in arrivals:
            arrival += 1
            arrivals[sketch.document.document_id] = arrival
    rows = [_row(sketch, arrivals, wholes) for sketch in sketches]
    statement = insert(table)
    changed = {name: statement.excluded[name] for name in rows[0] if name not in {"document_id", "arrival"}}
    connection.execute(statement.on_conflict_do_update(index_elements=["document_id"], set_=changed), rows)


def _row(sketch: Sketch, arrivals: dict[str, int], wholes: dict[str, int]) -> dict[str, Any]:
    document = sketch.document
    return {
        "document_id": document.document_id,
        "arrival": arrivals[document.document_id],
        "text_sha256": document.text.sha256,
        "cluster_id": wholes.get(document.document_id),
        "characters": sketch.characters,
        "letters": sketch.letters,
        "parts": list(sketch.parts),
        "seconds": sketch.seconds,
    }


def similarity(first: bytes, other: bytes) -> float:
    """The estimated Jaccard similarity of two texts by their MinHashes; 0 if the sketches have different lengths."""
    if len(first) != len(other):
        return 0.0
    return float(numpy.mean(numpy.frombuffer(first, "<u4") == numpy.frombuffer(other, "<u4")))
