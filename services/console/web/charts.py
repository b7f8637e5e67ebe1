"""Histograms and overlaid curves for inline SVG; the stylesheet sets the colours."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from tailor.api.registry.v1.audit_pb2 import AuditBin

WIDTH = 640
HEIGHT = 180
BASELINE = 150
TOP = 18
GAP = 6


@dataclass(frozen=True)
class Bar:
    """A bar with the label below it and the count above it, in SVG units."""

    x: float
    y: float
    width: float
    height: float
    label: str
    count: int

    @property
    def middle(self) -> float:
        """The x on which the labels are centred."""
        return round(self.x + self.width / 2, 1)


def histogram(bins: Sequence[AuditBin]) -> list[Bar]:
    """One bar per interval; the highest reaches the top."""
    most = max((interval.documents for interval in bins), default=0)
    step = WIDTH / max(1, len(bins))
    bars = []
    for number, interval in enumerate(bins):
        height = round((BASELINE - TOP) * interval.documents / most, 1) if most else 0.0
        below, start = interval.below_chars, interval.from_chars
        bars.append(
            Bar(
                x=round(number * step + GAP / 2, 1),
                y=round(BASELINE - height, 1),
                width=round(step - GAP, 1),
                height=height,
                label=f"< {_short(below)}" if below else f"≥ {_short(start)}",
                count=interval.documents,
            )
        )
    return bars


# The place of the curves in their chart, in SVG units.
PLOT_WIDTH, PLOT_HEIGHT = 1000, 380
LEFT, RIGHT, ABOVE, BELOW = 64, 40, 14, 34
MAX_POINTS = 400
MARKS = 8
MAX_ROWS = 12
STEPS = (1, 2, 2.5, 5, 10)
Points = Sequence[tuple[int, float]]
Item = TypeVar("Item")


@dataclass(frozen=True)
class Tick:
    """A line or a mark of an axis at a place in SVG units."""

    at: float
    label: str


@dataclass(frozen=True)
class CurveLine:
    """A curve: its path, and where its mark stands, so that it is told apart without its colour too."""

    letter: str
    path: str
    marks: tuple[tuple[float, float], ...]
    end: tuple[float, float]


@dataclass(frozen=True)
class Overlay:
    """Curves on common axes. A curve without points has no line."""

    lines: tuple[CurveLine | None, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    width: int = PLOT_WIDTH
    height: int = PLOT_HEIGHT
    left: int = LEFT
    right: int = PLOT_WIDTH - RIGHT
    bottom: int = PLOT_HEIGHT - BELOW


def overlay(curves: Sequence[Points]) -> Overlay:
    """Draw curves, which are in the order of their steps, on common axes."""
    finite = [[point for point in points if math.isfinite(point[1])] for points in curves]
    everything = [point for points in finite for point in points]
    if not everything:
        return Overlay((None,) * len(curves), (), ())
    first, last = min(step for step, _ in everything), max(step for step, _ in everything)
    low, high = min(value for _, value in everything), max(value for _, value in everything)
    room = (high - low or abs(high) or 1.0) * 0.06
    low, high, last = low - room, high + room, max(last, first + 1)

    def x(step: float) -> float:
        return round(LEFT + (step - first) / (last - first) * (PLOT_WIDTH - LEFT - RIGHT), 1)

    def y(value: float) -> float:
        return round(ABOVE + (high - value) / (high - low) * (PLOT_HEIGHT - ABOVE - BELOW), 1)

    lines = []
    for number, points in enumerate(finite):
        placed = [(x(step), y(value)) for step, value in thin(points, MAX_POINTS)]
        path = "".join(f"{'L' if index else 'M'}{left},{top}" for index, (left, top) in enumerate(placed))
        lines.append(CurveLine(chr(ord("A") + number), path, thin(placed, MARKS), placed[-1]) if placed else None)
    whole = [tick for tick in _ticks(first, last, 9) if float(tick).is_integer()]
    return Overlay(
        tuple(lines),
        tuple(Tick(x(step), f"{int(step):,}") for step in whole),
        tuple(Tick(y(value), f"{value:.4g}") for value in _ticks(low, high, 6)),
    )


def thin(items: Sequence[Item], count: int) -> tuple[Item, ...]:
    """At most `count` items, evenly chosen, the first and the last among them."""
    if len(items) <= count:
        return tuple(items)
    return tuple(items[round(index * (len(items) - 1) / (count - 1))] for index in range(count))


def choose_steps(curves: Sequence[Points]) -> tuple[int, ...]:
    """Steps for a table of the curves' values: those that most curves have, evenly chosen."""
    counts = Counter(step for points in curves for step, _ in points)
    most = max(counts.values(), default=0)
    return thin(sorted(step for step, count in counts.items() if count == most), MAX_ROWS)


def _ticks(low: float, high: float, count: int) -> list[float]:
    """Round values between two limits, about `count` of them."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(size * power for size in STEPS if size * power >= rough * (1 - 1e-9))
    start = math.ceil(low / step)
    return [number * step for number in range(start, math.floor(high / step + 1e-9) + 1)]


def _short(chars: int) -> str:
    return f"{chars // 1000} k" if chars >= 1000 else str(chars)
