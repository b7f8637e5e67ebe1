"""Syntheses in PostgreSQL. No transaction stays open while a model answers."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import ColumnElement, Connection, Engine, Row, and_, cast, func, or_, select, update
from sqlalchemy.dialects.postgresql import JSONPATH, insert

from services.synthetic.adapters.synthesis_rows import STREAMED_ROWS, to_sample
from services.synthetic.adapters.tables import syntheses, synthesis_answers, synthesis_rows
from services.synthetic.synthesis_domain import (
    DRAFT_ID,
    JUDGEMENT_ID,
    TEACH,
    Completion,
    Lease,
    ModelRole,
    ModelUse,
    SampleState,
    StoredAnswer,
    Synthesis,
    SynthesisSample,
    SynthesisSpec,
    SynthesisState,
    SynthesisUse,
    TokenCount,
    TokenReservation,
)
from tailor.api.synthetic.v1.synthesis_pb2 import ListSamplesRequest, ListSynthesesRequest
from tailor.errors import Aborted, FailedPrecondition, NotFound, Reason
from tailor.listing import Listing, ListPage
from tailor.rows import Rows
from tailor.sql import transaction

SPEC, SYNTHESIS = TypeAdapter(SynthesisSpec), TypeAdapter(Synthesis)
USE = TypeAdapter(SynthesisUse)
NONE = TokenCount()


class SqlSyntheses:
    """Thread-safe. Methods with a lease raise Aborted (STALE_EPOCH) once another replica holds it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(self, synthesis: Synthesis, request_id: str) -> Synthesis:
        """Queue a synthesis, or return that of the same request id. Raises InvalidArgument (REQUEST_ID_REUSED)."""
        row = {
            "synthesis_id": synthesis.synthesis_id,
            "request_id": request_id or None,
            "specialist": synthesis.spec.specialist,
            "spec": SPEC.dump_python(synthesis.spec, mode="json"),
            "teacher": synthesis.teacher,
            "judge": synthesis.judge,
            "prompt_version": synthesis.prompt_version,
            "state": synthesis.state.value,
            "reason": "",
            "message": "",
            "use": asdict(synthesis.use),
        }
        with transaction(self._engine) as connection:
            connection.execute(insert(syntheses).values(row).on_conflict_do_nothing(index_elements=["request_id"]))
            same = syntheses.c.request_id == request_id if request_id else _is(synthesis.synthesis_id)
            return _find(connection, same)[0]

    def find_by_request(self, request_id: str) -> Synthesis | None:
        """The synthesis of a request id."""
        with transaction(self._engine) as connection:
            return next(iter(_find(connection, syntheses.c.request_id == request_id)), None)

    def get(self, synthesis_id: str) -> Synthesis | None:
        with transaction(self._engine) as connection:
            return next(iter(_find(connection, _is(synthesis_id))), None)

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
            rows = Rows(connection, syntheses, Row)
            listing = Listing(rows, request, table.synthesis_id, order_by="create_time desc", columns=columns)
            query = rows.select(**({"specialist": [*specialists]} if specialists else {}))
            return listing.page(query, read=lambda row: _with_counts(connection, row))

    def change(
        self,
        synthesis_id: str,
        states: Iterable[SynthesisState],
        to: SynthesisState,
        reason: str = "",
        message: str = "",
    ) -> bool:
        """Set the state if it is one of `states`; True if it was."""
        statement = (
            update(syntheses)
            .where(_is(synthesis_id), syntheses.c.state.in_([state.value for state in states]))
            .values(state=to.value, reason=reason, message=message, resume_at=None, **_end(to))
        )
        with transaction(self._engine) as connection:
            return bool(connection.execute(statement).rowcount)

    def wake(self, reasons: Iterable[str]) -> None:
        """Let the syntheses that are paused for these reasons resume at once."""
        paused = and_(syntheses.c.state == SynthesisState.PAUSED.value, syntheses.c.reason.in_(list(reasons)))
        with transaction(self._engine) as connection:
            connection.execute(update(syntheses).where(paused).values(resume_at=func.clock_timestamp()))

    def claim(self, lease_seconds: float) -> tuple[Synthesis, Lease] | None:
        """Take the oldest synthesis that no replica runs. Its earlier reservations become lost tokens."""
        now, columns = func.clock_timestamp(), syntheses.c
        is_free = or_(columns.leased_until.is_(None), columns.leased_until < now)
        waits = or_(
            columns.state == SynthesisState.QUEUED.value,
            and_(columns.state == SynthesisState.RUNNING.value, is_free),
            and_(columns.state == SynthesisState.PAUSED.value, columns.resume_at <= now),
        )
        query = select(columns.synthesis_id, columns.epoch, columns.use).where(waits).order_by(columns.created_at)
        with transaction(self._engine) as connection:
            row = connection.execute(query.limit(1).with_for_update(skip_locked=True)).one_or_none()
            if row is None:
                return None
            lease = Lease(row.synthesis_id, row.epoch + 1)
            values = {
                "state": SynthesisState.RUNNING.value,
                "reason": "",
                "message": "",
                "resume_at": None,
                "epoch": lease.epoch,
                "leased_until": now + timedelta(seconds=lease_seconds),
                "use": asdict(_lose_reservations(USE.validate_python(row.use))),
            }
            connection.execute(update(syntheses).where(_is(row.synthesis_id)).values(values))
            return _find(connection, _is(row.synthesis_id))[0], lease

    def renew(self, lease: Lease, lease_seconds: float) -> None:
        """Keep the lease."""
        until = func.clock_timestamp() + timedelta(seconds=lease_seconds)
        with transaction(self._engine) as connection:
            if not connection.execute(update(syntheses).where(_holds(lease)).values(leased_until=until)).rowcount:
                raise _stale()

    def reserve(self, lease: Lease, reservation: TokenReservation) -> bool:
        """Reserve tokens; False if that would pass a budget."""
        with transaction(self._engine) as connection:
            spec, use = _lock(connection, _holds(lease))
            model = use.of(reservation.role)
            use = use.with_role(reservation.role, replace(model, reserved=model.reserved + reservation.tokens))
            if not spec.allows(use):
                return False
            _set_use(connection, lease, use)
        return True

    def settle(self, lease: Lease, reservation: TokenReservation, completion: Completion, answer: StoredAnswer) -> None:
        """Store an answer, and replace its reservation by what it used; without usage, by the whole reservation."""
        with transaction(self._engine) as connection:
            _, use = _lock(connection, _is_current(lease))
            model = use.of(reservation.role)
            used = completion.tokens or reservation.tokens
            model = replace(model, used=model.used + used, reserved=model.reserved - reservation.tokens)
            _set_use(connection, lease, replace(use.with_role(reservation.role, model), answers=use.answers + 1))
            _keep_answer(connection, lease, answer)

    def release(
        self, lease: Lease, reservation: TokenReservation, *, is_lost: bool, refused: StoredAnswer | None = None
    ) -> None:
        """End a reservation without an answer; `refused` stores that the endpoint refused the prompt."""
        with transaction(self._engine) as connection:
            _, use = _lock(connection, _is_current(lease))
            model = use.of(reservation.role)
            lost = model.lost + reservation.tokens if is_lost else model.lost
            model = replace(model, lost=lost, reserved=model.reserved - reservation.tokens)
            _set_use(connection, lease, use.with_role(reservation.role, model))
            if refused is not None:
                _keep_answer(connection, lease, refused)

    def answer(self, synthesis_id: str, number: int, step: str) -> StoredAnswer | None:
        table = synthesis_answers
        query = select(table).where(
            table.c.synthesis_id == synthesis_id, table.c.number == number, table.c.step == step
        )
        with transaction(self._engine) as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        return StoredAnswer(
            row.number, row.step, row.model, row.text, row.finish_reason, row.refused, tuple(row.document_ids)
        )

    def numbers(self, synthesis_id: str) -> dict[int, bool]:
        """The requests that the teacher answered, and whether their rows are stored."""
        table = synthesis_answers
        query = select(table.c.number, table.c.checked).where(
            table.c.synthesis_id == synthesis_id, table.c.step == TEACH
        )
        with transaction(self._engine) as connection:
            return {row.number: row.checked for row in connection.execute(query)}

    def keep_samples(self, lease: Lease, number: int, samples: Sequence[SynthesisSample]) -> None:
        """Store the rows of a request, all at once."""
        table = synthesis_answers
        same = (table.c.synthesis_id == lease.synthesis_id, table.c.number == number, table.c.step == TEACH)
        with transaction(self._engine) as connection:
            spec, _ = _lock(connection, _is_current(lease))
            rows = [_sample_row(lease.synthesis_id, spec.specialist, sample) for sample in samples]
            # An answer that is gone was erased with its seed; then its rows must not come back.
            if connection.execute(update(table).where(*same).values(checked=True)).rowcount and rows:
                connection.execute(insert(synthesis_rows).on_conflict_do_nothing(), rows)

    def pause(self, lease: Lease, reason: str, message: str, seconds: float) -> None:
        """Pause, and resume by itself after `seconds`."""
        resume_at = func.clock_timestamp() + timedelta(seconds=seconds)
        self._leave(lease, SynthesisState.PAUSED, reason, message, resume_at=resume_at)

    def finish(self, lease: Lease, reason: str, message: str) -> None:
        """End as succeeded."""
        self._leave(lease, SynthesisState.SUCCEEDED, reason, message, ended_at=func.clock_timestamp())

    def _leave(self, lease: Lease, state: SynthesisState, reason: str, message: str, **values: Any) -> None:
        values |= {"state": state.value, "reason": str(reason), "message": message, "leased_until": None}
        with transaction(self._engine) as connection:
            if not connection.execute(update(syntheses).where(_holds(lease)).values(values)).rowcount:
                raise _stale()

    def list_rows(self, specialist: str) -> Iterator[SynthesisSample]:
        """Every row of the specialist's syntheses that no check refused."""
        table = synthesis_rows
        query = select(table).where(table.c.specialist == specialist, table.c.state != SampleState.REFUSED.value)
        with transaction(self._engine) as connection:
            for row in connection.execution_options(yield_per=STREAMED_ROWS).execute(query):
                yield to_sample(row)

    def list_samples(self, request: ListSamplesRequest) -> ListPage[SynthesisSample]:
        """A page of a synthesis's rows, in the order in which they were made."""
        rows, row = Rows(self._engine, synthesis_rows, Row), synthesis_rows.c.row
        contents = func.jsonb_path_query_array(row, cast("$.messages[*][1]", JSONPATH))
        columns = {"prompt": contents, "completion": row["messages"][-1][1].astext, "language": row["language"].astext}
        # Rows of one answer have its number.
        listing = Listing(rows, request, rows.c.row_id, order_by="number", columns=columns)
        return listing.page(rows.select(synthesis_id=request.synthesis_id), size=(20, 100), read=to_sample)

    def review(self, synthesis_id: str, decisions: dict[str, SampleState], reviewer: str) -> None:
        """Record decisions, all or none. Raises NotFound (UNKNOWN_SAMPLE), FailedPrecondition (SAMPLE_REFUSED)."""
        table = synthesis_rows
        with transaction(self._engine) as connection:
            for row_id, state in sorted(decisions.items()):
                same = (table.c.synthesis_id == synthesis_id, table.c.row_id == row_id)
                now = func.clock_timestamp()
                values = {"state": state.value, "reviewer": reviewer, "reviewed_at": now, "changed_at": now}
                is_open = table.c.state != SampleState.REFUSED.value
                if not connection.execute(update(table).where(*same, is_open).values(values)).rowcount:
                    _raise_unreviewable(connection, same)


