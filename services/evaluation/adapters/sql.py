"""Evaluation's database in PostgreSQL. All classes are thread-safe, and raise Unavailable while it does not answer."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, Engine, Select, Table, delete, or_, select, update
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
from tailor.api.events.v1 import models_pb2
from tailor.events.envelope import derive_id
from tailor.events.outbox import Outbox
from tailor.jobs import HeldJob, add_job, drop_job
from tailor.sql import transaction
from tailor.storage.ref import Ref

TOPIC = "adapter.evaluated.v1"
OPEN = [state.value for state in EvaluationState if state.is_open]
# The kind of jobs whose keys are ids of evaluations.
EVALUATION = "evaluation"


class SqlArtifacts:
    """Datasets and adapters that events announced."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add_dataset(self, digest: str, manifest: Ref, ranked_for: str = "") -> None:
        """Store the location of a dataset's manifest; `ranked_for` is the specialist whose drafts it ranks. Idempotent."""
        row = {"digest": digest, "ranked_for": ranked_for, **asdict(manifest)}
        _add(self._engine, tables.datasets, row)

    def dataset(self, digest: str) -> Ref | None:
        """The manifest of a dataset."""
        row = _first(self._engine, select(tables.datasets).where(tables.datasets.c.digest == digest))
        return None if row is None else _ref(row)

    def newest_ranked(self, specialist: str) -> tuple[str, Ref] | None:
        """Digest and manifest of the newest dataset of a specialist's ranked drafts."""
        table = tables.datasets
        query = select(table).where(table.c.ranked_for == specialist).order_by(table.c.created_at.desc()).limit(1)
        row = _first(self._engine, query)
        return None if row is None else (row.digest, _ref(row))

    def add_adapter(self, adapter: Adapter) -> None:
        """Store an adapter. Idempotent."""
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

    def ancestors(self, adapter: Adapter) -> Iterator[Adapter]:
        """The adapters that training started from, as far as they are known."""
        seen = {adapter.digest}
        parent = self.adapter(adapter.parent_digest)
        while parent is not None and parent.digest not in seen:
            yield parent
            seen.add(parent.digest)
            parent = self.adapter(parent.parent_digest)


class SqlEvaluations:
    """Evaluations and their results. One that has not ended has a job with its id as the key.

    Methods with a job raise JobLost once another replica holds it.
    """

    def __init__(self, engine: Engine, outbox: Outbox) -> None:
        self._engine = engine
        self._outbox = outbox

    def queue(self, evaluation_id: str, adapter: Adapter) -> Evaluation:
        """Queue an evaluation unless it exists. Returns its current state."""
        row = {"evaluation_id": evaluation_id, "adapter_digest": adapter.digest, "state": EvaluationState.QUEUED.value}
        with transaction(self._engine) as connection:
            new = insert(tables.evaluations).values(row).on_conflict_do_nothing()
            if connection.scalar(new.returning(tables.evaluations.c.evaluation_id)) is not None:
                add_job(connection, tables.jobs, EVALUATION, evaluation_id)
        return self.find(evaluation_id) or Evaluation(evaluation_id, adapter)

    def find(self, evaluation_id: str) -> Evaluation | None:
        row = _first(self._engine, _evaluations().where(tables.evaluations.c.evaluation_id == evaluation_id))
        return None if row is None else _evaluation(row)

    def newest(self, adapter_digest: str) -> Evaluation | None:
        """The newest evaluation of an adapter."""
        table = tables.evaluations
        query = _evaluations().where(table.c.adapter_digest == adapter_digest).order_by(table.c.created_at.desc())
        row = _first(self._engine, query.limit(1))
        return None if row is None else _evaluation(row)

    def trained_on(self, datasets: Sequence[str]) -> list[str]:
        """The ids, in order, of evaluations of adapters that learned from any of the datasets, or may have been measured on its pairs."""
        adapters, ranked = tables.adapters.c, tables.datasets
        learned = (adapters.dataset_digest, adapters.sft_dataset, adapters.preference_dataset)
        measured_for = select(ranked.c.ranked_for).where(ranked.c.digest.in_(datasets), ranked.c.ranked_for != "")
        affected = or_(*(column.in_(datasets) for column in learned), adapters.specialist.in_(measured_for))
        with transaction(self._engine) as connection:
            rows = connection.execute(_evaluations().where(affected))
            return sorted(row.evaluation_id for row in rows)

    def result(self, evaluation_id: str) -> EvaluationResult | None:
        """The result of an evaluation that succeeded."""
        evaluation = self.find(evaluation_id)
        table = tables.evaluations
        row = _first(self._engine, select(table.c.payload).where(table.c.evaluation_id == evaluation_id))
        if evaluation is None or row is None or row.payload is None:
            return None
        return wire.to_result(models_pb2.AdapterEvaluated.FromString(row.payload), evaluation)

    def start(self, job: HeldJob, rows_total: int) -> None:
        """Record that the evaluation is running."""
        self._change(job, state=EvaluationState.RUNNING.value, rows_total=rows_total)

    def count(self, job: HeldJob, rows_done: int) -> None:
        """Record progress."""
        self._change(job, rows_done=rows_done)

    def fail(self, job: HeldJob, reason: str) -> None:
        """Record that the evaluation failed."""
        self._change(job, state=EvaluationState.FAILED.value, reason=reason)

    def withdraw(self, evaluation_id: str, reason: str) -> None:
        """Let an evaluation fail that has not ended; its holder can write nothing more. No effect on one that has ended."""
        failure = {"state": EvaluationState.FAILED.value, "reason": reason}
        columns = tables.evaluations.c
        is_open = (columns.evaluation_id == evaluation_id, columns.state.in_(OPEN))
        with transaction(self._engine) as connection:
            drop_job(connection, tables.jobs, EVALUATION, evaluation_id)
            connection.execute(update(tables.evaluations).where(*is_open).values(failure))

    def finish(self, job: HeldJob, result: EvaluationResult) -> None:
        """Store the result and publish it, in one transaction."""
        message = wire.from_result(result)
        message.create_time.GetCurrentTime()
        payload = message.SerializeToString(deterministic=True)
        event_id = derive_id("evt", TOPIC, job.key)
        with transaction(self._engine) as connection:
            state, done = EvaluationState.SUCCEEDED.value, tables.evaluations.c.rows_total
            _update(connection, job, state=state, rows_done=done, payload=payload)
            self._outbox.add(connection, TOPIC, result.evaluation.adapter.specialist, message, event_id)

    def _change(self, job: HeldJob, **values: Any) -> None:
        with transaction(self._engine) as connection:
            _update(connection, job, **values)


