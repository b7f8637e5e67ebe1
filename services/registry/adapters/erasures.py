"""Erasures in PostgreSQL: erased documents, the services' answers, and the adapters tainted by them."""

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import Connection, Row, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from services.registry import wire
from services.registry.adapters import tables
from services.registry.domain import Adapter, Erasure, ErasureReceipt, FactKind, ForgottenBy, Taint
from services.registry.ports import Erasures, Lineage
from tailor.api.events.v1 import models_pb2
from tailor.events.envelope import derive_id
from tailor.events.erased import ERASED
from tailor.events.outbox import Outbox

# An advisory lock: exclusive for changes of erasures, shared for writes that must not miss one.
LOCK = 7_461_201


class SqlErasures(Erasures):
    def __init__(self, connection: Connection, outbox: Outbox) -> None:
        self._connection = connection
        self._outbox = outbox

    def lock(self) -> None:
        self._connection.execute(select(func.pg_advisory_xact_lock(LOCK)))

    def find(self, erasure_id: str) -> Erasure | None:
        query = select(tables.erasures).where(tables.erasures.c.erasure_id == erasure_id)
        row = self._connection.execute(query).one_or_none()
        return None if row is None else self._to_erasure(row)

    def list(self, before: int | None, limit: int) -> Sequence[tuple[int, str]]:
        table = tables.erasures
        query = select(table.c.position, table.c.erasure_id).order_by(table.c.position.desc()).limit(limit)
        if before is not None:
            query = query.where(table.c.position < before)
        return [(position, erasure_id) for position, erasure_id in self._connection.execute(query)]

    def save(self, erasure: Erasure) -> None:
        row = {
            "erasure_id": erasure.erasure_id,
            "reason": erasure.reason,
            "awaits": [*erasure.awaits],
            "create_time": erasure.create_time,
        }
        self._connection.execute(insert(tables.erasures).values(row))
        documents = [
            {"erasure_id": erasure.erasure_id, "document_id": document_id, "lifted": False}
            for document_id in erasure.document_ids
        ]
        self._connection.execute(insert(tables.erased_documents), documents)

    def publish(self, erasure_id: str, document_id: str, datasets: Sequence[str], taints: Sequence[Taint]) -> None:
        message = wire.from_erased(erasure_id, document_id, datasets, taints)
        event_id = derive_id("evt", ERASED, erasure_id, document_id)
        self._outbox.add(self._connection, ERASED, document_id, message, event_id)

    def find_by_document(self, document_ids: Sequence[str]) -> Mapping[str, str]:
        table = tables.erased_documents
        query = select(table.c.document_id, table.c.erasure_id).where(
            table.c.document_id.in_(document_ids), ~table.c.lifted
        )
        return dict(self._connection.execute(query).all())

    def is_erased(self, document_id: str) -> bool:
        self._connection.execute(select(func.pg_advisory_xact_lock_shared(LOCK)))
        return bool(self.find_by_document([document_id]))

    def lift(self, erasure_id: str, document_id: str) -> None:
        table = tables.erased_documents
        entry = (table.c.erasure_id == erasure_id, table.c.document_id == document_id)
        self._connection.execute(update(table).where(*entry).values(lifted=True))
        message = wire.from_lifted(erasure_id, document_id)
        event_id = derive_id("evt", ERASED, "lifted", erasure_id, document_id)
        self._outbox.add(self._connection, ERASED, document_id, message, event_id)

    def forget_document(self, document_id: str) -> Mapping[str, int]:
        documents, submissions = tables.documents, tables.submissions
        entries = self._connection.execute(delete(documents).where(documents.c.document_id == document_id)).rowcount
        empty = update(submissions).where(submissions.c.document_id == document_id)
        emptied = self._connection.execute(empty.values(state="erased", reason="", findings={}, payload=b"")).rowcount
        return {"entries": entries, "submissions": emptied}

    def save_answer(self, answer: ForgottenBy) -> None:
        row = {
            "erasure_id": answer.erasure_id,
            "document_id": answer.document_id,
            "service": answer.service,
            "counts": dict(answer.counts),
            "datasets": [*answer.datasets],
        }
        self._connection.execute(insert(tables.forgotten).values(row).on_conflict_do_nothing())

    def list_answers(self, erasure_id: str) -> Sequence[ForgottenBy]:
        table = tables.forgotten
        query = select(table).where(table.c.erasure_id == erasure_id).order_by(table.c.service, table.c.document_id)
        return [
            ForgottenBy(row.erasure_id, row.document_id, row.service, row.counts, tuple(row.datasets))
            for row in self._connection.execute(query)
        ]

    def save_receipt(self, erasure_id: str, receipt: ErasureReceipt) -> None:
        table = tables.erasures
        self._connection.execute(
            update(table)
            .where(table.c.erasure_id == erasure_id)
            .values(receipt=receipt.body, signature=receipt.signature, public_key=receipt.public_key)
        )

    def _to_erasure(self, row: Row) -> Erasure:  # type: ignore[type-arg]
        table = tables.erased_documents
        query = select(table).where(table.c.erasure_id == row.erasure_id).order_by(table.c.document_id)
        documents = self._connection.execute(query).all()
        answered = {(answer.document_id, answer.service) for answer in self.list_answers(row.erasure_id)}
        waiting = {
            service
            for service in row.awaits
            for document in documents
            if (document.document_id, service) not in answered
        }
        receipt = None if row.receipt is None else ErasureReceipt(row.receipt, row.signature, row.public_key)
        return Erasure(
            erasure_id=row.erasure_id,
            document_ids=tuple(document.document_id for document in documents),
            reason=row.reason,
            create_time=row.create_time,
            awaits=tuple(row.awaits),
            waiting_for=tuple(sorted(waiting)),
            lifted=tuple(document.document_id for document in documents if document.lifted),
            receipt=receipt,
        )


