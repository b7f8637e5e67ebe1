"""Erasures in PostgreSQL: erased documents, the services' answers, and the adapters tainted by them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import ARRAY, Connection, Row, String, any_, case, cast, func, literal, or_, select, true
from sqlalchemy.dialects.postgresql import insert

from services.registry import wire
from services.registry.adapters import tables
from services.registry.adapters.expert_decisions import SqlExpertDecisions
from services.registry.adapters.outcomes import forget_outcomes
from services.registry.domain import Adapter, Erasure, ErasureReceipt, FactKind, ForgottenBy, Taint
from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1.registry_pb2 import ListErasuresRequest
from tailor.datasets import HELD_OUT, TRAIN, DatasetManifest
from tailor.events.envelope import derive_id
from tailor.events.erased import ERASED
from tailor.events.outbox import Outbox
from tailor.listing import Listing, ListPage
from tailor.rows import Rows
from tailor.sql import acquire_lock, acquire_shared_lock

# An advisory lock: exclusive for changes of erasures, shared for writes that must not miss one.
LOCK = 7_461_201


class SqlErasures(Rows[Erasure]):
    """Erased documents, what is published of them, the services' answers, and the receipts."""

    def __init__(self, connection: Connection, outbox: Outbox) -> None:
        super().__init__(connection, tables.erasures, Erasure)
        self._connection = connection
        self._outbox = outbox
        self._documents = Rows(connection, tables.erased_documents, Row)
        self.answers = Rows(connection, tables.forgotten, ForgottenBy)

    def read(self, row: Row[Any], **given: Any) -> Erasure:
        documents = self._documents.all(erasure_id=row.erasure_id, order=self._documents.c.document_id)
        ids = tuple(document.document_id for document in documents)
        answered = {(answer.document_id, answer.service) for answer in self.list_answers(row.erasure_id)}
        waiting = {
            service for service in row.awaits if any((document_id, service) not in answered for document_id in ids)
        }
        lifted = tuple(document.document_id for document in documents if document.lifted)
        return super().read(row, document_ids=ids, waiting_for=tuple(sorted(waiting)), lifted=lifted, **given)

    def acquire_lock(self) -> None:
        """Nobody else erases, lifts or answers until the transaction ends."""
        acquire_lock(self._connection, LOCK)

    def save(self, erasure: Erasure) -> None:
        self.insert(erasure)
        self._save_documents(erasure)

    def _save_documents(self, erasure: Erasure, *, superseded: bool = False) -> None:
        terms = {"erasure_id": erasure.erasure_id, "superseded": superseded}
        self._documents.add_all({"document_id": document_id, **terms} for document_id in erasure.document_ids)

    def add_superseded(self, erasure: Erasure) -> None:
        """Store an erasure under which documents are superseded, or add its documents to the stored one.

        It waits for answers about them, and has no receipt until then.
        """
        self.add(erasure)
        self.save_receipt(erasure.erasure_id, None)
        self._save_documents(erasure, superseded=True)

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
        erased = self._documents.all(document_id=document_ids, lifted=False, superseded=False)
        return {document.document_id: document.erasure_id for document in erased}

    def is_erased(self, document_id: str) -> bool:
        """True if a document is erased; this stays so until the transaction ends."""
        acquire_shared_lock(self._connection, LOCK)
        return bool(self.find_by_document([document_id]))

    def lift(self, erasure_id: str, document_id: str) -> None:
        """Lift a document's erasure and publish it."""
        self._documents.update({"lifted": True}, erasure_id=erasure_id, document_id=document_id)
        message = wire.from_lifted(erasure_id, document_id)
        event_id = derive_id("evt", ERASED, "lifted", erasure_id, document_id)
        self._outbox.add(self._connection, ERASED, document_id, message, event_id)

    def forget_document(self, document_id: str) -> Mapping[str, int]:
        """Remove a document from the catalogue; counts of its entries and submissions."""
        documents, submissions = (
            Rows(self._connection, table, Row) for table in (tables.documents, tables.submissions)
        )
        empty = {"state": "erased", "reason": "", "findings": {}, "payload": b"", "listed": {}, "searched": ""}
        return {
            "entries": documents.delete(document_id=document_id),
            "submissions": submissions.update(empty, document_id=document_id),
            "outcomes": forget_outcomes(self._connection, document_id),
            "drafts": SqlExpertDecisions(self._connection).forget_drawn_drafts(document_id),
        }

    def list_page(self, request: ListErasuresRequest) -> ListPage[Erasure]:
        """A page of erasures, newest first."""
        documents, answers, table = tables.erased_documents, tables.forgotten, self.c
        of_erasure = documents.c.erasure_id == table.erasure_id
        services = func.json_array_elements_text(table.awaits).table_valued("service").render_derived()
        is_answer = (
            answers.c.erasure_id == documents.c.erasure_id,
            answers.c.document_id == documents.c.document_id,
            answers.c.service == services.c.service,
        )
        waiting = ~select(answers.c.service).where(*is_answer).exists()
        columns = {
            "documents": select(func.count()).where(of_erasure),
            "document_ids": select(func.string_agg(documents.c.document_id, " ")).where(of_erasure),
            "waiting_for": select(func.string_agg(services.c.service, " "))
            .select_from(documents.join(services, true()))
            .where(of_erasure, waiting),
        }
        scalars: dict[str, Any] = {name: query.scalar_subquery() for name, query in columns.items()}
        scalars["state"] = case((table.receipt_body.is_(None), "waiting"), else_="succeeded")
        return Listing(self, request, table.position, descending=True, columns=scalars).page(self.select())

    def list_answers(self, erasure_id: str) -> Sequence[ForgottenBy]:
        order = (self.answers.c.service, self.answers.c.document_id)
        return self.answers.all(erasure_id=erasure_id, order=order)

    def save_receipt(self, erasure_id: str, receipt: ErasureReceipt | None) -> None:
        columns = dict.fromkeys(("receipt_body", "receipt_signature", "receipt_public_key"))
        signed = {} if receipt is None else {f"receipt_{name}": value for name, value in asdict(receipt).items()}
        self.update(columns | signed, erasure_id=erasure_id)


