"""A metric's measurement of one model: additive statistics per row, from which one bootstrap computes every metric's interval."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy
from numpy.typing import NDArray

Sums = NDArray[numpy.float64]
# Statistics of a row; None if the metric does not apply to it.
Statistics = tuple[float, ...] | None
# Maps sums of statistics, (..., k), to values, (...).
Combine = Callable[[Sums], Sums]


@dataclass(frozen=True)
class Measurement:
    """One metric of one model. `statistics` has an entry per row; all entries have the same length.

    `parts` are measurements of the same rows that explain this one, such as those by kind. `counts` say what was left out or failed.
    """

    statistics: tuple[Statistics, ...]
    combine: Combine
    parts: Mapping[str, "Measurement"] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """The number of rows that the metric applies to."""
        return sum(entry is not None for entry in self.statistics)

    def value(self) -> float:
        """The value over all rows; NaN if the metric applies to none."""
        measured = [entry for entry in self.statistics if entry is not None]
        if not measured:
            return float("nan")
        return float(self.combine(numpy.asarray(measured, numpy.float64).sum(axis=0)))

    def row_values(self) -> list[float | None]:
        """The value of each row by itself."""
        return [
            None if entry is None else float(self.combine(numpy.asarray(entry, numpy.float64)))
            for entry in self.statistics
        ]


def ratio(sums: Sums) -> Sums:
    """The first sum divided by the second; 0 if both are 0. Means, shares and micro F1 are such ratios."""
    numerators, denominators = sums[..., 0], sums[..., 1]
    return numpy.asarray(numerators / numpy.where(denominators == 0, 1.0, denominators))


def mean_of(values: Iterable[float | None]) -> Measurement:
    """The mean of the rows' values."""
    return Measurement(tuple(None if value is None else (float(value), 1.0) for value in values), ratio)


def ratio_of(pairs: Sequence[tuple[float, float] | None]) -> Measurement:
    """The sum of the rows' numerators divided by that of their denominators."""
    statistics = tuple(None if pair is None else (float(pair[0]), float(pair[1])) for pair in pairs)
    return Measurement(statistics, ratio)
