"""Results and reports of erased documents."""

import json
from collections.abc import Sequence

import pytest

from services.evaluation.adapters.report import StoredReports
from services.evaluation.erasures import forget
from services.evaluation.handlers import measure
from tailor.errors import FailedPrecondition
from tailor.events.erased import Erased
from tailor.storage.memory import MemoryStore
from tests.unit.evaluation.fakes import adapter, make_app


class MemoryHoldings:
    """Two evaluations on the dataset `d1`."""

    def __init__(self) -> None:
        self.results = {"evl_1": 3, "evl_2": 3}
        self.failed: list[str] = []

    def evaluations_on(self, datasets: Sequence[str]) -> list[str]:
        return sorted(self.results) if "d1" in datasets else []

    def drop_results(self, evaluation_id: str) -> int:
        dropped, self.results[evaluation_id] = self.results[evaluation_id], 0
        return dropped

    def fail_open(self, evaluation_id: str, reason: str) -> None:
        self.failed.append(evaluation_id)


def reports() -> tuple[StoredReports, MemoryStore]:
    store = MemoryStore()
    for evaluation_id, document_id in (("evl_1", "doc_1"), ("evl_2", "doc_2")):
        content = json.dumps({"rows": [{"document_ids": [document_id]}]}).encode()
        for name, data in (("report.json", content), ("report.md", b"#"), ("scores.png", b"png")):
            store.put("reports", f"{evaluation_id}/{name}", data)
    return StoredReports(store), store


def test_a_report_that_quotes_the_document_goes_with_the_answers_behind_it() -> None:
    stored, store = reports()
    holdings = MemoryHoldings()
    counts = forget(holdings, stored, Erased("doc_1", "ers_1", ("d1",))).counts
    assert counts == {"results": 3, "report_objects": 3}
    assert {key.split("/")[0] for _, key in store.objects} == {"evl_2"}
    assert holdings.failed == ["evl_1"]
    assert forget(holdings, stored, Erased("doc_1", "ers_1", ("d1",))).counts == {"results": 0, "report_objects": 0}


def test_other_datasets_keep_their_reports() -> None:
    stored, store = reports()
    forget(MemoryHoldings(), stored, Erased("doc_1", "ers_1", ("d2",)))
    assert len(store.objects) == 6


def test_rows_of_an_erased_document_are_not_measured() -> None:
    app = make_app(erased={"doc_0", "doc_1", "doc_2", "doc_3"})
    evaluation = app.repository.queue("evl_1", adapter())
    with pytest.raises(FailedPrecondition, match="ROWS_ERASED"):
        measure(app, evaluation)
