"""Where the bars of a plot stand, for inline SVG; colours are the stylesheet's."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.console.audits import Bin

WIDTH = 640
HEIGHT = 180
BASELINE = 150
TOP = 18
GAP = 6


@dataclass(frozen=True)
class Bar:
    """A bar of a histogram, with what stands below and above it."""

    x: float
    y: float
    width: float
    height: float
    label: str
    count: int

    @property
    def middle(self) -> float:
        """Where its labels are centred."""
        return round(self.x + self.width / 2, 1)


def histogram(bins: Sequence[Bin]) -> list[Bar]:
    """A bar for every interval; the highest reaches the top."""
    most = max((one.documents for one in bins), default=0)
    step = WIDTH / max(1, len(bins))
    bars = []
    for number, one in enumerate(bins):
        height = round((BASELINE - TOP) * one.documents / most, 1) if most else 0.0
        bars.append(
            Bar(
                x=round(number * step + GAP / 2, 1),
                y=round(BASELINE - height, 1),
                width=round(step - GAP, 1),
                height=height,
                label=f"≥ {_short(one.from_chars)}" if not one.below_chars else f"< {_short(one.below_chars)}",
                count=one.documents,
            )
        )
    return bars


def _short(chars: int) -> str:
    return f"{chars // 1000} k" if chars >= 1000 else str(chars)
