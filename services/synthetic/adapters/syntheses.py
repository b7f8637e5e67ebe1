"""Syntheses in PostgreSQL. No transaction stays open while a model answers."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, Select, cast, func, select
from sqlalchemy.dialects.postgresql import JSONPATH

from services.synthetic.adapters.synthesis_rows import STREAMED_ROWS, SYNTHESIS
from services.synthetic.adapters.tables import jobs, syntheses, synthesis_answers, synthesis_rows
from services.synthetic.synthesis_domain import (
    DRAFT_ID,
    JUDGEMENT_ID,
    OPEN_STATES,
    TEACH,
    Completion,
    ModelRole,
    SampleState,
    StoredAnswer,
    Synthesis,
    SynthesisSample,
    SynthesisState,
    SynthesisUse,
    TokenCount,
    TokenReservation,
)
from tailor.api.synthetic.v1.synthesis_pb2 import ListSamplesRequest, ListSynthesesRequest
from tailor.errors import FailedPrecondition, NotFound, Reason
from tailor.jobs import HeldJob, JobLost, add_job
from tailor.listing import Listing, ListPage
from tailor.retry import Stopped
from tailor.rows import Condition, Rows
from tailor.sql import transaction


class SqlSyntheses:
    """Thread-safe. Methods with a job, whose key is the synthesis's id, raise JobLost once another one holds it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._answers = Rows(engine, synthesis_answers, StoredAnswer)
        self._samples = Rows(engine, synthesis_rows, SynthesisSample)

    def create(self, synthesis: Synthesis, request_id: str) -> Synthesis:
        """Queue a synthesis, or return that of the same request id."""
        columns = {"specialist": synthesis.spec.specialist, "created_at": func.clock_timestamp()}
        with transaction(self._engine) as connection:
            stored = _CountedSyntheses(connection)
            if stored.add(synthesis, request_id=request_id or None, **columns):
                add_job(connection, jobs, SYNTHESIS, synthesis.synthesis_id)
            table = syntheses.c
            same = table.request_id == request_id if request_id else table.synthesis_id == synthesis.synthesis_id
            (known,) = stored.all(same)
            return known

    def find_by_request(self, request_id: str) -> Synthesis | None:
        """The synthesis of a request id."""
        with transaction(self._engine) as connection:
            return _CountedSyntheses(connection).find(request_id=request_id)

    def get(self, synthesis_id: str) -> Synthesis | None:
        with transaction(self._engine) as connection:
            return _CountedSyntheses(connection).find(synthesis_id=synthesis_id)

    def list_page(self, request: ListSynthesesRequest, specialists: Collection[str]) -> ListPage[Synthesis]:
        """A page of the syntheses of these specialists, or of all if none is named, newest first."""
        table, spec = syntheses.c, syntheses.c.spec
        columns: dict[str, ColumnElement[Any]] = {
            "task": spec["task"].astext,
            "target": spec["target"],
            "create_time": table.created_at,
        }
        columns |= {state.value: _count(state) for state in (SampleState.ACCEPTED, SampleState.PENDING)}
        columns["refused"] = _count(SampleState.REFUSED)
        with transaction(self._engine) as connection:
            rows = _CountedSyntheses(connection)
            listing = Listing(rows, request, table.synthesis_id, order_by="create_time desc", columns=columns)
            return listing.page(rows.select(**({"specialist": [*specialists]} if specialists else {})))

    def change(self, synthesis_id: str, state: SynthesisState, reason: str = "", message: str = "") -> bool:
        """Set the state of a synthesis that has not ended, and have its job look at it; True if it had not ended."""
        ended_at = func.clock_timestamp() if state.has_ended else None
        changed = {"state": state, "reason": reason, "message": message, "resume_at": None, "ended_at": ended_at}
        with transaction(self._engine) as connection:
            # First, because erasures lock jobs before syntheses.
            add_job(connection, jobs, SYNTHESIS, synthesis_id)
            return bool(_update(connection, synthesis_id, changed, OPEN_STATES))

    def wake(self, reasons: Collection[str]) -> None:
        """Let the syntheses that are paused for these reasons resume at once."""
        key, paused = syntheses.c.synthesis_id, {"state": SynthesisState.PAUSED, "reason": [*reasons]}
        with transaction(self._engine) as connection:
            for synthesis_id in Rows(connection, syntheses, Synthesis).values(key, order=key, **paused):
                add_job(connection, jobs, SYNTHESIS, synthesis_id)

    def begin(self, job: HeldJob) -> Synthesis | None:
        """Run the synthesis; None if it has ended. Reservations of earlier runs become lost tokens: they may have been billed."""
        with transaction(self._engine) as connection:
            synthesis = _lock(connection, job)
            if synthesis.state.has_ended:
                return None
            use = synthesis.use
            for role in ModelRole:
                model = use.of(role)
                use = use.with_role(role, replace(model, lost=model.lost + model.reserved, reserved=TokenCount()))
            started = {"state": SynthesisState.RUNNING, "reason": "", "message": "", "resume_at": None, "use": use}
            _update(connection, job.key, started)
            return _CountedSyntheses(connection).find(synthesis_id=job.key)

    def reserve(self, job: HeldJob, reservation: TokenReservation) -> bool:
        """Reserve tokens; False if that would pass a budget. Raises Stopped if the synthesis was cancelled."""
        with transaction(self._engine) as connection:
            synthesis = _lock(connection, job)
            if synthesis.state is not SynthesisState.RUNNING:
                raise Stopped
            model = synthesis.use.of(reservation.role)
            model = replace(model, reserved=model.reserved + reservation.tokens)
            use = synthesis.use.with_role(reservation.role, model)
            if not synthesis.spec.allows(use):
                return False
            _update(connection, job.key, {"use": use})
        return True

    def settle(self, job: HeldJob, reservation: TokenReservation, completion: Completion, answer: StoredAnswer) -> None:
        """Store an answer, and replace its reservation by what it used; without usage, by the whole reservation.

        A cancelled synthesis still takes the answers of requests that run.
        """
        with transaction(self._engine) as connection:
            use = _lock(connection, job).use
            model = use.of(reservation.role)
            used = completion.tokens or reservation.tokens
            model = replace(model, used=model.used + used, reserved=model.reserved - reservation.tokens)
            use = replace(use.with_role(reservation.role, model), answers=use.answers + 1)
            _store_answer(connection, job, use, answer)

    def release(
        self, job: HeldJob, reservation: TokenReservation, *, is_lost: bool, refused: StoredAnswer | None = None
    ) -> None:
        """End a reservation without an answer; `refused` stores that the endpoint refused the prompt."""
        with transaction(self._engine) as connection:
            use = _lock(connection, job).use
            model = use.of(reservation.role)
            lost = model.lost + reservation.tokens if is_lost else model.lost
            model = replace(model, lost=lost, reserved=model.reserved - reservation.tokens)
            _store_answer(connection, job, use.with_role(reservation.role, model), refused)

    def answer(self, synthesis_id: str, number: int, step: str) -> StoredAnswer | None:
        return self._answers.find(synthesis_id=synthesis_id, number=number, step=step)

    def numbers(self, synthesis_id: str) -> dict[int, bool]:
        """The requests that the teacher answered, and whether their rows are stored."""
        table = synthesis_answers.c
        query = select(table.number, table.checked)
        with transaction(self._engine) as connection:
            rows = connection.execute(query.where(table.synthesis_id == synthesis_id, table.step == TEACH))
            return {row.number: row.checked for row in rows}

    def keep_samples(self, job: HeldJob, number: int, samples: Sequence[SynthesisSample]) -> None:
        """Store the rows of a request, all at once."""
        with transaction(self._engine) as connection:
            specialist = _lock(connection, job).spec.specialist
            answers = Rows(connection, synthesis_answers, StoredAnswer)
            rows = Rows(connection, synthesis_rows, SynthesisSample)
            # An answer that is gone was erased with its seed; then its rows must not come back.
            if answers.update({"checked": True}, synthesis_id=job.key, number=number, step=TEACH):
                for sample in samples:
                    rows.add(sample, synthesis_id=job.key, specialist=specialist, **_origin(sample))

    def pause(self, job: HeldJob, reason: str, message: str, seconds: float) -> None:
        """Pause until the job runs again after these seconds, unless it was cancelled."""
        paused = {"state": SynthesisState.PAUSED, "reason": reason, "message": message}
        self._leave(job, paused | {"resume_at": func.clock_timestamp() + timedelta(seconds=seconds)})

    def finish(self, job: HeldJob, reason: str, message: str) -> None:
        """End as succeeded, unless it was cancelled."""
        ended = {"state": SynthesisState.SUCCEEDED, "reason": reason, "message": message}
        self._leave(job, ended | {"ended_at": func.clock_timestamp()})

    def _leave(self, job: HeldJob, changed: dict[str, Any]) -> None:
        with transaction(self._engine) as connection:
            job.check(connection)
            _update(connection, job.key, changed, [SynthesisState.RUNNING])

    def list_rows(self, specialist: str) -> Iterator[SynthesisSample]:
        """Every row of the specialist's syntheses that no check refused."""
        query = self._samples.select(synthesis_rows.c.state != SampleState.REFUSED.value, specialist=specialist)
        with transaction(self._engine) as connection:
            for row in connection.execution_options(yield_per=STREAMED_ROWS).execute(query):
                yield self._samples.read(row)

    def list_samples(self, request: ListSamplesRequest) -> ListPage[SynthesisSample]:
        """A page of a synthesis's rows, in the order in which they were made."""
        rows, row = self._samples, synthesis_rows.c.row
        contents = func.jsonb_path_query_array(row, cast("$.messages[*][1]", JSONPATH))
        columns = {"prompt": contents, "completion": row["messages"][-1][1].astext, "language": row["language"].astext}
        # Rows of one answer have its number.
        listing = Listing(rows, request, rows.c.row_id, order_by="number", columns=columns)
        return listing.page(rows.select(synthesis_id=request.synthesis_id), size=(20, 100))

    def review(self, synthesis_id: str, decisions: dict[str, SampleState], reviewer: str) -> None:
        """Record decisions, all or none. Raises NotFound (UNKNOWN_SAMPLE), FailedPrecondition (SAMPLE_REFUSED)."""
        is_open, now = synthesis_rows.c.state != SampleState.REFUSED.value, func.clock_timestamp()
        with transaction(self._engine) as connection:
            rows = Rows(connection, synthesis_rows, SynthesisSample)
            for row_id, state in sorted(decisions.items()):
                changed = {"state": state, "reviewer": reviewer, "reviewed_at": now, "changed_at": now}
                same = {"synthesis_id": synthesis_id, "row_id": row_id}
                if not rows.update(changed, is_open, **same):
                    _raise_unreviewable(rows.find(**same))


