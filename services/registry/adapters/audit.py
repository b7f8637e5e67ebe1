"""The audit, counted by PostgreSQL: the result is as small for 100,000 documents as for 10."""

import statistics
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Engine,
    Float,
    Integer,
    Row,
    and_,
    cast,
    exists,
    func,
    literal,
    select,
)

from services.registry.adapters import tables
from services.registry.domain import FactKind
from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import audit_pb2
from tailor.codec import encode
from tailor.rows import Rows
from tailor.sql import transaction
from tailor.values import Selection

# Adapters on top of each other, from the one that serves to the one that was trained on documents.
MAX_PARENTS = 20
# Datasets of a specialist among which the newest one of documents is looked for; the others are of judgements.
NEWEST_DATASETS = 50
CHARS_PER_TOKEN = 4
# A small model on an ordinary CPU, until a run reports its speed.
ASSUMED_TOKENS_PER_SECOND = 100.0
MAX_GROUPS = 50
MAX_REJECTIONS = 100
NEWEST_RUNS = 50
# A run on a busy machine must not decide, and a slower device of last year neither.
MEASURED_RUNS = 5
PERCENTILES = (5, 25, 50, 75, 95, 99)
EDGES = (0, 250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000, 512_000)
DUPLICATE = "DUPLICATE"
FIELDS: Mapping[audit_pb2.AuditField.ValueType, str] = {
    audit_pb2.AUDIT_FIELD_SOURCE: "source",
    audit_pb2.AUDIT_FIELD_DEPARTMENT: "department",
    audit_pb2.AUDIT_FIELD_PUBLISHER: "publisher",
    audit_pb2.AUDIT_FIELD_FORMAT: "format",
    audit_pb2.AUDIT_FIELD_LANGUAGE: "language",
}


class AuditQueries:
    """The counting part of the read side."""

    _engine: Engine

    def audit(self, specialist: str, selection: Selection) -> audit_pb2.GetAuditResponse:
        """All counts over the documents that a selection admits, from one snapshot."""
        response = audit_pb2.GetAuditResponse()
        with transaction(self._engine.execution_options(isolation_level="REPEATABLE READ")) as connection:
            response.totals.CopyFrom(_totals(connection, selection))
            is_new = _is_new(connection, specialist)
            response.dimensions.extend(_dimension(connection, selection, field, is_new) for field in FIELDS)
            response.lengths.CopyFrom(_lengths(connection, selection))
            response.findings.extend(_findings(connection, selection, response.totals.characters))
            response.rejections.extend(_rejections(connection, selection))
            response.duplicates = _duplicates(connection, selection)
            response.estimate.CopyFrom(_estimate(connection, specialist, response.totals.characters))
            response.datasets.extend(audited_datasets(connection, specialist))
            response.imports.extend(_imports(connection, specialist))
            response.create_time.FromDatetime(_now(connection))
        return response


def _admitted(columns: Mapping[str, ColumnElement[str]], selection: Selection) -> ColumnElement[bool]:
    return and_(literal(True), *(columns[name].in_(values) for name, values in selection.admitted.items()))


def _documents(selection: Selection) -> ColumnElement[bool]:
    return _admitted(dict(tables.documents.c), selection)


def _rejected(selection: Selection) -> ColumnElement[bool]:
    table = tables.submissions
    return and_(table.c.state == "rejected", _admitted(dict(table.c), selection))


def _values() -> ColumnElement[int]:
    """Personal values of one document."""
    entries = func.jsonb_each_text(tables.documents.c.findings).table_valued("key", "value")
    return select(func.coalesce(func.sum(cast(entries.c.value, BigInteger)), 0)).select_from(entries).scalar_subquery()


def _sums() -> tuple[ColumnElement[int], ColumnElement[int], ColumnElement[int]]:
    table = tables.documents
    characters = cast(func.coalesce(func.sum(table.c.char_count), 0), BigInteger)
    findings = cast(func.coalesce(func.sum(_values()), 0), BigInteger)
    return func.count().label("documents"), characters.label("characters"), findings.label("findings")


def _totals(connection: Connection, selection: Selection) -> audit_pb2.AuditTotals:
    query = select(*_sums()).select_from(tables.documents).where(_documents(selection))
    documents, characters, findings = connection.execute(query).one()
    entries = func.jsonb_each_text(tables.documents.c.removed).table_valued("key", "value")
    counts = (
        select(entries.c.key, cast(func.sum(cast(entries.c.value, BigInteger)), BigInteger))
        .select_from(tables.documents)
        .join(entries, literal(True))
        .where(_documents(selection))
        .group_by(entries.c.key)
    )
    removed: dict[str, int] = dict(connection.execute(counts).all())
    return audit_pb2.AuditTotals(documents=documents, characters=characters, findings=findings, removed=removed)


