"""Intervals over clusters, paired gains, and an A/A simulation of both."""

import math
from collections.abc import Sequence

import numpy
import pytest

from services.evaluation import statistics
from services.evaluation.domain import Estimate, HeldOutRow
from services.evaluation.measurement import Measurement, Sums, mean_of, ratio
from tailor.rounds import MIN_HELD_OUT

TRIALS = 150


def row(*document_ids: str) -> HeldOutRow:
    return HeldOutRow("row", "section", document_ids, (), "")


def noise(generator: numpy.random.Generator, clusters: Sequence[int]) -> Sums:
    """A number per row, in part common to the rows of a cluster."""
    shared = generator.normal(size=max(clusters) + 1)
    result: Sums = shared[list(clusters)] + generator.normal(size=len(clusters))
    return result


def test_rows_that_share_a_document_are_one_cluster() -> None:
    rows = [row("a"), row("b"), row("a", "c"), row("c"), row(), row()]
    assert statistics.find_clusters(rows) == [0, 1, 0, 0, 2, 3]


def test_the_value_is_that_of_all_rows_and_the_interval_holds_it() -> None:
    measurement = Measurement(((1.0, 2.0), None, (3.0, 2.0), (2.0, 4.0)), ratio)
    found = statistics.estimate(measurement, [0, 1, 2, 3])
    assert (found.value, found.rows) == (0.75, 3)
    assert found.low < 0.75 < found.high
    assert measurement.row_values() == [0.5, None, 1.5, 0.5]


def test_a_gain_is_paired_and_positive_if_better() -> None:
    generator = numpy.random.default_rng(1)
    hard = generator.normal(scale=10, size=40)
    base, candidate = mean_of(list(hard)), mean_of(list(hard + 1 + generator.normal(scale=0.1, size=40)))
    clusters = list(range(40))
    gain = statistics.estimate_gain(candidate, base, clusters)
    assert gain.value == pytest.approx(1, abs=0.1) and gain.high - gain.low < 0.2
    loss = statistics.estimate_gain(candidate, base, clusters, lower_is_better=True)
    assert loss.value == pytest.approx(-gain.value)
    assert statistics.estimate(candidate, clusters).high - statistics.estimate(candidate, clusters).low > 4


def test_a_gain_is_measured_on_the_rows_that_both_have() -> None:
    gain = statistics.estimate_gain(mean_of([1.0, None, 3.0, 5.0]), mean_of([0.0, 1.0, None, 4.0]), [0, 1, 2, 3])
    assert (gain.value, gain.rows) == (1.0, 2)


def test_five_held_out_pairs_can_bear_one_that_goes_the_other_way_and_four_cannot() -> None:
    def gain(pairs: int) -> Estimate:
        won = mean_of([1.0] * (pairs - 1) + [0.0])
        return statistics.estimate_gain(won, mean_of([0.0] * pairs), list(range(pairs)))

    assert gain(MIN_HELD_OUT).low > 0 >= gain(MIN_HELD_OUT - 1).low


def test_one_document_has_no_interval_and_no_rows_have_no_value() -> None:
    assert statistics.estimate(mean_of([1.0, 2.0]), [0, 0]) == Estimate(1.5, -math.inf, math.inf, 2)
    nothing = statistics.estimate_gain(mean_of([1.0, None]), mean_of([None, 1.0]), [0, 1])
    assert math.isnan(nothing.value) and nothing.rows == 0


def test_the_same_rows_always_give_the_same_interval() -> None:
    measurement = mean_of(list(numpy.random.default_rng(2).normal(size=30)))
    assert statistics.estimate(measurement, range(30)) == statistics.estimate(measurement, range(30))


@pytest.mark.parametrize(("rows", "rows_per_document"), [(24, 1), (60, 3), (12, 2)])
def test_exchangeable_models_are_seldom_told_apart(
    monkeypatch: pytest.MonkeyPatch, rows: int, rows_per_document: int
) -> None:
    """A/A: the true gain is zero, so 95 % of the intervals must hold it, and at most 5 % may say better or worse."""
    monkeypatch.setattr(statistics, "RESAMPLES", 400)
    generator = numpy.random.default_rng(rows)
    clusters = [number // rows_per_document for number in range(rows)]
    gains = [
        statistics.estimate_gain(
            mean_of(list(noise(generator, clusters))), mean_of(list(noise(generator, clusters))), clusters
        )
        for _ in range(TRIALS)
    ]
    assert sum(gain.low > 0 for gain in gains) / TRIALS <= 0.05
    assert sum(gain.high <= 0 for gain in gains) / TRIALS <= 0.05
    assert sum(gain.low <= 0 <= gain.high for gain in gains) / TRIALS >= 0.92


def test_rows_of_one_document_taken_as_independent_would_be_told_apart_by_chance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The simulation can fail: without clusters it does."""
    monkeypatch.setattr(statistics, "RESAMPLES", 400)
    generator = numpy.random.default_rng(5)
    clusters = [number // 6 for number in range(60)]
    wrong = 0
    for _ in range(TRIALS):
        ours, theirs = (mean_of(list(noise(generator, clusters))) for _ in range(2))
        gain = statistics.estimate_gain(ours, theirs, range(60))
        wrong += gain.low > 0 or gain.high <= 0
    assert wrong / TRIALS > 0.1
