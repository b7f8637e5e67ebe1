"""Erasures in PostgreSQL: what is erased, who answered, what is tainted by it."""

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import Connection, Row, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from services.registry import wire
from services.registry.adapters import tables
from services.registry.domain import Adapter, Erasure, ErasureReceipt, FactKind, ForgottenBy, Taint
from tailor.api.events.v1 import documents_pb2, models_pb2
from tailor.events.envelope import derive_id
from tailor.events.erased import ERASED
from tailor.events.outbox import Outbox

# Taken alone by what changes erasures, shared by what must not pass one by.
LOCK = 7_461_201


class SqlErasures:
    """The part of a transaction that erases."""

    _connection: Connection
    _outbox: Outbox

    def lock_erasures(self) -> None:
        """Nobody else erases, lifts or answers before this transaction ends."""
        self._connection.execute(select(func.pg_advisory_xact_lock(LOCK)))

    def erasure(self, erasure_id: str) -> Erasure | None:
        """An erasure, or None."""
        row = self._connection.execute(
            select(tables.erasures).where(tables.erasures.c.erasure_id == erasure_id)
        ).one_or_none()
        return None if row is None else self._to_erasure(row)

    def erasures(self, before: int | None, limit: int) -> Sequence[tuple[int, str]]:
        """Positions and ids, newest first."""
        table = tables.erasures
        query = select(table.c.position, table.c.erasure_id).order_by(table.c.position.desc()).limit(limit)
        if before is not None:
            query = query.where(table.c.position < before)
        return [(position, erasure_id) for position, erasure_id in self._connection.execute(query)]

    def save_erasure(self, erasure: Erasure) -> None:
        """Keep a new erasure."""
        self._connection.execute(
            insert(tables.erasures).values(
                erasure_id=erasure.erasure_id,
                reason=erasure.reason,
                awaits=list(erasure.awaits),
                create_time=erasure.create_time,
            )
        )
        rows = [
            {"erasure_id": erasure.erasure_id, "document_id": document_id, "lifted": False}
            for document_id in erasure.document_ids
        ]
        self._connection.execute(insert(tables.erased_documents), rows)

    def state_erased(self, erasure_id: str, document_id: str, datasets: Sequence[str], taints: Sequence[Taint]) -> None:
        """State that a document is erased."""
        message = wire.from_erased(erasure_id, document_id, datasets, taints)
        event_id = derive_id("evt", ERASED, erasure_id, document_id)
        self._outbox.add(self._connection, ERASED, document_id, message, event_id)

    def erased(self, document_ids: Sequence[str]) -> Mapping[str, str]:
        """The erasure of those documents that are erased now."""
        table = tables.erased_documents
        query = select(table.c.document_id, table.c.erasure_id).where(
            table.c.document_id.in_(document_ids), ~table.c.lifted
        )
        return dict(self._connection.execute(query).tuples().all())

    def is_erased(self, document_id: str) -> bool:
        """True where a document is erased; it stays so until this transaction ends."""
        self._connection.execute(select(func.pg_advisory_xact_lock_shared(LOCK)))
        return bool(self.erased([document_id]))

    def lift(self, erasure_id: str, document_id: str) -> None:
        """Lift a document's erasure and state it."""
        table = tables.erased_documents
        mine = (table.c.erasure_id == erasure_id, table.c.document_id == document_id)
        self._connection.execute(update(table).where(*mine).values(lifted=True))
        message = documents_pb2.DocumentErased(document_id=document_id, erasure_id=erasure_id, lifted=True)
        message.create_time.GetCurrentTime()
        event_id = derive_id("evt", ERASED, "lifted", erasure_id, document_id)
        self._outbox.add(self._connection, ERASED, document_id, message, event_id)

    def forget_document(self, document_id: str) -> Mapping[str, int]:
        """Take a document out of the catalogue; how many entries and submissions it had."""
        documents, submissions = tables.documents, tables.submissions
        entries = self._connection.execute(delete(documents).where(documents.c.document_id == document_id)).rowcount
        empty = update(submissions).where(submissions.c.document_id == document_id)
        kept = self._connection.execute(empty.values(state="erased", reason="", findings={}, payload=b"")).rowcount
        return {"entries": entries, "submissions": kept}

    def datasets_of(self, document_ids: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
        """Digests of the datasets with rows of each document, sorted."""
        found: dict[str, set[str]] = {document_id: set() for document_id in document_ids}
        for built in self._datasets():
            for document_id in found.keys() & set(built.document_ids):
                found[document_id].add(built.digest)
        return {document_id: tuple(sorted(digests)) for document_id, digests in found.items()}

    def erasure_of_dataset(self, dataset_digest: str) -> str:
        """An erasure of one of a dataset's documents; empty where none is erased."""
        for built in self._datasets():
            if built.digest == dataset_digest:
                found = self.erased(list(built.document_ids))
                if found:
                    return min(found.values())
        return ""

    def learned_from(self, datasets: Collection[str], adapters: Collection[str]) -> Sequence[Adapter]:
        """The adapters named or trained on the datasets, and all that were trained on top of them."""
        known = [wire.to_adapter(models_pb2.AdapterTrained.FromString(held)) for held in self._facts(FactKind.ADAPTER)]
        found = {one.digest for one in known if one.dataset_digest in datasets or one.digest in adapters}
        while more := {one.digest for one in known if one.parent_digest in found} - found:
            found |= more
        return [one for one in known if one.digest in found]

    def save_taint(self, taint: Taint) -> None:
        """Mark an adapter; the first erasure's mark stays, and what is retired stays so."""
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

    def tainted(self, adapter_digest: str) -> Taint | None:
        """An adapter's mark, or None."""
        table = tables.taints
        row = self._connection.execute(select(table).where(table.c.adapter_digest == adapter_digest)).one_or_none()
        return None if row is None else _to_taint(row)

    def taints(self, erasure_id: str) -> Sequence[Taint]:
        """The adapters that an erasure marked."""
        table = tables.taints
        return [
            _to_taint(row) for row in self._connection.execute(select(table).where(table.c.erasure_id == erasure_id))
        ]

    def save_forgotten(self, forgotten: ForgottenBy) -> None:
        """Keep a service's answer; the first one about a document stays."""
        row = {
            "erasure_id": forgotten.erasure_id,
            "document_id": forgotten.document_id,
            "service": forgotten.service,
            "counts": dict(forgotten.counts),
            "datasets": list(forgotten.datasets),
        }
        self._connection.execute(insert(tables.forgotten).values(row).on_conflict_do_nothing())

    def forgotten(self, erasure_id: str) -> Sequence[ForgottenBy]:
        """Every answer so far."""
        table = tables.forgotten
        query = select(table).where(table.c.erasure_id == erasure_id).order_by(table.c.service, table.c.document_id)
        return [
            ForgottenBy(row.erasure_id, row.document_id, row.service, row.counts, tuple(row.datasets))
            for row in self._connection.execute(query)
        ]

    def save_receipt(self, erasure_id: str, receipt: ErasureReceipt) -> None:
        """Keep the receipt."""
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
        answered = {(one.document_id, one.service) for one in self.forgotten(row.erasure_id)}
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

    def _datasets(self) -> list[models_pb2.DatasetBuilt]:
        return [models_pb2.DatasetBuilt.FromString(payload) for payload in self._facts(FactKind.DATASET)]

    def _facts(self, kind: FactKind) -> Sequence[bytes]:
        table = tables.facts
        return self._connection.scalars(select(table.c.payload).where(table.c.kind == kind.value)).all()


def _to_taint(row: Row) -> Taint:  # type: ignore[type-arg]
    return Taint(row.adapter_digest, row.specialist, row.erasure_id, row.retired)
