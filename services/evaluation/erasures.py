"""Forgetting documents: what models said about their rows, and the reports that quote them."""

from collections.abc import Sequence
from typing import Protocol

from services.evaluation.domain import Reports
from tailor.events.erased import Erased, Forgotten


class Holdings(Protocol):
    """What the database holds of evaluations."""

    def evaluations_on(self, datasets: Sequence[str]) -> list[str]:
        """Ids of the evaluations of adapters that were trained on the datasets, in order."""
        ...

    def drop_results(self, evaluation_id: str) -> int:
        """Drop what models answered and scored; how many results there were."""
        ...

    def fail_open(self, evaluation_id: str, reason: str) -> None:
        """An evaluation that is not finished cannot be made."""
        ...


def forget(holdings: Holdings, reports: Reports, erased: Erased) -> Forgotten:
    """Delete the reports that quote a document, and the answers behind them; the scores stay. Again, it changes nothing."""
    objects = results = 0
    for evaluation_id in holdings.evaluations_on(erased.datasets):
        if reports.quotes(evaluation_id, erased.document_id):
            holdings.fail_open(evaluation_id, "ROWS_ERASED")
            results += holdings.drop_results(evaluation_id)
            objects += reports.delete(evaluation_id)
    return Forgotten({"results": results, "report_objects": objects})
