"""Metrics, rows and reports with the real libraries."""

import json
from typing import Any

import pytest

from services.evaluation.adapters.metrics import compute_metrics
from services.evaluation.adapters.report import ObjectReports
from services.evaluation.adapters.rows import StoredHeldOutRows
from services.evaluation.domain import Evaluation, ModelResult, Parameters, ReportData, Score, Serving
from tailor.errors import FailedPrecondition
from tailor.storage.memory import MemoryStore
from tailor.words import DatasetKind
from tests.datasets import store_dataset
from tests.unit.evaluation.fakes import make_adapter, make_row

TERMS = ("line of sight", "decision gate")


def test_a_perfect_answer_has_perfect_scores() -> None:
    text = "The decision gate opens once the line of sight is clear to everybody."
    assert compute_metrics([text], [text], TERMS) == pytest.approx(
        {"rouge1": 1.0, "rouge2": 1.0, "rougeL": 1.0, "bleu": 100.0, "house_terms_f1": 1.0}
    )


def test_house_terms_match_whole_words_in_any_case_and_across_line_breaks() -> None:
    references = ["Line of\nsight.", "A decision gate."]
    assert compute_metrics(["LINE OF SIGHT", "decision gates"], references, TERMS)["house_terms_f1"] == pytest.approx(
        2 / 3
    )


def test_a_single_house_term_is_not_credited_for_its_absence() -> None:
    references = ["Nothing.", "The gate opens."]
    assert compute_metrics(["Nothing.", "Nothing."], references, ["gate"])["house_terms_f1"] == 0.0
    assert compute_metrics(["A gate.", "The gate."], references, ["gate"])["house_terms_f1"] == pytest.approx(2 / 3)


def test_stemmed_words_match_and_an_empty_answer_scores_nothing() -> None:
    assert compute_metrics(["inspected doors"], ["inspecting door"], ())["rouge1"] == 1.0
    assert compute_metrics([""], ["inspecting door"], TERMS) == {
        "rouge1": 0.0, "rouge2": 0.0, "rougeL": 0.0, "bleu": 0.0, "house_terms_f1": 0.0
    }  # fmt: skip


def test_without_house_terms_there_is_no_house_terms_score() -> None:
    assert "house_terms_f1" not in compute_metrics(["a"], ["a"], ())


def record(number: int, *messages: tuple[str, str], task: str = "section", **fields: str) -> dict[str, Any]:
    return {
        "row_id": f"row_{number}",
        "task": task,
        "document_ids": [f"doc_{number}"],
        "messages": [{"role": role, "content": content} for role, content in messages],
        "made_by": "structure",
        **fields,
    }


CHAT = (("system", "S"), ("user", "U"), ("assistant", "A"))


def test_reads_held_out_rows_and_rejects_tampered_ones() -> None:
    store = MemoryStore()
    ref, manifest = store_dataset(store, {"train": [record(0, *CHAT)], "held_out": [record(1, *CHAT)]})
    (row,) = StoredHeldOutRows(store).held_out(ref, 9)
    assert (row.row_id, row.task, row.document_ids) == ("row_1", "section", ("doc_1",))
    assert row.messages == (("system", "S"), ("user", "U")) and row.reference == "A"
    store.objects["datasets", manifest.split("held_out").files[0].ref.key] += b"!"
    with pytest.raises(FailedPrecondition, match="CORRUPT_OBJECT"):
        StoredHeldOutRows(store).held_out(ref, 9)
    with pytest.raises(FailedPrecondition, match="INVALID_MANIFEST"):
        StoredHeldOutRows(store).held_out(store.put("datasets", "e/manifest.json", b"{}"), 9)


def test_rows_of_several_files_are_chosen_evenly_from_all_tasks() -> None:
    store = MemoryStore()
    records = [record(number, *CHAT) for number in range(6)] + [record(7, *CHAT, task="answer")]
    ref, _ = store_dataset(store, {"held_out": records}, rows_per_file=2)
    rows = StoredHeldOutRows(store).held_out(ref, 3)
    assert [(row.row_id, row.task) for row in rows] == [("row_0", "section"), ("row_1", "section"), ("row_7", "answer")]


def test_earlier_turns_of_a_chat_belong_to_its_prompt() -> None:
    store = MemoryStore()
    ref, _ = store_dataset(store, {"held_out": [record(1, *CHAT, ("user", "V"), ("assistant", "B"))]})
    (row,) = StoredHeldOutRows(store).held_out(ref, 1)
    assert (row.messages, row.reference) == ((*CHAT, ("user", "V")), "B")


def test_rows_without_a_task_are_rejected() -> None:
    store = MemoryStore()
    ref, _ = store_dataset(store, {"held_out": [{"row_id": "row_1"}]})
    with pytest.raises(FailedPrecondition, match="INVALID_DATASET"):
        StoredHeldOutRows(store).held_out(ref, 1)


def test_the_reference_of_a_preference_row_is_the_chosen_answer() -> None:
    store = MemoryStore()
    pair = record(1, ("system", "S"), ("user", "U"), chosen="A", rejected="B")
    ref, _ = store_dataset(store, {"held_out": [pair]}, kind=DatasetKind.PREFERENCE)
    (row,) = StoredHeldOutRows(store).held_out(ref, 1)
    assert row.messages == (("system", "S"), ("user", "U")) and row.reference == "A"


def test_a_report_has_scores_answers_a_table_and_a_plot() -> None:
    store = MemoryStore()
    scores = {"rougeL": 0.25, "bleu": 3.5, "perplexity": 9.0}
    names = ("base", "candidate", "incumbent")
    data = ReportData(
        evaluation=Evaluation("evl_1", make_adapter()),
        parameters=Parameters(),
        incumbent=Serving("reports", 2, "ad0"),
        rows=[make_row(1)],
        results={name: ModelResult((f"answer of {name}",), (Score(-1.0, 1),)) for name in names},
        scores=dict.fromkeys(names, scores),
        row_metrics={name: [scores] for name in names},
    )
    reports = ObjectReports(store)
    ref = reports.write(data)
    document = json.loads(store.get(ref))
    assert document["scores"]["candidate"] == scores and document["incumbent_generation"] == 2
    assert document["rows"][0]["task"] == "section"
    assert document["rows"][0]["answers"]["base"] == "answer of base"
    assert "| rougeL | 0.2500 | 0.2500 | 0.2500 |" in reports.markdown(ref)
    assert reports.plot(ref).startswith(b"\x89PNG")