def _is(synthesis_id: str) -> ColumnElement[bool]:
    return syntheses.c.synthesis_id == synthesis_id


def _holds(lease: Lease) -> ColumnElement[bool]:
    """The condition that the lease is current and the synthesis was not cancelled."""
    return and_(_is_current(lease), syntheses.c.state == SynthesisState.RUNNING.value)


def _stale() -> Aborted:
    return Aborted(Reason.STALE_EPOCH, "The synthesis was cancelled, or another replica runs it.")


def _is_current(lease: Lease) -> ColumnElement[bool]:
    """The condition that the lease is current. A cancelled synthesis still takes the answers of requests that run."""
    return and_(_is(lease.synthesis_id), syntheses.c.epoch == lease.epoch)


def _lock(connection: Connection, condition: ColumnElement[bool]) -> tuple[SynthesisSpec, SynthesisUse]:
    """Lock the synthesis for this transaction. Raises Aborted (STALE_EPOCH) if none meets the condition."""
    query = select(syntheses.c.spec, syntheses.c.use).where(condition).with_for_update()
    row = connection.execute(query).one_or_none()
    if row is None:
        raise _stale()
    return SPEC.validate_python(row.spec), USE.validate_python(row.use)


def _set_use(connection: Connection, lease: Lease, use: SynthesisUse) -> None:
    connection.execute(update(syntheses).where(_is(lease.synthesis_id)).values(use=asdict(use)))