class _CountedSyntheses(Rows[Synthesis]):
    """Syntheses with the counts of their rows."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, syntheses, Synthesis)

    def select(self, *conditions: Condition, **equal: object) -> Select[Any]:
        table = synthesis_rows.c
        counts = select(table.state, table.reason, func.count()).group_by(table.state, table.reason)
        counts = counts.where(table.synthesis_id == syntheses.c.synthesis_id).correlate(syntheses)
        listed = select(func.jsonb_agg(func.jsonb_build_array(*counts.subquery().c))).scalar_subquery()
        return super().select(*conditions, **equal).add_columns(listed.label("counts"))

    def read(self, row: Row[Any], **given: Any) -> Synthesis:
        counts = row.counts or ()
        samples: dict[SampleState, int] = {}
        for state, _, count in counts:
            samples[SampleState(state)] = samples.get(SampleState(state), 0) + count
        refusals = {reason: count for state, reason, count in counts if state == SampleState.REFUSED.value}
        return super().read(row, samples=samples, refusals=refusals, **given)


def _lock(connection: Connection, job: HeldJob) -> Synthesis:
    """Lock the job's synthesis for this transaction. Raises JobLost."""
    job.check(connection)
    synthesis = Rows(connection, syntheses, Synthesis).lock(synthesis_id=job.key)
    if synthesis is None:
        raise JobLost
    return synthesis


