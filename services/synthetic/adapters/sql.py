"""Synthetic's database in PostgreSQL."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    Engine,
    Select,
    Update,
    and_,
    func,
    literal,
    select,
    text,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from services.synthetic import wire
from services.synthetic.adapters import tables
from services.synthetic.adapters.drafts import SqlDrafts, to_draft
from services.synthetic.domain import (
    Assignment,
    BuildProgress,
    BuildResult,
    CorpusSnapshot,
    Dataset,
    Document,
    Judgement,
    Kind,
    LeftOut,
    PairCounts,
    Specialist,
    find_ranked_adapter,
)
from services.synthetic.ports import Repository
from tailor.api.events.v1 import models_pb2
from tailor.events.envelope import derive_id
from tailor.events.outbox import Outbox
from tailor.sql import transaction
from tailor.storage.ref import Ref
from tailor.words import DatasetKind, Labels, Selection, Span, SpanKind

TOPIC = "dataset.built.v1"
# Held shared to add an item, and exclusively to read all of them, so that no item appears later at a position that was already read.
ITEMS_LOCK = 7_461_102


class SqlRepository(SqlDrafts, Repository):
    """Thread-safe."""

    def __init__(self, engine: Engine, outbox: Outbox) -> None:
        super().__init__(engine)
        self._outbox = outbox

    def keep_document(self, document: Document) -> bool:
        table = tables.documents
        row = _document_row(document)
        statement = insert(table).values(**row, position=tables.positions.next_value())
        changed = {name: statement.excluded[name] for name in (*row, "position") if name != "document_id"}
        statement = statement.on_conflict_do_update(
            index_elements=["document_id"],
            set_={**changed, "changed_at": func.clock_timestamp()},
            where=table.c.sequence < statement.excluded.sequence,
        )
        with transaction(self._engine) as connection:
            _lock_items(connection, "pg_advisory_xact_lock_shared")
            return connection.scalar(statement.returning(table.c.document_id)) is not None

    def keep_judgement(self, judgement: Judgement) -> bool:
        table = tables.judgements
        row = {
            "judgement_id": judgement.judgement_id,
            "specialist": judgement.specialist,
            "ranking": list(judgement.ranking),
            "rubric": dict(judgement.rubric),
            "comment": judgement.comment,
        }
        statement = insert(table).values(**row, position=tables.positions.next_value()).on_conflict_do_nothing()
        with transaction(self._engine) as connection:
            _lock_items(connection, "pg_advisory_xact_lock_shared")
            return connection.scalar(statement.returning(table.c.judgement_id)) is not None

    def filled_revision(self, specialist: str) -> int:
        with transaction(self._engine) as connection:
            query = select(tables.builds.c.filled_revision).where(_build(specialist, DatasetKind.SFT))
            return connection.scalar(query) or 0

    def set_filled(self, specialist: str, revision: int) -> None:
        with transaction(self._engine) as connection:
            _set_build(connection, specialist, DatasetKind.SFT, filled_revision=revision)

    def progress(self, specialist: Specialist, kind: DatasetKind) -> BuildProgress:
        builds, items = tables.builds, _items(specialist, kind).subquery()
        with transaction(self._engine) as connection:
            build = connection.execute(
                select(
                    builds.c.built_position,
                    builds.c.tried_position,
                    func.extract("epoch", func.clock_timestamp() - builds.c.built_at).label("age"),
                ).where(_build(specialist.name, kind))
            ).one_or_none()
            built_position = build.built_position if build else 0
            items_row = connection.execute(
                select(
                    func.coalesce(func.max(items.c.position), 0).label("newest"),
                    func.count().filter(items.c.position > built_position).label("new"),
                    func.extract("epoch", func.clock_timestamp() - func.max(items.c.changed_at)).label("age"),
                )
            ).one()
        return BuildProgress(
            newest_position=items_row.newest,
            new_items=items_row.new,
            seconds_since_new=_seconds(items_row.age),
            seconds_since_build=_seconds(build.age) if build else None,
            tried_position=build.tried_position if build else 0,
        )

    def snapshot(self, specialist: Specialist, kind: DatasetKind) -> CorpusSnapshot:
        table, judged, drafts = tables.documents, tables.judgements, tables.drafts
        with transaction(self._engine) as connection:
            _lock_items(connection, "pg_advisory_xact_lock")
            newest = select(
                func.greatest(
                    select(func.coalesce(func.max(table.c.position), 0)).scalar_subquery(),
                    select(func.coalesce(func.max(judged.c.position), 0)).scalar_subquery(),
                )
            )
            position = int(connection.scalar(newest) or 0)
            query = select(table).where(selected(specialist.selection)).order_by(table.c.document_id)
            documents = tuple(to_document(row) for row in connection.execute(query))
            query = select(judged).where(judged.c.specialist == specialist.name).order_by(judged.c.judgement_id)
            rows = connection.execute(query).all()
            query = select(drafts).where(drafts.c.specialist == specialist.name, drafts.c.saved)
            saved_drafts = {row.draft_id: to_draft(row) for row in connection.execute(query)}
            build = connection.execute(
                select(tables.builds.c.fingerprint, tables.builds.c.digest).where(_build(specialist.name, kind))
            ).one_or_none()
            dataset = _dataset(connection, specialist.name, build.digest) if build and build.digest else None
        judgements = tuple(map(to_judgement, rows))
        ranked = find_ranked_adapter(map(to_judgement, sorted(rows, key=lambda row: -row.position)), saved_drafts)
        return CorpusSnapshot(
            documents, position, build.fingerprint if build else "", dataset, judgements, saved_drafts, ranked
        )

    def document(self, document_id: str) -> Document | None:
        table = tables.documents
        with transaction(self._engine) as connection:
            row = connection.execute(select(table).where(table.c.document_id == document_id)).one_or_none()
        return None if row is None else to_document(row)

    def newest(self, specialist: Specialist, limit: int) -> list[Document]:
        table = tables.documents
        query = select(table).where(selected(specialist.selection)).order_by(table.c.position.desc()).limit(limit)
        with transaction(self._engine) as connection:
            return [to_document(row) for row in connection.execute(query)]

    @contextmanager
    def building(self, specialist: str) -> Iterator[bool]:
        """An advisory lock, which ends with the connection, so that a killed process holds nothing."""
        with transaction(self._engine) as connection:
            query = text("SELECT pg_try_advisory_xact_lock(hashtextextended(:name, 0))")
            yield bool(connection.scalar(query, {"name": f"build:{specialist}"}))

    def assignments(self, document_ids: Sequence[str]) -> dict[str, Assignment]:
        table = tables.clusters
        query = select(table).where(table.c.document_id.in_(document_ids))
        with transaction(self._engine) as connection:
            return {
                row.document_id: Assignment(row.document_id, row.cluster_id, row.held_out)
                for row in connection.execute(query)
            }

    def assign(self, assignments: Iterable[Assignment]) -> None:
        rows = [
            {
                "document_id": assignment.document_id,
                "cluster_id": assignment.cluster_id,
                "held_out": assignment.held_out,
            }
            for assignment in assignments
        ]
        if rows:
            with transaction(self._engine) as connection:
                connection.execute(insert(tables.clusters).on_conflict_do_nothing(), rows)

    def mark_tried(self, specialist: str, kind: DatasetKind, position: int) -> None:
        with transaction(self._engine) as connection:
            _set_build(connection, specialist, kind, tried_position=position)

    def finish(self, dataset: Dataset, *, position: int, fingerprint: str) -> bool:
        message = wire.from_dataset(dataset)
        if dataset.created_at is None:
            message.create_time.GetCurrentTime()
        row = {
            "specialist": dataset.specialist,
            "digest": dataset.digest,
            "near_duplicates": dataset.near_duplicates,
            "left_out": asdict(dataset.left_out),
            "pairs": asdict(dataset.pairs),
            "payload": message.SerializeToString(deterministic=True),
        }
        statement = insert(tables.datasets).values(row).on_conflict_do_nothing().returning(tables.datasets.c.digest)
        with transaction(self._engine) as connection:
            created = connection.scalar(statement) is not None
            if created:
                event_id = derive_id("evt", TOPIC, dataset.specialist, dataset.digest)
                self._outbox.add(connection, TOPIC, dataset.specialist, message, event_id)
            else:
                # The filters may have removed something else, although the rows are equal.
                connection.execute(_update_counts(dataset))
            _set_build(
                connection,
                dataset.specialist,
                dataset.kind,
                built_position=position,
                tried_position=position,
                fingerprint=fingerprint,
                digest=dataset.digest,
                built_at=func.clock_timestamp(),
            )
        return created

    def answer(self, request_id: str) -> BuildResult | None:
        table = tables.requests
        with transaction(self._engine) as connection:
            row = connection.execute(select(table).where(table.c.request_id == request_id)).one_or_none()
            dataset = _dataset(connection, row.specialist, row.digest) if row else None
        return BuildResult(dataset, row.created) if row and dataset else None

    def keep_answer(self, request_id: str, result: BuildResult) -> None:
        row = {
            "request_id": request_id,
            "specialist": result.dataset.specialist,
            "digest": result.dataset.digest,
            "created": result.created,
        }
        with transaction(self._engine) as connection:
            connection.execute(insert(tables.requests).values(row).on_conflict_do_nothing())


def _lock_items(connection: Connection, function: str) -> None:
    connection.execute(select(getattr(func, function)(ITEMS_LOCK)))


def _build(specialist: str, kind: DatasetKind) -> ColumnElement[bool]:
    """The condition for the last build of a kind."""
    return and_(tables.builds.c.specialist == specialist, tables.builds.c.kind == kind.value)


def _items(specialist: Specialist, kind: DatasetKind) -> Select[Any] | CompoundSelect[Any]:
    """Positions and times of the items that datasets of a kind are made from."""
    documents, judgements = tables.documents.c, tables.judgements.c
    chosen = select(documents.position, documents.changed_at).where(selected(specialist.selection))
    if kind is DatasetKind.SFT:
        return chosen
    ranked = select(judgements.position, judgements.changed_at).where(
        judgements.specialist == specialist.name, func.jsonb_array_length(judgements.ranking) > 1
    )
    return union_all(ranked, chosen.where(documents.kind == Kind.DELIVERABLE.value, documents.draft_id != ""))


def selected(selection: Selection) -> ColumnElement[bool]:
    """The condition for selected documents."""
    columns = tables.documents.c
    admitted = (
        (columns.source, selection.sources),
        (columns.department, selection.departments),
        (columns.confidentiality, selection.confidentialities),
    )
    return and_(literal(True), *(column.in_(sorted(values)) for column, values in admitted if values))


def _update_counts(dataset: Dataset) -> Update:
    table = tables.datasets
    same = (table.c.specialist == dataset.specialist, table.c.digest == dataset.digest)
    return (
        update(table)
        .where(*same)
        .values(near_duplicates=dataset.near_duplicates, left_out=asdict(dataset.left_out), pairs=asdict(dataset.pairs))
    )


def _set_build(connection: Connection, specialist: str, kind: DatasetKind, **values: Any) -> None:
    statement = insert(tables.builds).values(specialist=specialist, kind=kind.value, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["specialist", "kind"], set_=values))


def _dataset(connection: Connection, specialist: str, digest: str) -> Dataset | None:
    table = tables.datasets
    query: Select[Any] = select(table).where(table.c.specialist == specialist, table.c.digest == digest)
    row = connection.execute(query).one_or_none()
    return None if row is None else to_stored_dataset(row)


def to_stored_dataset(row: Any) -> Dataset:
    message = models_pb2.DatasetBuilt.FromString(row.payload)
    return wire.to_dataset(message, row.near_duplicates, LeftOut(**row.left_out), PairCounts(**row.pairs))


def to_judgement(row: Any) -> Judgement:
    return Judgement(row.judgement_id, row.specialist, tuple(row.ranking), row.rubric, row.comment)


def _seconds(value: Any) -> float | None:
    return None if value is None else float(value)


def _document_row(document: Document) -> dict[str, Any]:
    return {
        "document_id": document.document_id,
        "sequence": document.sequence,
        "digest": document.digest,
        "kind": document.kind.value,
        "source": document.labels.source,
        "department": document.labels.department,
        "confidentiality": document.labels.confidentiality,
        "text_uri": document.text.uri,
        "text_sha256": document.text.sha256,
        "text_size_bytes": document.text.size_bytes,
        "draft_id": document.draft_id,
        "language": document.language,
        "spans": [[span.kind, span.number, span.level, span.start, span.end] for span in document.spans],
    }


def to_document(row: Any) -> Document:
    return Document(
        document_id=row.document_id,
        sequence=row.sequence,
        digest=row.digest,
        kind=Kind(row.kind),
        labels=Labels(row.source, row.department, row.confidentiality),
        text=Ref(row.text_uri, row.text_sha256, row.text_size_bytes),
        draft_id=row.draft_id,
        language=row.language,
        spans=tuple(Span(SpanKind(kind), number, start, end, level) for kind, number, level, start, end in row.spans),
    )
