"""Selecting documents by label."""

import pytest

from tailor.values import Labels, Selection

WIKI = Labels("wiki", "audit", "internal", "key_1")


@pytest.mark.parametrize(
    ("selection", "is_admitted"),
    [
        (Selection(), True),
        (Selection(sources=("wiki",)), True),
        (Selection(sources=("mail", "wiki"), departments=("audit",)), True),
        (Selection(sources=("mail",)), False),
        (Selection(sources=("wiki",), confidentialities=("public",)), False),
        (Selection(publishers=("publisher", "key_1")), True),
        (Selection(sources=("wiki",), publishers=("publisher",)), False),
    ],
)
def test_admits_documents_whose_labels_are_all_listed(selection: Selection, is_admitted: bool) -> None:
    assert selection.admits(WIKI) is is_admitted


def test_common_labels_are_those_with_exactly_one_value() -> None:
    selection = Selection(sources=("wiki",), departments=("audit", "tax"))
    assert selection.common_labels == Labels(source="wiki")
