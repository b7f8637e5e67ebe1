"""Canaries in PostgreSQL: their policies, the calls of both arms while they run, and their outcomes."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime

from sqlalchemy import Connection, Row, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from services.registry.adapters import tables
from services.registry.domain import Arm, Call, Canary, CanaryPolicy, Outcome
from services.registry.ports import Canaries
from tailor.events.envelope import derive_id

RUNNING = Outcome.RUNNING.value


class SqlCanaries(Canaries):
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def start(self, canary: Canary) -> None:
        self._forget_calls(canary.specialist)
        row = {
            "specialist": canary.specialist,
            "generation": canary.generation,
            "adapter_digest": canary.adapter_digest,
            "rules": asdict(canary.policy),
            "start_time": canary.start_time,
            "outcome": RUNNING,
            "reason": "",
            "arms": [],
            "waiting": "",
        }
        self._connection.execute(insert(tables.canaries).values(row))

    def find_running(self, specialist: str) -> Canary | None:
        table = tables.canaries
        query = select(table).where(table.c.specialist == specialist, table.c.outcome == RUNNING)
        row = self._connection.execute(query).one_or_none()
        return None if row is None else to_canary(row)

    def list_running(self) -> Sequence[str]:
        table = tables.canaries
        query = select(table.c.specialist).where(table.c.outcome == RUNNING).order_by(table.c.specialist)
        return self._connection.scalars(query).all()

    def save_call(self, call: Call) -> None:
        self._connection.execute(insert(tables.canary_calls).values(asdict(call)).on_conflict_do_nothing())

    def measure(self, canary: Canary) -> tuple[Arm, Arm]:
        return measure_arms(self._connection, canary)

    def end(self, specialist: str, outcome: Outcome, reason: str) -> None:
        canary = self.find_running(specialist)
        if canary is None:
            return
        table = tables.canaries
        arms = [asdict(arm) for arm in self.measure(canary)]
        self._connection.execute(
            update(table)
            .where(table.c.specialist == specialist, table.c.outcome == RUNNING)
            .values(outcome=outcome.value, reason=reason, end_time=datetime.now(UTC), arms=arms)
        )
        self._forget_calls(specialist)

    def defer(self, specialist: str, adapter_digest: str) -> None:
        table = tables.canaries
        running = (table.c.specialist == specialist, table.c.outcome == RUNNING)
        self._connection.execute(update(table).where(*running).values(waiting=adapter_digest))

    def list_deferred(self) -> Mapping[str, str]:
        table = tables.canaries
        query = select(table).where(table.c.waiting != "", table.c.outcome != RUNNING)
        return {
            row.waiting: derive_id("req", "canary", row.specialist, row.generation)
            for row in self._connection.execute(query)
        }

    def resume(self, adapter_digest: str) -> None:
        table = tables.canaries
        deferred = (table.c.waiting == adapter_digest, table.c.outcome != RUNNING)
        self._connection.execute(update(table).where(*deferred).values(waiting=""))

    def _forget_calls(self, specialist: str) -> None:
        table = tables.canary_calls
        self._connection.execute(delete(table).where(table.c.specialist == specialist))


def find_newest_canary(connection: Connection, specialist: str) -> Canary | None:
    """The specialist's newest canary with its arms, or None."""
    table = tables.canaries
    query = select(table).where(table.c.specialist == specialist).order_by(table.c.generation.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    canary = to_canary(row)
    if canary.outcome is not Outcome.RUNNING:
        return canary
    canary_arm, incumbent_arm = measure_arms(connection, canary)
    return replace(canary, canary_arm=canary_arm, incumbent_arm=incumbent_arm)


def measure_arms(connection: Connection, canary: Canary) -> tuple[Arm, Arm]:
    """The arms of the canary and of the incumbent, from the calls so far."""
    table = tables.canary_calls
    median = func.percentile_cont(0.5)
    query = (
        select(
            table.c.canary,
            func.count(),
            func.count().filter(table.c.failed),
            func.count(table.c.key_id.distinct()),
            median.within_group(table.c.first_token_seconds),
            median.within_group(table.c.token_seconds),
        )
        .where(table.c.specialist == canary.specialist, table.c.generation == canary.generation)
        .group_by(table.c.canary)
    )
    arms = {row[0]: Arm(*row[1:]) for row in connection.execute(query)}
    return arms.get(True, Arm()), arms.get(False, Arm())


def to_canary(row: Row) -> Canary:  # type: ignore[type-arg]
    """A canary from its row; with arms once it has ended."""
    canary_arm, incumbent_arm = [Arm(**arm) for arm in row.arms] or (Arm(), Arm())
    return Canary(
        specialist=row.specialist,
        generation=row.generation,
        adapter_digest=row.adapter_digest,
        policy=CanaryPolicy(**row.rules),
        start_time=row.start_time,
        outcome=Outcome(row.outcome),
        reason=row.reason,
        end_time=row.end_time,
        canary_arm=canary_arm,
        incumbent_arm=incumbent_arm,
    )