def _update(
    connection: Connection,
    synthesis_id: str,
    changed: dict[str, Any],
    states: Sequence[SynthesisState] = tuple(SynthesisState),
) -> int:
    return Rows(connection, syntheses, Synthesis).update(changed, synthesis_id=synthesis_id, state=[*states])


def _store_answer(connection: Connection, job: HeldJob, use: SynthesisUse, answer: StoredAnswer | None) -> None:
    _update(connection, job.key, {"use": use})
    if answer is not None:
        text, finish_reason = answer.text.replace("\0", ""), answer.finish_reason[:32]
        answers = Rows(connection, synthesis_answers, StoredAnswer)
        answers.add(answer, synthesis_id=job.key, text=text, finish_reason=finish_reason)


def _origin(sample: SynthesisSample) -> dict[str, Any]:
    """The origins of a row, for erasures."""
    lineage = dict(sample.row.lineage)
    judgement_id, draft_id = lineage.get(JUDGEMENT_ID, ""), lineage.get(DRAFT_ID)
    origins = [*sample.row.document_ids, *filter(None, (judgement_id, draft_id))]
    return {"document_ids": origins, "judgement_id": judgement_id}


def _raise_unreviewable(sample: SynthesisSample | None) -> None:
    if sample is None:
        raise NotFound(Reason.UNKNOWN_SAMPLE, "The synthesis has no such row.")
    raise FailedPrecondition(
        Reason.SAMPLE_REFUSED, f"A check refused this row ({sample.reason}); it cannot be reviewed."
    )


def _count(state: SampleState) -> ColumnElement[int]:
    """The number of a synthesis's rows in a state."""
    table = synthesis_rows.c
    of_state = (table.synthesis_id == syntheses.c.synthesis_id, table.state == state.value)
    return select(func.count()).where(*of_state).scalar_subquery()