class SqlLineage(Lineage):
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def find_datasets(self, document_ids: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
        digests: dict[str, set[str]] = {document_id: set() for document_id in document_ids}
        for dataset in self._datasets():
            for document_id in digests.keys() & set(dataset.document_ids):
                digests[document_id].add(dataset.digest)
        return {document_id: tuple(sorted(values)) for document_id, values in digests.items()}

    def find_documents(self, dataset_digest: str) -> Collection[str]:
        datasets = (dataset for dataset in self._datasets() if dataset.digest == dataset_digest)
        return {document_id for dataset in datasets for document_id in dataset.document_ids}

    def find_descendants(self, datasets: Collection[str], adapters: Collection[str]) -> Sequence[Adapter]:
        payloads = self._facts(FactKind.ADAPTER)
        known = [wire.to_adapter(models_pb2.AdapterTrained.FromString(payload)) for payload in payloads]
        digests = {
            adapter.digest for adapter in known if adapter.dataset_digest in datasets or adapter.digest in adapters
        }
        while children := {adapter.digest for adapter in known if adapter.parent_digest in digests} - digests:
            digests |= children
        return [adapter for adapter in known if adapter.digest in digests]

    def save_taint(self, taint: Taint) -> None:
        table = tables.taints
        statement = insert(table).values(
            adapter_digest=taint.adapter_digest,
            specialist=taint.specialist,
            erasure_id=taint.erasure_id,
            retired=taint.retired,
        )
        retired = table.c.retired | statement.excluded.retired
        self._connection.execute(
            statement.on_conflict_do_update(index_elements=["adapter_digest"], set_={"retired": retired})
        )

    def find_taint(self, adapter_digest: str) -> Taint | None:
        table = tables.taints
        row = self._connection.execute(select(table).where(table.c.adapter_digest == adapter_digest)).one_or_none()
        return None if row is None else _to_taint(row)

    def list_taints(self, erasure_id: str) -> Sequence[Taint]:
        query = select(tables.taints).where(tables.taints.c.erasure_id == erasure_id)
        return [_to_taint(row) for row in self._connection.execute(query)]

    def _datasets(self) -> Sequence[models_pb2.DatasetBuilt]:
        return [models_pb2.DatasetBuilt.FromString(payload) for payload in self._facts(FactKind.DATASET)]

    def _facts(self, kind: FactKind) -> Sequence[bytes]:
        table = tables.facts
        return self._connection.scalars(select(table.c.payload).where(table.c.kind == kind.value)).all()


def _to_taint(row: Row) -> Taint:  # type: ignore[type-arg]
    return Taint(row.adapter_digest, row.specialist, row.erasure_id, row.retired)
