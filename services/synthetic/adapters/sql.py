"""Synthetic's database in PostgreSQL."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Row,
    and_,
    delete,
    func,
    literal,
    or_,
    select,
    union_all,
)
from sqlalchemy.dialects.postgresql import insert

from services.synthetic import wire
from services.synthetic.adapters import tables
from services.synthetic.adapters.conditions import (
    age_of,
    count_new_items,
    is_admitted,
    is_one_of,
    newest_item,
    read_sides,
    selected,
)
from services.synthetic.adapters.datasets import SqlDatasets
from services.synthetic.adapters.locks import session_lock
from services.synthetic.adapters.synthesis_rows import find_revisions, forget_critiques
from services.synthetic.corpus import StoredFile
from services.synthetic.domain import (
    BuildProgress,
    BuildResult,
    Dataset,
    Document,
    Judgement,
    KeptDraft,
    Kind,
    LastBuild,
    PairEvidence,
    RankedEdit,
    Specialist,
    SyncCursor,
    fingerprint,
)
from tailor.events.envelope import derive_id
from tailor.events.outbox import Outbox
from tailor.jobs import HeldJob, add_job
from tailor.rows import Rows
from tailor.sql import transaction
from tailor.values import DatasetKind, Labels

FILES_PER_STATEMENT = 1000
TOPIC = "dataset.built.v1"
# Kinds of jobs: the datasets of a specialist, its key, and the documents that are not prepared yet.
BUILD, PREPARATION = "build", "preparation"
# Held shared to add an item, and exclusively to read all of them, so that no item appears later at a position that was already read.
ITEMS_LOCK = 7_461_102
# The columns of an item that arrives, whose positions are in the order of arrival.
ARRIVAL: dict[str, Any] = {"position": tables.positions.next_value(), "changed_at": func.clock_timestamp()}


class SqlRepository:
    """Documents, judgements and drafts, datasets, and everything that decides about the next one. Thread-safe."""

    def __init__(self, engine: Engine, outbox: Outbox) -> None:
        self._engine = engine
        self._outbox = outbox
        self.drafts = Rows(engine, tables.drafts, KeptDraft)
        self.documents = Rows(engine, tables.documents, Document)

    def keep_document(self, document: Document) -> bool:
        """Keep a version unless the same or a newer one is known; True if it was new."""
        text, labels = document.text.sha256, document.labels
        parts = (text, document.language, labels.source, document.spans, document.kind, document.draft_id)
        with transaction(self._engine) as connection:
            _lock_items(connection, "pg_advisory_xact_lock_shared")
            documents = Rows(connection, tables.documents, Document)
            is_newer = documents.c.sequence < documents.new.sequence
            is_new = documents.upsert(document, where=is_newer, fingerprint=fingerprint(*parts), **ARRIVAL)
            if is_new:
                pending, newest = Rows(connection, tables.pending, Row), Rows(connection, tables.newest_labels, Labels)
                position = func.currval(tables.positions.name)
                pending.upsert(document_id=document.document_id, position=position)
                last = {"position": func.greatest(newest.c.position, newest.new.position)}
                newest.upsert(labels, computed=last, position=position, changed_at=func.clock_timestamp())
                add_job(connection, tables.jobs, PREPARATION)
            return is_new

    def unknown_documents(self, documents: Sequence[Document]) -> list[Document]:
        """Those of which neither this version nor a newer one is known."""
        table = tables.documents
        query = select(table.c.document_id, table.c.sequence)
        query = query.where(is_one_of(table.c.document_id, [document.document_id for document in documents]))
        with transaction(self._engine) as connection:
            known = {row.document_id: row.sequence for row in connection.execute(query)}
        return [document for document in documents if known.get(document.document_id, -1) < document.sequence]

    def newest_position(self) -> int:
        """The position of the newest document or judgement of all; takes the same time however many there are."""
        with transaction(self._engine) as connection:
            return _newest_position(connection)

    def keep_judgement(self, judgement: Judgement) -> bool:
        """Keep a judgement; True if it was new."""
        with transaction(self._engine) as connection:
            _lock_items(connection, "pg_advisory_xact_lock_shared")
            return Rows(connection, tables.judgements, Judgement).add(judgement, **ARRIVAL)

    def retract_judgement(self, judgement: Judgement) -> None:
        """Replace a judgement by this one, which has no ranking, and drop the revision that its comment asked for.

        A later `keep_judgement` of its id has no effect.
        """
        with transaction(self._engine) as connection:
            _lock_items(connection, "pg_advisory_xact_lock_shared")
            Rows(connection, tables.judgements, Judgement).upsert(judgement, keep=ARRIVAL.keys(), **ARRIVAL)
            forget_critiques(connection, [judgement.judgement_id])

    def keep_draft(self, draft: KeptDraft) -> None:
        """Keep a draft. A saved draft stays saved, with its text."""
        self.drafts.upsert(draft, where=~self.drafts.c.saved)

    def is_wanted(self, draft_id: str) -> bool:
        """True if a judgement is about the draft, or a deliverable was made from it."""
        judgements = tables.judgements.c
        judged = select(literal(1)).where(
            or_(judgements.ranking.contains([draft_id]), judgements.equal_drafts.contains([draft_id]))
        )
        finished = select(literal(1)).where(tables.documents.c.draft_id == draft_id)
        with transaction(self._engine) as connection:
            return connection.scalar(union_all(judged, finished).limit(1)) is not None

    def ranked_edits(self, specialist: Specialist) -> list[RankedEdit]:
        """The specialist's edited drafts that a judgement ranks first, before what was edited, by id.

        Those whose draft became a selected deliverable are left out.
        """
        table, judgements, documents = tables.drafts, tables.judgements, tables.documents
        best, second = judgements.c.ranking[0].astext, judgements.c.ranking[1].astext
        is_ranked = and_(best == table.c.draft_id, second == table.c.edit_of)
        joined = table.join(judgements, and_(is_ranked, judgements.c.specialist == table.c.specialist))
        is_finished = (
            select(literal(1))
            .where(
                documents.c.draft_id == table.c.edit_of,
                documents.c.kind == Kind.DELIVERABLE.value,
                selected(specialist.selection),
            )
            .exists()
        )
        query = select(table, func.min(judgements.c.judgement_id).label("judgement_id")).select_from(joined)
        query = query.where(table.c.specialist == specialist.name, table.c.saved, table.c.edit_of != "", ~is_finished)
        with transaction(self._engine) as connection:
            rows = connection.execute(query.group_by(table.c.draft_id).order_by(table.c.draft_id))
            return [RankedEdit(self.drafts.read(row), row.judgement_id) for row in rows]

    def forget_drafts(self, days: int) -> None:
        """Drop drafts older than `days` that nobody judged or finished."""
        old = self.drafts.c.kept_at < func.clock_timestamp() - timedelta(days=days)
        self.drafts.delete(old, ~self.drafts.c.saved)

    def sync_cursor(self, specialist: str) -> SyncCursor:
        """How far the registry's documents were read for the specialist."""
        row = Rows(self._engine, tables.builds, Row).find(specialist=specialist, kind=DatasetKind.SFT)
        return SyncCursor() if row is None else SyncCursor(row.sync_revision, row.sync_cursor)

    def set_sync_cursor(self, specialist: str, synced: SyncCursor) -> None:
        """Record how far they were read."""
        values = {"sync_revision": synced.revision, "sync_cursor": synced.cursor}
        with transaction(self._engine) as connection:
            _set_build(connection, specialist, DatasetKind.SFT, **values)

    def progress(self, specialist: Specialist, kind: DatasetKind) -> BuildProgress:
        """Progress over documents for kind sft, or over rankings and deliverables with a draft for kind preference.

        `new_items` is counted up to the policy's `min_new_items` only, so that it takes the same time however many documents there are.
        """
        builds = tables.builds.c
        query = select(builds.built_position, builds.tried_position, age_of(builds.built_at).label("age"))
        with transaction(self._engine) as connection:
            build = connection.execute(query.where(_build(specialist.name, kind))).one_or_none()
            newest, age = connection.execute(newest_item(specialist, kind)).one()
            built_position, tried_position = (build.built_position, build.tried_position) if build else (0, 0)
            limit = specialist.policy.min_new_items
            must_count = limit > 0 and newest > tried_position
            new = connection.scalar(count_new_items(specialist, kind, built_position, limit)) if must_count else 0
        return BuildProgress(
            newest_position=newest,
            new_items=int(new or 0),
            seconds_since_new=_seconds(age),
            seconds_since_build=_seconds(build.age) if build else None,
            tried_position=tried_position,
        )

    def last_build(self, specialist: str, kind: DatasetKind) -> LastBuild:
        """The last build. Waits for running changes, so that no item appears later at a position that was already read."""
        with transaction(self._engine) as connection:
            _lock_items(connection, "pg_advisory_xact_lock")
            position = _newest_position(connection)
        with transaction(self._engine) as connection:
            build = Rows(connection, tables.builds, Row).find(specialist=specialist, kind=kind)
            dataset = SqlDatasets(connection).last_build(specialist, kind)
        return LastBuild(position, build.fingerprint if build else "", dataset)

    def pair_evidence(self, specialist: Specialist) -> PairEvidence:
        """Judgements, saved drafts, deliverables and accepted revisions of drafts, each sorted by id."""
        documents, drafts = tables.documents, tables.drafts
        join = documents.join(drafts, documents.c.draft_id == drafts.c.draft_id)
        is_saved = (drafts.c.specialist == specialist.name, drafts.c.saved)
        is_chosen = (selected(specialist.selection), is_admitted(specialist.name))
        is_finished = (*is_saved, documents.c.kind == Kind.DELIVERABLE.value, *is_chosen)
        with transaction(self._engine) as connection:
            judgements = Rows(connection, tables.judgements, Judgement)
            rows = judgements.all(specialist=specialist.name, order=judgements.c.judgement_id)
            known = Rows(connection, drafts, KeptDraft).all(*is_saved)
            saved = {draft.draft_id: draft for draft in known}
            ordered = select(documents).select_from(join).where(*is_finished).order_by(documents.c.document_id)
            deliverables = Rows(connection, documents, Document).fetch(ordered)
            revisions = find_revisions(connection, specialist.name)
        return PairEvidence(tuple(rows), saved, tuple(deliverables), revisions)

    def sides(self, specialist: str, document_ids: Sequence[str]) -> dict[str, bool]:
        """True for each document that the specialist holds out, False if it trains; without those that have no assignment."""
        with transaction(self._engine) as connection:
            return read_sides(connection, specialist, document_ids)

    def draw_documents(self, specialist: Specialist, limit: int, *, new_only: bool = False) -> list[Document]:
        """Documents that the specialist selects and may train on, drawn by a fixed hash. `new_only`: since its last build."""
        table, builds = tables.documents, tables.builds.c
        may_train = and_(selected(specialist.selection), table.c.kind != Kind.TEST.value)
        if new_only:
            built = select(builds.built_position).where(_build(specialist.name, DatasetKind.SFT)).scalar_subquery()
            may_train = and_(may_train, table.c.position > func.coalesce(built, 0))
        return self.documents.all(may_train, order=func.md5(table.c.document_id), limit=limit)

    def building(self, specialist: str) -> AbstractContextManager[bool]:
        """Hold the specialist's build lock without a transaction; yields False at once if another replica holds it."""
        return session_lock(self._engine, f"build:{specialist}")

    def add_builds(self, job: HeldJob, specialists: Iterable[str]) -> None:
        """Have the specialists' datasets built that are due. Raises JobLost."""
        with transaction(self._engine) as connection:
            job.check(connection)
            for name in specialists:
                add_job(connection, tables.jobs, BUILD, name)

    def mark_tried(self, specialist: str, kind: DatasetKind, position: int) -> None:
        """Record that a build was attempted with everything up to a position."""
        with transaction(self._engine) as connection:
            _set_build(connection, specialist, kind, tried_position=_seen(specialist, position))

    def finish(self, dataset: Dataset, files: Sequence[StoredFile], *, position: int, fingerprint: str) -> bool:
        """Keep a dataset as the specialist's newest of its kind and publish it, in one transaction.

        Returns False, and publishes nothing, if it existed.
        """
        message = wire.from_dataset(dataset)
        if dataset.created_at is None:
            message.create_time.GetCurrentTime()
        key = {"specialist": dataset.specialist, "digest": dataset.digest}
        counts = {name: getattr(dataset, name) for name in ("near_duplicates", "skipped", "pairs", "intake_seconds")}
        with transaction(self._engine) as connection:
            datasets = Rows(connection, tables.datasets, Row)
            is_new = datasets.add(payload=message, **key, **counts)
            if is_new:
                event_id = derive_id("evt", TOPIC, dataset.specialist, dataset.digest)
                self._outbox.add(connection, TOPIC, dataset.specialist, message, event_id)
            else:
                # The filters may have removed something else, although the rows are equal.
                datasets.update(counts, **key)
            _list_files(connection, dataset, files)
            _set_build(
                connection,
                dataset.specialist,
                dataset.kind,
                built_position=_seen(dataset.specialist, position),
                tried_position=_seen(dataset.specialist, position),
                fingerprint=fingerprint,
                digest=dataset.digest,
                built_at=func.clock_timestamp(),
            )
        return is_new

    def answer(self, request_id: str) -> BuildResult | None:
        """The stored answer to a request, if any."""
        with transaction(self._engine) as connection:
            row = Rows(connection, tables.requests, Row).find(request_id=request_id)
            known = row and SqlDatasets(connection).find(specialist=row.specialist, digest=row.digest)
        return BuildResult(known, row.created) if row and known else None

    def keep_answer(self, request_id: str, result: BuildResult) -> None:
        """Store the answer to a request."""
        dataset = {"specialist": result.dataset.specialist, "digest": result.dataset.digest}
        Rows(self._engine, tables.requests, Row).add(request_id=request_id, created=result.created, **dataset)


