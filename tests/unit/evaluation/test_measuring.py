"""Metrics, rows and reports with their real libraries."""

import io
import json

import pyarrow
import pyarrow.parquet
import pytest

from services.evaluation.adapters.metrics import measure
from services.evaluation.adapters.report import StoredReports
from services.evaluation.adapters.rows import DatasetRows
from services.evaluation.domain import Comparison, Evaluation, Parameters, Result, Score, Serving
from tailor.errors import FailedPrecondition
from tailor.storage.memory import MemoryStore
from tailor.storage.ref import Ref
from tests.unit.evaluation.fakes import adapter, row

TERMS = ("line of sight", "decision gate")


def test_a_perfect_answer_has_perfect_scores() -> None:
    text = "The decision gate opens once the line of sight is clear to everybody."
    assert measure([text], [text], TERMS) == pytest.approx(
        {"rouge1": 1.0, "rouge2": 1.0, "rougeL": 1.0, "bleu": 100.0, "house_terms_f1": 1.0}
    )


def test_house_terms_count_in_any_case_and_over_line_breaks_but_not_within_words() -> None:
    references = ["Line of\nsight.", "A decision gate."]
    assert measure(["LINE OF SIGHT", "decision gates"], references, TERMS)["house_terms_f1"] == pytest.approx(2 / 3)


def test_stemmed_words_match_and_an_empty_answer_scores_nothing() -> None:
    assert measure(["inspected doors"], ["inspecting door"], ())["rouge1"] == 1.0
    assert measure([""], ["inspecting door"], TERMS) == {
        "rouge1": 0.0, "rouge2": 0.0, "rougeL": 0.0, "bleu": 0.0, "house_terms_f1": 0.0
    }  # fmt: skip


def test_without_house_terms_there_is_no_score_for_them() -> None:
    assert "house_terms_f1" not in measure(["a"], ["a"], ())


def dataset(store: MemoryStore, *said: tuple[str, str], **more: str) -> Ref:
    record = {
        "row_id": "row_1",
        "origin": "section",
        "document_ids": ["doc_1"],
        "messages": [{"role": role, "content": content} for role, content in said],
        "made_by": "structure",
        **more,
    }
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([record]), buffer)
    split = store.put("datasets", "files/x.parquet", buffer.getvalue())
    entry = {"key": split.key, "sha256": split.sha256, "size_bytes": split.size_bytes, "rows": 1}
    return store.put("datasets", "d/manifest.json", json.dumps({"splits": {"held_out": entry}}).encode())


def test_reads_held_out_rows_and_refuses_tampered_ones() -> None:
    store = MemoryStore()
    manifest = dataset(store, ("system", "S"), ("user", "U"), ("assistant", "A"))
    (found,) = DatasetRows(store).held_out(manifest)
    assert found.messages == (("system", "S"), ("user", "U")) and found.reference == "A"
    store.objects["datasets", "files/x.parquet"] += b"!"
    with pytest.raises(FailedPrecondition, match="CORRUPT_OBJECT"):
        DatasetRows(store).held_out(manifest)
    with pytest.raises(FailedPrecondition, match="INVALID_DATASET"):
        DatasetRows(store).held_out(store.put("datasets", "e/manifest.json", b"{}"))


def test_the_reference_of_a_preference_row_is_the_answer_that_was_preferred() -> None:
    store = MemoryStore()
    manifest = dataset(store, ("system", "S"), ("user", "U"), chosen="A", rejected="B")
    (found,) = DatasetRows(store).held_out(manifest)
    assert found.messages == (("system", "S"), ("user", "U")) and found.reference == "A"


def test_a_report_has_scores_answers_a_table_and_a_plot() -> None:
    store = MemoryStore()
    scores = {"rougeL": 0.25, "bleu": 3.5, "perplexity": 9.0}
    names = ("base", "candidate", "incumbent")
    comparison = Comparison(
        evaluation=Evaluation("evl_1", adapter()),
        parameters=Parameters(),
        incumbent=Serving("reports", 2, "ad0"),
        rows=[row(1)],
        results={name: Result((f"said by {name}",), (Score(-1.0, 1),)) for name in names},
        scores=dict.fromkeys(names, scores),
        row_metrics={name: [scores] for name in names},
    )
    reports = StoredReports(store)
    ref = reports.write(comparison)
    document = json.loads(store.get(ref))
    assert document["scores"]["candidate"] == scores and document["incumbent_generation"] == 2
    assert document["rows"][0]["answers"]["base"] == "said by base"
    assert "| rougeL | 0.2500 | 0.2500 | 0.2500 |" in reports.markdown(ref)
    assert reports.plot(ref).startswith(b"\x89PNG")
