"""Approvals, operators' decisions and pins in PostgreSQL."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, Row, delete, select, update
from sqlalchemy.dialects.postgresql import insert

from services.registry.adapters import tables
from services.registry.domain import Approval, Decision, DecisionKind, Justification, OperatorDecision, Verdict

OVERRIDE = DecisionKind.OVERRIDE.value


class SqlApprovals:
    """Adapters that passed the gate and need an operator's approval."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def wait(self, specialist: str, adapter_digest: str) -> None:
        """Have an adapter wait, unless it waits already or was declined."""
        table = tables.approvals
        row = {"adapter_digest": adapter_digest, "specialist": specialist, "state": Approval.WAITING.value}
        statement = insert(table).values(row)
        waits_again = table.c.state != Approval.DECLINED.value
        self._connection.execute(
            statement.on_conflict_do_update(
                index_elements=["adapter_digest"], set_={"state": statement.excluded.state}, where=waits_again
            )
        )

    def find(self, adapter_digest: str) -> Approval | None:
        return find_approval(self._connection, adapter_digest)

    def end(self, adapter_digest: str, outcome: Approval) -> None:
        """End an adapter's wait. No effect if it never waited."""
        self._end(tables.approvals.c.adapter_digest == adapter_digest, outcome)

    def end_all(self, specialist: str) -> None:
        """End the wait of all of a specialist's adapters."""
        waiting = tables.approvals.c.state == Approval.WAITING.value
        self._end((tables.approvals.c.specialist == specialist) & waiting, Approval.ENDED)

    def _end(self, condition: ColumnElement[bool], outcome: Approval) -> None:
        self._connection.execute(update(tables.approvals).where(condition).values(state=outcome.value))


class SqlOperatorDecisions:
    """Operators' decisions. They are never changed."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, decision: OperatorDecision) -> None:
        verdict = decision.verdict
        row = {
            "kind": decision.kind.value,
            "specialist": decision.specialist,
            "adapter_digest": decision.adapter_digest,
            "generation": decision.generation,
            "key_id": decision.justification.key_id,
            "reason": decision.justification.reason,
            "verdict": verdict.decision.value if verdict else "",
            "verdict_reasons": list(verdict.reasons) if verdict else [],
            "create_time": decision.create_time,
        }
        self._connection.execute(insert(tables.operator_decisions).values(row))


class SqlPins:
    """Entries that stay at the top of a leaderboard."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def set(self, specialist: str, entry: str, *, pinned: bool) -> None:
        """Pin an entry, or stop. Idempotent."""
        table, row = tables.pins, {"specialist": specialist, "entry": entry}
        if pinned:
            self._connection.execute(insert(table).values(row).on_conflict_do_nothing())
        else:
            self._connection.execute(delete(table).where(table.c.specialist == specialist, table.c.entry == entry))


def find_approval(connection: Connection, adapter_digest: str) -> Approval | None:
    """What became of an adapter's wait; None if it never waited."""
    table = tables.approvals
    state = connection.scalar(select(table.c.state).where(table.c.adapter_digest == adapter_digest))
    return None if state is None else Approval(state)


def list_waiting(connection: Connection, specialist: str, after: int, limit: int) -> Sequence[tuple[int, str]]:
    """Positions and digests of the adapters that wait, oldest first."""
    table = tables.approvals
    query = select(table.c.position, table.c.adapter_digest).where(
        table.c.state == Approval.WAITING.value, table.c.position > after
    )
    if specialist:
        query = query.where(table.c.specialist == specialist)
    return [(row[0], row[1]) for row in connection.execute(query.order_by(table.c.position).limit(limit))]


def list_decisions(
    connection: Connection, specialist: str, before: int | None, limit: int
) -> Sequence[tuple[int, OperatorDecision]]:
    """Positions and decisions, newest first."""
    table = tables.operator_decisions
    query = select(table)
    if specialist:
        query = query.where(table.c.specialist == specialist)
    if before is not None:
        query = query.where(table.c.position < before)
    rows = connection.execute(query.order_by(table.c.position.desc()).limit(limit))
    return [(row.position, to_decision(row)) for row in rows]


def find_newest_decision(connection: Connection, adapter_digest: str) -> OperatorDecision | None:
    """The newest decision about an adapter, or None."""
    table = tables.operator_decisions
    return _find_newest(connection, table.c.adapter_digest == adapter_digest)


def find_override(connection: Connection, specialist: str, generation: int) -> OperatorDecision | None:
    """The override by which a generation serves its adapter; None if the gate let it serve."""
    table = tables.operator_decisions
    made_before = (table.c.kind == OVERRIDE) & (table.c.generation <= generation)
    return _find_newest(connection, (table.c.specialist == specialist) & made_before)


def _find_newest(connection: Connection, condition: ColumnElement[bool]) -> OperatorDecision | None:
    table = tables.operator_decisions
    row = connection.execute(select(table).where(condition).order_by(table.c.position.desc()).limit(1)).one_or_none()
    return None if row is None else to_decision(row)


def list_pins(connection: Connection, specialist: str) -> frozenset[str]:
    """The pinned entries of a specialist's leaderboard."""
    table = tables.pins
    return frozenset(connection.scalars(select(table.c.entry).where(table.c.specialist == specialist)))


def to_decision(row: Row) -> OperatorDecision:  # type: ignore[type-arg]
    """A decision from its row."""
    return OperatorDecision(
        kind=DecisionKind(row.kind),
        specialist=row.specialist,
        justification=Justification(row.key_id, row.reason),
        create_time=row.create_time,
        adapter_digest=row.adapter_digest,
        generation=row.generation,
        verdict=Verdict(Decision(row.verdict), tuple(row.verdict_reasons)) if row.verdict else None,
    )
