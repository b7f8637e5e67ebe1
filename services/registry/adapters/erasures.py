"""Erasures in PostgreSQL: erased documents, the services' answers, and the adapters tainted by them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace

from sqlalchemy import ARRAY, Connection, Row, String, any_, cast, delete, func, literal, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from services.registry import wire
from services.registry.adapters import tables
from services.registry.adapters.judging import forget_drawn_drafts
from services.registry.adapters.outcomes import forget_outcomes
from services.registry.domain import Adapter, Erasure, ErasureReceipt, FactKind, ForgottenBy, Taint
from tailor.api.events.v1 import models_pb2
from tailor.datasets import HELD_OUT, TRAIN, ClosedBookFiles, DatasetManifest
from tailor.events.envelope import derive_id
from tailor.events.erased import ERASED
from tailor.events.outbox import Outbox

# An advisory lock: exclusive for changes of erasures, shared for writes that must not miss one.
LOCK = 7_461_201


class SqlErasures:
    """Erased documents, what is published of them, the services' answers, and the receipts."""

    def __init__(self, connection: Connection, outbox: Outbox) -> None:
        self._connection = connection
        self._outbox = outbox

    def lock(self) -> None:
        """Nobody else erases, lifts or answers until the transaction ends."""
        self._connection.execute(select(func.pg_advisory_xact_lock(LOCK)))

    def find(self, erasure_id: str) -> Erasure | None:
        query = select(tables.erasures).where(tables.erasures.c.erasure_id == erasure_id)
        row = self._connection.execute(query).one_or_none()
        return None if row is None else self._to_erasure(row)

    def list(self, before: int | None, limit: int) -> Sequence[tuple[int, str]]:
        """Positions and ids, newest first."""
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
        if documents:
            self._connection.execute(insert(tables.erased_documents), documents)

    def add_superseded(self, erasure: Erasure) -> None:
        """Store an erasure under which documents are superseded, or add its documents to the stored one.

        It waits for answers about them, and has no receipt until then.
        """
        if self.find(erasure.erasure_id) is None:
            self.save(replace(erasure, document_ids=()))
        unsigned = {"receipt": None, "signature": None, "public_key": None}
        table = tables.erasures
        self._connection.execute(update(table).where(table.c.erasure_id == erasure.erasure_id).values(unsigned))
        documents = [
            {"erasure_id": erasure.erasure_id, "document_id": document_id, "lifted": False, "superseded": True}
            for document_id in erasure.document_ids
        ]
        self._connection.execute(insert(tables.erased_documents).on_conflict_do_nothing(), documents)

    def publish(
        self,
        erasure_id: str,
        document_id: str,
        datasets: Sequence[str],
        taints: Sequence[Taint],
        superseded_by: tuple[int, str] | None = None,
    ) -> None:
        """Publish that a document is erased; with the sequence and digest of a version, that it is superseded by that."""
        message = wire.from_erased(erasure_id, document_id, datasets, taints, superseded_by)
        event_id = derive_id("evt", ERASED, erasure_id, document_id, *datasets)
        self._outbox.add(self._connection, ERASED, document_id, message, event_id)

    def find_by_document(self, document_ids: Sequence[str]) -> Mapping[str, str]:
        """Erasure ids of those documents that are erased now."""
        table = tables.erased_documents
        query = select(table.c.document_id, table.c.erasure_id).where(
            table.c.document_id.in_(document_ids), ~table.c.lifted, ~table.c.superseded
        )
        return dict(self._connection.execute(query).all())

    def is_erased(self, document_id: str) -> bool:
        """True if a document is erased; this stays so until the transaction ends."""
        self._connection.execute(select(func.pg_advisory_xact_lock_shared(LOCK)))
        return bool(self.find_by_document([document_id]))

    def lift(self, erasure_id: str, document_id: str) -> None:
        """Lift a document's erasure and publish it."""
        table = tables.erased_documents
        entry = (table.c.erasure_id == erasure_id, table.c.document_id == document_id)
        self._connection.execute(update(table).where(*entry).values(lifted=True))
        message = wire.from_lifted(erasure_id, document_id)
        event_id = derive_id("evt", ERASED, "lifted", erasure_id, document_id)
        self._outbox.add(self._connection, ERASED, document_id, message, event_id)

    def forget_document(self, document_id: str) -> Mapping[str, int]:
        """Remove a document from the catalogue; counts of its entries and submissions."""
        documents, submissions = tables.documents, tables.submissions
        entries = self._connection.execute(delete(documents).where(documents.c.document_id == document_id)).rowcount
        empty = update(submissions).where(submissions.c.document_id == document_id)
        emptied = self._connection.execute(empty.values(state="erased", reason="", findings={}, payload=b"")).rowcount
        scores = tables.document_scores
        scored = self._connection.execute(delete(scores).where(scores.c.document_id == document_id)).rowcount
        outcomes = forget_outcomes(self._connection, document_id)
        drafts = self.forget_drawn_drafts(document_id)
        return {"entries": entries, "submissions": emptied, "scores": scored, "outcomes": outcomes, "drafts": drafts}

    def forget_drawn_drafts(self, document_id: str) -> int:
        """Take the drafts whose prompts were drawn from a document out of the experts' queue; the number of drafts."""
        return forget_drawn_drafts(self._connection, document_id)

    def save_answer(self, answer: ForgottenBy) -> None:
        """Store a service's answer. The first answer about a document stays."""
        self._connection.execute(insert(tables.forgotten).values(asdict(answer)).on_conflict_do_nothing())

    def list_answers(self, erasure_id: str) -> Sequence[ForgottenBy]:
        table = tables.forgotten
        query = select(table).where(table.c.erasure_id == erasure_id).order_by(table.c.service, table.c.document_id)
        rows = self._connection.execute(query).mappings()
        return [ForgottenBy(**{**row, "datasets": tuple(row["datasets"])}) for row in rows]

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


