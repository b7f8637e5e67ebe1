"""Golden documents are held out, always and whole, and nothing that is nearly the same is trained on."""

import json
from dataclasses import replace
from typing import cast

import pytest

from services.synthetic import handlers
from services.synthetic.domain import Document, Kind
from tailor.values import Filters, RowPolicy
from tests.unit.synthetic.fakes import SPECIALIST, FakeSynthetic, make_app, put_document

INSIGHTS = {"figures": ["14 of 40 accounts"], "owners": []}


def put_golden(app: FakeSynthetic, number: int, reference: str, prompt: str = "Write the section.") -> Document:
    key = f"doc_{number:032d}"
    data = json.dumps({"prompt": prompt, "text": reference, "key_insights": INSIGHTS}).encode()
    ref = app.store.put("corpus", f"documents/{key}-golden", data)
    document = put_document(app.store, number)
    return replace(document, kind=Kind.TEST, text=ref, sequence=2)


def build(app: FakeSynthetic) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    digest = handlers.build_dataset(app, "reports", "").dataset.digest
    return app.rows(digest, "train"), app.rows(digest, "held_out")


def house(**values: object) -> FakeSynthetic:
    app = make_app(specialists={"reports": replace(SPECIALIST, **values)})  # type: ignore[arg-type]
    for number in range(40):
        handlers.on_document(app, put_document(app.store, number))
    return app


def ids(row: dict[str, object]) -> list[str]:
    return [str(key) for key in cast(list[str], row["document_ids"])]


def test_a_golden_document_is_one_held_out_row_with_its_insights() -> None:
    app = house()
    golden = put_golden(app, 100, "Fourteen accounts were dormant.")
    handlers.on_document(app, golden)
    train, held_out = build(app)
    (row,) = [row for row in held_out if row["task"] == "test"]
    assert row["document_ids"] == [golden.document_id]
    assert row["messages"] == [
        {"role": "user", "content": "Write the section."},
        {"role": "assistant", "content": "Fourteen accounts were dormant."},
    ]
    assert json.loads(str(row["key_insights"])) == INSIGHTS
    assert {row["task"] for row in train}.isdisjoint({"test"})
    assert all(golden.document_id not in ids(row) for row in train)
    assert {other["key_insights"] for other in [*train, *held_out] if other is not row} == {""}


@pytest.mark.parametrize(
    "values",
    [
        {"rows": RowPolicy(tasks=("report",), min_answer_tokens=50)},
        {"rows": RowPolicy(max_held_out_rows=1)},
        {"filters": Filters(min_chars=100)},
        {"filters": Filters(max_source_documents=10)},
    ],
)
def test_no_limit_of_the_specialist_leaves_golden_documents_out(values: dict[str, object]) -> None:
    app = house(**values)
    for number in range(100, 130):
        handlers.on_document(app, put_golden(app, number, f"Statement number {number} is short."))
    train, held_out = build(app)
    assert len([row for row in held_out if row["task"] == "test"]) == 30
    assert not [row for row in train if row["task"] == "test"]


def test_a_document_that_becomes_golden_leaves_train() -> None:
    app = house()
    train, _ = build(app)
    taught = min(key for row in train for key in ids(row))
    handlers.on_document(app, put_golden(app, int(taught.removeprefix("doc_")), "Only this is asked now."))
    train, held_out = build(app)
    assert all(taught not in ids(row) for row in train)
    assert [ids(row) for row in held_out if row["task"] == "test"] == [[taught]]


def test_golden_documents_with_one_reference_are_all_measured() -> None:
    app = house()
    reference = "Of forty accounts fourteen were dormant at the end of June and all of them are closed by now."
    for number in range(100, 103):
        handlers.on_document(app, put_golden(app, number, reference, f"Question {number}?"))
    _, held_out = build(app)
    assert len([row for row in held_out if row["task"] == "test"]) == 3
