"""The datasets behind the adapters that serve, for the audit."""

from collections.abc import Iterator

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import distinct_on

from services.registry.adapters import tables
from services.registry.adapters.scores import sum_scores
from services.registry.domain import FactKind
from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import audit_pb2

# Adapters on top of each other, from the one that serves to the one that was trained on documents.
MAX_PARENTS = 20


def serving_datasets(connection: Connection, specialist: str) -> Iterator[audit_pb2.AuditDataset]:
    """The dataset of documents behind each serving adapter by specialist, or behind that of one specialist."""
    table = tables.servings
    query = select(table.c.specialist, table.c.adapter_digest)
    if specialist:
        query = query.where(table.c.specialist == specialist)
    newest = query.ext(distinct_on(table.c.specialist)).order_by(table.c.specialist, table.c.generation.desc())
    for name, adapter_digest in connection.execute(newest).all():
        built = _find_dataset(connection, name, adapter_digest) if adapter_digest else None
        if built is not None:
            yield _describe(connection, name, adapter_digest, built)


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
        knowledge=sum_scores(connection, specialist),
    )
