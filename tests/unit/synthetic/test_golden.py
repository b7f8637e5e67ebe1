"""Golden documents are held out, always and whole, and nothing that is nearly the same is trained on."""

import json
from dataclasses import replace

import pytest

from services.synthetic import handlers
from services.synthetic.domain import Document, Kind
from tailor.words import Filters, RowPolicy
from tests.unit.synthetic.fakes import SPECIALIST, FakeSynthetic, make_app, put_document, report

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
    assert all(golden.document_id not in row["document_ids"] for row in train)  # type: ignore[operator]
    assert {other["key_insights"] for other in [*train, *held_out] if other is not row} == {""}


@pytest.mark.parametrize(
    "values",
    [
        {"rows": RowPolicy(tasks=("report",), min_answer_tokens=50)},
        {"rows": RowPolicy(max_held_out_rows=1)},
        {"filters": Filters(min_chars=200, languages=("en",))},
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
    taught = sorted({str(key) for row in train for key in row["document_ids"]})[0]  # type: ignore[attr-defined]
    handlers.on_document(app, put_golden(app, int(taught.removeprefix("doc_")), "Only this is asked now."))
    train, held_out = build(app)
    assert all(taught not in row["document_ids"] for row in train)  # type: ignore[operator]
    assert [row["document_ids"] for row in held_out if row["task"] == "test"] == [[taught]]


def test_what_is_nearly_a_golden_document_is_not_trained_on() -> None:
    app = house()
    copy = put_document(app.store, 50, text=report("goldentopic"), prompt="Write a report.")
    handlers.on_document(app, copy)
    train, _ = build(app)
    assert (
        any(copy.document_id in row["document_ids"] for row in train)
        or app.repository.sides(  # type: ignore[operator]
            "reports", [copy.document_id]
        )[copy.document_id]
    )
    handlers.on_document(app, put_golden(app, 100, report("goldentopic"), "Write a report."))
    train, held_out = build(app)
    assert all(copy.document_id not in row["document_ids"] for row in train)  # type: ignore[operator]
    assert [row for row in held_out if row["task"] == "test"]
