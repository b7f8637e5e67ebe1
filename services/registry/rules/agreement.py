"""How far experts agree, by Krippendorff's alpha (Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability").

1 is perfect agreement, 0 is what chance gives. Intervals are percentiles of a bootstrap over the judged units (Zapf et al. 2016,
BMC Medical Research Methodology 16:93).
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

RESAMPLES = 1_000
# With fewer units, a resample says nothing about others.
MIN_UNITS = 5

# The counts of each value among all that have a partner, by value.
Counts = Mapping[float, float]
# The squared distance of two values.
Distance = Callable[[float, float, Counts], float]
# How often two values met in a unit, weighted so that each value counts once.
Coincidences = tuple[tuple[tuple[float, float], float], ...]


@dataclass(frozen=True)
class PanelAgreement:
    """Alpha with its 95 % interval, on `units` that at least two experts judged. All are None if it cannot be computed."""

    units: int
    alpha: float | None = None
    low: float | None = None
    high: float | None = None


def nominal(first: float, second: float, _: Counts) -> float:
    """Values are equal or not."""
    return float(first != second)


def ordinal(first: float, second: float, counts: Counts) -> float:
    """Values have an order; their distance is the number of values between them."""
    low, high = sorted((first, second))
    between = sum(count for value, count in counts.items() if low <= value <= high)
    return (between - (counts[first] + counts[second]) / 2) ** 2


def interval(first: float, second: float, _: Counts) -> float:
    """Values are numbers on a scale."""
    return (first - second) ** 2


def measure_agreement(units: Iterable[Sequence[float]], distance: Distance, seed: int = 7) -> PanelAgreement:
    """The agreement on units, each with the values of the experts who judged it. Deterministic by seed."""
    met = [_find_coincidences(values) for values in units if len(values) > 1]
    alpha = _compute_alpha(Counter(met), distance)
    if alpha is None or len(met) < MIN_UNITS:
        return PanelAgreement(len(met), alpha)
    draw = random.Random(seed)  # noqa: S311 - a bootstrap, not a secret
    resamples = (_compute_alpha(Counter(draw.choices(met, k=len(met))), distance) for _ in range(RESAMPLES))
    # A resample in which all values are equal has no alpha.
    drawn = sorted(value for value in resamples if value is not None)
    if not drawn:
        return PanelAgreement(len(met), alpha)
    return PanelAgreement(len(met), alpha, percentile(drawn, 0.025), percentile(drawn, 0.975))


def _find_coincidences(values: Sequence[float]) -> Coincidences:
    pairs = Counter(permutations(values, 2))
    return tuple(sorted((pair, count / (len(values) - 1)) for pair, count in pairs.items()))


def _compute_alpha(met: Mapping[Coincidences, int], distance: Distance) -> float | None:
    """1 minus observed over expected disagreement; None if no two different values were given."""
    pairs: dict[tuple[float, float], float] = {}
    for coincidences, times in met.items():
        for pair, weight in coincidences:
            pairs[pair] = pairs.get(pair, 0.0) + times * weight
    counts: dict[float, float] = {}
    for (value, _), weight in pairs.items():
        counts[value] = counts.get(value, 0.0) + weight
    total = sum(counts.values())
    observed = sum(weight * distance(*pair, counts) for pair, weight in pairs.items())
    expected = sum(
        counts[first] * counts[second] * distance(first, second, counts) for first, second in permutations(counts, 2)
    )
    return 1.0 - (total - 1) * observed / expected if expected else None


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of sorted values is below."""
    return values[min(len(values) - 1, int(share * len(values)))]
