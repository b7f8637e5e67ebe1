"""Rows and reports with the real libraries."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from services.evaluation.adapters.rows import StoredHeldOutRows, open_train_rows
from services.evaluation.domain import (
    Answer,
    Estimate,
    Evaluation,
    HeldOutSet,
    LoadedCandidate,
    MetricFigures,
    ModelCost,
    ModelResult,
    ReportData,
    Score,
    Serving,
)
from services.evaluation.figures import fixed_value
from services.evaluation.report import ReportStore
from services.evaluation.served_models import list_served_models
from tailor.errors import FailedPrecondition
from tailor.storage.memory import MemoryStore
from tailor.storage.ref import Ref
from tailor.values import DatasetKind
from tests.datasets import store_dataset
from tests.unit.evaluation.fakes import FakeModels, make_adapter, make_row, make_terms


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
    (row,) = StoredHeldOutRows(store).held_out(ref, 9, 0).rows
    assert (row.row_id, row.task, row.document_ids) == ("row_1", "section", ("doc_1",))
    assert row.messages == (("system", "S"), ("user", "U")) and row.reference == "A"
    store.objects["datasets", manifest.split("held_out").files[0].ref.key] += b"!"
    with pytest.raises(FailedPrecondition, match="CORRUPT_OBJECT"):
        StoredHeldOutRows(store).held_out(ref, 9, 0)
    with pytest.raises(FailedPrecondition, match="INVALID_MANIFEST"):
        StoredHeldOutRows(store).held_out(store.put("datasets", "e/manifest.json", b"{}"), 9, 0)


def test_train_rows_of_all_datasets_are_read_in_batches_as_often_as_wanted() -> None:
    store = MemoryStore()
    manifests = [store_dataset(store, {"train": [record(number, *CHAT)] * 300})[0] for number in (1, 2)]
    with open_train_rows(store, manifests) as batches:
        for _ in range(2):
            read = list(batches())
            assert [len(batch) for batch in read] == [256, 44, 256, 44]
            assert {row.row_id for batch in read for row in batch} == {"row_1", "row_2"}


def test_rows_of_several_files_are_chosen_evenly_from_all_tasks() -> None:
    store = MemoryStore()
    records = [record(number, *CHAT) for number in range(6)] + [record(7, *CHAT, task="answer")]
    ref, _ = store_dataset(store, {"held_out": records}, rows_per_file=2)
    held_out = StoredHeldOutRows(store).held_out(ref, 3, 2)
    assert held_out.total == 7 and held_out.answered == {"row_0", "row_7"}
    assert [(row.row_id, row.task) for row in held_out.rows] == [
        ("row_0", "section"),
        ("row_1", "section"),
        ("row_7", "answer"),
    ]


def test_earlier_turns_of_a_chat_belong_to_its_prompt() -> None:
    store = MemoryStore()
    ref, _ = store_dataset(store, {"held_out": [record(1, *CHAT, ("user", "V"), ("assistant", "B"))]})
    (row,) = StoredHeldOutRows(store).held_out(ref, 1, 0).rows
    assert (row.messages, row.reference) == ((*CHAT, ("user", "V")), "B")


def test_rows_without_a_task_are_rejected() -> None:
    store = MemoryStore()
    ref, _ = store_dataset(store, {"held_out": [{"row_id": "row_1"}]})
    with pytest.raises(FailedPrecondition, match="INVALID_DATASET"):
        StoredHeldOutRows(store).held_out(ref, 1, 0)


def test_the_reference_of_a_preference_row_is_the_chosen_answer() -> None:
    store = MemoryStore()
    pair = record(1, ("system", "S"), ("user", "U"), chosen="A", rejected="B")
    ref, _ = store_dataset(store, {"held_out": [pair]}, kind=DatasetKind.PREFERENCE)
    (row,) = StoredHeldOutRows(store).held_out(ref, 1, 0).rows
    assert row.messages == (("system", "S"), ("user", "U")) and (row.reference, row.rejected) == ("A", "B")


def test_pairs_that_are_not_evaluated_count_as_pairs() -> None:
    store = MemoryStore()
    pairs = [record(number, ("user", "U"), chosen="A", rejected="B") for number in range(5)]
    ref, _ = store_dataset(store, {"held_out": pairs}, kind=DatasetKind.PREFERENCE)
    documents = store_dataset(store, {"held_out": [record(number, *CHAT) for number in range(6, 9)]})[0]
    rows = StoredHeldOutRows(store)
    held_out = rows.held_out(ref, 2, 0).add_documents(rows.held_out(documents, 2, 0))
    assert (len(held_out.rows), held_out.pairs, held_out.total, held_out.total_pairs) == (4, 2, 8, 5)


def test_golden_rows_come_first_within_the_limits() -> None:
    store = MemoryStore()
    insights = json.dumps({"figures": ["14 of 40"]})
    golden = [record(number, *CHAT, task="test", language="en", key_insights=insights) for number in range(50, 56)]
    others = [record(number, *CHAT, task="report", language="en", key_insights="") for number in range(20)]
    ref, _ = store_dataset(store, {"held_out": [*others, *golden]}, rows_per_file=7)
    held_out = StoredHeldOutRows(store).held_out(ref, 8, 6)
    chosen = [row for row in held_out.rows if row.task == "test"]
    assert [row.row_id for row in chosen] == [f"row_{number}" for number in range(50, 56)]
    assert held_out.answered == {row.row_id for row in chosen}
    assert (len(held_out.rows), held_out.total) == (8, 26)
    assert {(row.language, row.key_insights) for row in chosen} == {("en", insights)}
    assert {row.key_insights for row in held_out.rows if row.task == "report"} == {""}


def test_ranked_pairs_come_from_both_splits_without_revisions_and_are_always_the_same() -> None:
    store = MemoryStore()

    def pair(number: int, task: str = "ranking") -> dict[str, Any]:
        return record(number, ("user", f"U{number}"), task=task, chosen=f"C{number}", rejected="R")

    revised = [pair(number, "critique") for number in range(40, 60)]
    splits = {
        "train": [*(pair(number) for number in range(30)), *revised],
        "held_out": [pair(number) for number in range(30, 36)],
    }
    ref, _ = store_dataset(store, splits, kind=DatasetKind.PREFERENCE)
    rows = StoredHeldOutRows(store)
    assert len(rows.ranked_pairs(ref, 100)) == 36
    chosen = rows.ranked_pairs(ref, 12)
    assert chosen == rows.ranked_pairs(ref, 12)
    assert len(chosen) == 12
    first = chosen[0]
    number = int(first.row_id.removeprefix("row_"))
    assert (first.prompt, first.chosen, first.rejected) == (f"U{number}", f"C{number}", "R")
    assert first.document_ids == (f"doc_{number}",)


def make_report() -> ReportData:
    names = ("base", "incumbent", "candidate")
    rows = (make_row(1), replace(make_row(2), language="de"))
    results = {
        name: ModelResult((Answer(f"answer of {name}", tokens=3, seconds=0.5), None), (Score(-1.0, 1), Score(-2.0, 1)))
        for name in names
    }
    models = {name: Estimate(0.25, 0.2, 0.3, 2) for name in names}
    gains = {"base": Estimate(0.1, -0.05, 0.25, 2), "incumbent": Estimate(0.1, -math.inf, math.inf, 1)}
    return ReportData(
        evaluation=Evaluation("evl_1", make_adapter()),
        terms=make_terms(),
        incumbent=Serving("reports", 2, "ad0"),
        held_out=HeldOutSet(rows, frozenset({"row_001"}), 7),
        results=results,
        metrics=(MetricFigures("rougeL", False, models, gains), MetricFigures("perplexity", True, models, gains)),
        suites=(fixed_value("parity", 0.0123, lower_is_better=True),),
        costs=(ModelCost("base", 2, 0.5, 0.6, 10.0, 3.0, 0.25, "EUR", 1),),
        not_measured={"judge": "no judge model"},
        counts={"rougeL": {"skipped": 1}, "perplexity": {}},
        row_values={"rougeL": {name: [0.25, None] for name in names}},
    )


def test_a_report_shows_intervals_and_never_a_bare_value() -> None:
    store = MemoryStore()
    reports = ReportStore(store)
    markdown = reports.markdown(reports.write(make_report()))
    assert "| rougeL | 0.2500 (0.2000 to 0.3000) |" in markdown
    assert "| perplexity (lower is better) |" in markdown
    assert "| rougeL | +0.1000 (-0.0500 to +0.2500) | +0.1000 (no interval) | 2 |" in markdown
    assert "2 of 7 held-out rows, 1 of them answered, greedy" in markdown
    assert "at most 0.0123 nats" in markdown and "Not measured: judge (no judge model)." in markdown
    assert "| base | 2 | 1 | 0.50 | 0.60 | 10 | 3 | 0.25 EUR |" in markdown
    assert "> answer of candidate" in markdown and "## Row row_002" not in markdown


def test_report_json_has_every_row_of_every_model() -> None:
    store = MemoryStore()
    ref = ReportStore(store).write(make_report())
    document = json.loads(store.get(ref))
    first, second = document["rows"]
    assert first["models"]["candidate"]["answer"]["text"] == "answer of candidate"
    assert second["models"]["candidate"] == {
        "answer": None,
        "score": {"log_probability": -2.0, "tokens": 1},
        "rejected_score": None,
    }
    assert first["metrics"]["rougeL"] == {"base": 0.25, "incumbent": 0.25, "candidate": 0.25}
    assert second["language"] == "de" and second["metrics"]["rougeL"]["base"] is None
    assert document["metrics"][0]["gains"]["incumbent"]["low"] is None
    assert document["counts"] == {"rougeL": {"skipped": 1}}
    assert store.objects["reports", "evl_1/scores.png"].startswith(b"\x89PNG")


def test_models_with_other_tokenizers_are_compared_per_token_of_the_candidate() -> None:
    candidate = ModelResult((None, None), (Score(-6.0, 3), None), (Score(-9.0, 3), None))
    incumbent = ModelResult((None, None), (Score(-6.0, 2), Score(-1.0, 1)), (Score(-8.0, 4), None))
    counted = incumbent.per_token_of(candidate)
    assert counted.scores == (Score(-6.0, 3), Score(-1.0, 1))
    assert counted.rejected_scores == (Score(-8.0, 3), None)
    assert candidate.per_token_of(candidate) == candidate
    assert ModelResult((None, None), (None, None)).per_token_of(candidate).scores == (None, None)


class BaseModels(FakeModels):
    """Remembers which base each candidate was loaded on."""

    def __init__(self, base: str = "", places: list[tuple[str, str]] | None = None) -> None:
        super().__init__()
        self.base, self.places = base, [] if places is None else places

    def on_base(self, base: str) -> "BaseModels":
        return BaseModels(base, self.places)

    def load(self, adapter_digest: str, manifest: Ref) -> LoadedCandidate:
        self.places.append((adapter_digest, self.base))
        return super().load(adapter_digest, manifest)


def test_a_candidate_is_measured_on_its_own_base_and_what_serves_on_that_of_its_own() -> None:
    models, adapter = BaseModels(), replace(make_adapter(), base="gemma")
    incumbent = Serving(adapter.specialist, 1, "old", adapter.manifest, "smol")
    base, *others = list_served_models(models, adapter, incumbent)
    for model in others:
        model.prepare()
    assert base.key == "base:gemma"
    assert models.places == [("old", "smol"), (adapter.digest, "gemma")]
