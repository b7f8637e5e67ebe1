"""Canaries in PostgreSQL: their policies, the calls of both arms while they run, and their outcomes."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, Connection, Row, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from services.registry.adapters import tables
from services.registry.domain import EDIT_RETENTION, Arm, Call, Canary, CanaryPolicy, Outcome
from services.registry.rules.canary import ArmReports
from services.registry.rules.canary_outcomes import OutcomeValue, summarize_reports
from tailor.events.envelope import derive_id
from tailor.jobs import add_job

RUNNING = Outcome.RUNNING.value
# Kinds of jobs: the running canary of a specialist, and the evaluation of an adapter that waited for its end.
CANARY, DEFERRED = "canary", "deferred evaluation"
MAX_REPORTS = 100_000


class SqlCanaries:
    """Canaries and their calls. At most one runs per specialist."""

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
        add_job(self._connection, tables.jobs, CANARY, canary.specialist)

    def find_running(self, specialist: str) -> Canary | None:
        """The running canary without its arms."""
        table = tables.canaries
        query = select(table).where(table.c.specialist == specialist, table.c.outcome == RUNNING)
        row = self._connection.execute(query).one_or_none()
        return None if row is None else to_canary(row)

    def save_call(self, call: Call) -> None:
        """Count a call, once."""
        self._connection.execute(insert(tables.canary_calls).values(asdict(call)).on_conflict_do_nothing())

    def measure(self, canary: Canary) -> tuple[Arm, Arm]:
        """The arms of the canary and of the incumbent."""
        return measure_arms(self._connection, canary)

    def list_reports(self, canary: Canary) -> ArmReports:
        """Reports of the policy's outcome on the drafts of the canary and of the incumbent, since it started; none without an outcome."""
        return list_reports(self._connection, canary)

    def end(self, specialist: str, outcome: Outcome, reason: str) -> None:
        """End the running canary, if there is one, with its arms. A deferred adapter is then evaluated again."""
        canary = self.find_running(specialist)
        if canary is None:
            return
        table = tables.canaries
        arms = [asdict(arm) for arm in self.measure(canary)]
        ended = (
            update(table)
            .where(table.c.specialist == specialist, table.c.outcome == RUNNING)
            .values(outcome=outcome.value, reason=reason, end_time=datetime.now(UTC), arms=arms)
        )
        if deferred := self._connection.scalar(ended.returning(table.c.waiting)):
            request_id = derive_id("req", "canary", specialist, canary.generation)
            add_job(self._connection, tables.jobs, DEFERRED, deferred, request_id=request_id)
        self._forget_calls(specialist)

    def defer(self, specialist: str, adapter_digest: str) -> None:
        """Have an adapter evaluated again after the running canary. A later call replaces an earlier one."""
        table = tables.canaries
        running = (table.c.specialist == specialist, table.c.outcome == RUNNING)
        self._connection.execute(update(table).where(*running).values(waiting=adapter_digest))

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
    ours, theirs = list_reports(connection, canary)
    measure = canary.policy.outcome
    return _add_reports(arms.get(True, Arm()), measure, ours), _add_reports(arms.get(False, Arm()), measure, theirs)


def _add_reports(arm: Arm, measure: str, reports: Sequence[OutcomeValue]) -> Arm:
    mean = summarize_reports(measure, [report.value for report in reports])
    return replace(arm, reports=len(reports), outcome=mean)


def list_reports(connection: Connection, canary: Canary) -> ArmReports:
    """The newest reports of the policy's outcome on drafts of the canary's generation, by arm."""
    measure = canary.policy.outcome
    if not measure:
        return (), ()
    if measure == EDIT_RETENTION:
        table, value = tables.final_texts, tables.final_texts.c.share
        known: ColumnElement[bool] = value.is_not(None)
    else:
        table, value = tables.outcomes, tables.outcomes.c[measure]
        known = value > 0
    query = (
        select(table.c.adapter_digest == canary.adapter_digest, value, table.c.create_time)
        .where(table.c.specialist == canary.specialist, table.c.generation == canary.generation, known)
        .order_by(table.c.create_time.desc())
        .limit(MAX_REPORTS)
    )
    ours: list[OutcomeValue] = []
    theirs: list[OutcomeValue] = []
    for is_canary, value, moment in connection.execute(query):
        (ours if is_canary else theirs).append(OutcomeValue(float(value), moment))
    return ours, theirs


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
