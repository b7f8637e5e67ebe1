"""The filters of a specialist."""

import re
from collections import Counter
from collections.abc import Sequence

import pytest

from services.synthetic.domain import Range, Text
from services.synthetic.filters import boilerplate_ranges, has_words, rejecting_filter, source_limit, text_parts
from tailor.errors import FailedPrecondition
from tailor.values import Filters
from tests.unit.synthetic.row_texts import make_document

FOOTER = "This document is confidential and intended for the addressee only."
DISCLAIMER = f"## Disclaimer\n\n{FOOTER}\nAny use by others is forbidden without our written consent."


def repeated(texts: Sequence[str], documents: int = 2) -> set[int]:
    counts = Counter(part for text in texts for part in text_parts(text))
    return {part for part, count in counts.items() if count >= documents}


def without(text: str, ranges: Sequence[Range]) -> str:
    for start, end in reversed(ranges):
        text = text[:start] + text[end:]
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def cleaned(*written: str, documents: int = 2) -> list[str]:
    return [without(text, boilerplate_ranges(text, repeated(written, documents))) for text in written]


@pytest.mark.parametrize(("least", "most", "verdict"), [(0, 0, ""), (10, 10, ""), (11, 0, "length"), (0, 9, "length")])
def test_the_bounds_of_lengths_are_inclusive(least: int, most: int, verdict: str) -> None:
    document = make_document("Any text.")
    assert rejecting_filter(document, Text(None, "x" * 10), Filters(min_chars=least, max_chars=most)) == verdict


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