def _is_new(connection: Connection, specialist: str) -> ColumnElement[bool]:
    """Whether a version of a document passed since the specialist's newest dataset of documents."""
    newest = find_newest(connection, specialist) if specialist else None
    if newest is None:
        return literal(False)
    submissions = tables.submissions.c
    is_of_document = submissions.document_id == tables.documents.c.document_id
    passed = (submissions.state == "anonymized", submissions.create_time > newest.create_time.ToDatetime(tzinfo=UTC))
    return exists().where(is_of_document, *passed)


def _dimension(
    connection: Connection,
    selection: Selection,
    field: audit_pb2.AuditField.ValueType,
    is_new: ColumnElement[bool],
) -> audit_pb2.AuditDimension:
    column = tables.documents.c[FIELDS[field]]
    grouped = (
        select(column.label("value"), *_sums(), func.count().filter(is_new).label("new_documents"), func.count().over())
        .where(_documents(selection))
        .group_by(column)
    )
    rows = connection.execute(grouped.order_by(func.count().desc(), column).limit(MAX_GROUPS)).all()
    groups = [encode(audit_pb2.AuditGroup, row) for row in rows]
    values = rows[0][-1] if rows else 0
    return audit_pb2.AuditDimension(field=field, groups=groups, more_values=values - len(groups))


def _lengths(connection: Connection, selection: Selection) -> audit_pb2.AuditLengths:
    length, admitted = tables.documents.c.char_count, _documents(selection)
    shares = func.percentile_cont([percent / 100 for percent in PERCENTILES]).within_group(length)
    query = select(func.min(length), func.max(length), cast(func.avg(length), Float), shares)
    least, most, mean, percentiles = connection.execute(query.where(admitted)).one()
    if least is None:
        return audit_pb2.AuditLengths()
    place = cast(func.width_bucket(length, list(EDGES)), Integer).label("place")
    counts = dict(connection.execute(select(place, func.count()).where(admitted).group_by(place)).all())
    ends = (*EDGES[1:], 0)
    return audit_pb2.AuditLengths(
        min_chars=least,
        max_chars=most,
        mean_chars=mean,
        percentiles=dict(zip(PERCENTILES, percentiles, strict=True)),
        histogram=[
            audit_pb2.AuditBin(
                from_chars=EDGES[number - 1], below_chars=ends[number - 1], documents=counts.get(number, 0)
            )
            for number in range(min(counts), max(counts) + 1)
        ],
    )


def _findings(connection: Connection, selection: Selection, characters: int) -> list[audit_pb2.AuditFinding]:
    entries = func.jsonb_each_text(tables.documents.c.findings).table_valued("key", "value")
    values = cast(func.sum(cast(entries.c.value, BigInteger)), BigInteger)
    query = (
        select(entries.c.key, values, func.count())
        .select_from(tables.documents)
        .join(entries, literal(True))
        .where(_documents(selection), cast(entries.c.value, BigInteger) > 0)
        .group_by(entries.c.key)
        .order_by(values.desc(), entries.c.key)
    )
    return [
        audit_pb2.AuditFinding(
            entity_type=name,
            values=count,
            documents=documents,
            per_thousand_chars=1000 * count / characters if characters else 0.0,
        )
        for name, count, documents in connection.execute(query)
    ]


def _rejections(connection: Connection, selection: Selection) -> list[audit_pb2.AuditRejection]:
    table = tables.submissions
    keys = (table.c.reason, table.c.format, table.c.stage)
    query = select(*keys, func.count().label("submissions")).where(_rejected(selection)).group_by(*keys)
    rows = connection.execute(query.order_by(func.count().desc(), *keys).limit(MAX_REJECTIONS))
    return [encode(audit_pb2.AuditRejection, row) for row in rows]


def _duplicates(connection: Connection, selection: Selection) -> int:
    table = tables.submissions
    query = select(func.count()).where(_rejected(selection), table.c.reason == DUPLICATE)
    return connection.scalar(query) or 0


