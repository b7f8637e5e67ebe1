"""Passages, samples, marks, terms and combinations of a review, without stores."""

import random
from collections import Counter
from itertools import pairwise

import pytest

from services.anonymization.domain import Action, Change, Disagreement
from services.anonymization.review.domain import (
    PASSAGE_CHARS,
    PassageKind,
    PassageMark,
    PassageStretch,
    PassageView,
    QueuedPassage,
    ReviewedDocument,
    ReviewTerm,
    StretchKind,
    check_marks,
    count_passages,
    join_parts,
    passage_at,
    passage_bounds,
    replaced_stretches,
    standing_disagreements,
    term_words,
)
from services.anonymization.review.quasi_identifiers import ListedQuasiIdentifiers, combine
from services.anonymization.review.sampling import allocate, draw_sample
from services.anonymization.review.terms import HashedTerms
from tailor.errors import InvalidArgument

QUEUED = QueuedPassage("psg_1", PassageKind.SAMPLE, "doc_1", 1, 0)


def document(number: int, passages: int, source: str = "wiki", language: str = "en") -> ReviewedDocument:
    return ReviewedDocument(f"doc_{number:04}", 1, source, language, passages)


@pytest.mark.parametrize("length", [0, 1, 399, 400, 401, 5_000])
def test_passages_cover_a_text_without_overlaps_and_break_between_words(length: int) -> None:
    generator = random.Random(length)
    text = "".join(generator.choice("abcde    \n") for _ in range(length))
    count = count_passages(text)
    bounds = [passage_bounds(text, number, count) for number in range(count)]
    assert bounds[0][0] == 0 and bounds[-1][1] == len(text)
    for (_, end), (start, _) in pairwise(bounds):
        assert end == start and text[start - 1].isspace()
    for place in range(0, length, 7):
        start, end = bounds[passage_at(text, place, count)]
        assert start <= place < end


def test_a_text_without_spaces_is_cut_all_the_same() -> None:
    text = "x" * 1_000
    assert passage_bounds(text, 1, count_passages(text)) == (PASSAGE_CHARS + 100, 900)


def test_every_passage_of_a_stratum_is_drawn_equally_often() -> None:
    documents = [document(1, 1), document(2, 9), document(3, 30)]
    counts: Counter[tuple[str, int, int]] = Counter()
    for seed in range(2_000):
        counts.update(place for _, place in draw_sample(documents, 8, 0, seed).passages)
    assert len(counts) == 40 and sum(counts.values()) == 16_000
    # 400 each, with a standard deviation of 18.
    assert all(320 < count < 480 for count in counts.values())


def test_the_same_seed_draws_the_same_passages_in_an_order_that_mixes_strata() -> None:
    documents = [document(number, 20, source) for number, source in enumerate(["wiki", "mail"] * 10)]
    first, second = draw_sample(documents, 60, 10, 5), draw_sample(documents, 60, 10, 5)
    assert first == second and first != draw_sample(documents, 60, 10, 6)
    assert {stratum.source for stratum, _ in first.passages[:20]} == {"wiki", "mail"}
    assert len({place for _, place in first.passages}) == 60


def test_strata_get_their_minimum_and_then_their_share() -> None:
    sizes = {("large", ""): 9_000, ("small", ""): 1_000, ("tiny", ""): 5}
    assert allocate(sizes, 405, 30) == {("large", ""): 360, ("small", ""): 40, ("tiny", ""): 5}
    assert allocate(sizes, 400, 0)["tiny", ""] == 0
    assert sum(allocate(sizes, 5_000, 30).values()) == 5_000
    assert allocate({("a", ""): 3}, 400, 30) == {("a", ""): 3}
    # More strata than passages: the minimum is lowered.
    many = {(f"source-{number}", ""): 100 for number in range(50)}
    assert sum(allocate(many, 40, 30).values()) == 40
    assert allocate({}, 400, 30) == {}


def test_replaced_values_and_standing_disagreements_are_at_their_places_in_the_anonymised_text() -> None:
    given = ("Ask Ngozi Okafor now.", "Ms Okafor met gregor herrmann.")
    changes = (
        (Change(4, 16, "PERSON", Action.SURROGATE, "Eve Ward"),),
        (Change(3, 9, "PERSON", Action.SURROGATE, "Ward"),),
    )
    texts = ("Ask Eve Ward now.", "Ms Ward met gregor herrmann.")
    whole = join_parts(texts)
    assert [whole[item.start : item.end] for item in replaced_stretches(texts, changes)] == ["Eve Ward", "Ward"]
    name = given[1].index("gregor")
    doubtful = (
        (Disagreement(4, 9, "PERSON", ("rules",)),),
        (Disagreement(name, name + len("gregor herrmann"), "PERSON", ("spacy",)),),
    )
    standing = standing_disagreements(texts, changes, doubtful)
    assert [whole[item.start : item.end] for item in standing] == ["gregor herrmann"]
    assert standing_disagreements(texts, changes, ()) == []


