"""A measured metric: additive numbers per row, and how their sums become values."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Measurement:
    """`statistics` has one tuple of additive numbers per row, or None where the metric does not apply.

    `combine` maps sums, an array of shape (..., k), to values of shape (...).
    """

    statistics: Sequence[tuple[float, ...] | None]
    combine: Callable[[Any], Any]
