"""Defining specialists, planning their evaluations, and pinning entries of their leaderboards."""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from services.registry.adapters.sql import Begin, SqlSpecialists
from services.registry.domain import Specialist
from services.registry.ports import CheckPipeline
from services.registry.rules import plans
from services.registry.rules.changes import FieldChange, list_changes
from services.registry.rules.checks import check_specialist
from tailor.errors import Aborted, AlreadyExists, NotFound, Reason

UNTUNED = re.compile(r"base|few_shot|prompt|external:[a-zA-Z0-9_-]{1,63}")


def check_pipeline(begin: Begin, specialist: Specialist, check: CheckPipeline) -> None:
    """Check that training has the base and the recipes, unless the specialist has them already. Blocks.

    Raises NotFound (UNKNOWN_BASE) and InvalidArgument (UNKNOWN_RECIPE, or for an invalid definition), Unavailable without training.
    """
    check_specialist(specialist)
    with begin() as tx:
        known = tx.specialists.find(name=specialist.name)
    if known is None or known.deleted or (known.base, known.pipeline) != (specialist.base, specialist.pipeline):
        check(specialist.base, [stage.recipe for stage in specialist.pipeline])


def create_specialist(begin: Begin, specialist: Specialist) -> tuple[Specialist, bool]:
    """Define a specialist. Returns it, and whether it is new; idempotent. A deleted name can be defined again.

    Raises AlreadyExists if the name has another definition, InvalidArgument for an invalid one."""
    check_specialist(specialist)
    specialist = replace(specialist, deleted=False)
    with begin() as tx:
        known = tx.specialists.lock(name=specialist.name)
        if known is not None and not known.deleted:
            if not known.same_definition(specialist):
                raise AlreadyExists(
                    Reason.SPECIALIST_EXISTS,
                    "The name has another definition. Update the specialist, or choose another name.",
                )
            return known, False
        revision = known.revision + 1 if known else 1
        created = replace(specialist, revision=revision, update_time=datetime.now(UTC))
        tx.specialists.save(created)
        return created, True


def update_specialist(
    begin: Begin, specialist: Specialist, *, validate_only: bool = False
) -> tuple[Specialist, tuple[FieldChange, ...]]:
    """Replace a definition. Returns the current one and what the update changes; with `validate_only`, without making the changes.

    Raises Aborted if `revision` is not the current one, InvalidArgument for an invalid definition."""
    check_specialist(specialist)
    specialist = replace(specialist, deleted=False)
    with begin() as tx:
        current = lock_specialist(tx.specialists, specialist.name)
        if current.revision != specialist.revision:
            raise Aborted(
                Reason.REVISION_MOVED,
                f"Current revision is {current.revision}. Reload and retry.",
                revision=str(current.revision),
            )
        changes = list_changes(current, specialist)
        if validate_only or current.same_definition(specialist):
            return current, changes
        updated = replace(specialist, revision=current.revision + 1, update_time=datetime.now(UTC))
        tx.specialists.save(updated)
        return updated, changes


def get_specialist(begin: Begin, name: str) -> Specialist:
    """Raises NotFound for an unknown or deleted name."""
    with begin() as tx:
        specialist = tx.specialists.find(name=name)
    if specialist is None or specialist.deleted:
        raise unknown_specialist()
    return specialist


def lock_specialist(specialists: SqlSpecialists, name: str) -> Specialist:
    """A specialist that nobody else changes until the transaction ends. Raises NotFound for an unknown or deleted name."""
    specialist = specialists.lock(name=name)
    if specialist is None or specialist.deleted:
        raise unknown_specialist()
    return specialist


def pin_entry(begin: Begin, specialist: str, entry: str, *, pinned: bool) -> None:
    """Pin an adapter or a model without tuning, or stop. Idempotent. Raises NotFound for an unknown specialist or entry."""
    with begin() as tx:
        lock_specialist(tx.specialists, specialist)
        adapter = tx.facts.find_adapter(entry)
        if not UNTUNED.fullmatch(entry) and (adapter is None or adapter.specialist != specialist):
            raise NotFound(
                Reason.UNKNOWN_ENTRY,
                "The leaderboard has no such entry. `tailor specialist leaderboard NAME` lists its entries.",
            )
        change = tx.pins.add if pinned else tx.pins.delete
        change(specialist=specialist, entry=entry)


def plan_evaluation(begin: Begin, name: str, documents: Sequence[int], pairs: Sequence[int]) -> plans.EvaluationPlan:
    """Plan the evaluation of a run on datasets with these numbers of held-out rows. Raises NotFound for an unknown specialist."""
    specialist = get_specialist(begin, name)
    with begin() as tx:
        return plans.plan_evaluation(specialist, sum(documents), sum(pairs), tx.evaluations.newest(specialist=name))


def unknown_specialist() -> NotFound:
    """The same error for a specialist that does not exist and one that the caller may not see."""
    return NotFound(
        Reason.UNKNOWN_SPECIALIST, "This specialist does not exist. `tailor specialist list` lists those you can use."
    )
