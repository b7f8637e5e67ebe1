"""Erasing documents and datasets in PostgreSQL."""

from collections.abc import Sequence

from sqlalchemy import Engine, and_, delete, func, or_, select, tuple_

from services.synthetic.adapters import tables
from services.synthetic.adapters.conditions import age_of, is_one_of, unlisted_keys
from services.synthetic.adapters.sketches import STORING, drop_memberships, drop_orphans
from services.synthetic.adapters.synthesis_rows import forget_critiques, forget_seed, forget_seed_rows
from services.synthetic.corpus import SEGMENT_DOCUMENTS
from services.synthetic.domain import DRAFT, TEXT, SupersededVersion
from tailor.jobs import HeldJob, add_job
from tailor.rows import Rows
from tailor.sql import transaction
from tailor.storage.ref import Ref

# The kind of the job that replaces datasets with superseded versions.
SUPERSEDING = "superseding"


class SqlHoldings:
    """Everything that may have to be erased, and the versions whose datasets are to be superseded. Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def segment_of(self, document_id: str) -> int | None:
        """The document's segment; None if it was never prepared, or is erased."""
        table = tables.sketches.c
        query = select(table.arrival // SEGMENT_DOCUMENTS).where(table.document_id == document_id)
        with transaction(self._engine) as connection:
            return connection.scalar(query)

    def forget_document(self, document_id: str) -> tuple[int, list[str]]:
        """Drop a document with its sketch, assignments and the stored rows of its segment.

        Returns the number of documents dropped, and the keys of files that no dataset has.
        """
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
        """Sequence and digest of the version that is held, by document; without documents that are not."""
        table = tables.documents.c
        query = select(table.document_id, table.sequence, table.digest)
        with transaction(self._engine) as connection:
            rows = connection.execute(query.where(is_one_of(table.document_id, document_ids))).all()
        return {row.document_id: (row.sequence, row.digest) for row in rows}

    def forget_derived(self, document_id: str) -> list[str]:
        """Drop the stored rows of a document's segment, and what a teacher wrote from it; the document stays.

        Returns the keys of files that no dataset has.
        """
        segment, segments = self.segment_of(document_id), tables.segments
        with transaction(self._engine) as connection:
            connection.execute(STORING)
            forget_seed_rows(connection, document_id)
            statement = delete(segments).where(segments.c.number == segment).returning(segments.c.file_keys)
            keys = {key for row in connection.scalars(statement) for key in row}
            return unlisted_keys(connection, sorted(keys))

    def forget_drafts(self, adapters: Sequence[str], text_id: str = "") -> tuple[int, list[str]]:
        """Drop the drafts of adapters with their revisions, and the edited one with this text id.

        Returns their number, and the keys of saved texts that no other draft has.
        """
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
        """Drop the drafts whose prompts were drawn from a document, and what was drawn from it.

        Returns the number of drafts and the SHA-256 of their texts.
        """
        drafts, prompts = tables.drafts, tables.drawn_prompts
        statement = delete(drafts).where(drafts.c.drawn_from.contains([document_id]))
        with transaction(self._engine) as connection:
            forgotten = connection.execute(statement.returning(drafts.c.draft_id, drafts.c.text_sha256)).all()
            forget_critiques(connection, [row.draft_id for row in forgotten])
            connection.execute(delete(prompts).where(prompts.c.document_ids.contains([document_id])))
        return len(forgotten), sorted({row.text_sha256 for row in forgotten})

    def keep_superseded(self, version: SupersededVersion) -> None:
        """Remember a version whose datasets are to be superseded. A known one stays as it is."""
        with transaction(self._engine) as connection:
            Rows(connection, tables.superseded, SupersededVersion).add(version)
            add_job(connection, tables.jobs, SUPERSEDING)

    def superseded(self, limit: int) -> list[SupersededVersion]:
        """The remembered versions, oldest first."""
        versions = Rows(self._engine, tables.superseded, SupersededVersion)
        return versions.all(order=versions.c.kept_at, limit=limit)

    def superseded_ages(self) -> tuple[float, float] | None:
        """The seconds since the oldest and since the newest remembered version became known; None if there is none."""
        kept_at = tables.superseded.c.kept_at
        query = select(age_of(func.min(kept_at)), age_of(func.max(kept_at)))
        with transaction(self._engine) as connection:
            oldest, newest = connection.execute(query).one()
        return None if oldest is None else (float(oldest), float(newest))

    def drop_superseded(self, job: HeldJob, versions: Sequence[SupersededVersion]) -> None:
        """Forget remembered versions. Raises JobLost."""
        table = tables.superseded
        keys = [(version.document_id, version.erasure_id) for version in versions]
        with transaction(self._engine) as connection:
            job.check(connection)
            connection.execute(delete(table).where(tuple_(table.c.document_id, table.c.erasure_id).in_(keys)))
