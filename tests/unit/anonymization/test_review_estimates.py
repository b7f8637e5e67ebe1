"""The residual estimate: known answers, coverage by simulation, strata, and the limit."""

import random
from datetime import UTC, datetime

import pytest

from services.anonymization.review.domain import ResidualBound, ResidualLimit, SampleDraw, Stratum, StratumResult
from services.anonymization.review.estimates import (
    ResidualShare,
    check_limit,
    clopper_pearson,
    estimate,
    weighted_share,
)
from tailor.errors import FailedPrecondition, Reason


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
