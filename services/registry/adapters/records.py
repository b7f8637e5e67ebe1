"""What the database says about one adapter, and the facts that its state follows from."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, exists, select

from services.registry.adapters import tables
from services.registry.adapters.operators import find_approval, find_newest_decision
from services.registry.domain import Approval, Decision, OperatorDecision, Outcome
from services.registry.rules.states import AdapterFacts
from tailor.api.events.v1 import models_pb2


@dataclass(frozen=True)
class AdapterRecords:
    """The rows about an adapter: its newest evaluation, its taint, its newest canary's outcome, and whether it ever served."""

    evaluation: Row[Any] | None
    taint: Row[Any] | None
    canary_outcome: str
    served: bool
    approval: Approval | None
    operator_decision: OperatorDecision | None


def read_records(connection: Connection, specialist: str, digest: str) -> AdapterRecords:
    """Everything about one adapter of a specialist."""
    evaluations, taints = tables.evaluations, tables.taints
    canaries, servings = tables.canaries, tables.servings
    newest = select(evaluations).where(evaluations.c.adapter_digest == digest).order_by(evaluations.c.position.desc())
    tried = (canaries.c.specialist == specialist, canaries.c.adapter_digest == digest)
    outcome = select(canaries.c.outcome).where(*tried).order_by(canaries.c.generation.desc())
    served = exists().where(servings.c.specialist == specialist, servings.c.adapter_digest == digest)
    return AdapterRecords(
        evaluation=connection.execute(newest.limit(1)).first(),
        taint=connection.execute(select(taints).where(taints.c.adapter_digest == digest)).first(),
        canary_outcome=connection.scalar(outcome.limit(1)) or "",
        served=bool(connection.scalar(select(served))),
        approval=find_approval(connection, digest),
        operator_decision=find_newest_decision(connection, digest),
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
        withdrawn=records.canary_outcome == Outcome.BACK.value,
        served_before=records.served,
        approval=records.approval,
        intermediate=adapter.intermediate,
        decision=Decision(records.evaluation.decision) if records.evaluation is not None else None,
    )
