"""Canaries in PostgreSQL: their policies, the calls of both arms while they run, and their outcomes."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, Connection, func, select

from services.registry.adapters import tables
from services.registry.domain import EDIT_RETENTION, Arm, Call, Canary, Outcome
from services.registry.rules.canary import ArmReports
from services.registry.rules.canary_outcomes import OutcomeValue, summarize_reports
from tailor.events.envelope import derive_id
from tailor.jobs import add_job
from tailor.rows import Rows

# Kinds of jobs: the running canary of a specialist, and the evaluation of an adapter that waited for its end.
CANARY, DEFERRED = "canary", "deferred evaluation"
MAX_REPORTS = 100_000


class SqlCanaries(Rows[Canary]):
    """Canaries and their calls. At most one runs per specialist."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, tables.canaries, Canary, "generation")
        self._connection = connection
        self._calls = Rows(connection, tables.canary_calls, Call)

    def start(self, canary: Canary) -> None:
        self._calls.delete(specialist=canary.specialist)
        self.insert(canary)
        add_job(self._connection, tables.jobs, CANARY, canary.specialist)

    def find_running(self, specialist: str) -> Canary | None:
        """The running canary without its arms."""
        return self.find(specialist=specialist, outcome=Outcome.RUNNING)

    def save_call(self, call: Call) -> None:
        """Count a call, once."""
        self._calls.add(call)

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
        canary_arm, incumbent_arm = self.measure(canary)
        arms = {"canary_arm": canary_arm, "incumbent_arm": incumbent_arm}
        ended = {"outcome": outcome, "reason": reason, "end_time": datetime.now(UTC), **arms}
        own = {"specialist": specialist, "generation": canary.generation}
        self.update(ended, **own)
        if deferred := self.value(self.c.waiting, **own):
            request_id = derive_id("req", "canary", specialist, canary.generation)
            add_job(self._connection, tables.jobs, DEFERRED, deferred, request_id=request_id)
        self._calls.delete(specialist=specialist)

    def defer(self, specialist: str, adapter_digest: str) -> None:
        """Have an adapter evaluated again after the running canary. A later call replaces an earlier one."""
        self.update({"waiting": adapter_digest}, specialist=specialist, outcome=Outcome.RUNNING)


def find_newest_canary(connection: Connection, specialist: str) -> Canary | None:
    """The specialist's newest canary with its arms, or None."""
    canary = SqlCanaries(connection).newest(specialist=specialist)
    if canary is None or canary.outcome is not Outcome.RUNNING:
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
