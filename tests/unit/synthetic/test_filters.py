"""The filters of a specialist."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from services.synthetic import handlers
from services.synthetic.domain import Range, Text
from services.synthetic.filters import boilerplate_ranges, has_words, rejecting_filter, source_limit, text_parts
from tailor.errors import FailedPrecondition
from tailor.values import Filters, Labels, RowPolicy
from tests.unit.synthetic.fakes import SPECIALIST, FakeSynthetic, make_app, put_document, report
from tests.unit.synthetic.test_handlers import filled

FOOTER = "This document is confidential and intended for the addressee only."
DISCLAIMER = f"## Disclaimer\n\n{FOOTER}\nAny use by others is forbidden without our written consent."


def filtered(**values: Any) -> dict[str, Any]:
    return {"specialists": {"reports": replace(SPECIALIST, filters=Filters(**values))}}


def repeated(texts: Sequence[str], documents: int = 2) -> set[int]:
    counts = Counter(part for text in texts for part in text_parts(text))
    return {part for part, count in counts.items() if count >= documents}


def without(text: str, ranges: Sequence[Range]) -> str:
    for start, end in reversed(ranges):
        text = text[:start] + text[end:]
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def cleaned(*written: str, documents: int = 2) -> list[str]:
    return [without(text, boilerplate_ranges(text, repeated(written, documents))) for text in written]


def test_without_filters_the_manifest_reports_that_nothing_was_removed() -> None:
    app = filled()
    result = handlers.build_dataset(app, "reports", "")
    assert result.dataset.skipped == {} and app.manifest(result.dataset.digest)["skipped"] == {}


def test_removes_documents_in_another_or_an_unknown_language() -> None:
    app = make_app(**filtered(languages=("en",)))
    for number in range(60):
        language = "de" if number < 5 else "" if number < 7 else "en"
        handlers.on_document(app, replace(put_document(app.store, number), language=language))
    dataset = handlers.build_dataset(app, "reports", "").dataset
    assert dataset.skipped["language"].documents == 7
    assert not {f"doc_{number:032d}" for number in range(7)} & app.documents(dataset.digest)
    content = app.manifest(dataset.digest)
    skipped = content["skipped"]["language"]
    assert (skipped["documents"], skipped["rows"]) == (7, 0) and skipped["characters"] > 7 * 100
    assert content["filters"]["languages"] == ["en"]


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


def test_a_document_of_boilerplate_only_has_no_words_left() -> None:
    written = (FOOTER, f"# Title\n\n{FOOTER}", "Words without a footer.")
    parts = repeated(written)
    assert [has_words(text, boilerplate_ranges(text, parts)) for text in written] == [False, False, True]


def test_no_row_has_a_footer_that_many_documents_have() -> None:
    app = make_app(**filtered(boilerplate_documents=10))
    for number in range(60):
        handlers.on_document(app, put_document(app.store, number, text=f"{report(f'topic{number}')}\n\n{FOOTER}"))
    skipped = handlers.build_dataset(app, "reports", "").dataset.skipped
    assert skipped["boilerplate"].documents == 0
    assert skipped["boilerplate"].characters == 60 * len(FOOTER.replace(" ", ""))
    digest = app.repository.published[-1]
    rows = [*app.rows(digest, "train"), *app.rows(digest, "held_out")]
    assert rows and not any(FOOTER in part["content"] for row in rows for part in row["messages"])


def test_a_document_of_boilerplate_only_is_counted() -> None:
    app = make_app(**filtered(boilerplate_documents=10))
    for number in range(60):
        text = f"{report(f'topic{number}')}\n\n{FOOTER}" if number else f"Some lonely thing{number}\n\n{FOOTER}"
        handlers.on_document(app, put_document(app.store, number, text=FOOTER if number == 0 else text))
    assert handlers.build_dataset(app, "reports", "").dataset.skipped["boilerplate"].documents == 1


@pytest.mark.parametrize("percent", [34, 40, 50, 75, 100])
def test_no_source_exceeds_its_share_and_no_row_is_removed_needlessly(percent: int) -> None:
    sizes = {"flood": 500, "wiki": 60, "share": 40}
    limit = source_limit(sizes, percent)
    assert limit is not None
    kept = {source: min(size, limit) for source, size in sizes.items()}
    assert max(kept.values()) <= percent * sum(kept.values()) / 100
    one_more = {source: min(size, limit + 1) for source, size in sizes.items()}
    assert percent == 100 or max(one_more.values()) > percent * sum(one_more.values()) / 100


def test_reports_how_many_sources_a_share_needs() -> None:
    with pytest.raises(FailedPrecondition, match="needs 3 sources; there are 2"):
        source_limit({"wiki": 1, "share": 1}, 40)


def test_a_flood_of_one_source_is_capped_in_the_dataset_and_counted() -> None:
    app = make_app(**filtered(max_source_documents=30, max_source_percent=50))
    for number in range(100):
        source = "flood" if number < 60 else "wiki" if number < 80 else "share"
        handlers.on_document(app, put_document(app.store, number, labels=Labels(source, "risk", "internal")))
    dataset = handlers.build_dataset(app, "reports", "").dataset
    assert dataset.skipped["source"].documents == 30
    flood = {f"doc_{number:032d}" for number in range(60)}
    train = app.rows(dataset.digest, "train")
    assert 0 < sum(row["document_ids"][0] in flood for row in train) <= len(train) / 2


def test_a_source_with_too_many_rows_loses_some_and_they_are_counted() -> None:
    app = make_app(**filtered(max_source_percent=50))
    for number in range(60):
        source = "flood" if number < 50 else "wiki" if number < 55 else "share"
        handlers.on_document(app, put_document(app.store, number, labels=Labels(source, "risk", "internal")))
    dataset = handlers.build_dataset(app, "reports", "").dataset
    flood = {f"doc_{number:032d}" for number in range(50)}
    train = app.rows(dataset.digest, "train")
    assert sum(row["document_ids"][0] in flood for row in train) <= len(train) / 2
    assert dataset.skipped["max_source_percent"].rows > 100 and dataset.skipped["max_source_percent"].characters > 0
    assert dataset.figures.coverage < 0.6


def by_document(rows: list[dict[str, Any]]) -> Counter[str]:
    return sum((Counter({row["document_ids"][0]: row["tokens"]}) for row in rows), Counter())


def put_large(app: FakeSynthetic, documents: int, *, large: int, policy: RowPolicy) -> None:
    """Documents of which the first ones are many times as long as the others."""
    app.specialists["reports"] = replace(SPECIALIST, rows=policy)
    for number in range(documents):
        parts = (f"part{number}x{part}" for part in range(40 if number < large else 1))
        handlers.on_document(app, put_document(app.store, number, text="\n\n".join(map(report, parts))))


@pytest.mark.parametrize("percent", [10, 20])
def test_a_large_document_loses_rows_until_it_has_its_share_and_they_are_counted(percent: int) -> None:
    app = make_app()
    put_large(app, 30, large=3, policy=RowPolicy(max_document_percent=percent))
    dataset = handlers.build_dataset(app, "reports", "").dataset
    tokens = by_document(app.rows(dataset.digest, "train"))
    assert 0.7 * percent <= 100 * max(tokens.values()) / tokens.total() <= percent
    assert dataset.skipped["max_document_percent"].rows > 10


@pytest.mark.parametrize(("documents", "policy"), [(15, RowPolicy()), (30, RowPolicy(max_document_percent=0))])
def test_few_documents_or_a_policy_without_the_limit_keep_every_row(documents: int, policy: RowPolicy) -> None:
    app = make_app()
    put_large(app, documents, large=3, policy=policy)
    assert "max_document_percent" not in handlers.build_dataset(app, "reports", "").dataset.skipped


def test_a_budget_of_tokens_keeps_rows_of_people_and_counts_the_rest() -> None:
    app = make_app(specialists={"reports": replace(SPECIALIST, rows=RowPolicy(max_train_tokens=800))})
    for number in range(60):
        example = number % 20 == 0
        text = (
            f"The answer number{number} is that the harbour and its cranes were counted by hand in {number} days."
            if example
            else ""
        )
        prompt = f"What is number{number} about?" if example else None
        handlers.on_document(app, put_document(app.store, number, text=text, prompt=prompt))
    dataset = handlers.build_dataset(app, "reports", "").dataset
    train = app.rows(dataset.digest, "train")
    assert 600 < sum(row["tokens"] for row in train) <= 800
    people = {row["document_ids"][0] for row in train if row["made_by"] == "human"}
    held_out = {row["document_ids"][0] for row in app.rows(dataset.digest, "held_out")}
    assert people | held_out >= {f"doc_{number:032d}" for number in (0, 20, 40)}
    skipped = dataset.skipped["max_train_tokens"]
    assert skipped.rows > 50 and skipped.documents > 10 and skipped.characters > 1000


def test_a_changed_filter_makes_another_dataset() -> None:
    app = filled()
    first = handlers.build_dataset(app, "reports", "").dataset
    app.specialists["reports"] = replace(SPECIALIST, filters=Filters(max_source_documents=40))
    second = handlers.build_dataset(app, "reports", "")
    assert second.created and second.dataset.digest != first.digest
    assert second.dataset.documents <= 40


def test_removing_more_does_not_make_a_new_dataset() -> None:
    app = filled(**filtered(max_chars=2000))
    first = handlers.build_dataset(app, "reports", "").dataset
    handlers.on_document(app, put_document(app.store, 900, text=report("storms") * 20))
    second = handlers.build_dataset(app, "reports", "")
    assert (second.created, second.dataset.digest) == (False, first.digest)
    assert second.dataset.skipped["length"].documents == 1
    assert json.loads(app.store.get(second.dataset.manifest))["skipped"] == {}