def _lose_reservations(use: SynthesisUse) -> SynthesisUse:
    """Reservations of a killed run may have been billed."""

    def lose(model: ModelUse) -> ModelUse:
        return replace(model, lost=model.lost + model.reserved, reserved=NONE)

    for role in ModelRole:
        use = use.with_role(role, lose(use.of(role)))
    return use


def _end(state: SynthesisState) -> dict[str, Any]:
    return {"ended_at": func.clock_timestamp()} if state.has_ended else {}


def _keep_answer(connection: Connection, lease: Lease, answer: StoredAnswer) -> None:
    row = {
        "synthesis_id": lease.synthesis_id,
        "number": answer.number,
        "step": answer.step,
        "model": answer.model,
        "text": answer.text.replace("\0", ""),
        "finish_reason": answer.finish_reason[:32],
        "refused": answer.is_refused,
        "document_ids": list(answer.document_ids),
    }
    connection.execute(insert(synthesis_answers).values(row).on_conflict_do_nothing())


def _sample_row(synthesis_id: str, specialist: str, sample: SynthesisSample) -> dict[str, Any]:
    origin = dict(sample.row.lineage)
    return {
        "synthesis_id": synthesis_id,
        "row_id": sample.row_id,
        "specialist": specialist,
        "number": sample.number,
        "state": sample.state.value,
        "reason": str(sample.reason),
        "row": asdict(sample.row),
        "document_ids": [*sample.row.document_ids, *filter(None, (origin.get(JUDGEMENT_ID), origin.get(DRAFT_ID)))],
        "judgement_id": origin.get(JUDGEMENT_ID, ""),
        "mark": sample.mark,
        "back_translation": sample.back_translation,
        "reviewer": "",
    }