def _lock_items(connection: Connection, function: str) -> None:
    connection.execute(select(getattr(func, function)(ITEMS_LOCK)))


def _build(specialist: str, kind: DatasetKind) -> ColumnElement[bool]:
    """The condition for the last build of a kind."""
    return and_(tables.builds.c.specialist == specialist, tables.builds.c.kind == kind.value)


def _newest_position(connection: Connection) -> int:
    columns = (tables.documents.c.position, tables.judgements.c.position, tables.origins.c.position)
    newest = (select(func.coalesce(func.max(column), 0)).scalar_subquery() for column in columns)
    return int(connection.scalar(select(func.greatest(*newest))) or 0)


def _seen(specialist: str, position: int) -> ColumnElement[int]:
    """Up to where a build at a position has seen everything: not the documents of an origin that was admitted meanwhile."""
    origins = tables.origins.c
    first = select(func.min(origins.first_position) - 1)
    first = first.where(origins.specialist == specialist, origins.position > position)
    return func.least(position, first.scalar_subquery())


def _list_files(connection: Connection, dataset: Dataset, files: Sequence[StoredFile]) -> None:
    """List a dataset's files; the build's record of files that it writes ends."""
    key = {"specialist": dataset.specialist, "digest": dataset.digest}
    rows = [
        {**key, "key": stored.file.ref.key, "segment": stored.segment, "is_sources": stored.is_sources}
        for stored in files
    ]
    for start in range(0, len(rows), FILES_PER_STATEMENT):
        part = rows[start : start + FILES_PER_STATEMENT]
        connection.execute(insert(tables.dataset_files).on_conflict_do_nothing(), part)
    written = tables.written_files
    if files:
        connection.execute(delete(written).where(written.c.specialist == dataset.specialist))


def _set_build(connection: Connection, specialist: str, kind: DatasetKind, **values: Any) -> None:
    Rows(connection, tables.builds, Row).upsert(specialist=specialist, kind=kind, **values)


def _seconds(value: Any) -> float | None:
    return None if value is None else float(value)
