"""Erasing documents and datasets in PostgreSQL."""

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict

from sqlalchemy import Engine, and_, delete, func, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from services.synthetic.adapters import tables
from services.synthetic.adapters.conditions import age_of, is_one_of
from services.synthetic.adapters.files import unlisted_keys
from services.synthetic.adapters.locks import session_lock
from services.synthetic.adapters.sketches import STORING, drop_memberships, drop_orphans
from services.synthetic.adapters.sql import to_stored_dataset
from services.synthetic.adapters.synthesis_rows import forget_critiques, forget_seed, forget_seed_rows
from services.synthetic.corpus import ALL_SEGMENTS, SEGMENT_DOCUMENTS
from services.synthetic.domain import DRAFT, TEXT, Dataset, SupersededVersion
from services.synthetic.ports import Holdings, SupersededVersions
from tailor.sql import transaction
from tailor.storage.ref import Ref
from tailor.values import DatasetKind


class SqlHoldings(Holdings, SupersededVersions):
    """Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def segment_of(self, document_id: str) -> int | None:
        table = tables.sketches.c
        query = select(table.arrival // SEGMENT_DOCUMENTS).where(table.document_id == document_id)
        with transaction(self._engine) as connection:
            return connection.scalar(query)

    def forget_document(self, document_id: str) -> tuple[int, list[str]]:
        """Foreign keys delete its sketch and its place in the queue too."""
        segment = self.segment_of(document_id)
        documents, assignments, segments = tables.documents, tables.assignments, tables.segments
        with transaction(self._engine) as connection:
            connection.execute(STORING)
            forget_seed(connection, document_id)
            clusters = drop_memberships(connection, [document_id])
            connection.execute(delete(assignments).where(assignments.c.document_id == document_id))
            count = connection.execute(delete(documents).where(documents.c.document_id == document_id)).rowcount
            drop_orphans(connection, clusters)
            statement = delete(segments).where(segments.c.number == segment).returning(segments.c.file_keys)
            keys = {key for row in connection.scalars(statement) for key in row}
            return count, unlisted_keys(connection, sorted(keys))

    def held_versions(self, document_ids: Sequence[str]) -> dict[str, tuple[int, str]]:
        table = tables.documents.c
        query = select(table.document_id, table.sequence, table.digest)
        with transaction(self._engine) as connection:
            rows = connection.execute(query.where(is_one_of(table.document_id, document_ids))).all()
        return {row.document_id: (row.sequence, row.digest) for row in rows}

    def forget_derived(self, document_id: str) -> list[str]:
        segment, segments = self.segment_of(document_id), tables.segments
        with transaction(self._engine) as connection:
            connection.execute(STORING)
            forget_seed_rows(connection, document_id)
            statement = delete(segments).where(segments.c.number == segment).returning(segments.c.file_keys)
            keys = {key for row in connection.scalars(statement) for key in row}
            return unlisted_keys(connection, sorted(keys))

    def forget_drafts(self, adapters: Sequence[str], text_id: str = "") -> tuple[int, list[str]]:
        table = tables.drafts
        is_edit = and_(table.c.edit_of != "", table.c.draft_id == text_id.replace(TEXT, DRAFT, 1))
        statement = delete(table).where(or_(is_one_of(table.c.adapter_digest, adapters), is_edit))
        with transaction(self._engine) as connection:
            forgotten = connection.execute(statement.returning(table.c.draft_id, table.c.text_uri, table.c.saved)).all()
            forget_critiques(connection, [row.draft_id for row in forgotten])
            uris = {row.text_uri for row in forgotten if row.saved}
            shared = set(connection.scalars(select(table.c.text_uri).where(is_one_of(table.c.text_uri, sorted(uris)))))
            return len(forgotten), sorted(Ref(uri, "", 0).key for uri in uris - shared)

    def forget_drawn(self, document_id: str) -> tuple[int, list[str]]:
        drafts, prompts = tables.drafts, tables.drawn_prompts
        statement = delete(drafts).where(drafts.c.drawn_from.contains([document_id]))
        with transaction(self._engine) as connection:
            forgotten = connection.execute(statement.returning(drafts.c.draft_id, drafts.c.text_sha256)).all()
            forget_critiques(connection, [row.draft_id for row in forgotten])
            connection.execute(delete(prompts).where(prompts.c.document_ids.contains([document_id])))
        return len(forgotten), sorted({row.text_sha256 for row in forgotten})

    def datasets(self, specialist: str) -> list[Dataset]:
        table = tables.datasets
        query = select(table).where(table.c.specialist == specialist).order_by(table.c.digest)
        with transaction(self._engine) as connection:
            return [to_stored_dataset(row) for row in connection.execute(query)]

    def dataset(self, specialist: str, digest: str) -> Dataset | None:
        query = select(tables.datasets).filter_by(specialist=specialist, digest=digest)
        with transaction(self._engine) as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else to_stored_dataset(row)

    def keep_superseded(self, version: SupersededVersion) -> None:
        with transaction(self._engine) as connection:
            connection.execute(insert(tables.superseded).values(asdict(version)).on_conflict_do_nothing())

    def superseded(self, limit: int) -> list[SupersededVersion]:
        table = tables.superseded.c
        columns = (table.document_id, table.erasure_id, table.sequence, table.segment)
        with transaction(self._engine) as connection:
            rows = connection.execute(select(*columns).order_by(table.kept_at).limit(limit)).all()
        return [SupersededVersion(*row) for row in rows]

    def superseded_ages(self) -> tuple[float, float] | None:
        kept_at = tables.superseded.c.kept_at
        query = select(age_of(func.min(kept_at)), age_of(func.max(kept_at)))
        with transaction(self._engine) as connection:
            oldest, newest = connection.execute(query).one()
        return None if oldest is None else (float(oldest), float(newest))

    def drop_superseded(self, versions: Sequence[SupersededVersion]) -> None:
        table = tables.superseded
        keys = [(version.document_id, version.erasure_id) for version in versions]
        with transaction(self._engine) as connection:
            connection.execute(delete(table).where(tuple_(table.c.document_id, table.c.erasure_id).in_(keys)))

    def superseding(self) -> AbstractContextManager[bool]:
        return session_lock(self._engine, "superseding datasets")

    def source_files(self, specialist: str, segments: Collection[int] | None) -> list[tuple[str, str]]:
        table = tables.dataset_files.c
        query = select(table.digest, table.key).where(table.specialist == specialist, table.is_sources)
        if segments is not None:
            query = query.where(table.segment.in_({*segments, ALL_SEGMENTS}))
        with transaction(self._engine) as connection:
            return [(digest, key) for digest, key in connection.execute(query.order_by(table.digest, table.key))]

    def specialists(self) -> list[str]:
        with transaction(self._engine) as connection:
            return list(connection.scalars(select(tables.datasets.c.specialist).distinct()))

    def newest_digests(self, specialist: str) -> dict[DatasetKind, str]:
        builds = tables.builds.c
        query = select(builds.kind, builds.digest).where(builds.specialist == specialist, builds.digest != "")
        with transaction(self._engine) as connection:
            return {DatasetKind(kind): digest for kind, digest in connection.execute(query)}

    def unshared_files(self, digests: Sequence[str]) -> list[str]:
        table, segments = tables.dataset_files.c, tables.segments.c
        shared = select(table.key).where(~is_one_of(table.digest, digests))
        stored = select(func.unnest(segments.file_keys))
        conditions = (is_one_of(table.digest, digests), table.key.not_in(shared), table.key.not_in(stored))
        query = select(table.key).where(*conditions).distinct()
        with transaction(self._engine) as connection:
            return sorted(connection.scalars(query))

    def drop_dataset(self, dataset: Dataset) -> None:
        """Also drop the stored answers that name it."""
        key = {"specialist": dataset.specialist, "digest": dataset.digest}
        with transaction(self._engine) as connection:
            for table in (tables.datasets, tables.dataset_files, tables.requests):
                connection.execute(delete(table).filter_by(**key))
            connection.execute(update(tables.builds).filter_by(**key).values(digest="", fingerprint=""))
