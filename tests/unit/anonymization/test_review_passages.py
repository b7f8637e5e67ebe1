"""Passages, samples, marks, terms and combinations of a review, and the residual estimate, without stores."""

import random
from collections import Counter
from datetime import UTC, datetime
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
    ResidualBound,
    ResidualLimit,
    ReviewedDocument,
    ReviewTerm,
    SampleDraw,
    Stratum,
    StratumResult,
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
from services.anonymization.review.estimates import (
    ResidualShare,
    check_limit,
    clopper_pearson,
    estimate,
    weighted_share,
)
from services.anonymization.review.quasi_identifiers import ListedQuasiIdentifiers, combine
from services.anonymization.review.sampling import allocate, draw_sample
from services.anonymization.review.terms import HashedTerms
from tailor.errors import FailedPrecondition, InvalidArgument, Reason

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


def result(
    left: int, reviewed: int, *, source: str = "wiki", passages: int = 10_000, drawn: int = 400
) -> StratumResult:
    return StratumResult(Stratum(source, "en", passages, drawn), reviewed, left, {"PERSON": left}, {"PERSON": 2 * left})


def draw(*results: StratumResult) -> SampleDraw:
    return SampleDraw("smp_1", 7, datetime(2026, 1, 1, tzinfo=UTC), results)


def known_share(*strata: tuple[int, int, int]) -> ResidualShare:
    share = weighted_share(strata)
    assert share is not None
    return share


@pytest.mark.parametrize(
    ("left", "reviewed", "low", "high"),
    # Exact intervals as statistics texts and R's binom.test give them.
    [
        (20, 400, 0.0308, 0.0762),
        (5, 50, 0.0333, 0.2181),
        (0, 100, 0.0, 0.0362),
        (100, 100, 0.9638, 1.0),
        (1, 10, 0.0025, 0.4450),
    ],
)
def test_the_interval_is_the_exact_one_of_clopper_and_pearson(
    left: int, reviewed: int, low: float, high: float
) -> None:
    assert clopper_pearson(left, reviewed) == pytest.approx((low, high), abs=5e-5)


def test_20_of_400_are_5_percent_with_the_interval_of_the_books() -> None:
    share = known_share((100_000, 400, 20))
    assert share.left == 20 and str(share) == "5.0 % [3.1, 7.6]"


def test_strata_are_weighted_by_their_passages_and_not_by_what_was_drawn_of_them() -> None:
    share = known_share((90_000, 200, 2), (10_000, 200, 100))
    assert share.share == pytest.approx(0.9 * 0.01 + 0.1 * 0.5)
    assert share.low < share.share < share.high
    # As wide as a smaller simple sample: half of the passages come from a tenth of the corpus.
    low, high = clopper_pearson(0.059 * 400, 400)
    assert share.high - share.low > 0.9 * (high - low)


def test_strata_drawn_in_proportion_are_as_good_as_a_simple_sample() -> None:
    share = known_share((60_000, 240, 12), (40_000, 160, 8))
    assert (share.low, share.high) == pytest.approx(clopper_pearson(20, 400))


def test_nothing_left_anywhere_still_has_an_upper_bound() -> None:
    share = known_share((90_000, 40, 0), (10_000, 360, 0))
    assert share.share == share.low == 0.0
    # 40 of 90 % say little: the 360 others must not hide that.
    assert share.high > 0.06


def test_a_stratum_without_a_reviewed_passage_does_not_count() -> None:
    assert known_share((90_000, 100, 5), (10_000, 0, 0)) == known_share((90_000, 100, 5))
    assert weighted_share([(100, 0, 0)]) is None and weighted_share([]) is None


def test_the_interval_covers_the_truth_in_19_of_20_samples() -> None:
    generator = random.Random(11)
    strata = [(8_000, 0.02, 150), (1_500, 0.15, 80), (500, 0.4, 60)]
    truth = sum(passages * share for passages, share, _ in strata) / 10_000
    covered = 0
    for _ in range(1_000):
        reviewed = [
            (passages, count, sum(generator.random() < share for _ in range(count)))
            for passages, share, count in strata
        ]
        share = known_share(*reviewed)
        covered += share.low <= truth <= share.high
    assert covered >= 945


def test_estimates_by_type_count_passages_and_values() -> None:
    whole = estimate([result(10, 200), result(0, 100, source="mail", passages=5_000)])
    assert whole.reviewed == 300 and whole.stratum.passages == 15_000
    assert whole.types["PERSON"].left == 10 and whole.values == {"PERSON": 20}
    assert whole.types["PERSON"].share == pytest.approx(10_000 / 15_000 * 0.05)
    assert estimate([]).any is None


@pytest.mark.parametrize(("bound", "limit"), [(ResidualBound.UPPER, 0.077), (ResidualBound.POINT, 0.051)])
def test_a_limit_is_met_by_its_bound(bound: ResidualBound, limit: float) -> None:
    check_limit(ResidualLimit(limit, bound), draw(result(20, 400)), ())
    with pytest.raises(FailedPrecondition, match="RESIDUAL_TOO_HIGH"):
        check_limit(ResidualLimit(limit - 0.002, bound), draw(result(20, 400)), ())


def test_a_refusal_says_the_figures_and_what_to_do() -> None:
    with pytest.raises(FailedPrecondition) as refused:
        check_limit(ResidualLimit(0.05, ResidualBound.UPPER), draw(result(20, 400)), ("wiki",))
    assert "5.0 % [3.1, 7.6]" in refused.value.message and "limit of 5.0 %" in refused.value.message
    assert "draw and review a new sample" in refused.value.message


def test_what_nobody_reviewed_does_not_meet_a_limit() -> None:
    limit = ResidualLimit(0.5, ResidualBound.POINT)
    clean, unseen = result(0, 400), result(0, 0, source="mail")
    cases: dict[str, tuple[SampleDraw | None, tuple[str, ...]]] = {
        "no sample": (None, ()),
        "nothing reviewed": (draw(unseen), ()),
        "a source that was not sampled": (draw(clean), ("wiki", "mail")),
        "a stratum without a reviewed passage": (draw(clean, unseen), ()),
        "few reviewed": (draw(result(0, 29)), ()),
    }
    for name, (sample, sources) in cases.items():
        with pytest.raises(FailedPrecondition) as refused:
            check_limit(limit, sample, sources)
        assert refused.value.reason == Reason.RESIDUAL_UNKNOWN, name
    check_limit(limit, draw(clean, unseen), ("wiki",))
    check_limit(limit, draw(result(0, 12, drawn=12, passages=12)), ())