def _estimate(connection: Connection, specialist: str, characters: int) -> audit_pb2.AuditEstimate:
    tokens = -(-characters // CHARS_PER_TOKEN)
    alike = _list_alike_runs(connection, specialist)
    speed = statistics.median(run.tokens_per_second for run in alike) if alike else ASSUMED_TOKENS_PER_SECOND
    run_id = alike[0].run_id if alike else ""
    return audit_pb2.AuditEstimate(
        tokens=tokens, tokens_per_second=speed, run_id=run_id, runs=len(alike), seconds=tokens / speed
    )


def _list_alike_runs(connection: Connection, specialist: str) -> list[models_pb2.RunProgressed]:
    """The newest run that reported a speed, and others before it with the same base, method and device."""
    facts, of_specialist = Rows(connection, tables.facts, Row), {"specialist": specialist} if specialist else {}
    newest = facts.newest_first(NEWEST_RUNS, ~facts.c.fact_id.endswith("/failed"), kind=FactKind.RUN, **of_specialist)
    progress = (models_pb2.RunProgressed.FromString(row.payload) for row in newest)
    runs = [run for run in progress if run.tokens_per_second > 0]
    alike = [run for run in runs if _conditions(run) == _conditions(runs[0])]
    return alike[:MEASURED_RUNS]


def _conditions(run: models_pb2.RunProgressed) -> tuple[str, str, str]:
    return run.base, run.method, run.cost.device


def _imports(connection: Connection, specialist: str) -> list[audit_pb2.AuditImport]:
    """The imports of the newest dataset of documents, of one specialist or of each."""
    facts, datasets = tables.facts.c, tables.datasets.c
    query = (
        select(facts.specialist, facts.payload, datasets.imports)
        # The id of a dataset is `DIGEST/SPECIALIST`.
        .join(tables.datasets, datasets.digest == func.split_part(facts.fact_id, "/", 1))
        .where(facts.kind == FactKind.DATASET.value)
        .order_by(facts.specialist, facts.position.desc())
    )
    newest: dict[str, list[audit_pb2.AuditImport]] = {}
    for name, payload, imports in connection.execute(
        query.where(facts.specialist == specialist) if specialist else query
    ):
        built = models_pb2.DatasetBuilt.FromString(payload)
        if name not in newest and built.kind == models_pb2.DATASET_KIND_SFT:
            terms = {"specialist": name, "dataset_digest": built.digest}
            newest[name] = [audit_pb2.AuditImport(**terms, **entry) for entry in imports]
    return [entry for entries in newest.values() for entry in entries]


def _now(connection: Connection) -> datetime:
    return connection.execute(select(func.now())).scalar_one()


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
        yield from datasets


def _find_serving(connection: Connection, specialist: str) -> str:
    """The adapter that serves; empty if none does."""
    serving = Rows(connection, tables.servings, Row, "generation").newest(specialist=specialist)
    return "" if serving is None else str(serving.adapter_digest)


def find_newest(connection: Connection, specialist: str) -> models_pb2.DatasetBuilt | None:
    """The specialist's newest dataset of documents."""
    facts = Rows(connection, tables.facts, Row)
    newest = facts.newest_first(NEWEST_DATASETS, kind=FactKind.DATASET, specialist=specialist)
    built = (models_pb2.DatasetBuilt.FromString(row.payload) for row in newest)
    return next((dataset for dataset in built if dataset.HasField("figures")), None)


def _find_dataset(connection: Connection, specialist: str, adapter_digest: str) -> models_pb2.DatasetBuilt | None:
    """The dataset that the adapter was trained on, if it is one of documents; else that of the adapter below it."""
    adapters, facts = (Rows(connection, table, Row) for table in (tables.adapters, tables.facts))
    for _ in range(MAX_PARENTS):
        adapter = adapters.find(digest=adapter_digest)
        if adapter is None:
            return None
        fact_id = f"{adapter.dataset_digest}/{specialist}"
        payload = facts.value(facts.c.payload, kind=FactKind.DATASET, fact_id=fact_id)
        built = models_pb2.DatasetBuilt.FromString(payload or b"")
        if built.HasField("figures"):
            return built
        adapter_digest = adapter.parent_digest
    return None


def _describe(
    connection: Connection, specialist: str, adapter_digest: str, built: models_pb2.DatasetBuilt
) -> audit_pb2.AuditDataset:
    """The dataset's figures; what it leaves out is known once its manifest was read."""
    row = Rows(connection, tables.datasets, Row).find(digest=built.digest)
    skipped = sorted(row.skipped.items(), key=lambda item: (-item[1]["characters"], item[0])) if row else ()
    return audit_pb2.AuditDataset(
        specialist=specialist,
        adapter_digest=adapter_digest,
        dataset_digest=built.digest,
        documents=built.documents,
        figures=built.figures,
        skipped=[audit_pb2.AuditSkipped(reason=reason, **count) for reason, count in skipped],
    )