class SqlLineage:
    """What was trained on which documents, and the adapters that learned from erased ones."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def save_documents(self, dataset_digest: str, document_ids: Sequence[str]) -> None:
        """Add documents of a dataset. Idempotent."""
        # One array as the only parameter, because a statement has at most 65,535 parameters.
        values = select(literal(dataset_digest), func.unnest(cast([*document_ids], ARRAY(String))))
        statement = insert(tables.dataset_documents).from_select(["digest", "document_id"], values)
        self._connection.execute(statement.on_conflict_do_nothing())

    def save_dataset(self, dataset_digest: str, manifest: DatasetManifest) -> None:
        """Record that all documents of a dataset have been saved."""
        row = {
            "digest": dataset_digest,
            "skipped": {reason: asdict(count) for reason, count in manifest.skipped.items()},
            "train_tokens": manifest.split(TRAIN).tokens,
            "held_out_tokens": manifest.split(HELD_OUT).tokens,
            "closed_book": _count_closed_book(manifest.closed_book),
            "imports": [asdict(entry) for entry in manifest.imports],
            "languages": {tag: asdict(count) for tag, count in manifest.languages.items()},
            "teacher_tokens": manifest.teacher_tokens,
        }
        self._connection.execute(insert(tables.datasets).values(row).on_conflict_do_nothing())

    def has_dataset(self, dataset_digest: str) -> bool:
        """True if all documents of a dataset have been saved."""
        table = tables.datasets
        return self._connection.scalar(select(table.c.digest).where(table.c.digest == dataset_digest)) is not None

    def find_datasets(self, document_ids: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
        """Sorted digests of the datasets with rows of each document."""
        table = tables.dataset_documents
        query = select(table).where(table.c.document_id == any_(cast([*document_ids], ARRAY(String))))
        digests: dict[str, list[str]] = {document_id: [] for document_id in document_ids}
        for digest, document_id in self._connection.execute(query.order_by(table.c.digest)):
            digests[document_id].append(digest)
        return {document_id: tuple(values) for document_id, values in digests.items()}

    def save_superseded(self, datasets: Collection[str], erasure_id: str) -> None:
        """Record that datasets have rows of a superseded version. The first erasure of a dataset stays."""
        rows = [{"digest": digest, "erasure_id": erasure_id} for digest in sorted(datasets)]
        if rows:
            self._connection.execute(insert(tables.superseded_datasets).on_conflict_do_nothing(), rows)

    def find_superseding(self, dataset_digest: str) -> str:
        """The erasure under which a dataset was superseded; empty if none."""
        table = tables.superseded_datasets
        return self._connection.scalar(select(table.c.erasure_id).where(table.c.digest == dataset_digest)) or ""

    def find_erased(self, dataset_digest: str) -> Mapping[str, str]:
        """The documents of a dataset that are erased now, with their erasure ids."""
        documents, erased = tables.dataset_documents, tables.erased_documents
        query = (
            select(erased.c.document_id, erased.c.erasure_id)
            .join(documents, documents.c.document_id == erased.c.document_id)
            .where(documents.c.digest == dataset_digest, ~erased.c.lifted, ~erased.c.superseded)
            .order_by(erased.c.document_id)
        )
        return dict(self._connection.execute(query).all())

    def save_draft_adapters(self, dataset_digest: str, adapters: Collection[str]) -> None:
        """Add adapters whose drafts are among a dataset's pairs. Idempotent."""
        rows = [{"digest": dataset_digest, "adapter_digest": adapter} for adapter in adapters]
        if rows:
            self._connection.execute(insert(tables.dataset_adapters).on_conflict_do_nothing(), rows)

    def find_descendants(self, datasets: Collection[str], adapters: Collection[str]) -> Sequence[Adapter]:
        """The named adapters, those trained on the datasets, and all that came from them.

        An adapter comes from its parent, its reward adapter, the adapter merged into its base, and those whose drafts it learned from.
        """
        table, facts, drafts = tables.adapters, tables.facts, tables.dataset_adapters
        trained = table.c.dataset_digest == any_(cast([*datasets], ARRAY(String)))
        named = table.c.digest == any_(cast([*adapters], ARRAY(String)))
        tree = select(table.c.digest).where(or_(trained, named)).cte("tree", recursive=True)
        learned = select(drafts.c.digest).where(drafts.c.adapter_digest == tree.c.digest).correlate(tree)
        origins = (table.c.parent_digest, table.c.reward_digest, table.c.base_adapter_digest)
        comes_from = or_(*(origin == tree.c.digest for origin in origins), table.c.dataset_digest.in_(learned))
        tree = tree.union(select(table.c.digest).join(tree, comes_from))
        query = select(facts.c.payload).join(tree, facts.c.fact_id == tree.c.digest)
        payloads = self._connection.scalars(
            query.where(facts.c.kind == FactKind.ADAPTER.value).order_by(facts.c.fact_id)
        )
        return [wire.to_adapter(models_pb2.AdapterTrained.FromString(payload)) for payload in payloads]

    def find_origin_taints(self, adapter: Adapter) -> Sequence[Taint]:
        """The taints of what an adapter comes from, as `find_descendants` has it."""
        origins = {adapter.parent_digest, adapter.reward_digest, adapter.base_adapter_digest} - {""}
        query = select(tables.taints).where(tables.taints.c.adapter_digest.in_(origins))
        direct = [_to_taint(row) for row in self._connection.execute(query.order_by(tables.taints.c.adapter_digest))]
        return [*direct, *self.find_draft_taints(adapter.dataset_digest)]

    def find_draft_taints(self, dataset_digest: str) -> Sequence[Taint]:
        """The taints of the adapters whose drafts are among a dataset's pairs."""
        taints, drafts = tables.taints, tables.dataset_adapters
        query = select(taints).join(drafts, drafts.c.adapter_digest == taints.c.adapter_digest)
        query = query.where(drafts.c.digest == dataset_digest).order_by(taints.c.adapter_digest)
        return [_to_taint(row) for row in self._connection.execute(query)]

    def save_taint(self, taint: Taint) -> None:
        """Mark an adapter. The first erasure's mark stays; a retired adapter stays retired."""
        table = tables.taints
        statement = insert(table).values(asdict(taint))
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


def _count_closed_book(closed_book: ClosedBookFiles) -> dict[str, int]:
    """The counts of a closed-book set by the names of the API; empty without one."""
    counts = {
        "documents": closed_book.documents,
        "questions": closed_book.rows,
        "beyond_limit": closed_book.beyond_limit,
        "without_questions": closed_book.without_questions,
    }
    return counts if any(counts.values()) else {}


def _to_taint(row: Row) -> Taint:  # type: ignore[type-arg]
    return Taint(row.adapter_digest, row.specialist, row.erasure_id, row.retired)
