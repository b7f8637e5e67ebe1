"""Evaluation's database in PostgreSQL. All classes are thread-safe, and raise Unavailable while it does not answer."""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, or_, select

from services.evaluation import wire
from services.evaluation.adapters import tables
from services.evaluation.domain import (
    Adapter,
    AnnouncedDataset,
    Definition,
    Evaluation,
    EvaluationResult,
    EvaluationState,
    ModelResult,
    SpecialistTerms,
)
from tailor.events.envelope import derive_id
from tailor.events.outbox import Outbox
from tailor.jobs import HeldJob, add_job, drop_job
from tailor.rows import Rows
from tailor.sql import transaction

TOPIC = "adapter.evaluated.v1"
OPEN = [state for state in EvaluationState if state.is_open]
# The kind of jobs whose keys are ids of evaluations.
EVALUATION = "evaluation"


class SqlArtifacts:
    """Datasets and adapters that events announced."""

    def __init__(self, engine: Engine) -> None:
        self.datasets = Rows(engine, tables.datasets, AnnouncedDataset, "created_at")
        self.adapters = Rows(engine, tables.adapters, Adapter)

    def ancestors(self, adapter: Adapter) -> Iterator[Adapter]:
        """The adapters that training started from, as far as they are known."""
        seen = {adapter.digest}
        parent = self.adapters.find(digest=adapter.parent_digest)
        while parent is not None and parent.digest not in seen:
            yield parent
            seen.add(parent.digest)
            parent = self.adapters.find(digest=parent.parent_digest)


class SqlEvaluations:
    """Evaluations and their results. One that has not ended has a job with its id as the key.

    Methods with a job raise JobLost once another replica holds it.
    """

    def __init__(self, engine: Engine, outbox: Outbox) -> None:
        self._engine = engine
        self._outbox = outbox
        self._rows = _rows(engine)
        self._adapters = Rows(engine, tables.adapters, Adapter)

    def queue(self, evaluation_id: str, adapter: Adapter) -> Evaluation:
        """Queue an evaluation unless it exists. Returns its current state."""
        with transaction(self._engine) as connection:
            row = {"evaluation_id": evaluation_id, "adapter_digest": adapter.digest, "state": EvaluationState.QUEUED}
            if _rows(connection).add(**row):
                add_job(connection, tables.jobs, EVALUATION, evaluation_id)
        return self.newest(evaluation_id=evaluation_id) or Evaluation(evaluation_id, adapter)

    def newest(self, **equal: str) -> Evaluation | None:
        """The newest evaluation with these values of columns, such as `evaluation_id` or `adapter_digest`."""
        query = self._rows.select(**equal).join(*_adapter_of()).add_columns(*tables.adapters.c)
        for row in self._rows.fetch_rows(query.order_by(self._rows.c.created_at.desc()).limit(1)):
            return self._rows.read(row, adapter=self._adapters.read(row))
        return None

    def trained_on(self, datasets: Sequence[str]) -> list[str]:
        """The ids, in order, of evaluations of adapters that learned from any of the datasets, or may have been measured on its pairs."""
        adapters, ranked = tables.adapters.c, tables.datasets
        learned = (adapters.dataset_digest, adapters.sft_dataset_digest, adapters.preference_dataset_digest)
        measured_for = select(ranked.c.ranked_for).where(ranked.c.digest.in_(datasets), ranked.c.ranked_for != "")
        affected = or_(*(column.in_(datasets) for column in learned), adapters.specialist.in_(measured_for))
        query = self._rows.select(affected).join(*_adapter_of())
        return sorted(row.evaluation_id for row in self._rows.fetch_rows(query))

    def result(self, evaluation_id: str) -> EvaluationResult | None:
        """The result of an evaluation that succeeded."""
        evaluation = self.newest(evaluation_id=evaluation_id)
        event = self._rows.value(self._rows.c.payload, evaluation_id=evaluation_id)
        return None if evaluation is None or event is None else wire.to_result(event, evaluation)

    def record(self, job: HeldJob, **changed: Any) -> None:
        """Store the state of the job's evaluation, or its progress."""
        with transaction(self._engine) as connection:
            self._record(connection, job, **changed)

    def withdraw(self, evaluation_id: str, reason: str) -> None:
        """Let an evaluation fail that has not ended; its holder can write nothing more. No effect on one that has ended."""
        with transaction(self._engine) as connection:
            drop_job(connection, tables.jobs, EVALUATION, evaluation_id)
            failure = {"state": EvaluationState.FAILED, "reason": reason}
            _rows(connection).update(failure, evaluation_id=evaluation_id, state=OPEN)

    def finish(self, job: HeldJob, result: EvaluationResult) -> None:
        """Store the result and publish it, in one transaction."""
        message = wire.from_result(result)
        message.create_time.GetCurrentTime()
        event_id = derive_id("evt", TOPIC, job.key)
        with transaction(self._engine) as connection:
            state, done = EvaluationState.SUCCEEDED, tables.evaluations.c.rows_total
            self._record(connection, job, state=state, rows_done=done, payload=message)
            self._outbox.add(connection, TOPIC, result.evaluation.adapter.specialist, message, event_id)

    @staticmethod
    def _record(connection: Connection, job: HeldJob, **changed: Any) -> None:
        job.check(connection)
        _rows(connection).update(changed, evaluation_id=job.key)


class SqlModelResults:
    """Answers and scores of models, which survive an interruption and serve later evaluations on the same rows.

    `model` is an `EvaluatedModel.key`, `key` a `result_key`.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.rows = Rows(engine, tables.results, ModelResult, "created_at")

    def add(self, job: HeldJob, model: str, key: str, result: ModelResult) -> None:
        """Store the result of a model for the job's evaluation. Idempotent. Raises JobLost."""
        with transaction(self._engine) as connection:
            job.check(connection)
            rows = Rows(connection, tables.results, ModelResult)
            rows.add(result, evaluation_id=job.key, model=model, key=key)

    def find(self, model: str, key: str, evaluation_id: str = "") -> ModelResult | None:
        """The newest result of a model: of any evaluation, or only of this one."""
        evaluation = {"evaluation_id": evaluation_id} if evaluation_id else {}
        return self.rows.newest(model=model, key=key, **evaluation)


class SqlDefinitions:
    """What was measured since when."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def freeze(self, terms: SpecialistTerms) -> list[Definition]:
        """Record a specialist's metrics and gate, with their revision and the time, unless they are the ones that were measured last.

        Returns all records of the specialist, oldest first. Idempotent.
        """
        with transaction(self._engine) as connection:
            definitions = Rows(connection, tables.definitions, Definition, "revision")
            newest = definitions.newest(specialist=terms.name)
            if newest is None or newest.digest != terms.definition_digest:
                definitions.add(specialist=terms.name, revision=terms.revision, digest=terms.definition_digest)
            return definitions.all(specialist=terms.name, order=definitions.c.revision)


def _rows(database: Engine | Connection) -> Rows[Evaluation]:
    return Rows(database, tables.evaluations, Evaluation, "created_at")


def _adapter_of() -> tuple[Any, Any]:
    """The table of adapters, and the condition that joins an evaluation to its own."""
    return tables.adapters, tables.evaluations.c.adapter_digest == tables.adapters.c.digest