def test_only_what_the_barrier_left_in_the_passage_can_be_marked() -> None:
    text = "Before. Ms Ward met gregor herrmann today. After."
    start, end = text.index("Ms"), text.index("After")
    ward = PassageStretch(text.index("Ward"), text.index("Ward") + 4, StretchKind.REPLACED)
    view = PassageView(QUEUED, text, start, end, (ward,), True, ("PERSON", "CLIENT"))
    name = PassageMark(text.index("gregor"), text.index(" today"), "PERSON")
    check_marks(view, [name, PassageMark(text.index("today"), text.index(".", end - 2), "")])
    wrong = [
        PassageMark(0, 6, "PERSON"),
        PassageMark(ward.start, ward.end, "PERSON"),
        PassageMark(name.start, name.end, "DATE_TIME"),
        PassageMark(name.start, name.start, "PERSON"),
        PassageMark(name.start - 1, name.start, "PERSON"),
        PassageMark(name.start, len(text) + 1, "PERSON"),
    ]
    for mark in wrong:
        with pytest.raises(InvalidArgument) as refused:
            check_marks(view, [mark])
        assert refused.value.field_violations.keys() == {"marks[0]"}
        assert "gregor" not in str(refused.value.field_violations)
    with pytest.raises(InvalidArgument) as refused:
        check_marks(view, [name, name])
    assert "overlaps" in refused.value.field_violations["marks[1]"]
    with pytest.raises(InvalidArgument, match="INVALID_MARKS"):
        check_marks(view, [name] * 51)


def reviewed_terms(*terms: tuple[str, str]) -> HashedTerms:
    hashing = HashedTerms(b"key", lambda: "", tuple)
    table = [ReviewTerm(hashing.hash(value), kind, len(term_words(value))) for value, kind in terms]
    return HashedTerms(b"key", lambda: str(len(table)) if table else "", lambda: table)


def test_reviewed_terms_are_found_by_their_hash_in_any_spelling_of_several_words() -> None:
    terms = reviewed_terms(("gregor herrmann", "PERSON"), ("Will", "PERSON"), ("GPU Direct", ""))
    text = "Ask Gregor\nHerrmann, or Will; he will know GPU-direct. GREGOR HERRMANN'S"
    personal, never = terms.search(text)
    assert [text[item.start : item.end] for item in personal] == ["Will", "Gregor\nHerrmann", "GREGOR HERRMANN"]
    assert [text[start:end] for start, end in never] == ["GPU-direct"]
    assert terms.search("Gregor\n\nHerrmann") == ([], [])
    assert terms.digest and terms.digest != reviewed_terms(("Will", "PERSON")).digest
    assert reviewed_terms().digest == "" and reviewed_terms().search(text) == ([], [])


def test_no_decided_text_is_held_in_memory() -> None:
    terms = reviewed_terms(("gregor herrmann", "PERSON"))
    terms.search("Ask gregor herrmann.")
    assert "herrmann" not in str(vars(terms)).lower()


def test_a_new_decision_is_effective_for_the_next_text() -> None:
    table: list[ReviewTerm] = []
    terms = HashedTerms(b"key", lambda: str(len(table)), lambda: table)
    assert terms.search("Ask Okonkwo.") == ([], [])
    table.append(ReviewTerm(terms.hash("Okonkwo"), "PERSON", 1))
    assert [item.entity_type for item in terms.search("Ask Okonkwo.")[0]] == ["PERSON"]


def test_paragraphs_with_two_types_of_quasi_identifiers_become_combinations() -> None:
    find = ListedQuasiIdentifiers(lambda word: word in ("Lucerne", "Leeds"))
    text = "The Head of Compliance in Lucerne, aged 54.\n\nLeeds is wet.\n\nA Maltese surgeon, born in 1968, lives at 3 Leeds Road."
    address = PassageStretch(text.index("3 Leeds"), text.index("Road") + 4, entity_type="")
    stretches = find(text, [address])
    assert [item.entity_type for item in stretches] == [
        "JOB_TITLE",
        "LOCATION",
        "AGE",
        "LOCATION",
        "NRP",
        "JOB_TITLE",
        "DATE_OF_BIRTH",
    ]
    combinations = combine(text, stretches, 1, b"key")
    assert [item.entity_types for item in combinations] == [
        ("AGE", "JOB_TITLE", "LOCATION"),
        ("DATE_OF_BIRTH", "JOB_TITLE", "NRP"),
    ]
    spelt_otherwise = text.replace("Head of Compliance", "head of  compliance")
    again = combine(spelt_otherwise, find(spelt_otherwise, []), 1, b"key")
    assert again[0].value_hash != combinations[1].value_hash
    assert "lucerne" not in str(combinations).lower()


def test_a_coarser_value_is_a_quasi_identifier_and_a_surrogate_is_none() -> None:
    find = ListedQuasiIdentifiers(lambda word: word == "Leeds")
    text = "The treasurer was born in 1968 in Leeds."
    year, town = text.index("1968"), text.index("Leeds")
    replaced = [PassageStretch(year, year + 4, entity_type="DATE_OF_BIRTH"), PassageStretch(town, town + 5)]
    assert [item.entity_type for item in find(text, replaced)] == ["JOB_TITLE", "DATE_OF_BIRTH"]
