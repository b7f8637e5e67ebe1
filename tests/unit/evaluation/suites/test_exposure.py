"""Exposure by rank and by distribution."""

import math
from random import Random
from statistics import mean

import pytest

from services.evaluation.suites.memorisation import exposure, tail_bits

OTHERS = [float(value) for value in range(-127, 0)]


@pytest.mark.parametrize(("secret", "bits"), [(0.0, 7.0), (-1.5, 6.0), (-3.5, 5.0), (-200.0, 0.0)])
def test_exposure_is_the_bits_that_the_rank_saves(secret: float, bits: float) -> None:
    assert exposure(secret, OTHERS) == bits


def test_a_tie_counts_against_the_secret() -> None:
    assert exposure(-1.0, OTHERS) == exposure(-1.5, OTHERS)


def test_without_learning_the_mean_exposure_is_about_one_and_a_half_bits() -> None:
    chance = Random(1)
    drawn = [exposure(chance.random(), [chance.random() for _ in range(128)]) for _ in range(2000)]
    assert mean(drawn) == pytest.approx(math.log2(math.e), abs=0.1)


def test_the_tail_grows_with_the_distance_of_the_secret() -> None:
    chance = Random(2)
    others = [chance.gauss(-40, 3) for _ in range(128)]
    assert tail_bits(-40, others) == pytest.approx(1, abs=0.4)
    # Four standard deviations: 1 in 31,600.
    assert tail_bits(-28, others) == pytest.approx(14.9, abs=4)
    assert tail_bits(0, others) > 40


def test_a_random_secret_rarely_reaches_the_bits_that_count_as_memorised() -> None:
    chance = Random(3)
    bits = [tail_bits(chance.gauss(0, 1), [chance.gauss(0, 1) for _ in range(128)]) for _ in range(300)]
    assert sum(found >= math.log2(100) for found in bits) <= 9


def test_values_that_do_not_vary_tell_nothing() -> None:
    assert tail_bits(-1.0, [-2.0] * 10) == 0
