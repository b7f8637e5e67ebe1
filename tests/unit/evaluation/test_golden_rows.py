"""Golden rows and ranked pairs, read from stored datasets."""

import json
from typing import Any

from services.evaluation.adapters.rows import StoredHeldOutRows
from tailor.storage.memory import MemoryStore
from tailor.values import DatasetKind
from tests.datasets import store_dataset

INSIGHTS = json.dumps({"figures": ["14 of 40"]})


def record(number: int, task: str, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"U{number}"}, {"role": "assistant", "content": f"A{number}"}]
    return {
        "row_id": f"row_{number:03}",
        "task": task,
        "document_ids": [f"doc_{number}"],
        "messages": messages,
        "language": "en",
        "key_insights": "",
        **fields,
    }


def test_golden_rows_come_first_within_the_limits() -> None:
    store = MemoryStore()
    golden = [record(number, "test", key_insights=INSIGHTS) for number in range(50, 56)]
    others = [record(number, "report") for number in range(20)]
    ref, _ = store_dataset(store, {"held_out": [*others, *golden]}, rows_per_file=7)
    held_out = StoredHeldOutRows(store).held_out(ref, 8, 6)
    chosen = [row for row in held_out.rows if row.task == "test"]
    assert [row.row_id for row in chosen] == [f"row_{number:03}" for number in range(50, 56)]
    assert held_out.answered == {row.row_id for row in chosen}
    assert (len(held_out.rows), held_out.total) == (8, 26)
    assert {(row.language, row.key_insights) for row in chosen} == {("en", INSIGHTS)}
    assert {row.key_insights for row in held_out.rows if row.task == "report"} == {""}


def test_ranked_pairs_come_from_both_splits_without_revisions_and_are_always_the_same() -> None:
    store = MemoryStore()

    def pair(number: int, task: str = "ranking") -> dict[str, Any]:
        fields = {"messages": [{"role": "user", "content": f"U{number}"}], "chosen": f"C{number}", "rejected": "R"}
        return record(number, task, **fields)

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
