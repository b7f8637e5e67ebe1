"""Calls that wait for a second person, in PostgreSQL: who asked for what, who decided, and what became of it. No row is ever deleted."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    DateTime,
    Engine,
    Identity,
    MetaData,
    Row,
    String,
    Table,
    Text,
    func,
    insert,
    select,
    update,
)

from tailor.errors import FailedPrecondition, NotFound, PermissionDenied, Reason, ResourceExhausted
from tailor.sql import create_tables, transaction

LIFETIME = timedelta(hours=24)
MAX_WAITING_PER_KEY = 100

METADATA = MetaData()
# The shared library creates this table itself: no service's migrations know it.
HELD_CALLS = Table(
    "held_calls",
    METADATA,
    Column("position", BigInteger, Identity(always=True), primary_key=True),
    Column("held_call_id", String(64), nullable=False, unique=True),
    Column("method", String(64), nullable=False),
    Column("request", Text, nullable=False),
    Column("requested_by", String(64), nullable=False, index=True),
    Column("create_time", DateTime(timezone=True), nullable=False),
    Column("expire_time", DateTime(timezone=True), nullable=False),
    Column("state", String(16), nullable=False),
    Column("decided_by", String(64), nullable=False, server_default=""),
    Column("decide_time", DateTime(timezone=True)),
    Column("use_time", DateTime(timezone=True)),
)


class HeldState(StrEnum):
    """What became of a held call. EXPIRED is never stored: it follows from the time."""

    WAITING = "waiting"
    APPROVED = "approved"
    DECLINED = "declined"
    USED = "used"
    EXPIRED = "expired"


@dataclass(frozen=True)
class HeldCall:
    """A call that waits, or waited, for a second person. `request` is JSON; `requested_by` and `decided_by` are ids of keys."""

    held_call_id: str
    method: str
    request: str
    requested_by: str
    create_time: datetime
    expire_time: datetime
    state: HeldState = HeldState.WAITING
    decided_by: str = ""
    decide_time: datetime | None = None
    use_time: datetime | None = None


class HeldCalls:
    """The held calls of one service. Thread-safe; replicas share them."""

    def __init__(self, engine: Engine, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._engine = engine
        self._now = now
        create_tables(engine, METADATA)

    def hold(self, method: str, request: str, requested_by: str) -> HeldCall:
        """Store a call. The same call of the same key, if it still waits or is approved, is returned instead.

        Raises ResourceExhausted (TOO_MANY_HELD_CALLS) if MAX_WAITING_PER_KEY calls of the key wait.
        """
        now, table = self._now(), HELD_CALLS.c
        is_open = table.state.in_([HeldState.WAITING, HeldState.APPROVED]) & (table.expire_time > now)
        mine = select(HELD_CALLS).where((table.requested_by == requested_by) & is_open)
        same = (table.method == method) & (table.request == request)
        with transaction(self._engine) as connection:
            row = connection.execute(mine.where(same)).first()
            if row is not None:
                return _to_held_call(row, now)
            waiting = connection.execute(select(func.count()).select_from(mine.subquery())).scalar_one()
            if waiting >= MAX_WAITING_PER_KEY:
                raise ResourceExhausted(
                    Reason.TOO_MANY_HELD_CALLS,
                    f"{waiting} calls of your key wait for a second person. Decline some of them with `tailor held decline ID`.",
                )
            held = HeldCall(f"hld_{secrets.token_hex(16)}", method, request, requested_by, now, now + LIFETIME)
            connection.execute(
                insert(HELD_CALLS).values(
                    held_call_id=held.held_call_id,
                    method=method,
                    request=request,
                    requested_by=requested_by,
                    create_time=held.create_time,
                    expire_time=held.expire_time,
                    state=held.state.value,
                )
            )
        return held

    def decide(self, held_call_id: str, key_id: str, *, approve: bool) -> HeldCall:
        """Approve or decline a call. Raises NotFound, FailedPrecondition (HELD_CALL_CLOSED), and PermissionDenied (OWN_HELD_CALL).

        The key that made a call may decline it, and never approve it.
        """
        with transaction(self._engine) as connection:
            held = self._find(connection, held_call_id)
            if approve and held.requested_by == key_id:
                raise PermissionDenied(
                    Reason.OWN_HELD_CALL, "Another person must approve this call: your own key made it."
                )
            if held.state is not HeldState.WAITING:
                raise _closed(held)
            state = HeldState.APPROVED if approve else HeldState.DECLINED
            decided = replace(held, state=state, decided_by=key_id, decide_time=self._now())
            changed = {"state": state.value, "decided_by": key_id, "decide_time": decided.decide_time}
            connection.execute(_change(held_call_id).values(changed))
        return decided

    def use(self, held_call_id: str, method: str, request: str, key_id: str) -> HeldCall:
        """Use the approval of a call, once. Raises NotFound for a call of another key, and FailedPrecondition.

        The reasons are HELD_CALL_DIFFERS for another method or request than was approved, and HELD_CALL_CLOSED for a call that is not
        approved any more, or not yet.
        """
        with transaction(self._engine) as connection:
            held = self._find(connection, held_call_id)
            if held.requested_by != key_id:
                raise _unknown()
            if (held.method, held.request) != (method, request):
                raise FailedPrecondition(
                    Reason.HELD_CALL_DIFFERS, "This is not the call that was held. Repeat it exactly as it was made."
                )
            if held.state is not HeldState.APPROVED:
                raise _closed(held)
            used = replace(held, state=HeldState.USED, use_time=self._now())
            changed = {"state": used.state.value, "use_time": used.use_time}
            connection.execute(_change(held_call_id).values(changed))
        return used

    def list(self, limit: int, before: int | None = None) -> Sequence[tuple[int, HeldCall]]:
        """Positions and calls, newest first."""
        query = select(HELD_CALLS).order_by(HELD_CALLS.c.position.desc()).limit(limit)
        if before is not None:
            query = query.where(HELD_CALLS.c.position < before)
        with transaction(self._engine) as connection:
            return [(row.position, _to_held_call(row, self._now())) for row in connection.execute(query)]

    def _find(self, connection: Connection, held_call_id: str) -> HeldCall:
        query = select(HELD_CALLS).where(HELD_CALLS.c.held_call_id == held_call_id).with_for_update()
        row = connection.execute(query).first()
        if row is None:
            raise _unknown()
        return _to_held_call(row, self._now())


def _change(held_call_id: str):  # type: ignore[no-untyped-def]  # noqa: ANN202 - SQLAlchemy's Update
    return update(HELD_CALLS).where(HELD_CALLS.c.held_call_id == held_call_id)


def _to_held_call(row: Row, now: datetime) -> HeldCall:  # type: ignore[type-arg]
    state = HeldState(row.state)
    if state in {HeldState.WAITING, HeldState.APPROVED} and row.expire_time <= now:
        state = HeldState.EXPIRED
    return HeldCall(
        held_call_id=row.held_call_id,
        method=row.method,
        request=row.request,
        requested_by=row.requested_by,
        create_time=row.create_time,
        expire_time=row.expire_time,
        state=state,
        decided_by=row.decided_by,
        decide_time=row.decide_time,
        use_time=row.use_time,
    )


def _unknown() -> NotFound:
    return NotFound(Reason.UNKNOWN_HELD_CALL, "No such call is held. `tailor held list` lists them.")


def _closed(held: HeldCall) -> FailedPrecondition:
    if held.state is HeldState.WAITING:
        message = (
            f"This call still waits for a second person: `tailor held approve {held.held_call_id}` with another key."
        )
    else:
        message = f"This call is {held.state.value}. Make it again without its id."
    return FailedPrecondition(Reason.HELD_CALL_CLOSED, message)