class SqlLineage:
    """What was trained on which documents, and the adapters that learned from erased ones."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.taints = Rows(connection, tables.taints, Taint)
        self.datasets = Rows(connection, tables.datasets, Row)
        self._documents = Rows(connection, tables.dataset_documents, Row)
        self._superseded = Rows(connection, tables.superseded_datasets, Row)
        self._draft_adapters = Rows(connection, tables.dataset_adapters, Row)

    def save_documents(self, dataset_digest: str, document_ids: Sequence[str]) -> None:
        """Add documents of a dataset. Idempotent."""
        # One array as the only parameter, because a statement has at most 65,535 parameters.
        values = select(literal(dataset_digest), func.unnest(cast([*document_ids], ARRAY(String))))
        statement = insert(tables.dataset_documents).from_select(["digest", "document_id"], values)
        self._connection.execute(statement.on_conflict_do_nothing())

    def save_dataset(self, dataset_digest: str, manifest: DatasetManifest) -> None:
        """Record that all documents of a dataset have been saved."""
        self.datasets.add(
            digest=dataset_digest,
            skipped=manifest.skipped,
            train_tokens=manifest.split(TRAIN).tokens,
            held_out_tokens=manifest.split(HELD_OUT).tokens,
            imports=manifest.imports,
            languages=manifest.languages,
            teacher_tokens=manifest.teacher_tokens,
        )

    def find_datasets(self, document_ids: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
        """Sorted digests of the datasets with rows of each document."""
        digests: dict[str, list[str]] = {document_id: [] for document_id in document_ids}
        for row in self._documents.all(document_id=[*document_ids], order=self._documents.c.digest):
            digests[row.document_id].append(row.digest)
        return {document_id: tuple(values) for document_id, values in digests.items()}

    def save_superseded(self, datasets: Collection[str], erasure_id: str) -> None:
        """Record that datasets have rows of a superseded version. The first erasure of a dataset stays."""
        self._superseded.add_all({"digest": digest, "erasure_id": erasure_id} for digest in sorted(datasets))

    def find_superseding(self, dataset_digest: str) -> str:
        """The erasure under which a dataset was superseded; empty if none."""
        return self._superseded.value(self._superseded.c.erasure_id, digest=dataset_digest) or ""

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
        self._draft_adapters.add_all({"digest": dataset_digest, "adapter_digest": adapter} for adapter in adapters)

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
        direct = self.taints.all(adapter_digest=origins, order=self.taints.c.adapter_digest)
        return [*direct, *self.find_draft_taints(adapter.dataset_digest)]

    def find_draft_taints(self, dataset_digest: str) -> Sequence[Taint]:
        """The taints of the adapters whose drafts are among a dataset's pairs."""
        taints, drafts = self.taints.c, self._draft_adapters.c
        learned = select(drafts.adapter_digest).where(drafts.digest == dataset_digest)
        return self.taints.all(taints.adapter_digest.in_(learned), order=taints.adapter_digest)

    def save_taint(self, taint: Taint) -> None:
        """Mark an adapter. The first erasure's mark stays; a retired adapter stays retired."""
        retired = self.taints.c.retired | self.taints.new.retired
        self.taints.upsert(taint, keep=("specialist", "erasure_id"), computed={"retired": retired})
