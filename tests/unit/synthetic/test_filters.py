"""The filters of a specialist."""

import json
from dataclasses import replace
from typing import Any

import pytest

from services.synthetic import handlers
from services.synthetic.domain import Kind, LeftOut, Row, Text
from services.synthetic.filters import limit_source_documents, limit_source_share, rejecting_filter, remove_boilerplate
from tailor.errors import FailedPrecondition
from tailor.words import Filters, Labels
from tests.unit.synthetic.fakes import SPECIALIST, make_app, put_document, report
from tests.unit.synthetic.test_handlers import filled, manifest

FOOTER = "This document is confidential and intended for the addressee only."
DISCLAIMER = f"## Disclaimer\n\n{FOOTER}\nAny use by others is forbidden without our written consent."


def filtered(**values: Any) -> dict[str, Any]:
    return {"specialists": {"reports": replace(SPECIALIST, filters=Filters(**values))}}


def texts(*written: str) -> dict[str, Text]:
    return {f"doc_{number}": Text(None, words) for number, words in enumerate(written)}


def cleaned(*written: str, documents: int = 2) -> list[str]:
    kept = texts(*written)
    return [
        text.text for text in remove_boilerplate(kept, dict.fromkeys(kept, Kind.DOCUMENT), documents).texts.values()
    ]


def row(document_id: str, number: int = 0) -> Row:
    return Row("section", (document_id,), f"ask {number}", f"answer {document_id} {number}")


def test_without_filters_the_manifest_reports_that_nothing_was_removed() -> None:
    app = filled()
    result = handlers.build_dataset(app, "reports", "")
    assert result.dataset.left_out == LeftOut()
    assert manifest(app, result.dataset.digest)["left_out"] == {
        "language": 0,
        "length": 0,
        "boilerplate": 0,
        "source": 0,
        "boilerplate_parts": 0,
        "source_rows": 0,
    }


def test_removes_documents_in_another_or_an_unknown_language() -> None:
    app = make_app(**filtered(languages=("en",)))
    for number in range(60):
        language = "de" if number < 5 else "" if number < 7 else "en"
        handlers.on_document(app, replace(put_document(app.store, number), language=language))
    dataset = handlers.build_dataset(app, "reports", "").dataset
    assert dataset.left_out.language == 7
    assert f"doc_{0:032d}" not in dataset.document_ids and f"doc_{6:032d}" not in dataset.document_ids
    assert manifest(app, dataset.digest)["left_out"]["language"] == 7
    assert manifest(app, dataset.digest)["filters"]["languages"] == ["en"]


@pytest.mark.parametrize(("least", "most", "verdict"), [(0, 0, ""), (10, 10, ""), (11, 0, "length"), (0, 9, "length")])
def test_the_bounds_of_lengths_are_inclusive(least: int, most: int, verdict: str) -> None:
    document = put_document(make_app().store, 1)
    assert rejecting_filter(document, Text(None, "x" * 10), Filters(min_chars=least, max_chars=most)) == verdict


def test_a_preview_has_no_rows_of_a_document_that_a_filter_removes() -> None:
    app = filled(3, **filtered(max_chars=10))
    assert handlers.preview_rows(app, "reports", f"doc_{1:032d}", 20) == []


def test_removes_a_repeated_footer_and_keeps_unique_text() -> None:
    first, second = cleaned(f"# One\n\nApples are red.\n\n{FOOTER}", f"# Two\n\nPears are green.\n\n{FOOTER}")
    assert (first, second) == ("# One\n\nApples are red.", "# Two\n\nPears are green.")


def test_spacing_and_case_do_not_matter() -> None:
    assert cleaned(f"One stands here.\n\n{FOOTER}", f"Two stands there.\n\n{FOOTER.upper()}  ")[0] == "One stands here."


def test_removes_a_repeated_line_from_a_paragraph() -> None:
    assert cleaned(f"Sent by the office.\n{FOOTER}", f"Received on Monday.\n{FOOTER}") == [
        "Sent by the office.",
        "Received on Monday.",
    ]


def test_removes_a_heading_with_all_its_text_but_never_a_title() -> None:
    first, _ = cleaned(f"# One\n\n## Aim\n\nApples.\n\n{DISCLAIMER}", f"# Two\n\nPears.\n\n{DISCLAIMER}")
    assert first == "# One\n\n## Aim\n\nApples."
    assert cleaned(f"# One\n\n{FOOTER}\n\nPears.", f"# Two\n\n{FOOTER}")[0] == "# One\n\nPears."


def test_headings_header_lines_table_rows_and_short_lines_are_not_boilerplate() -> None:
    house = "\n".join(
        [
            "## Findings and recommendations of the quarter",
            "To: all heads of department worldwide",
            "| Item | Owner | Due date | Status |",
        ]
    )
    pair = [f"{house}\n\nDear colleagues,\n\nWords of {name}." for name in ("Monday", "Tuesday")]
    assert cleaned(*pair) == pair


