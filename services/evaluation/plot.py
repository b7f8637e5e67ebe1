"""The plot of a report: a panel per metric, with every model's value and interval."""

import io
import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from services.evaluation.domain import BASE, CANDIDATE, INCUMBENT, Estimate, MetricFigures

COLOURS = {BASE: "#8a94a6", CANDIDATE: "#2f6fde", INCUMBENT: "#e0a030"}
OTHER = "#5b8c5a"
COLUMNS = 3
MAX_PANELS = 12


def draw_figures(metrics: Sequence[MetricFigures]) -> bytes:
    """A PNG of the first metrics, without their parts."""
    shown = [figures for figures in metrics if "." not in figures.metric][:MAX_PANELS]
    rows = max(1, math.ceil(len(shown) / COLUMNS))
    figure = Figure(figsize=(10, 1.9 * rows), layout="constrained")
    axes = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    for axis, figures in zip(axes, shown, strict=False):
        _draw(axis, figures)
    for axis in axes[len(shown) :]:
        axis.set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()


def _draw(axis: Axes, figures: MetricFigures) -> None:
    models = list(figures.models)
    for place, model in enumerate(models):
        estimate = figures.models[model]
        axis.errorbar(estimate.value, place, xerr=_ends(estimate), fmt="o", capsize=3, color=COLOURS.get(model, OTHER))
    axis.set_yticks(range(len(models)), models, fontsize=8)
    axis.set_ylim(len(models) - 0.5, -0.5)
    axis.set_title(f"{figures.metric}{' (lower is better)' if figures.lower_is_better else ''}", fontsize=9)
    axis.tick_params(axis="x", labelsize=7)
    axis.spines[["top", "right"]].set_visible(False)


def _ends(estimate: Estimate) -> list[list[float]]:
    """The lengths of the interval's two parts; none if it has no ends."""
    if not math.isfinite(estimate.high - estimate.low):
        return [[0.0], [0.0]]
    return [[max(0.0, estimate.value - estimate.low)], [max(0.0, estimate.high - estimate.value)]]
