"""Evaluation's database in PostgreSQL. All classes are thread-safe."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from sqlalchemy import Engine, Select, Table, delete, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert

from services.evaluation import wire
from services.evaluation.adapters import tables
from services.evaluation.domain import (
    Adapter,
    Agreement,
    Answer,
    Definition,
    Evaluation,
    EvaluationResult,
    EvaluationState,
    ModelResult,
    Score,
    SpecialistTerms,
)
from services.evaluation.ports import Agreements, Artifacts, DefinitionStore, Evaluations, ModelResults
from tailor.api.events.v1 import models_pb2
from tailor.events.envelope import derive_id
from tailor.events.outbox import Outbox
from tailor.sql import transaction
from tailor.storage.ref import Ref

TOPIC = "adapter.evaluated.v1"
OPEN = (EvaluationState.QUEUED.value, EvaluationState.RUNNING.value)


class SqlArtifacts(Artifacts):
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add_dataset(self, digest: str, manifest: Ref, ranked_for: str = "") -> None:
        row = {"digest": digest, "ranked_for": ranked_for, **asdict(manifest)}
        _add(self._engine, tables.datasets, row)

    def dataset(self, digest: str) -> Ref | None:
        row = _first(self._engine, select(tables.datasets).where(tables.datasets.c.digest == digest))
        return None if row is None else _ref(row)

    def newest_ranked(self, specialist: str) -> tuple[str, Ref] | None:
        table = tables.datasets
        query = select(table).where(table.c.ranked_for == specialist).order_by(table.c.created_at.desc()).limit(1)
        row = _first(self._engine, query)
        return None if row is None else (row.digest, _ref(row))

    def add_adapter(self, adapter: Adapter) -> None:
        row = {
            "digest": adapter.digest,
            "specialist": adapter.specialist,
            "dataset_digest": adapter.dataset_digest,
            "base": adapter.base,
            "parent_digest": adapter.parent_digest,
            "sft_dataset": adapter.sft_dataset_digest,
            "preference_dataset": adapter.preference_dataset_digest,
            **asdict(adapter.manifest),
        }
        _add(self._engine, tables.adapters, row)

    def adapter(self, digest: str) -> Adapter | None:
        row = _first(self._engine, select(tables.adapters).where(tables.adapters.c.digest == digest))
        return None if row is None else _adapter(row)


class SqlEvaluations(Evaluations):
    def __init__(self, engine: Engine, outbox: Outbox) -> None:
        self._engine = engine
        self._outbox = outbox

    def queue(self, evaluation_id: str, adapter: Adapter) -> Evaluation:
        state = EvaluationState.QUEUED.value
        row = {"evaluation_id": evaluation_id, "adapter_digest": adapter.digest, "state": state}
        _add(self._engine, tables.evaluations, row)
        return self.find(evaluation_id) or Evaluation(evaluation_id, adapter)

    def find(self, evaluation_id: str) -> Evaluation | None:
        row = _first(self._engine, _evaluations().where(tables.evaluations.c.evaluation_id == evaluation_id))
        return None if row is None else _evaluation(row)

    def newest(self, adapter_digest: str) -> Evaluation | None:
        table = tables.evaluations
        query = _evaluations().where(table.c.adapter_digest == adapter_digest).order_by(table.c.created_at.desc())
        row = _first(self._engine, query.limit(1))
        return None if row is None else _evaluation(row)

    def trained_on(self, datasets: Sequence[str]) -> list[str]:
        adapters, ranked = tables.adapters.c, tables.datasets
        learned = (adapters.dataset_digest, adapters.sft_dataset, adapters.preference_dataset)
        measured_for = select(ranked.c.ranked_for).where(ranked.c.digest.in_(datasets), ranked.c.ranked_for != "")
        affected = or_(*(column.in_(datasets) for column in learned), adapters.specialist.in_(measured_for))
        with transaction(self._engine) as connection:
            rows = connection.execute(_evaluations().where(affected))
            return sorted(row.evaluation_id for row in rows)

    def result(self, evaluation_id: str) -> EvaluationResult | None:
        evaluation = self.find(evaluation_id)
        table = tables.evaluations
        row = _first(self._engine, select(table.c.payload).where(table.c.evaluation_id == evaluation_id))
        if evaluation is None or row is None or row.payload is None:
            return None
        return wire.to_result(models_pb2.AdapterEvaluated.FromString(row.payload), evaluation)

    @contextmanager
    def claim(self, is_due: Callable[[Evaluation], bool]) -> Iterator[Evaluation | None]:
        """Uses advisory locks, which end with the transaction, so a killed process holds nothing."""
        table = tables.evaluations
        query = _evaluations().where(table.c.state.in_(OPEN)).order_by(table.c.created_at)
        lock = text("SELECT pg_try_advisory_xact_lock(hashtextextended(:id, 1))")
        with transaction(self._engine) as connection:
            claimed = None
            for row in connection.execute(query).all():
                if not is_due(_evaluation(row)) or not connection.scalar(lock, {"id": row.evaluation_id}):
                    continue
                # Another replica may have finished it between the two statements.
                evaluation = self.find(row.evaluation_id)
                if evaluation is not None and evaluation.state.value in OPEN:
                    self._update(evaluation.evaluation_id, attempts=table.c.attempts + 1)
                    claimed = self.find(evaluation.evaluation_id)
                    break
            yield claimed

    def start(self, evaluation_id: str, rows_total: int) -> None:
        self._update(evaluation_id, state=EvaluationState.RUNNING.value, rows_total=rows_total)

    def count(self, evaluation_id: str, rows_done: int) -> None:
        self._update(evaluation_id, rows_done=rows_done)

    def fail(self, evaluation_id: str, reason: str) -> None:
        table = tables.evaluations
        is_open = (table.c.evaluation_id == evaluation_id) & table.c.state.in_(OPEN)
        with transaction(self._engine) as connection:
            failure = {"state": EvaluationState.FAILED.value, "reason": reason}
            connection.execute(update(table).where(is_open).values(failure))

    def finish(self, result: EvaluationResult) -> None:
        table, evaluation = tables.evaluations, result.evaluation
        message = wire.from_result(result)
        message.create_time.GetCurrentTime()
        statement = (
            update(table)
            .where(table.c.evaluation_id == evaluation.evaluation_id, table.c.state.in_(OPEN))
            .values(
                state=EvaluationState.SUCCEEDED.value,
                rows_done=table.c.rows_total,
                payload=message.SerializeToString(deterministic=True),
            )
        )
        with transaction(self._engine) as connection:
            if connection.scalar(statement.returning(table.c.evaluation_id)) is not None:
                event_id = derive_id("evt", TOPIC, evaluation.evaluation_id)
                self._outbox.add(connection, TOPIC, evaluation.adapter.specialist, message, event_id)

    def _update(self, evaluation_id: str, **values: Any) -> None:
        table = tables.evaluations
        with transaction(self._engine) as connection:
            connection.execute(update(table).where(table.c.evaluation_id == evaluation_id).values(**values))


class SqlModelResults(ModelResults):
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, evaluation_id: str, model: str, key: str, result: ModelResult) -> None:
        row = {
            "evaluation_id": evaluation_id,
            "model": model,
            "key": key,
            "answers": [None if answer is None else asdict(answer) for answer in result.answers],
            "scores": _score_lists(result.scores),
            "rejected_scores": _score_lists(result.rejected_scores),
            "notes": dict(result.notes),
        }
        _add(self._engine, tables.results, row)

    def find(self, model: str, key: str, evaluation_id: str = "") -> ModelResult | None:
        table = tables.results
        query = select(table).where(table.c.model == model, table.c.key == key)
        if evaluation_id:
            query = query.where(table.c.evaluation_id == evaluation_id)
        row = _first(self._engine, query.order_by(table.c.created_at.desc()).limit(1))
        return None if row is None else _result(row)

    def delete(self, evaluation_id: str) -> int:
        with transaction(self._engine) as connection:
            deletion = delete(tables.results).where(tables.results.c.evaluation_id == evaluation_id)
            return connection.execute(deletion).rowcount


class SqlAgreements(Agreements):
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def find(self, key: str) -> Agreement | None:
        row = _first(self._engine, select(tables.agreements).where(tables.agreements.c.key == key))
        return None if row is None else Agreement(row.kappa, row.pairs, row.failures)

    def add(self, key: str, agreement: Agreement) -> None:
        _add(self._engine, tables.agreements, {"key": key, **asdict(agreement)})


class SqlDefinitions(DefinitionStore):
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def freeze(self, terms: SpecialistTerms) -> list[Definition]:
        table = tables.definitions
        query = select(table).where(table.c.specialist == terms.name).order_by(table.c.revision)
        values = {"specialist": terms.name, "revision": terms.revision, "digest": terms.definition_digest}
        with transaction(self._engine) as connection:
            known = connection.execute(query).all()
            if not known or known[-1].digest != terms.definition_digest:
                connection.execute(insert(table).values(values).on_conflict_do_nothing())
                known = connection.execute(query).all()
        return [Definition(row.digest, row.revision, row.frozen_at) for row in known]


def _add(engine: Engine, table: Table, row: dict[str, Any]) -> None:
    with transaction(engine) as connection:
        connection.execute(insert(table).values(row).on_conflict_do_nothing())


def _first(engine: Engine, query: Select[Any]) -> Any:
    with transaction(engine) as connection:
        return connection.execute(query).one_or_none()


def _evaluations() -> Select[Any]:
    """Evaluations joined with their adapters."""
    join = tables.evaluations.join(tables.adapters, tables.evaluations.c.adapter_digest == tables.adapters.c.digest)
    return select(tables.evaluations, tables.adapters).select_from(join)


def _score_lists(scores: Sequence[Score | None]) -> list[tuple[float, int] | None]:
    return [None if score is None else (score.log_probability, score.tokens) for score in scores]


def _scores(lists: Sequence[Sequence[Any] | None]) -> tuple[Score | None, ...]:
    return tuple(None if entry is None else Score(*entry) for entry in lists)


def _result(row: Any) -> ModelResult:
    answers = tuple(None if answer is None else Answer(**answer) for answer in row.answers)
    return ModelResult(answers, _scores(row.scores), _scores(row.rejected_scores), row.notes)


def _ref(row: Any) -> Ref:
    return Ref(row.uri, row.sha256, row.size_bytes)


def _adapter(row: Any) -> Adapter:
    return Adapter(
        digest=row.digest,
        specialist=row.specialist,
        dataset_digest=row.dataset_digest,
        base=row.base,
        manifest=_ref(row),
        parent_digest=row.parent_digest,
        sft_dataset_digest=row.sft_dataset,
        preference_dataset_digest=row.preference_dataset,
    )


def _evaluation(row: Any) -> Evaluation:
    return Evaluation(
        evaluation_id=row.evaluation_id,
        adapter=_adapter(row),
        state=EvaluationState(row.state),
        attempts=row.attempts,
        rows_done=row.rows_done,
        rows_total=row.rows_total,
        reason=row.reason,
    )
