"""The gate's findings on experts' marks of an adapter's drafts."""

from services.registry.domain import Adapter, Decision, Serving, Specialist
from services.registry.ports import Transaction
from services.registry.rules.canary_panel import check_panel, explain_undecided
from services.registry.rules.gate import Finding
from services.registry.rules.serving import has_incumbent
from services.registry.rules.states import SHORT_DIGEST


def check_marks_before_canary(
    tx: Transaction, specialist: Specialist, adapter: Adapter, current: Serving
) -> list[Finding]:
    """The findings on an adapter that a canary will try. Refused only if experts' marks certainly break a condition."""
    return _explain(tx, specialist, adapter, current, (Decision.PASSED, "its canary decides"))


def check_marks_before_promotion(
    tx: Transaction, specialist: Specialist, adapter: Adapter, current: Serving
) -> list[Finding]:
    """The findings on an adapter that serves all callers next: undecided unless a canary showed that the conditions are met."""
    command = f"tailor canary start {specialist.name} {adapter.digest[:SHORT_DIGEST]}"
    unknown = (Decision.UNDECIDED, f"`{command}` lets experts mark its drafts")
    return _explain(tx, specialist, adapter, current, unknown)


def _explain(
    tx: Transaction, specialist: Specialist, adapter: Adapter, current: Serving, unknown: Finding
) -> list[Finding]:
    """The findings. Those that are undecided become `unknown` if a canary can compare the adapter with what serves."""
    if not current.generation:
        # The first adapter of a specialist is not stopped: experts have seen nothing to compare it with.
        unknown = (Decision.PASSED, "nothing serves yet to compare it with")
    elif not has_incumbent(current, adapter):
        unknown = (Decision.UNDECIDED, "a canary cannot compare it with what serves on another base")
    return explain_undecided(_check_marks(tx, specialist, adapter, current), *unknown)


def _check_marks(tx: Transaction, specialist: Specialist, adapter: Adapter, current: Serving) -> list[Finding]:
    """Of the newest canary of an adapter against what serves. None about an adapter that serves itself."""
    guards = specialist.gate.panel
    if not guards or adapter.digest == current.adapter_digest:
        return []
    canary = tx.canaries.find_newest(specialist.name, adapter.digest)
    # Marks against another incumbent say nothing about the one that serves now.
    incumbents = {item.generation: item.adapter_digest for item in tx.servings.list(specialist.name)}
    is_compared = canary is not None and incumbents.get(canary.generation) == current.adapter_digest
    return check_panel(guards, tx.canaries.list_marks(canary) if canary and is_compared else ())
