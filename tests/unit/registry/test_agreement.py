"""Krippendorff's alpha, against the worked example of Krippendorff 2011 (data D)."""

import pytest

from services.registry.rules.agreement import Distance, PanelAgreement, interval, measure_agreement, nominal, ordinal

# Four observers, twelve units; a dot is a missing value.
OBSERVERS = ("1 2 3 3 2 1 4 1 2 . . .", "1 2 3 3 2 2 4 1 2 5 . 3", ". 3 3 3 2 3 4 2 2 5 1 .", "1 2 3 3 2 4 4 1 2 5 1 .")
UNITS = [
    [float(value) for value in unit if value != "."] for unit in zip(*(row.split() for row in OBSERVERS), strict=True)
]


@pytest.mark.parametrize(("distance", "alpha"), [(nominal, 0.743), (ordinal, 0.815), (interval, 0.849)])
def test_alpha_is_that_of_the_published_example(distance: Distance, alpha: float) -> None:
    found = measure_agreement(UNITS, distance)
    assert found.units == 11
    assert found.alpha == pytest.approx(alpha, abs=5e-4)
    assert found.low is not None and found.high is not None and found.low < alpha < found.high <= 1.0


def test_perfect_agreement_is_one_and_the_interval_is_reproducible() -> None:
    units = [[1.0, 1.0], [5.0, 5.0]] * 4
    assert measure_agreement(units, ordinal) == measure_agreement(units, ordinal) == PanelAgreement(8, 1.0, 1.0, 1.0)


def test_systematic_disagreement_is_below_chance() -> None:
    alpha = measure_agreement([[-1.0, 1.0]] * 10, nominal).alpha
    assert alpha is not None and alpha < 0.0


@pytest.mark.parametrize("units", [[], [[3.0]], [[3.0, 3.0]] * 9])
def test_without_two_values_that_differ_there_is_no_alpha(units: list[list[float]]) -> None:
    assert measure_agreement(units, ordinal).alpha is None


def test_few_units_have_no_interval() -> None:
    few = measure_agreement([[1.0, 1.0], [2.0, 3.0]], ordinal)
    assert few.alpha is not None and few.low is None
