"""Plans of evaluations, before the run."""

from collections.abc import Sequence

from services.registry.adapters.sql import Begin
from services.registry.handlers.specialists import unknown_specialist
from services.registry.rules import plans


def plan_evaluation(begin: Begin, name: str, documents: Sequence[int], pairs: Sequence[int]) -> plans.EvaluationPlan:
    """Plan the evaluation of a run on datasets with these numbers of held-out rows. Raises NotFound for an unknown specialist."""
    with begin() as tx:
        specialist = tx.specialists.find(name)
        if specialist is None or specialist.deleted:
            raise unknown_specialist()
        return plans.plan_evaluation(specialist, sum(documents), sum(pairs), tx.evaluations.find_newest_of(name))
