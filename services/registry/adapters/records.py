"""What the database says about one adapter, and the facts that its state follows from."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row

from services.registry.adapters import tables
from services.registry.adapters.canaries import SqlCanaries
from services.registry.adapters.operators import SqlApprovals, SqlOperatorDecisions
from services.registry.domain import Approval, Canary, Decision, OperatorDecision, Outcome, Taint
from services.registry.rules.states import AdapterFacts
from tailor.api.events.v1 import models_pb2
from tailor.rows import Rows


@dataclass(frozen=True)
class AdapterRecords:
    """The rows about an adapter: its newest evaluation, its taint, its newest canary, and whether it ever served."""

    evaluation: Row[Any] | None
    taint: Taint | None
    canary: Canary | None
    served: bool
    approval: Approval | None
    operator_decision: OperatorDecision | None


def read_records(connection: Connection, specialist: str, digest: str) -> AdapterRecords:
    """Everything about one adapter of a specialist."""
    canaries, servings = SqlCanaries(connection), Rows(connection, tables.servings, Row)
    of_adapter = {"specialist": specialist, "adapter_digest": digest}
    return AdapterRecords(
        evaluation=Rows(connection, tables.evaluations, Row).newest(adapter_digest=digest),
        taint=Rows(connection, tables.taints, Taint).find(adapter_digest=digest),
        canary=canaries.newest(**of_adapter),
        served=servings.has(**of_adapter),
        approval=SqlApprovals(connection).find_state(digest),
        operator_decision=SqlOperatorDecisions(connection).newest(adapter_digest=digest),
    )


def to_facts(
    adapter: models_pb2.AdapterTrained, records: AdapterRecords, current: models_pb2.SpecialistServing
) -> AdapterFacts:
    """The facts that decide the adapter's state; `current` is what serves its specialist."""
    return AdapterFacts(
        is_reward=adapter.kind == models_pb2.ADAPTER_KIND_REWARD,
        retired=records.taint is not None and records.taint.retired,
        serving=current.adapter_digest == adapter.digest,
        overridden=current.overridden,
        canary=current.canary.adapter_digest == adapter.digest,
        withdrawn=records.canary is not None and records.canary.outcome is Outcome.BACK,
        served_before=records.served,
        approval=records.approval,
        intermediate=adapter.intermediate,
        decision=Decision(records.evaluation.decision) if records.evaluation is not None else None,
    )
