"""Which held-out rows are evaluated, and which definitions count."""

from services.evaluation.domain import Serving, Specialists, choose_rows, spread_rows


def test_rows_are_chosen_evenly_from_all_tasks_and_ordered_by_id() -> None:
    rows = [(f"row_{number:03}", "section") for number in reversed(range(10))]
    rows += [("row_020", "example"), ("row_021", "answer"), ("row_022", "answer")]
    assert choose_rows(rows, 6) == ["row_000", "row_001", "row_002", "row_020", "row_021", "row_022"]
    assert len(choose_rows(rows, 99)) == 13 and choose_rows([], 3) == []


def test_rows_are_chosen_evenly_from_all_documents_of_a_task() -> None:
    rows = [(f"row_{number:03}", "section", ("doc_long",)) for number in reversed(range(10))]
    rows += [("row_020", "section", ("doc_a",)), ("row_021", "section", ("doc_b",)), ("row_022", "answer", ("doc_a",))]
    rows += [("row_030", "test", ("doc_a",))]
    assert spread_rows(rows, 4) == ["row_000", "row_020", "row_022", "row_030"]
    assert spread_rows(rows, 6) == ["row_000", "row_001", "row_020", "row_021", "row_022", "row_030"]
    assert len(spread_rows(rows, 99)) == 14 and spread_rows([], 3) == []


def test_an_older_generation_is_ignored() -> None:
    specialists = Specialists()
    for serving in (Serving("reports", 2, "new"), Serving("reports", 1, "old")):
        specialists.update_serving(serving)
    assert specialists.serving["reports"].adapter_digest == "new"
