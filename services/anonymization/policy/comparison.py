"""The decisions of a policy, and where two policies differ."""

from collections.abc import Iterable, Iterator
from itertools import product

from services.anonymization.domain import (
    ENTITY_TYPES,
    NO_LABELS,
    FindingCount,
    Policy,
    PolicyDecision,
    PolicyDifference,
)
from tailor.values import Labels

LABELS = ("source", "department", "confidentiality")
# Policies with very many rules are compared on the labels that stored documents have.
MAX_COMBINATIONS = 500


def list_decisions(policy: Policy) -> list[PolicyDecision]:
    """The action on every type: first those of the table, then those of each rule."""
    table = [PolicyDecision(kind, policy.action(kind), -1, {}) for kind in types_of(policy)]
    rules = [
        PolicyDecision(kind, action, place, {name: ", ".join(sorted(values)) for name, values in rule.labels.items()})
        for place, rule in enumerate(policy.rules)
        for kind, action in sorted(rule.actions.items())
    ]
    return [*table, *rules]


def types_of(*policies: Policy) -> list[str]:
    """All types that the policies know, sorted."""
    named = (kind for policy in policies for kind in (*policy.codes, *policy.deny, *policy.deny_files, *policy.actions))
    return sorted({*ENTITY_TYPES, *named})


def compare(before: Policy, after: Policy, counts: Iterable[FindingCount]) -> list[PolicyDifference]:
    """Types that are treated differently, by labels: first without labels, then each combination that a rule names or a document has.

    A combination is left out for a type that it treats like documents without labels. `counts` are of the stored documents.
    """
    counted = {(count.labels, count.entity_type): count for count in counts}
    labels = dict.fromkeys([*_named_labels(before, after), *(labels for labels, _ in counted)])
    differences = []
    for kind in types_of(before, after):
        plain = before.action(kind), after.action(kind)
        for place in dict.fromkeys([NO_LABELS, *labels]):
            actions = before.action(kind, place), after.action(kind, place)
            count = counted.get((place, kind))
            is_new = place == NO_LABELS or actions != plain or count is not None
            if actions[0] is not actions[1] and is_new:
                changed = (count.documents, count.values) if count else (0, 0)
                differences.append(PolicyDifference(kind, place, *actions, *changed))
    return differences


def _named_labels(*policies: Policy) -> Iterator[Labels]:
    """The combinations of labels that the rules name."""
    left = MAX_COMBINATIONS
    for rule in (rule for policy in policies for rule in policy.rules):
        for values in product(*(sorted(rule.labels.get(name, {""})) for name in LABELS)):
            if left:
                left -= 1
                yield Labels(*values)
