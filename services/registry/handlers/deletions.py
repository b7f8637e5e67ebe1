"""Deleting specialists."""

from dataclasses import replace
from datetime import UTC, datetime

from services.registry.adapters.sql import Begin
from services.registry.domain import DecisionKind, Justification, OperatorDecision, Specialist
from services.registry.handlers.promotions import save_serving
from services.registry.handlers.specialists import unknown_specialist
from services.registry.rules.serving import end_serving


def delete_specialist(begin: Begin, name: str, justification: Justification) -> tuple[Specialist, bool]:
    """End a specialist and what serves it. Returns its last definition, and whether this call deleted it; idempotent.

    Documents, datasets, adapters and drafts stay. Raises NotFound for a name that never existed."""
    with begin() as tx:
        specialist = tx.specialists.lock(name=name)
        if specialist is None:
            raise unknown_specialist()
        if specialist.deleted:
            return specialist, False
        now = datetime.now(UTC)
        deleted = replace(specialist, deleted=True, revision=specialist.revision + 1, update_time=now)
        tx.specialists.save(deleted)
        current = tx.servings.current(name)
        if current.generation:
            save_serving(tx, end_serving(current), "the specialist was deleted")
        tx.approvals.end_all(name)
        generation = current.generation + 1 if current.generation else 0
        tx.decisions.insert(OperatorDecision(DecisionKind.DELETION, name, justification, now, generation=generation))
        return deleted, True