def _raise_unreviewable(connection: Connection, same: tuple[ColumnElement[bool], ...]) -> None:
    reason = connection.scalar(select(synthesis_rows.c.reason).where(*same))
    if reason is None:
        raise NotFound(Reason.UNKNOWN_SAMPLE, "The synthesis has no such row.")
    raise FailedPrecondition(Reason.SAMPLE_REFUSED, f"A check refused this row ({reason}); it cannot be reviewed.")


def _find(connection: Connection, wanted: ColumnElement[bool]) -> list[Synthesis]:
    """Syntheses with the counts of their rows."""
    return [_with_counts(connection, row) for row in connection.execute(select(syntheses).where(wanted)).all()]


def _with_counts(connection: Connection, row: Any) -> Synthesis:
    table = synthesis_rows.c
    query = select(table.state, table.reason, func.count()).where(table.synthesis_id == row.synthesis_id)
    return _to_synthesis(row, connection.execute(query.group_by(table.state, table.reason)).all())


def _count(state: SampleState) -> ColumnElement[int]:
    """The number of a synthesis's rows in a state."""
    table = synthesis_rows.c
    of_state = (table.synthesis_id == syntheses.c.synthesis_id, table.state == state.value)
    return select(func.count()).where(*of_state).scalar_subquery()


def _to_synthesis(row: Any, counts: Sequence[Any]) -> Synthesis:
    samples: dict[SampleState, int] = {}
    for state, _, count in counts:
        samples[SampleState(state)] = samples.get(SampleState(state), 0) + count
    refusals = {reason: count for state, reason, count in counts if state == SampleState.REFUSED.value}
    return SYNTHESIS.validate_python(dict(row._mapping) | {"samples": samples, "refusals": refusals})
