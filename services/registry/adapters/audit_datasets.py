"""The datasets behind the adapters that serve, and the newest ones, for the audit."""

from collections.abc import Iterator

from sqlalchemy import Connection, select

from services.registry.adapters import tables
from services.registry.adapters.scores import sum_scores
from services.registry.domain import FactKind
from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import audit_pb2

# Adapters on top of each other, from the one that serves to the one that was trained on documents.
MAX_PARENTS = 20
# Datasets of a specialist among which the newest one of documents is looked for; the others are of judgements.
NEWEST_DATASETS = 50


def audited_datasets(connection: Connection, specialist: str) -> Iterator[audit_pb2.AuditDataset]:
    """The datasets of documents of each specialist by name, or of one: that behind its serving adapter, then the newest one."""
    table = tables.specialists.c
    query = select(table.name).where(~table.deleted).order_by(table.name)
    for name in connection.scalars(query.where(table.name == specialist) if specialist else query).all():
        adapter_digest = _find_serving(connection, name)
        behind = _find_dataset(connection, name, adapter_digest) if adapter_digest else None
        newest = find_newest(connection, name)
        datasets = [_describe(connection, name, adapter_digest, behind)] if behind else []
        if newest is not None and (behind is None or behind.digest != newest.digest):
            datasets.append(_describe(connection, name, "", newest))
        if datasets:
            # They are the specialist's, so they stand once.
            datasets[0].knowledge.CopyFrom(sum_scores(connection, name))
        yield from datasets


def _find_serving(connection: Connection, specialist: str) -> str:
    """The adapter that serves; empty if none does."""
    table = tables.servings.c
    query = select(table.adapter_digest).where(table.specialist == specialist).order_by(table.generation.desc())
    return connection.scalar(query.limit(1)) or ""


def find_newest(connection: Connection, specialist: str) -> models_pb2.DatasetBuilt | None:
    """The specialist's newest dataset of documents."""
    facts = tables.facts.c
    query = select(facts.payload).where(facts.kind == FactKind.DATASET.value, facts.specialist == specialist)
    payloads = connection.scalars(query.order_by(facts.position.desc()).limit(NEWEST_DATASETS))
    built = map(models_pb2.DatasetBuilt.FromString, payloads)
    return next((dataset for dataset in built if dataset.HasField("figures")), None)


def _find_dataset(connection: Connection, specialist: str, adapter_digest: str) -> models_pb2.DatasetBuilt | None:
    """The dataset that the adapter was trained on, if it is one of documents; else that of the adapter below it."""
    adapters, facts = tables.adapters, tables.facts
    for _ in range(MAX_PARENTS):
        query = select(adapters.c.dataset_digest, adapters.c.parent_digest).where(adapters.c.digest == adapter_digest)
        row = connection.execute(query).one_or_none()
        if row is None:
            return None
        fact = select(facts.c.payload).where(
            facts.c.kind == FactKind.DATASET.value, facts.c.fact_id == f"{row.dataset_digest}/{specialist}"
        )
        built = models_pb2.DatasetBuilt.FromString(connection.scalar(fact) or b"")
        if built.HasField("figures"):
            return built
        adapter_digest = row.parent_digest
    return None


def _describe(
    connection: Connection, specialist: str, adapter_digest: str, built: models_pb2.DatasetBuilt
) -> audit_pb2.AuditDataset:
    """The dataset's figures; what it leaves out and its quiz are known once its manifest was read."""
    row = connection.execute(select(tables.datasets).where(tables.datasets.c.digest == built.digest)).one_or_none()
    left_out = sorted(row.left_out.items(), key=lambda item: (-item[1]["characters"], item[0])) if row else ()
    quiz = row.quiz if row else {}
    return audit_pb2.AuditDataset(
        specialist=specialist,
        adapter_digest=adapter_digest,
        dataset_digest=built.digest,
        documents=built.documents,
        figures=built.figures,
        left_out=[audit_pb2.AuditLeftOut(reason=reason, **count) for reason, count in left_out],
        quiz_documents=quiz.get("documents", 0),
        quiz_questions=quiz.get("questions", 0),
    )