def test_the_threshold_counts_documents_not_mentions() -> None:
    twice = f"{FOOTER}\n\nWords.\n\n{FOOTER}"
    assert cleaned(twice, "Other words stand here.") == [twice, "Other words stand here."]
    assert cleaned(*(f"{FOOTER}\n\nWords {number}." for number in range(2)), documents=3)[0].startswith(FOOTER)


def test_removes_and_counts_documents_of_boilerplate_only() -> None:
    kept = texts(FOOTER, f"# Title\n\n{FOOTER}", "Words without a footer.")
    cleaned = remove_boilerplate(kept, dict.fromkeys(kept, Kind.DOCUMENT), 2)
    assert (list(cleaned.texts), cleaned.emptied) == (["doc_2"], 2)


def test_examples_stay_verbatim() -> None:
    kept = texts(FOOTER, FOOTER, FOOTER)
    kinds = {"doc_0": Kind.EXAMPLE, "doc_1": Kind.DOCUMENT, "doc_2": Kind.DELIVERABLE}
    assert list(remove_boilerplate(kept, kinds, 2).texts) == ["doc_0"]


def test_no_row_has_a_footer_that_many_documents_have() -> None:
    app = make_app(**filtered(boilerplate_documents=10))
    for number in range(60):
        handlers.on_document(app, put_document(app.store, number, text=f"{report(f'topic{number}')}\n\n{FOOTER}"))
    left_out = handlers.build_dataset(app, "reports", "").dataset.left_out
    assert (left_out.boilerplate, left_out.boilerplate_parts) == (0, 60)
    rows = [row for split in app.writer.written for row in split]
    assert rows and not any(FOOTER in row.completion or FOOTER in row.prompt for row in rows)


def test_limits_documents_per_source_repeatably() -> None:
    sources = {f"doc_{number}": "wiki" if number < 8 else "share" for number in range(10)}
    kept = limit_source_documents(list(sources), sources, 3)
    assert sum(sources[key] == "wiki" for key in kept) == 3 and {"doc_8", "doc_9"} <= set(kept)
    assert limit_source_documents(list(reversed(list(sources))), sources, 3) == list(reversed(kept))
    without = [key for key in sources if key not in set(kept)]
    assert set(limit_source_documents([key for key in sources if key != without[0]], sources, 3)) == set(kept)
    assert limit_source_documents(list(sources), sources, 0) == list(sources)


@pytest.mark.parametrize("percent", [34, 40, 50, 75, 100])
def test_no_source_exceeds_its_share_and_no_row_is_removed_needlessly(percent: int) -> None:
    sizes = {"flood": 500, "wiki": 60, "share": 40}
    sources = {source: source for source in sizes}
    rows = [row(source, number) for source, size in sizes.items() for number in range(size)]
    kept = limit_source_share(rows, sources, percent)
    counts = {source: sum(one.document_ids == (source,) for one in kept) for source in sizes}
    assert max(counts.values()) <= percent * len(kept) / 100
    one_more = {source: min(size, max(counts.values()) + 1) for source, size in sizes.items()}
    assert percent == 100 or max(one_more.values()) > percent * sum(one_more.values()) / 100
    assert kept == sorted(kept, key=lambda one: one.row_id)


def test_reports_how_many_sources_a_share_needs() -> None:
    with pytest.raises(FailedPrecondition, match="needs 3 sources; there are 2"):
        limit_source_share([row("a"), row("b")], {"a": "wiki", "b": "share"}, 40)


def test_a_flood_of_one_source_is_capped_in_the_dataset_and_counted() -> None:
    app = make_app(**filtered(max_source_documents=30, max_source_percent=50))
    for number in range(100):
        source = "flood" if number < 60 else "wiki" if number < 80 else "share"
        handlers.on_document(app, put_document(app.store, number, labels=Labels(source, "risk", "internal")))
    dataset = handlers.build_dataset(app, "reports", "").dataset
    assert dataset.left_out.source == 30
    flood = {f"doc_{number:032d}" for number in range(60)}
    train = app.writer.written[-2]
    assert 0 < sum(row.document_ids[0] in flood for row in train) <= len(train) / 2
    assert dataset.left_out.source_rows >= 0


def test_a_changed_filter_makes_another_dataset() -> None:
    app = filled()
    first = handlers.build_dataset(app, "reports", "").dataset
    app.specialists["reports"] = replace(SPECIALIST, filters=Filters(max_source_documents=40))
    second = handlers.build_dataset(app, "reports", "")
    assert second.created and second.dataset.digest != first.digest
    assert len(second.dataset.document_ids) <= 40


def test_removing_more_does_not_make_a_new_dataset() -> None:
    app = filled(**filtered(max_chars=2000))
    first = handlers.build_dataset(app, "reports", "").dataset
    handlers.on_document(app, put_document(app.store, 900, text=report("storms") * 20))
    second = handlers.build_dataset(app, "reports", "")
    assert (second.created, second.dataset.digest) == (False, first.digest)
    assert second.dataset.left_out.length == 1
    assert json.loads(app.store.get(second.dataset.manifest))["left_out"]["length"] == 0
