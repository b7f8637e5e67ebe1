"""Values with their intervals as an SVG image, without a plotting library."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, LABEL_WIDTH, MARGIN = 640, 200, 24
ROW_HEIGHT, TITLE_HEIGHT, AXIS_HEIGHT = 28, 32, 28
COLOUR = "#0f766e"
# The share of the range that stays free on both sides.
PADDING = 0.05


@dataclass(frozen=True)
class PlottedValue:
    """A value with its name, and the ends of its interval; both are the value itself if there is no interval."""

    name: str
    value: float
    low: float
    high: float


def draw_intervals(title: str, values: Sequence[PlottedValue]) -> str:
    """An SVG with a row for each value: a point on its interval. The axis begins at 0 or below the lowest end. Needs a value."""
    least, most = min(0.0, *(item.low for item in values)), max(*(item.high for item in values), 0.0)
    span = (most - least) * (1 + PADDING) or 1.0
    height = TITLE_HEIGHT + ROW_HEIGHT * len(values) + AXIS_HEIGHT

    def place(value: float) -> float:
        return LABEL_WIDTH + (value - least) / span * (WIDTH - LABEL_WIDTH - MARGIN)

    rows = [
        _draw_row(number, item, place(item.value), (place(item.low), place(item.high)))
        for number, item in enumerate(values)
    ]
    bottom = height - AXIS_HEIGHT
    axis = f'<line x1="{LABEL_WIDTH}" y1="{bottom}" x2="{WIDTH - MARGIN}" y2="{bottom}" stroke="currentColor" opacity="0.4"/>'
    marks = "".join(
        f'<text x="{place(value):.1f}" y="{bottom + 18}" text-anchor="middle" font-size="12">{value:.4g}</text>'
        for value in dict.fromkeys((least, (least + most) / 2, most))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" '
        f'aria-label="{escape(title)}" font-family="sans-serif" fill="currentColor">'
        f'<text x="0" y="18" font-size="14" font-weight="bold">{escape(title)}</text>{"".join(rows)}{axis}{marks}</svg>\n'
    )


def _draw_row(number: int, item: PlottedValue, point: float, ends: tuple[float, float]) -> str:
    middle = TITLE_HEIGHT + ROW_HEIGHT * number + ROW_HEIGHT / 2
    return (
        f'<text x="{LABEL_WIDTH - 12}" y="{middle + 4:.1f}" text-anchor="end" font-size="12">{escape(item.name)}</text>'
        f'<line x1="{ends[0]:.1f}" y1="{middle}" x2="{ends[1]:.1f}" y2="{middle}" stroke="{COLOUR}" stroke-width="3"/>'
        f'<circle cx="{point:.1f}" cy="{middle}" r="5" fill="{COLOUR}"/>'
    )
