"""Approvals and operators' decisions in PostgreSQL."""

from typing import Any

from sqlalchemy import Connection, Engine, Row

from services.registry.adapters import tables
from services.registry.domain import Approval, DecisionKind, OperatorDecision
from tailor.rows import Rows


class SqlApprovals(Rows[Row[Any]]):
    """Adapters that passed the gate and need an operator's approval."""

    def __init__(self, database: Connection | Engine) -> None:
        super().__init__(database, tables.approvals, Row)

    def wait(self, specialist: str, adapter_digest: str) -> None:
        """Have an adapter wait, unless it waits already or was declined."""
        self.upsert(
            where=self.c.state != Approval.DECLINED.value,
            keep=("specialist",),
            adapter_digest=adapter_digest,
            specialist=specialist,
            state=Approval.WAITING,
        )

    def find_state(self, adapter_digest: str) -> Approval | None:
        """What became of an adapter's wait; None if it never waited."""
        state = self.value(self.c.state, adapter_digest=adapter_digest)
        return None if state is None else Approval(state)

    def end(self, adapter_digest: str, outcome: Approval) -> None:
        """End an adapter's wait. No effect if it never waited."""
        self.update({"state": outcome}, adapter_digest=adapter_digest)

    def end_all(self, specialist: str) -> None:
        """End the wait of all of a specialist's adapters."""
        self.update({"state": Approval.ENDED}, specialist=specialist, state=Approval.WAITING)


class SqlOperatorDecisions(Rows[OperatorDecision]):
    """Operators' decisions. They are never changed."""

    def __init__(self, database: Connection | Engine) -> None:
        super().__init__(database, tables.operator_decisions, OperatorDecision)

    def find_override(self, specialist: str, generation: int) -> OperatorDecision | None:
        """The override by which a generation serves its adapter; None if the gate let it serve."""
        return self.newest(self.c.generation <= generation, specialist=specialist, kind=DecisionKind.OVERRIDE)
