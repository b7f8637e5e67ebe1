"""Canaries in PostgreSQL: their rules, the calls of both arms while they run, and what became of them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime

from sqlalchemy import Connection, Row, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from services.registry.adapters import tables
from services.registry.comparing import Arm, Call, Canary, CanaryRules, Outcome
from tailor.events.envelope import derive_id

RUNNING = Outcome.RUNNING.value


class SqlCanaries:
    """The part of a transaction that is about canaries."""

    _connection: Connection

    def start_canary(self, canary: Canary) -> None:
        """Keep a new canary; the table holds one that runs for each specialist."""
        self._forget_calls(canary.specialist)
        self._connection.execute(
            insert(tables.canaries).values(
                specialist=canary.specialist,
                generation=canary.generation,
                adapter_digest=canary.adapter_digest,
                rules=asdict(canary.rules),
                start_time=canary.start_time,
                outcome=RUNNING,
                reason="",
                arms=[],
                waiting="",
            )
        )

    def running_canary(self, specialist: str) -> Canary | None:
        """The specialist's canary that runs, or None; its arms are not read."""
        table = tables.canaries
        query = select(table).where(table.c.specialist == specialist, table.c.outcome == RUNNING)
        row = self._connection.execute(query).one_or_none()
        return None if row is None else to_canary(row)

    def running_canaries(self) -> Sequence[str]:
        """Specialists with a canary that runs."""
        table = tables.canaries
        query = select(table.c.specialist).where(table.c.outcome == RUNNING).order_by(table.c.specialist)
        return self._connection.scalars(query).all()

    def save_call(self, call: Call) -> None:
        """Count a call, once."""
        self._connection.execute(insert(tables.canary_calls).values(asdict(call)).on_conflict_do_nothing())

    def arms(self, canary: Canary) -> tuple[Arm, Arm]:
        """What was measured of the canary's calls, and of those beside it."""
        return arms(self._connection, canary)

    def end_canary(self, specialist: str, outcome: Outcome, reason: str) -> None:
        """End the canary that runs, if one does: keep what was measured, and forget the calls."""
        canary = self.running_canary(specialist)
        if canary is None:
            return
        table = tables.canaries
        measured = [asdict(arm) for arm in self.arms(canary)]
        self._connection.execute(
            update(table)
            .where(table.c.specialist == specialist, table.c.outcome == RUNNING)
            .values(outcome=outcome.value, reason=reason, end_time=datetime.now(UTC), arms=measured)
        )
        self._forget_calls(specialist)

    def let_wait(self, specialist: str, adapter_digest: str) -> None:
        """An adapter is measured again once the canary that runs has ended; the last one that asks."""
        table = tables.canaries
        mine = (table.c.specialist == specialist, table.c.outcome == RUNNING)
        self._connection.execute(update(table).where(*mine).values(waiting=adapter_digest))

    def waiting(self) -> Mapping[str, str]:
        """Adapters whose wait is over, each with the id of the request to measure it, the same until it waits no more."""
        table = tables.canaries
        query = select(table).where(table.c.waiting != "", table.c.outcome != RUNNING)
        return {
            row.waiting: derive_id("req", "canary", row.specialist, row.generation)
            for row in self._connection.execute(query)
        }

    def waits_no_more(self, adapter_digest: str) -> None:
        """An adapter is being measured again."""
        table = tables.canaries
        mine = (table.c.waiting == adapter_digest, table.c.outcome != RUNNING)
        self._connection.execute(update(table).where(*mine).values(waiting=""))

    def _forget_calls(self, specialist: str) -> None:
        table = tables.canary_calls
        self._connection.execute(delete(table).where(table.c.specialist == specialist))


def newest_canary(connection: Connection, specialist: str) -> Canary | None:
    """The specialist's newest canary with what was measured, or None."""
    table = tables.canaries
    query = select(table).where(table.c.specialist == specialist).order_by(table.c.generation.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    canary = to_canary(row)
    if canary.outcome is not Outcome.RUNNING:
        return canary
    tried, beside = arms(connection, canary)
    return replace(canary, tried=tried, beside=beside)


def arms(connection: Connection, canary: Canary) -> tuple[Arm, Arm]:
    """What was measured of the canary's calls, and of those beside it."""
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
    found = {row[0]: Arm(*row[1:]) for row in connection.execute(query)}
    return found.get(True, Arm()), found.get(False, Arm())


def to_canary(row: Row) -> Canary:  # type: ignore[type-arg]
    """A canary from its row, with what was kept of its arms once it had ended."""
    tried, beside = [Arm(**held) for held in row.arms] or (Arm(), Arm())
    return Canary(
        specialist=row.specialist,
        generation=row.generation,
        adapter_digest=row.adapter_digest,
        rules=CanaryRules(**row.rules),
        start_time=row.start_time,
        outcome=Outcome(row.outcome),
        reason=row.reason,
        end_time=row.end_time,
        tried=tried,
        beside=beside,
    )
