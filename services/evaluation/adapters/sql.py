"""Evaluation's database in PostgreSQL."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, Select, select, text, update
from sqlalchemy.dialects.postgresql import insert

from services.evaluation import wire
from services.evaluation.adapters import tables
from services.evaluation.domain import Adapter, Evaluation, Measured, Result, Score, State
from tailor.api.events.v1 import models_pb2
from tailor.events.envelope import derive_id
from tailor.events.outbox import Outbox
from tailor.sql import transaction
from tailor.storage.ref import Ref

TOPIC = "adapter.evaluated.v1"
OPEN = (State.QUEUED.value, State.RUNNING.value)


class SqlRepository:
    """Satisfies `domain.Repository`. Thread-safe."""

    def __init__(self, engine: Engine, outbox: Outbox) -> None:
        self._engine = engine
        self._outbox = outbox

    def keep_dataset(self, digest: str, manifest: Ref) -> None:
        """Remember where a dataset's manifest is."""
        self._keep(tables.datasets, {"digest": digest, **_ref_columns(manifest)})

    def dataset(self, digest: str) -> Ref | None:
        """A dataset's manifest."""
        row = self._one(select(tables.datasets).where(tables.datasets.c.digest == digest))
        return None if row is None else _ref(row)

    def keep_adapter(self, adapter: Adapter) -> None:
        """Remember an adapter."""
        row = {
            "digest": adapter.digest,
            "specialist": adapter.specialist,
            "dataset_digest": adapter.dataset_digest,
            "base": adapter.base,
            **_ref_columns(adapter.manifest),
        }
        self._keep(tables.adapters, row)

    def adapter(self, digest: str) -> Adapter | None:
        """An adapter."""
        row = self._one(select(tables.adapters).where(tables.adapters.c.digest == digest))
        return None if row is None else _adapter(row)

    def queue(self, evaluation_id: str, adapter: Adapter) -> Evaluation:
        """Queue an evaluation unless it exists; the evaluation as it is."""
        row = {"evaluation_id": evaluation_id, "adapter_digest": adapter.digest, "state": State.QUEUED.value}
        self._keep(tables.evaluations, row)
        return self.evaluation(evaluation_id) or Evaluation(evaluation_id, adapter)

    def evaluation(self, evaluation_id: str) -> Evaluation | None:
        """An evaluation."""
        row = self._one(_evaluations().where(tables.evaluations.c.evaluation_id == evaluation_id))
        return None if row is None else _evaluation(row)

    def newest(self, adapter_digest: str) -> Evaluation | None:
        """The newest evaluation of an adapter."""
        table = tables.evaluations
        query = _evaluations().where(table.c.adapter_digest == adapter_digest).order_by(table.c.created_at.desc())
        row = self._one(query.limit(1))
        return None if row is None else _evaluation(row)

    def measured(self, evaluation_id: str) -> Measured | None:
        """The outcome of an evaluation that succeeded."""
        evaluation = self.evaluation(evaluation_id)
        table = tables.evaluations
        row = self._one(select(table.c.payload).where(table.c.evaluation_id == evaluation_id))
        if evaluation is None or row is None or row.payload is None:
            return None
        return wire.to_measured(models_pb2.AdapterEvaluated.FromString(row.payload), evaluation)

    @contextmanager
    def next(self) -> Iterator[Evaluation | None]:
        """Hold the oldest open evaluation; the hold ends with the connection, so a killed process holds nothing."""
        table = tables.evaluations
        query = _evaluations().where(table.c.state.in_(OPEN)).order_by(table.c.created_at)
        lock = text("SELECT pg_try_advisory_xact_lock(hashtextextended(:id, 1))")
        with transaction(self._engine) as connection:
            held = None
            for row in connection.execute(query).all():
                if not connection.scalar(lock, {"id": row.evaluation_id}):
                    continue
                # Another replica may have finished it between the two statements.
                held = self.evaluation(row.evaluation_id)
                if held is not None and held.state.value in OPEN:
                    break
                held = None
            if held is not None:
                self._update(held.evaluation_id, attempts=table.c.attempts + 1)
                held = self.evaluation(held.evaluation_id)
            yield held

    def start(self, evaluation_id: str, rows_total: int) -> None:
        """It is being measured now."""
        self._update(evaluation_id, state=State.RUNNING.value, rows_total=rows_total)

    def count(self, evaluation_id: str, rows_done: int) -> None:
        """So many rows are done."""
        self._update(evaluation_id, rows_done=rows_done)

    def fail(self, evaluation_id: str, reason: str) -> None:
        """It cannot be made."""
        self._update(evaluation_id, state=State.FAILED.value, reason=reason)

    def keep_result(self, evaluation_id: str, model: str, key: str, result: Result) -> None:
        """Remember what a model did on the rows of a key."""
        row = {
            "evaluation_id": evaluation_id,
            "model": model,
            "key": key,
            "answers": list(result.answers),
            "scores": [[score.log_probability, score.tokens] for score in result.scores],
        }
        self._keep(tables.results, row)

    def result(self, evaluation_id: str, model: str, key: str) -> Result | None:
        """What a model did in this evaluation before it was interrupted."""
        columns = tables.results.c
        return self._result(
            select(tables.results).where(
                columns.evaluation_id == evaluation_id, columns.model == model, columns.key == key
            )
        )

    def result_of_adapter(self, adapter: str, key: str) -> Result | None:
        """What an adapter did on the same rows in any evaluation."""
        columns = tables.results.c
        query = select(tables.results).where(columns.model == f"adapter:{adapter}", columns.key == key)
        return self._result(query.order_by(columns.created_at.desc()).limit(1))

    def finish(self, measured: Measured) -> None:
        """Keep the outcome and state it, in one transaction, once."""
        table, evaluation = tables.evaluations, measured.evaluation
        message = wire.from_measured(measured)
        message.create_time.GetCurrentTime()
        statement = (
            update(table)
            .where(table.c.evaluation_id == evaluation.evaluation_id, table.c.state.in_(OPEN))
            .values(
                state=State.SUCCEEDED.value,
                rows_done=table.c.rows_total,
                payload=message.SerializeToString(deterministic=True),
            )
        )
        with transaction(self._engine) as connection:
            if connection.scalar(statement.returning(table.c.evaluation_id)) is not None:
                event_id = derive_id("evt", TOPIC, evaluation.evaluation_id)
                self._outbox.add(connection, TOPIC, evaluation.adapter.specialist, message, event_id)

    def _keep(self, table: Any, row: dict[str, Any]) -> None:
        with transaction(self._engine) as connection:
            connection.execute(insert(table).values(row).on_conflict_do_nothing())

    def _one(self, query: Select[Any]) -> Any:
        with transaction(self._engine) as connection:
            return connection.execute(query).one_or_none()

    def _update(self, evaluation_id: str, **values: Any) -> None:
        table = tables.evaluations
        with transaction(self._engine) as connection:
            connection.execute(update(table).where(table.c.evaluation_id == evaluation_id).values(**values))

    def _result(self, query: Select[Any]) -> Result | None:
        row = self._one(query)
        if row is None:
            return None
        return Result(tuple(row.answers), tuple(Score(value, tokens) for value, tokens in row.scores))


def _evaluations() -> Select[Any]:
    """Evaluations with their adapters."""
    join = tables.evaluations.join(tables.adapters, tables.evaluations.c.adapter_digest == tables.adapters.c.digest)
    return select(tables.evaluations, tables.adapters).select_from(join)


def _ref_columns(ref: Ref) -> dict[str, Any]:
    return {"uri": ref.uri, "sha256": ref.sha256, "size_bytes": ref.size_bytes}


def _ref(row: Any) -> Ref:
    return Ref(row.uri, row.sha256, row.size_bytes)


def _adapter(row: Any) -> Adapter:
    return Adapter(row.digest, row.specialist, row.dataset_digest, row.base, _ref(row))


def _evaluation(row: Any) -> Evaluation:
    return Evaluation(
        evaluation_id=row.evaluation_id,
        adapter=_adapter(row),
        state=State(row.state),
        attempts=row.attempts,
        rows_done=row.rows_done,
        rows_total=row.rows_total,
        reason=row.reason,
    )
