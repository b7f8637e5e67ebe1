"""Rules about strings that are replaced in many documents, and adding them to a policy."""

import pytest

from services.anonymization.domain import Action, Change
from services.anonymization.policy.allowing import EXTENDS_DEFAULT, allow_terms
from services.anonymization.policy.policy_file import DEFAULT, load_policy, parse_policy
from services.anonymization.review.replaced_domain import (
    MAX_PLACES,
    CountedDocuments,
    ReplacedPlace,
    count_surrogates,
    find_surrogate,
    spellings,
    spread,
)
from tailor.errors import InvalidArgument


def change(replacement: str, action: Action = Action.SURROGATE, kind: str = "PERSON") -> Change:
    return Change(0, 3, kind, action, replacement)


def test_counts_surrogates_by_spelling_and_neither_masks_nor_coarser_values() -> None:
    coarse = change("Leeds", Action.GENERALISE, "ADDRESS")
    changes = (change("WINTERS"), change("Winters"), change("WINTERS"), change("[PERSON]"), coarse)
    assert count_surrogates([changes, (change("Blue\nHartwell", kind="CLIENT"), change("x" * 201))]) == {
        ("PERSON", "WINTERS"): 2,
        ("PERSON", "Winters"): 1,
        ("CLIENT", "Blue Hartwell"): 1,
    }


def test_a_string_must_stand_in_five_documents_and_in_one_of_a_hundred() -> None:
    assert [CountedDocuments(count, 1).min_documents for count in (0, 40, 500, 501, 10_000)] == [5, 5, 5, 6, 100]


def test_finds_a_surrogate_in_any_capitals_only_where_something_was_replaced() -> None:
    text = "WINTERS and Gerald\nWinters and winters"
    assert find_surrogate(text, "winters", [(0, 7), (12, 26)]) == [(0, 7)]
    assert find_surrogate(text, "gerald winters", [(0, 7), (12, 26)]) == [(12, 26)]


def test_a_value_is_allowed_in_the_capitals_that_documents_have() -> None:
    assert spellings("SQL", ["WINTERS"]) == ("SQL",)
    assert spellings("SQL", ["Winters", "winters", "WINTERS"]) == ("SQL", "Sql", "sql")
    assert spellings("GnuCash", ["McColgan", "MCCOLGAN"]) == ("GNUCASH", "GnuCash")


def test_places_are_of_as_many_documents_as_possible() -> None:
    places = [[ReplacedPlace(f"doc_{number}", "", "", "")] * 4 for number in range(4)]
    assert [place.document_id for place in spread(places)][:5] == ["doc_0", "doc_1", "doc_2", "doc_3", "doc_0"]
    assert len(spread(places)) == MAX_PLACES and spread([]) == ()


@pytest.mark.parametrize(
    "source",
    [
        EXTENDS_DEFAULT,
        DEFAULT.read_bytes(),
        b'[types]\nPERSON = "mask"\n\n[allow] # ours\ncitations = ["eu"]\n\n[codes]\nCONTRACT = ["K-1"]\n',
        b'extends = "ccpa"\n[allow]\nterms = [\n  "Blue House",  # a product\n]\n[codes]\nCONTRACT = ["K-1"]\n',
    ],
)
def test_an_allowed_term_changes_nothing_else_in_a_policy(source: bytes) -> None:
    before, after = parse_policy(source), parse_policy(allow_terms(source, ["SQL", 'The "B" Plan']))
    assert set(after.allow_terms) == {*before.allow_terms, "SQL", 'The "B" Plan'}
    assert (after.actions, after.codes, after.allow_patterns) == (before.actions, before.codes, before.allow_patterns)
    assert after.digest != before.digest
    comments = [line for line in source.decode().splitlines() if "#" in line]
    extended = allow_terms(source, ["SQL"])
    assert all(line in extended.decode() for line in comments) and allow_terms(extended, ["SQL"]) == extended


def test_a_policy_that_cannot_be_extended_says_how_to_write_it() -> None:
    with pytest.raises(InvalidArgument) as refused:
        allow_terms(b'allow = { terms = ["b c"] }\n', ["SQL"])
    assert "under a line `[allow]`" in refused.value.field_violations["allow.terms"]


def test_an_extension_of_the_default_follows_the_default() -> None:
    assert parse_policy(EXTENDS_DEFAULT).actions == load_policy().actions
