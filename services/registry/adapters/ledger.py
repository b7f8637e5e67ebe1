"""What the ledger adds up, in PostgreSQL."""

from collections.abc import Collection, Mapping
from datetime import datetime

from sqlalchemy import BigInteger, Connection, Engine, Row, case, cast, func, select
from sqlalchemy.dialects.postgresql import aggregate_order_by

from services.registry.adapters import tables
from services.registry.domain import Draft, FactKind
from services.registry.rules.ledger import JudgementUse, JudgeUse, Month, RunUse, ServingUse, StorageUse, TeacherUse
from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import reports_pb2
from tailor.listing import Listing, ListPage
from tailor.rows import Rows
from tailor.sql import transaction
from tailor.wire import to_datetime

MAX_DEVICE_CHARS = 128
FAILED = "/failed"
# The newest facts of a kind that are read.
MAX_FACTS = 50_000

CostFact = models_pb2.RunProgressed | models_pb2.RunFailed | models_pb2.AdapterTrained


class SqlUsage:
    """What the ledger adds up. Saving something again has no effect."""

    def __init__(self, connection: Connection) -> None:
        self._servings = Rows(connection, tables.serving_uses, Row)
        self._files = Rows(connection, tables.stored_files, Row)
        self.judging_times = Rows(connection, tables.judging_times, Row)

    def save_serving(self, draft: Draft, now: datetime) -> None:
        """Store the device time of a draft, if it has any. `now` counts for a draft without a time."""
        if draft.specialist and draft.compute_seconds > 0:
            self._servings.add(
                draft_id=draft.draft_id,
                specialist=draft.specialist,
                device=draft.compute_device[:MAX_DEVICE_CHARS],
                seconds=draft.compute_seconds,
                create_time=draft.create_time or now,
            )

    def save_files(self, owner: str, specialist: str, files: Mapping[str, int], create_time: datetime) -> None:
        """Store the bytes, by SHA-256, of the files of a dataset or adapter."""
        terms = {"owner": owner, "specialist": specialist, "create_time": create_time}
        self._files.add_all({"sha256": name, "size_bytes": size, **terms} for name, size in sorted(files.items()))

    def mark_deleted(self, owners: Collection[str], now: datetime) -> None:
        """Record that the files of datasets or adapters are no longer stored. The first time stays."""
        self._files.update({"delete_time": now}, owner=[*owners], delete_time=None)


class LedgerQueries:
    """Reads the use of a specialist from the facts of other services."""

    _engine: Engine

    def run_uses(self, specialist: str) -> list[RunUse]:
        """The cost in each report of a run. Reports from before the run was planned have none and are left out."""
        messages = (_to_cost_fact(*row) for row in self._read_facts(specialist, (FactKind.RUN, FactKind.ADAPTER)))
        return [_to_use(message) for message in messages if message.HasField("cost")]

    def teacher_uses(self, specialist: str) -> list[TeacherUse]:
        """The teacher's tokens at the time of each dataset."""
        built = (
            models_pb2.DatasetBuilt.FromString(row[2]) for row in self._read_facts(specialist, (FactKind.DATASET,))
        )
        moments = {message.digest: to_datetime(message.create_time) for message in built}
        datasets = Rows(self._engine, tables.datasets, Row)
        spent = datasets.all(datasets.c.teacher_tokens > 0)
        return [TeacherUse(row.teacher_tokens, moments[row.digest]) for row in spent if row.digest in moments]

    def judge_uses(self, specialist: str) -> list[JudgeUse]:
        """The judge model's tokens for each evaluation of the specialist's adapters."""
        rows = Rows(self._engine, tables.evaluations, Row).newest_first(MAX_FACTS, specialist=specialist)
        return [JudgeUse(row.payload.judge_tokens, to_datetime(row.payload.create_time)) for row in rows]

    def judgement_uses(self, specialist: str) -> list[JudgementUse]:
        """When each judgement was recorded, and how long it took as far as that is known."""
        table, times = tables.judgements, tables.judging_times
        query = select(table.c.payload, times.c.seconds).outerjoin(times, times.c.judgement_id == table.c.judgement_id)
        with transaction(self._engine) as connection:
            rows = connection.execute(query.where(table.c.specialist == specialist)).all()
        return [JudgementUse(to_datetime(judgement.create_time), seconds) for judgement, seconds in rows]

    def serving_uses(self, specialist: str, month: Month) -> list[ServingUse]:
        """The device time of a month's answers, by device."""
        table = tables.serving_uses
        query = select(table.c.device, func.sum(table.c.seconds), func.count()).where(
            table.c.specialist == specialist, table.c.create_time >= month.start, table.c.create_time < month.end
        )
        with transaction(self._engine) as connection:
            return [ServingUse(*row) for row in connection.execute(query.group_by(table.c.device))]

    def storage_uses(self, specialist: str) -> list[StorageUse]:
        """The bytes of the files that a specialist stored first, by the time in which at least one owner has them."""
        table = tables.stored_files
        known = table.alias()
        first = func.array_agg(aggregate_order_by(table.c.specialist, table.c.create_time, table.c.owner))[1]
        kept = func.bool_or(table.c.delete_time.is_(None))
        files = (
            select(
                func.max(table.c.size_bytes).label("size_bytes"),
                func.min(table.c.create_time).label("since"),
                case((kept, None), else_=func.max(table.c.delete_time)).label("until"),
            )
            .where(table.c.sha256.in_(select(known.c.sha256).where(known.c.specialist == specialist)))
            .group_by(table.c.sha256)
            .having(first == specialist)
            .subquery()
        )
        size_bytes = cast(func.sum(files.c.size_bytes), BigInteger)
        query = select(size_bytes, files.c.since, files.c.until).group_by(files.c.since, files.c.until)
        with transaction(self._engine) as connection:
            return [StorageUse(*row) for row in connection.execute(query)]

    def list_generations(self, request: reports_pb2.ListGenerationsRequest) -> ListPage[models_pb2.SpecialistServing]:
        """What served a specialist in each generation, newest first."""
        servings = Rows(self._engine, tables.servings, Row)
        listing = Listing(servings, request, servings.c.generation, descending=True)
        return listing.page(servings.select(specialist=request.specialist), read=lambda row: row.payload)

    def _read_facts(self, specialist: str, kinds: tuple[FactKind, ...]) -> list[tuple[str, str, bytes]]:
        page = Rows(self._engine, tables.facts, Row).newest_first(MAX_FACTS, kind=kinds, specialist=specialist)
        return [(row.kind, row.fact_id, row.payload) for row in page]


def _to_cost_fact(kind: str, fact_id: str, payload: bytes) -> CostFact:
    if kind == FactKind.ADAPTER.value:
        return models_pb2.AdapterTrained.FromString(payload)
    if fact_id.endswith(FAILED):
        return models_pb2.RunFailed.FromString(payload)
    return models_pb2.RunProgressed.FromString(payload)


def _to_use(message: CostFact) -> RunUse:
    cost = message.cost
    return RunUse(
        run_id=message.run_id,
        device=cost.device,
        device_seconds=cost.device_seconds,
        amount=cost.amount if cost.HasField("amount") else None,
        currency=cost.currency,
        moment=to_datetime(message.create_time),
    )
