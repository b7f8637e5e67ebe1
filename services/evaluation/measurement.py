"""What a metric returns: additive numbers per row, from which any set of rows gives a value. So one bootstrap serves every metric."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy
import numpy.typing

Floats = numpy.typing.NDArray[numpy.float64]
# Sums of statistics, (..., k), to values, (...).
Combine = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Measurement:
    """A metric of one model.

    `statistics` has k numbers per row that can be added up, or None if the metric does not apply to the row. `combine` maps their sums over
    any rows, an array of shape (..., k), to values of shape (...).
    """

    statistics: Sequence[tuple[float, ...] | None]
    combine: Combine

    def row_values(self) -> list[float | None]:
        """The value of each row alone."""
        return [None if row is None else float(self.combine(numpy.array(row, dtype=float))) for row in self.statistics]


def mean_of(values: Sequence[float | None]) -> Measurement:
    """The mean of a number per row."""
    return Measurement([None if value is None else (value, 1.0) for value in values], ratio)


def ratio(sums: Floats) -> Floats:
    """The first sum over the second; 0 if that is 0."""
    return numpy.divide(sums[..., 0], sums[..., 1], out=numpy.zeros(sums.shape[:-1]), where=sums[..., 1] != 0)
