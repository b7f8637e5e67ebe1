"""Bars of a histogram for inline SVG; the stylesheet sets the colours."""

from collections.abc import Sequence
from dataclasses import dataclass

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


def _short(chars: int) -> str:
    return f"{chars // 1000} k" if chars >= 1000 else str(chars)