class SqlModelResults:
    """Answers and scores of models, which survive an interruption and serve later evaluations on the same rows.

    `model` is an `EvaluatedModel.key`, `key` a `result_key`.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, job: HeldJob, model: str, key: str, result: ModelResult) -> None:
        """Store the result of a model for the job's evaluation. Idempotent. Raises JobLost."""
        row = {
            "evaluation_id": job.key,
            "model": model,
            "key": key,
            "answers": [None if answer is None else asdict(answer) for answer in result.answers],
            "scores": _score_lists(result.scores),
            "rejected_scores": _score_lists(result.rejected_scores),
            "notes": dict(result.notes),
        }
        with transaction(self._engine) as connection:
            job.check(connection)
            connection.execute(insert(tables.results).values(row).on_conflict_do_nothing())

    def find(self, model: str, key: str, evaluation_id: str = "") -> ModelResult | None:
        """The newest result of a model: of any evaluation, or only of this one."""
        table = tables.results
        query = select(table).where(table.c.model == model, table.c.key == key)
        if evaluation_id:
            query = query.where(table.c.evaluation_id == evaluation_id)
        row = _first(self._engine, query.order_by(table.c.created_at.desc()).limit(1))
        return None if row is None else _result(row)

    def delete(self, evaluation_id: str) -> int:
        """Delete the results of an evaluation. Returns their number."""
        with transaction(self._engine) as connection:
            deletion = delete(tables.results).where(tables.results.c.evaluation_id == evaluation_id)
            return connection.execute(deletion).rowcount


class SqlAgreements:
    """How far judge models agree with experts. A key stands for the model, the pairs and all that it judges by."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def find(self, key: str) -> Agreement | None:
        row = _first(self._engine, select(tables.agreements).where(tables.agreements.c.key == key))
        return None if row is None else Agreement(row.kappa, row.pairs, row.failures)

    def add(self, key: str, agreement: Agreement) -> None:
        """Idempotent."""
        _add(self._engine, tables.agreements, {"key": key, **asdict(agreement)})


class SqlDefinitions:
    """What was measured since when."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def freeze(self, terms: SpecialistTerms) -> list[Definition]:
        """Record a specialist's metrics and gate, with their revision and the time, unless they are the ones that were measured last.

        Returns all records of the specialist, oldest first. Idempotent.
        """
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


def _update(connection: Connection, job: HeldJob, **values: Any) -> None:
    job.check(connection)
    connection.execute(update(tables.evaluations).where(tables.evaluations.c.evaluation_id == job.key).values(**values))


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
        rows_done=row.rows_done,
        rows_total=row.rows_total,
        reason=row.reason,
    )
